"""Neighbours beside faiss, and scores of the feature space beside the multiplications that they take in torch.

    .venv/bin/python bench/peers/nearest.py [--threads 1 2] [--units 342 2048] [--only neighbours space] [--clock cpu] [--data DIR]

Asserts that both sides find the same distances, then alternates them and keeps the best time of each, as compare.py does. On a busy
machine, `--threads 1 --clock cpu` counts the processor time of each side (Linux) instead of the time on the wall.
DIR holds the CIFAR-10 features of the paper's DenseNet (`id_train.safetensors`, `id_test.safetensors`): with it, neighbours are also
looked for among real features. Prints Markdown.
"""

import argparse
import glob
import os
import pathlib
import platform
import tempfile
import time

import numpy as np
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_info, threadpool_limits

import faiss
import torch
from compare import Peer, best_of, build_peer, made_up, row, table, timed

BANK, QUERIES, K = 50_000, 10_000, 50
CLASSES = {342: 10, 2048: 1000}
UNIT_ROUNDOFF = 2.0**-24


def on_sphere(features):
    features = features.astype(np.float64)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def timed_by(clock, peer, *theirs):
    """Both sides as functions that return seconds: of the wall, or of the processor, whoever else uses it."""
    if clock == "wall":
        return peer.run, *[lambda work=work: timed(work) for work in theirs]

    def used(process, work):
        before = processor_seconds(process)
        work()
        return processor_seconds(process) - before

    return lambda: used(peer.process.pid, peer.run), *[lambda work=work: used(os.getpid(), work) for work in theirs]


