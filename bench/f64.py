"""How far the features of Magika, a classifier of files by their bytes, are from its features in f64: built-in, and in ONNX Runtime.

    pip install numpy onnx onnxruntime safetensors torch && pip install --no-deps magika
    python bench/f64.py [--dice BINARY] FILE ...

The package carries the network. Each file gives its first and last 1024 bytes. onnx.reference evaluates the network with all its floats in f64; `dice features`
runs it by either runtime. Prints the largest difference, the median over files of the largest of each, and how far the runtimes are apart, as shares of the largest
feature; then the operators at which ONNX Runtime's difference grows tenfold.
"""

import argparse
import importlib.util
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from safetensors.numpy import load_file

PADDING = 256
FEATURES = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/LayerNorm_1/AddV2_1:0"


class Conv(OpRun):
    """That of onnx.reference takes minutes."""

    op_domain = ""

    def _run(self, x, w, b=None, strides=None, pads=None, group=None, **_):
        assert not any(pads or []) and group in (None, 1)
        tensors = [None if one is None else torch.from_numpy(np.array(one)) for one in (x, w, b)]
        return (torch.nn.functional.conv2d(*tensors, stride=strides).numpy(),)


class GlobalMaxPool(OpRun):
    """That of onnx.reference drops the axes."""

    op_domain = ""

    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


def given(path):
    data = path.read_bytes()
    first, last = data[:1024], data[-1024:]
    return [*first, *[PADDING] * (1024 - len(first)), *[PADDING] * (1024 - len(last)), *last]


def with_outputs(model, names, kind):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in names)
    return changed


def in_f64(model):
    """All floats, and casts to floats, in f64."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    wide = lambda tensor: numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
    for tensor in changed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(wide(tensor))
    for node in changed.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(wide(attribute.t))
    del changed.graph.value_info[:]
    return changed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dice", default="target/release/dice", help="the binary")
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    package = pathlib.Path(importlib.util.find_spec("magika").origin).parent
    path = next(package.glob("models/*/model.onnx"))
    model = onnx.load(path)
    inputs = np.array([given(file) for file in arguments.files], np.int32)
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    floats = {info.name for info in known if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    names = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name in floats]
    reference = ReferenceEvaluator(with_outputs(in_f64(model), names, TensorProto.DOUBLE), new_ops=[Conv, GlobalMaxPool])
    session = onnxruntime.InferenceSession(with_outputs(model, names, TensorProto.FLOAT).SerializeToString())
    apart, exact = dict.fromkeys(names, 0.0), []
    for row in inputs:
        wanted, found = ([*runtime.run(None, {"bytes": row[None]})] for runtime in (reference, session))
        for name, a, b in zip(names, wanted, found):
            apart[name] = max(apart[name], float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-300)))
        exact.append(wanted[names.index(FEATURES)][0])
    exact = np.array(exact)
    largest = np.abs(exact).max()
    print(f"{path.parent.name}, {len(inputs)} files, largest feature {largest:.1f}")
    library = next(pathlib.Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.*"))
    with tempfile.TemporaryDirectory() as folder:
        given_file, made = pathlib.Path(folder) / "inputs.npz", pathlib.Path(folder) / "features.safetensors"
        np.savez(given_file, bytes=inputs)
        for runtime in ("built-in", f"onnxruntime={library}", f"onnxruntime@none={library}"):
            command = [arguments.dice, "features", "--runtime", runtime, "--model", path, "--inputs", given_file, "-o", made]
            subprocess.run(command, check=True, capture_output=True)
            features = load_file(made)["features"]
            first = features if runtime == "built-in" else first
            off = np.abs(features - exact).max(1) / largest
            print(f"{runtime.split('=')[0]}: {off.max():.1e}, median {np.median(off):.1e}; from built-in {np.abs(features - first).max() / largest:.1e}")
    reader = {name: node for node in model.graph.node for name in node.output}
    for name in names:
        before = max((apart[one] for one in reader[name].input if one in apart), default=0.0)
        if apart[name] > 1e-6 and apart[name] > 10 * before:
            print(f"{before:.0e} to {apart[name]:.0e} at {reader[name].op_type} {name}")


if __name__ == "__main__":
    main()
