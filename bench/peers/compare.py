"""dice-ood beside what a user would pick instead, timed in one run, each side in turn.

    python -m venv .venv && .venv/bin/pip install -r bench/peers/requirements.txt
    .venv/bin/python bench/peers/compare.py [--threads 1 2] [--data DIR] [--only NAME ...]

Every comparison first asserts that both sides compute the same, then alternates them and keeps the best time of each:
on a shared machine the others measure the neighbours. DIR holds the CIFAR-10 features, head and mean activation of the
paper's DenseNet (`id_test.safetensors`, `head.safetensors`, `mean_activation.safetensors`); without it the real masks
are left out. Prints Markdown.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 9


class Peer:
    """Our side: a process that does one prepared thing whenever asked."""

    def __init__(self, program, threads):
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([program, "--peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, *words):
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"the benchmark process ended at {words}")
        return answer.strip()

    def run(self):
        nanoseconds = self.ask("run")
        return int(nanoseconds) * 1e-9


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(ours, *theirs, rounds=ROUNDS):
    """The best time of each, in turn."""
    return best_of(rounds, [ours, *[lambda work=work: timed(work) for work in theirs]])


def best_of(rounds, sides):
    """The best of each side, a function that returns seconds, in turn, with a pause before each: the threads of the side before go
    on spinning for a fifth of a second."""
    best = [float("inf")] * len(sides)
    for _ in range(rounds):
        for place, side in enumerate(sides):
            time.sleep(0.25)
            best[place] = min(best[place], side())
    return best


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def table(*heads):
    print()
    row(*heads)
    row(*["---"] * len(heads))


def made_up(rng, rows, units, classes):
    """Features as of a rectified layer, 60 % zeros; weights of both signs."""
    features = np.maximum(rng.random((rows, units), dtype=np.float32) - 0.6, 0)
    weight = (rng.random((classes, units), dtype=np.float32) - 0.5) * 0.2
    return features, weight, rng.random(classes, dtype=np.float32), features.mean(axis=0, dtype=np.float64)


def dice_mask(weight, mean, p):
    """The paper's mask: contributions strictly above their p-th percentile."""
    contribution = weight.astype(np.float64) * mean
    return contribution > np.percentile(contribution, 100 * p) if p else np.ones(weight.shape, bool)


class Problem:
    """A head and features on disk for us and in memory for them."""

    def __init__(self, folder, features, weight, bias, mean, p):
        self.features, self.weight, self.bias, self.p = features, weight, bias, p
        self.mask = dice_mask(weight, mean, p)
        self.spec = f"dice({p}) | energy" if p else "energy"
        self.paths = [str(folder / name) for name in ("features.npy", "head.safetensors", "mean.npy")]
        np.save(self.paths[0], features)
        save_file({"weight": weight, "bias": bias}, self.paths[1])
        np.save(self.paths[2], mean)
        self.scores = str(folder / "scores.npy")

    def score(self, peer):
        """Prepares our side; its scores agree with f64 on the first rows."""
        layout, gained = peer.ask("score", *self.paths, self.spec, self.scores).split("; ")
        self.gained = int(gained)
        some = self.features[:200].astype(np.float64)
        logits = some @ (self.weight * self.mask).astype(np.float64).T + self.bias
        top = logits.max(axis=1)
        expected = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        np.testing.assert_allclose(np.load(self.scores)[:200], expected, rtol=1e-4, atol=1e-4)
        return layout

    def torch_dense(self):
        features, weight = torch.from_numpy(self.features), torch.from_numpy(self.weight * self.mask)
        bias = torch.from_numpy(self.bias)
        work = lambda: torch.logsumexp(torch.nn.functional.linear(features, weight, bias), dim=1)
        np.testing.assert_allclose(work().numpy(), np.load(self.scores), rtol=1e-3, atol=1e-3)
        return work

    def numpy_dense(self):
        weight = np.ascontiguousarray((self.weight * self.mask).T)

        def work():
            logits = self.features @ weight + self.bias
            top = logits.max(axis=1, keepdims=True)
            return top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))

        np.testing.assert_allclose(work(), np.load(self.scores), rtol=1e-3, atol=1e-3)
        return work

    def broadcast(self, rows):
        """What the authors' and OpenOOD's code does with a batch: every product of it in memory at once."""
        features = torch.from_numpy(self.features[:rows])
        weight, bias = torch.from_numpy(self.weight * self.mask), torch.from_numpy(self.bias)

        def work():
            products = features[:, None, :] * weight
            return torch.logsumexp(products.sum(2) + bias, dim=1)

        np.testing.assert_allclose(work().numpy(), np.load(self.scores)[:rows], rtol=1e-3, atol=1e-3)
        return work

    def pytorch_ood(self, rows):
        """The detector of pytorch-ood on the same weights; its mask is its own, so only its time is compared."""
        from pytorch_ood.detector import DICE

        head = torch.from_numpy(self.weight.copy()), torch.from_numpy(self.bias.copy())
        detector = DICE(lambda x: x, w=head[0], b=head[1], p=self.p)
        features = torch.from_numpy(self.features)
        detector.fit_features(features, torch.zeros(len(features), dtype=torch.long))
        return lambda: detector.predict_features(features[:rows])