def processor_seconds(process):
    """What the threads of a process have run."""
    files = [pathlib.Path(path) for path in glob.glob(f"/proc/{process}/task/*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in files) * 1e-9


class Files:
    """What our side reads: a head, training features and queries."""

    def __init__(self, folder, weight, bias, train, queries):
        self.paths = [str(folder / name) for name in ("train.npy", "head.safetensors", "queries.npy", "scores.npy")]
        np.save(self.paths[0], train)
        save_file({"weight": weight, "bias": bias}, self.paths[1])
        np.save(self.paths[2], queries)

    def scores(self, peer, spec):
        """Prepares our side; its scores of the queries."""
        train, head, queries, scores = self.paths
        peer.ask("space", train, head, spec, queries, scores)
        return np.load(scores)


def neighbours(peer, files, train, queries, rounds, clock):
    """Seconds of ours, IndexFlatL2 and IndexFlatIP, for the distances to the K-th neighbour."""
    units = train.shape[1]
    ours = -files.scores(peer, f"knn({K}, bank={len(train)})")
    bank, sphere = on_sphere(train), on_sphere(queries)
    flat = [faiss.IndexFlatL2(units), faiss.IndexFlatIP(units)]
    for index in flat:
        index.add(bank)
    # A product of vectors of length 1 is off by (D + 1) u in f32, a squared distance by twice that and its last sums, on both
    # sides; the K-th smallest of values is off by no more than they are.
    tolerance = 2 * (2 * (units + 1) + 8) * UNIT_ROUNDOFF
    searches = [lambda index=index: index.search(sphere, K)[0][:, -1].astype(np.float64) for index in flat]
    for theirs in (searches[0](), 2 - 2 * searches[1]()):
        assert np.abs(ours - theirs).max() <= tolerance, f"{np.abs(ours - theirs).max()} > {tolerance}"
    return best_of(rounds, timed_by(clock, peer, *searches))


def all_neighbours(peer, folder, rng, shapes, data, rounds, clock):
    table(f"neighbour {K} of {QUERIES:,} inputs", "ours, s", "GFLOP/s", "vs `IndexFlatL2`", "vs `IndexFlatIP`")
    problems = []
    for units in shapes:
        problems.append((f"{BANK:,} x {units}, made up", lambda units=units: made_up(rng, BANK + QUERIES, units, 10)[:3]))
    if data:
        problems.append(("50,000 x 342, CIFAR-10 train and test", lambda: real(data)))
    for name, make in problems:
        features, weight, bias = make()
        train, queries = features[:BANK], features[BANK:]
        files = Files(folder, weight, bias, train, queries)
        ours, l2, ip = neighbours(peer, files, train, queries, rounds, clock)
        work = 2 * len(train) * queries.size
        row(name, f"{ours:.2f}", f"{work / ours / 1e9:.0f}", f"{l2 / ours:.2f}x", f"{ip / ours:.2f}x")


def real(data):
    """Features of training and test images, and the head."""
    parts = [load_file(data / name)["features"].astype(np.float32) for name in ("id_train.safetensors", "id_test.safetensors")]
    head = load_file(data / "head.safetensors")
    weight = next(tensor for tensor in head.values() if tensor.ndim == 2)
    return np.concatenate(parts), weight, next(tensor for tensor in head.values() if tensor.ndim == 1)


def space(peer, folder, rng, shapes, rounds, clock):
    """Scores of the feature space: torch multiplies matrices of the same shapes, those of the head's logits included, and does nothing
    else."""
    table(f"{QUERIES:,} inputs", "multiplied with", "GFLOP", "torch `F.linear`, ms", "ours, ms", "ratio")
    for units in shapes:
        classes = CLASSES[units]
        features, weight, bias, _ = made_up(rng, 2 * QUERIES, units, classes)
        train, queries = features[:QUERIES], features[QUERIES:]
        files = Files(folder, weight, bias, train, queries)
        dim = 1000 if units >= 2048 else units // 2
        head, square, outside = (classes, units), (units, units), (units - dim, units)
        for spec, matrices in [
            ("mds", [square, (classes, units), head]),
            ("vim", [outside, head]),
            ("pnml", [square, head, head]),
        ]:
            files.scores(peer, spec)
            ours, theirs = best_of(rounds, timed_by(clock, peer, multiplications(queries, rng, matrices)))
            work = sum(2 * len(queries) * height * width for height, width in matrices)
            shown = " + ".join(f"[{height}, {width}]" for height, width in matrices)
            row(f"{spec}, D = {units}, C = {classes}", shown, f"{work / 1e9:.1f}", f"{theirs * 1e3:.1f}", f"{ours * 1e3:.1f}", f"{ours / theirs:.2f}")


def multiplications(queries, rng, matrices):
    features = torch.from_numpy(queries)
    factors = [(torch.from_numpy(rng.random(shape, dtype=np.float32)), torch.zeros(shape[0])) for shape in matrices]
    return lambda: [torch.nn.functional.linear(features, *factor) for factor in factors]


def libraries():
    """Which multiplication the other side runs."""
    found = {f"{library['internal_api']} {library.get('version')} ({library.get('architecture', 'any')})" for library in threadpool_info()}
    return ", ".join(sorted(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count()}))
    parser.add_argument("--units", type=int, nargs="+", default=sorted(CLASSES), choices=sorted(CLASSES))
    parser.add_argument("--only", nargs="+", choices=["neighbours", "space"], default=["neighbours", "space"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--data", type=pathlib.Path)
    arguments = parser.parse_args()
    program = build_peer()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    print(f"{cpu}, {os.cpu_count()} cores; faiss {faiss.__version__}, torch {torch.__version__}; {libraries()}")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        rng = np.random.default_rng(0)
        print(f"\n## {threads} thread{'s' * (threads > 1)}, {arguments.clock} time, load {os.getloadavg()[0]:.1f}")
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), threadpool_limits(threads):
            folder = pathlib.Path(folder)
            peer = Peer(program, threads)
            if "neighbours" in arguments.only:
                all_neighbours(peer, folder, rng, arguments.units, arguments.data, arguments.rounds, arguments.clock)
            if "space" in arguments.only:
                space(peer, folder, rng, arguments.units, 3 * arguments.rounds, arguments.clock)
            peer.process.stdin.close()


if __name__ == "__main__":
    main()
