"""Images through a network: `dice features` beside loops over ONNX Runtime from Python, timed in turn.

    python -m venv .venv && .venv/bin/pip install -r bench/peers/throughput.txt
    .venv/bin/python bench/peers/throughput.py --data DIR [--threads 2] [--rounds 5] [--only NAME ...]

The first loop is given what no user has: tensors that are decoded, resized, normalised and batched already, and a model that ends
at the features. `dice` decodes, preprocesses, computes the same features with the same library of ONNX Runtime, and writes
them, on as many threads. Two more loops do the same work: a plain one opens each image with Pillow, resizes, normalises, stacks a batch of
32 and runs it; the other does so with a pool of as many threads that prepares images while the network runs. All are also timed with what
they need to start. The features are asserted to be the same. Prints Markdown: the best and the median of the rounds.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import PIL
from PIL import Image
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = 1000
BATCH = 32

# Model, images, preset, largest error of the built-in runtime and of ours with theirs, relative to the largest feature.
# Eight bits blow up roundings.
CASES = {
    "densenet101": ("cifar10-densenet101.onnx", "cifar10", "cifar10", 1e-4, 1e-4),
    "resnet20": ("onnc_resnet20.onnx", "cifar10", "cifar10", 1e-4, 1e-4),
    "mobilenetv1": ("conv_st_mobilenet_v1_0.25_224.onnx", "imagenet", "imagenet", 1e-4, 1e-4),
    "mobilenetv2-int8": ("onnxzoo_mobilenetv2-12-qdq.onnx", "imagenet", "imagenet", 0.4, 0.4),
}

MEANS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


def library():
    """The shared library that the Python package itself loads from, for `dice` to open."""
    folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
    return next(path for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll") for path in sorted(folder.glob(pattern)))


def preprocessed(path, preset):
    image = Image.open(path).convert("RGB")
    if preset == "cifar10":
        image = image.resize((32, 32), Image.BILINEAR)
    else:
        width, height = image.size
        short = min(width, height)
        image = image.resize((256 * width // short, 256 * height // short), Image.BILINEAR)
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        image = image.crop((left, top, left + 224, top + 224))
    mean, std = (np.array(values, np.float32) for values in MEANS[preset])
    return ((np.asarray(image, np.float32) / 255 - mean) / std).transpose(2, 0, 1)


def features_of(dice, model):
    """The tensor that `dice` takes as features."""
    text = subprocess.run([dice, "inspect", model], check=True, capture_output=True, text=True).stdout
    return re.search(r"^Features  `(.*?)`", text, re.M).group(1)


class Loop:
    """A session of theirs, and the batches it will be given."""

    def __init__(self, model, features, paths, preset, threads):
        proto = onnx.load(model)
        del proto.graph.output[:]
        proto.graph.output.append(onnx.ValueInfoProto(name=features))
        self.model, self.threads = proto.SerializeToString(), threads
        session = self.session()
        self.input = session.get_inputs()[0]
        self.preset = preset
        batch = self.input.shape[0] if isinstance(self.input.shape[0], int) else BATCH
        self.parts = [paths[start:start + batch] for start in range(0, len(paths), batch)]
        self.prepare(paths)

    def prepare(self, paths):
        ready = {path: self.image(path) for path in set(paths)}
        self.ready = [np.stack([ready[path] for path in part]) for part in self.parts]

    def image(self, path):
        image = preprocessed(path, self.preset)
        return image.transpose(1, 2, 0) if self.input.shape[-1] == 3 else image

    def batches(self):
        return self.ready

    def session(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def run(self):
        """Seconds to make a session, seconds of the loop, features."""
        start = time.perf_counter()
        session = self.session()
        ready = time.perf_counter()
        features = [session.run(None, {self.input.name: batch})[0] for batch in self.batches()]
        return ready - start, time.perf_counter() - ready, np.concatenate(features).reshape(sum(map(len, features)), -1)


class Plain(Loop):
    """The same, which opens and prepares its images itself, one after the other."""

    def prepare(self, paths):
        pass

    def batches(self):
        return (np.stack([self.image(path) for path in part]) for part in self.parts)


class Pooled(Plain):
    """The same, whose images are prepared by a pool of threads while the network runs, at most two batches ahead."""

    def batches(self):
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            ahead = []
            for part in self.parts:
                ahead.append([pool.submit(self.image, path) for path in part])
                if len(ahead) > 2:
                    yield np.stack([image.result() for image in ahead.pop(0)])
            for images in ahead:
                yield np.stack([image.result() for image in images])


class Ours:
    """`dice features`, which says itself how long it took once its model was loaded."""

    def __init__(self, dice, model, listed, preset, threads, runtime, output):
        self.output = output
        # Pillow 13 resizes in another order.
        preset = f"{preset},as=pillow-13" if int(PIL.__version__.split(".")[0]) >= 13 else preset
        self.command = [dice, "features", "--threads", str(threads), "--runtime", runtime, "--model", model, "--images", listed, "--preprocess", preset, "-o", output]

    def run(self):
        start = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True)
        whole = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{self.command}: {done.stderr}")
        rate = float(re.search(r"\(([\d,.]+) a second\)", done.stderr).group(1).replace(",", ""))
        return whole - IMAGES / rate, IMAGES / rate, load_file(self.output)["features"]


# The loops of Python, and how the table names them.
LOOPS = {"loop": Loop, "plain": Plain, "pooled": Pooled}
LABELS = {"loop": "Python, tensors ready", "plain": "Python, Pillow, plain", "pooled": "Python, Pillow, pool of threads"}


def error(found, expected):
    """The largest difference, relative to the largest feature."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def measure(name, dice, data, threads, rounds, folder):
    model, images, preset, near, far = CASES[name]
    model = data / "onnx" / model
    paths = sorted(path for path in (data / "images" / images).rglob("*") if path.suffix.lower() in (".png", ".jpeg", ".jpg"))
    paths = [paths[place % len(paths)] for place in range(IMAGES)]
    listed = folder / "images.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    sides = {
        **{side: kind(model, features_of(dice, model), paths, preset, threads) for side, kind in LOOPS.items()},
        "onnxruntime": Ours(dice, model, listed, preset, threads, f"onnxruntime={library()}", folder / "a.safetensors"),
        "built-in": Ours(dice, model, listed, preset, threads, "built-in", folder / "b.safetensors"),
    }
    times = {side: [] for side in sides}
    made = {}
    for _ in range(rounds):
        for side, runner in sides.items():
            time.sleep(0.5)
            start, rest, made[side] = runner.run()
            times[side].append((rest, start + rest))
    apart = [error(made["built-in"], made["onnxruntime"]), error(made["onnxruntime"], made["loop"]), error(made["onnxruntime"], made["plain"])]
    assert apart[0] <= near and max(apart[1:]) <= far, f"{name}: {apart} of the largest feature"
    # On a shared machine the best times are those of the code, and medians also those of the neighbours.
    columns = {side: list(zip(*rows)) for side, rows in times.items()}
    kinds = [(min, 0), (statistics.median, 0), (min, 1)]
    taken = {side: [kind(column[place]) for kind, place in kinds] for side, column in columns.items()}
    for side, seconds in taken.items():
        cells = [f"{IMAGES / mine:.0f}" for mine in seconds]
        ratios = [f"{taken[loop][0] / seconds[0]:.2f}x" for loop in LOOPS]
        row(name, LABELS.get(side, f"dice, {side}"), *cells, *ratios, {"onnxruntime": f"{apart[1]:.0e}", "built-in": f"{apart[0]:.0e}"}.get(side, ""))


def build():
    command = ["cargo", "build", "--release", "--locked", "-p", "dice-cli", "-q", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(message["executable"] for message in map(json.loads, lines) if message.get("executable"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with onnx/ and images/")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES)
    parser.add_argument("--dice", help="a binary that is built already")
    arguments = parser.parse_args()
    dice = arguments.dice or build()
    print(f"onnxruntime {onnxruntime.__version__}, Pillow {PIL.__version__}, {arguments.threads} threads, load before {os.getloadavg()[0]:.1f}\n")
    row("model", "side", "images a second, best", "median", "with all to start, best", "of tensors ready", "of plain", "of pool", "error")
    row(*["---"] * 9)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or CASES:
            measure(name, dice, arguments.data.resolve(), arguments.threads, arguments.rounds, pathlib.Path(folder))


if __name__ == "__main__":
    main()
