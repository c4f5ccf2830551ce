"""The Python package beside the Rust call that it makes, beside torch's dense head, and what one call and one import cost.

    .venv/bin/python bench/peers/package.py [--threads 2] [--rounds 7]

The package must be installed beside what bench/peers/requirements.txt names. Asserts that both sides of this project give the same scores to
the bit, and torch the same to its rounding. Sides alternate, the best time of each counts. Prints Markdown.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch

import dice_ood as dice
from compare import Peer, Problem, best_of, build_peer, made_up, row, table, timed

SHAPES = [(100_000, 342, 10), (16_384, 2048, 1000)]


def of_batches(peer, folder, rng, rounds):
    table("inputs", "detector", "Rust, ms", "Python, ms", "Python to Rust", "torch dense, ms", "torch to Python")
    for rows, units, classes in SHAPES:
        features, weight, bias, mean = made_up(rng, rows, units, classes)
        for p in (0, 0.9):
            problem = Problem(folder, features, weight, bias, mean, p)
            problem.score(peer)
            detector = dice.Detector(problem.spec, head=(weight, bias), calibration_fraction=0).fit(features)
            found = detector.score_samples(features)
            if p:  # The mean of the peer is that of numpy: masks may differ in a tie.
                np.testing.assert_allclose(found, np.load(problem.scores), rtol=1e-3, atol=1e-3)
            else:
                assert np.array_equal(found, np.load(problem.scores))
            dense = problem.torch_dense()
            rust, python, theirs = best_of(
                rounds, [peer.run, lambda: timed(lambda: detector.score_samples(features)), lambda: timed(dense)]
            )
            shown = [f"{value * 1e3:.1f}" for value in (rust, python)]
            spec = problem.spec.replace("|", "\\|")
            row(f"{rows:,} x {units}, C = {classes}", spec, *shown, f"{python / rust:.3f}x", f"{theirs * 1e3:.1f}", f"{theirs / python:.1f}x")


# What an import takes in a fresh process, after numpy, on which it rests.
IMPORT = "import numpy, time; start = time.perf_counter(); import dice_ood; print(time.perf_counter() - start)"


def of_calls(rng, rounds):
    """Microseconds of a call with one row; milliseconds of an import beyond that of numpy."""
    features, weight, bias, _ = made_up(rng, 2_000, 342, 10)
    detector = dice.Detector("dice(0.9) | energy", head=(weight, bias)).fit(features)
    one, calls = features[:1], 2_000
    seconds = best_of(rounds, [lambda: timed(lambda: [detector.score_samples(one) for _ in range(calls)]) / calls])[0]
    all_of_it = best_of(rounds, [lambda: timed(lambda: [detector(one) for _ in range(calls)]) / calls])[0]
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(rounds)]
    table("what", "cost")
    row("`score_samples` of one row, D = 342, C = 10", f"{seconds * 1e6:.1f} us")
    row("the detector called with that row: score, p-value, decision, class", f"{all_of_it * 1e6:.1f} us")
    row("`import dice_ood` beyond `import numpy`, median", f"{np.median(imports) * 1e3:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if os.environ.get("RAYON_NUM_THREADS") != str(arguments.threads):
        # Read when the package starts its threads.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)})
    torch.set_num_threads(arguments.threads)
    print(f"dice_ood {dice.__version__}, torch {torch.__version__}, numpy {np.__version__}; {arguments.threads} threads, load {os.getloadavg()[0]:.1f}")
    # Of random weights and features, which belong together no better than they look.
    warnings.simplefilter("ignore", dice.FindingWarning)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        peer = Peer(build_peer(), arguments.threads)
        of_batches(peer, pathlib.Path(folder), rng, arguments.rounds)
        peer.process.stdin.close()
    of_calls(rng, arguments.rounds)


if __name__ == "__main__":
    main()