def limits(peer, folder, rng):
    """Multiply-adds and bytes a second that this machine gives, in this run."""
    operations = float(peer.ask("peak"))
    flops = operations / min(peer.run() for _ in range(ROUNDS))
    features = rng.random((100_000, 342), dtype=np.float32)
    np.save(folder / "read.npy", features)
    peer.ask("read", folder / "read.npy")
    return flops, features.nbytes / min(peer.run() for _ in range(ROUNDS))


def heads(peer, folder, rng, flops, bandwidth, data):
    table("head, mask, inputs", "us an input", "vs torch `F.linear`", "vs numpy", "limit", "reached", "layout")
    shapes = [(2048, 1000, 16_384, p) for p in (0.9, 0.7, 0)] + [(342, 100, 100_000, p) for p in (0.9, 0.7, 0)]
    problems = []
    for units, classes, rows, p in shapes:
        problems.append((f"{units} x {classes}, made up, p = {p}, {rows:,}", made_up(rng, rows, units, classes), p))
    if data:
        weights = load_file(data / "head.safetensors")
        mean = next(iter(load_file(data / "mean_activation.safetensors").values())).astype(np.float64).ravel()
        tensors = load_file(data / "id_test.safetensors")
        test = max((t for t in tensors.values() if t.ndim == 2), key=lambda t: t.size).astype(np.float32)
        features = np.tile(test, (100_000 // len(test) + 1, 1))[:100_000]
        weight = next(t for t in weights.values() if t.ndim == 2).astype(np.float32)
        bias = next(t for t in weights.values() if t.ndim == 1).astype(np.float32)
        for p in (0.9, 0.7, 0):
            problems.append((f"342 x 10, CIFAR-10, p = {p}, 100,000", (features, weight, bias, mean), p))
        # No head of 100 classes is at hand: ten of each class, a tenth of the weights' spread apart.
        more = np.repeat(weight, 10, axis=0) + rng.normal(0, 0.1 * weight.std(), (100, 342)).astype(np.float32)
        for p in (0.9, 0.7):
            problems.append((f"342 x 100, CIFAR-10 with each class ten times, p = {p}, 100,000", (features, more, np.repeat(bias, 10), mean), p))
    for name, parts, p in problems:
        problem = Problem(folder, *parts, p)
        layout = problem.score(peer)
        ours, torch_time, numpy_time = alternate(peer.run, problem.torch_dense(), problem.numpy_dense(), rounds=5)
        rows = len(problem.features)
        bounds = {
            "multiplications": 2 * problem.mask.sum() * rows / flops,
            "reading": problem.features.nbytes / bandwidth,
        }
        limit = max(bounds, key=bounds.get)
        row(name, f"{ours / rows * 1e6:.3f}", f"{torch_time / ours:.1f}x", f"{numpy_time / ours:.1f}x", limit,
            f"{bounds[limit] / ours:.0%}", layout)


def batches(peer, folder, rng, threads):
    table("2048 x 1000, p = 0.9", "ours", "theirs", "ratio")
    problem = Problem(folder, *made_up(rng, 4096, 2048, 1000), 0.9)
    problem.score(peer)
    small = Problem(folder, problem.features[:64], problem.weight, problem.bias, problem.features.mean(axis=0, dtype=np.float64), 0.9)
    # In a process that has scored nothing yet, so that working memory shows.
    peer = Peer(peer.process.args[0], threads)
    small.score(peer)
    ours, theirs = alternate(peer.run, small.broadcast(64), rounds=5)
    row("broadcast formula, batch 64, ms", f"{ours * 1e3:.3f}", f"{theirs * 1e3:.1f}", f"{theirs / ours:.0f}x")
    gained, ours = memory_of_broadcast(small), max(small.gained, 1)
    row("the same, MB at the peak beyond inputs and weights", f"{ours / 1e6:.2f}", f"{gained / 1e6:.0f}", f"{gained / ours:.0f}x")
    try:
        work = small.pytorch_ood(64)
        ours, theirs = alternate(peer.run, work, rounds=5)
        row("pytorch-ood DICE, batch 64, ms", f"{ours * 1e3:.3f}", f"{theirs * 1e3:.1f}", f"{theirs / ours:.0f}x")
    except ImportError as error:
        print(f"\npytorch-ood left out: {error}")
    if threads == 1:
        count = 200
        peer.ask("one", *small.paths, small.spec, count)
        single = Problem(folder, small.features[:1], small.weight, small.bias, small.features.mean(axis=0, dtype=np.float64), 0.9)
        weight, bias = torch.from_numpy(single.weight * small.mask), torch.from_numpy(single.bias)
        features = torch.from_numpy(single.features)
        work = lambda: [torch.logsumexp(torch.nn.functional.linear(features, weight, bias), dim=1) for _ in range(count)]
        ours, theirs = alternate(peer.run, work)
        row("one input, us a call, vs torch `F.linear`", f"{ours / count * 1e6:.1f}", f"{theirs / count * 1e6:.1f}", f"{theirs / ours:.1f}x")


def memory_of_broadcast(problem):
    """Bytes that one batch of the broadcast formula adds to the peak of a process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        problem.broadcast(64)
        os.write(writer, str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reader, 64))


def fit(peer, folder, rng, bandwidth):
    table("mean of 100,000 x 2048", "GB/s", "of the read bandwidth", "vs numpy (f64)", "vs torch (f32)")
    features = np.tile(np.maximum(rng.random((10_000, 2048), dtype=np.float32) - 0.6, 0), (10, 1))
    np.save(folder / "features.npy", features)
    peer.ask("fit", folder / "features.npy", folder / "mean.npy")
    np.testing.assert_allclose(np.load(folder / "mean.npy"), features.mean(axis=0, dtype=np.float64), rtol=1e-9)
    tensor = torch.from_numpy(features)
    ours, numpy_time, torch_time = alternate(peer.run, lambda: features.mean(axis=0, dtype=np.float64), lambda: tensor.mean(0), rounds=4)
    speed = features.nbytes / ours
    row("", f"{speed / 1e9:.1f}", f"{speed / bandwidth:.0%}", f"{numpy_time / ours:.1f}x", f"{torch_time / ours:.1f}x")


def metrics(peer, folder, rng):
    from sklearn import metrics as sk

    table("metrics of 1M + 1M scores", "ours (all of them), ms", "scikit-learn (AUROC, FPR95, AUPR in, out), ms", "ratio")
    ind, ood = rng.normal(1, 1, 1_000_000), rng.normal(0, 1, 1_000_000)
    np.save(folder / "id.npy", ind)
    np.save(folder / "ood.npy", ood)
    found = [float(value) for value in peer.ask("metrics", folder / "id.npy", folder / "ood.npy").split()]
    labels, scores = np.r_[np.ones(len(ind)), np.zeros(len(ood))], np.r_[ind, ood]

    def work():
        fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
        return [sk.auc(fpr, tpr), fpr[np.argmax(tpr >= 0.95)], sk.average_precision_score(labels, scores),
                sk.average_precision_score(1 - labels, -scores)]

    np.testing.assert_allclose(found, work(), rtol=1e-9)
    ours, theirs = alternate(peer.run, work, rounds=4)
    row("", f"{ours * 1e3:.0f}", f"{theirs * 1e3:.0f}", f"{theirs / ours:.1f}x")


def process(peer, dice, folder, rng, threads):
    table("`dice score` of 2 GB (262,144 x 2048 f32 npy, page cache)", "s", "kernel in memory, s", "ratio", "RSS, MB")
    part = Problem(folder, *made_up(rng, 32_768, 2048, 1000), 0.9)
    part.score(peer)
    big = np.lib.format.open_memmap(folder / "big.npy", mode="w+", dtype=np.float32, shape=(262_144, 2048))
    for start in range(0, len(big), len(part.features)):
        big[start:start + len(part.features)] = part.features
    big.flush()
    del big
    subprocess.run([dice, "fit", "-q", "--head", part.paths[1], "-f", part.paths[0], "-d", part.spec, "-o", folder / "d.safetensors"], check=True)
    for output in ("out.npy", "out.csv"):
        command = [dice, "score", "-q", "--threads", str(threads), folder / "d.safetensors", folder / "big.npy", "-o", folder / output]
        peaks = []

        def work():
            # Not from the usage of children, which begins with that of the process they were forked from.
            child = subprocess.Popen(command)
            while child.poll() is None:
                with contextlib.suppress(OSError, StopIteration):
                    status = pathlib.Path(f"/proc/{child.pid}/status").read_text().splitlines()
                    peaks.append(int(next(line for line in status if line.startswith("VmHWM")).split()[1]))
                time.sleep(0.005)
            assert child.returncode == 0, command

        work()
        ours, whole = alternate(peer.run, work, rounds=4)
        row(output + " written", f"{whole:.2f}", f"{8 * ours:.2f}", f"{whole / (8 * ours):.2f}x", max(peaks) // 1000)
    (folder / "big.npy").unlink()


def executable(*command):
    command = ["cargo", *command, "-q", "--locked", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(message["executable"] for message in map(json.loads, lines) if message.get("executable"))


def build_peer():
    """The benchmark process, a release build."""
    return executable("bench", "-p", "dice-ood", "--features", "linalg", "--bench", "peer", "--no-run")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count()}))
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=["heads", "batches", "fit", "metrics", "process"])
    arguments = parser.parse_args()
    wanted = lambda name: not arguments.only or name in arguments.only
    program, dice = build_peer(), executable("build", "--release", "-p", "dice-cli")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    print(f"{cpu}, {os.cpu_count()} cores; torch {torch.__version__}, numpy {np.__version__}")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), threadpool_limits(threads):
            folder = pathlib.Path(folder)
            peer = Peer(program, threads)
            flops, bandwidth = limits(peer, folder, rng)
            print(f"\n## {threads} thread{'s' * (threads > 1)}: {flops / 1e9:.0f} GFLOP/s, reading {bandwidth / 1e9:.1f} GB/s")
            if wanted("heads"):
                heads(peer, folder, rng, flops, bandwidth, arguments.data)
            if wanted("batches"):
                batches(peer, folder, rng, threads)
            if wanted("fit"):
                fit(peer, folder, rng, bandwidth)
            if wanted("metrics"):
                metrics(peer, folder, rng)
            if wanted("process"):
                process(peer, dice, folder, rng, threads)
            peer.process.stdin.close()


if __name__ == "__main__":
    main()
