"""Fits of many files by several processes: seconds over 1, 2 and 4 of them, bytes of statistics, and seconds of their merge.

    .venv/bin/python bench/peers/scale.py --dice target/release/dice [--files 16] [--rows 100000] [--units 342]

Needs numpy alone. Each process is of one thread and takes the next file; the merged fit is asserted to score as a fit on all files at once. Prints
Markdown.
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np

SPECS = ["dice(0.9) | energy", "mds"]
ROUNDS = 3


def run(dice, *arguments):
    subprocess.run([dice, *map(str, arguments), "--quiet"], check=True, env={**os.environ, "RAYON_NUM_THREADS": "1"})


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make(folder, files, rows, units):
    """Files of rectified features with labels, and the head whose classes they are."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(10, units)).astype(np.float32)
    np.savez(folder / "head.npz", weight=weight / 10, bias=np.zeros(10, np.float32))
    made = []
    for place in range(files):
        labels = rng.integers(10, size=rows)
        features = np.maximum(weight[labels] + rng.standard_normal((rows, units), np.float32), 0)
        made.append(folder / f"{place}.npz")
        np.savez(made[-1], features=features, labels=labels)
    return made


def rows_of(*files):
    """All rows of the files, with none held out."""
    return "--features", *files, "--calibration-fraction", 0


def fit(dice, folder, out, *given):
    run(dice, "fit", *given, "--head", folder / "head.npz", *(part for spec in SPECS for part in ("-d", spec)), "-o", out)


def scores(dice, folder, detector, file):
    found = []
    for spec in SPECS:
        run(dice, "score", detector, file, "-d", spec, "-o", folder / "scores.npy")
        found.append(np.load(folder / "scores.npy"))
    return found


def best_of(rounds, part, files):
    """Seconds of all parts by as many processes, the best of rounds in turn."""
    taken = {1: np.inf, 2: np.inf, 4: np.inf}
    for _ in range(rounds):
        for processes in taken:
            with concurrent.futures.ThreadPoolExecutor(processes) as pool:
                taken[processes] = min(taken[processes], timed(lambda: list(pool.map(part, range(files)))))
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dice", required=True)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--units", type=int, default=342)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = make(folder, arguments.files, arguments.rows, arguments.units)
        parts = [file.with_suffix(".statistics") for file in files]

        def part(place):
            fit(arguments.dice, folder, folder / f"{place}.safetensors", *rows_of(files[place]), "--save-statistics", parts[place])

        print(f"{arguments.files} files of {arguments.rows:,} x {arguments.units}, {', '.join(SPECS)}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| processes | seconds | rows a second | of one process |\n| --- | --- | --- | --- |")
        taken = best_of(ROUNDS, part, len(files))
        for processes, seconds in taken.items():
            print(f"| {processes} | {seconds:.2f} | {arguments.files * arguments.rows / seconds:,.0f} | {taken[1] / seconds:.2f}x |")
        merge = timed(lambda: fit(arguments.dice, folder, folder / "merged.safetensors", "--statistics", *parts))
        whole = timed(lambda: fit(arguments.dice, folder, folder / "whole.safetensors", *rows_of(*files)))
        for merged, at_once in zip(*(scores(arguments.dice, folder, folder / f"{one}.safetensors", files[0]) for one in ("merged", "whole"))):
            np.testing.assert_allclose(merged, at_once, rtol=1e-6)
        print(f"\nstatistics of a file: {parts[0].stat().st_size / 1e6:.2f} MB; merging {arguments.files} and fitting: {merge:.2f} s; a fit on all files at once: {whole:.1f} s")


if __name__ == "__main__":
    main()
