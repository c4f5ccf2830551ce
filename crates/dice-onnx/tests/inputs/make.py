#!/usr/bin/env python3
"""Classifiers of what is not an image, as PyTorch's two exporters write them, and their features in ONNX Runtime.

    pip install numpy torch onnx onnxruntime onnxscript safetensors pyarrow
    python make.py [FOLDER]     # rewrites the files beside this one, or writes to FOLDER

A text classifier (token ids and a mask; its head reads the first token), one whose head reads the mean over tokens, three whose head
is applied to every token, of whose logits the last are selected, those of the last token that counts, or the mean is taken, a perceptron of a table, and a convolution over time.
Three whose logits are the mean of what two heads say: of two tokens, of one vector that each head normalises, of vectors of two networks.
Each model NAME-EXPORTER.onnx has its inputs in NAME.npz, and in expected.safetensors the features that ONNX Runtime computes, one row at
a time, and the logits as NAME-EXPORTER-logits. text.parquet holds the texts of text.npz as lists without padding. The text classifier and the convolution are there quantised too,
as ONNX Runtime does it: text-dynamic.onnx, waves-qdq.onnx, waves-operators.onnx.
Last run with torch 2.15.0, onnxruntime 1.32.0, onnx 1.23.2, onnxscript 0.7.2.
"""
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.numpy import save_file
from torch import nn

VOCABULARY, LENGTH, WIDTH, CLASSES, ROWS = 40, 12, 16, 4, 24


class Text(nn.Module):
    """One layer of attention; the head reads the first token, the mean over those that count, or all of them."""

    def __init__(self, reads):
        super().__init__()
        self.reads = reads
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.last_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        if reads == "the first and the second":
            self.other_head = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids, attention_mask):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.tokens(input_ids) + self.places(places)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        scores = q @ k.transpose(1, 2) / WIDTH**0.5
        scores = scores + (1.0 - attention_mask[:, None, :].to(scores.dtype)) * -1e4
        x = x + self.out(scores.softmax(-1) @ v)
        x = self.last_norm(x + self.narrow(torch.relu(self.wide(x))))
        if self.reads == "all, of which the last is selected":
            return self.head(x)[:, -1]
        if self.reads == "all, of which the last that counts is selected":
            last = (places * attention_mask).argmax(-1)
            return self.head(x)[torch.arange(x.shape[0], device=x.device), last]
        if self.reads == "all, whose mean is taken":
            return self.head(x).mean(1)
        if self.reads == "the first and the second":
            return (self.head(x[:, 0]) + self.other_head(x[:, 1])) / 2
        if self.reads == "the mean":
            weight = attention_mask[:, :, None].to(x.dtype)
            x = (x * weight).sum(1) / weight.sum(1)
        else:
            x = torch.relu(x[:, 0])
        return self.head(x)


def table():
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, CLASSES))


def waves():
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, stride=2), nn.ReLU(), nn.Conv1d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


class Normalised(nn.Module):
    """Two heads of one vector, each behind a normalisation of its own, as LeViT and RepViT have."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU())
        self.heads = nn.ModuleList(nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, CLASSES)) for _ in range(2))
        with torch.no_grad():
            for normalisation, _ in self.heads:
                for tensor in (normalisation.weight, normalisation.bias, normalisation.running_mean, normalisation.running_var):
                    tensor.uniform_(0.5, 1.5)

    def forward(self, x):
        x = self.body(x)
        return (self.heads[0](x) + self.heads[1](x)) / 2


class Stacked(nn.Module):
    """The mean over heads of two networks, as CrossViT has."""

    def __init__(self):
        super().__init__()
        self.bodies = nn.ModuleList(nn.Sequential(nn.Linear(6, width), nn.ReLU()) for width in (10, 7))
        self.heads = nn.ModuleList(nn.Linear(width, CLASSES) for width in (10, 7))

    def forward(self, x):
        return torch.stack([head(body(x)) for head, body in zip(self.heads, self.bodies)]).mean(0)


def texts(random):
    lengths = random.integers(3, LENGTH + 1, ROWS)
    mask = (np.arange(LENGTH)[None, :] < lengths[:, None]).astype(np.int64)
    return {"input_ids": random.integers(1, VOCABULARY, (ROWS, LENGTH)) * mask, "attention_mask": mask}


def export(model, inputs, free, folder, name):
    """Writes the model by both exporters; the paths."""
    arguments = tuple(torch.from_numpy(array[:2]) for array in inputs.values())
    paths = []
    for exporter in ("torchscript", "dynamo"):
        path = folder / f"{name}-{exporter}.onnx"
        dynamo = exporter == "dynamo"
        named = {
            key: {axis: (torch.export.Dim.AUTO if dynamo else label) for axis, label in axes.items()}
            for key, axes in free.items()
        }
        shapes = {"dynamic_shapes": tuple(named.values())} if dynamo else {"dynamic_axes": named}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, arguments, str(path), dynamo=dynamo, input_names=list(inputs), output_names=["logits"],
                **({"external_data": False, "verbose": False} if dynamo else {}), **shapes,
            )
        bare(path)
        paths.append(path)
    return paths


def bare(path):
    """Drops where in Python each operator comes from, which is most of a file."""
    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, path)


def quantise(folder, waves):
    """The text classifier with scales that each run computes, and the convolution with fixed ones in both forms."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter([{name: array[row : row + 1] for name, array in waves.items()} for row in range(ROWS)])

        def get_next(self):
            return next(self.rows, None)

    quantize_dynamic(folder / "text-torchscript.onnx", folder / "text-dynamic.onnx")
    for name, form in (("qdq", QuantFormat.QDQ), ("operators", QuantFormat.QOperator)):
        quantize_static(folder / "waves-torchscript.onnx", folder / f"waves-{name}.onnx", Reader(), quant_format=form)


def heads(makers, tensor):
    """The linear layers that `tensor` is, or adds up."""
    node = makers[tensor]
    if node.op_type in ("Gemm", "MatMul"):
        return [node]
    computed = [name for name in node.input if name in makers and makers[name].op_type != "Constant"]
    return [head for name in computed[: None if node.op_type in ("Add", "Concat") else 1] for head in heads(makers, name)]


def run(path, inputs, position):
    """What the last linear layers read, one row at a time, and the logits; at `position`, the same or one for each row, where they read all tokens, or on
    average. Several layers read vectors one behind the other, or one vector, which each may normalise first."""
    model = onnx.load(path)
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    read = [head.input[0] for head in heads(makers, graph.output[0].name)]
    if len(read) > 1:
        read = [makers[name].input[0] if makers[name].op_type == "BatchNormalization" else name for name in read]
    read = list(dict.fromkeys(read))
    graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in read)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rows = len(next(iter(inputs.values())))
    one = lambda row: {name: array[row : row + 1] for name, array in inputs.items()}
    *read, logits = [np.concatenate(arrays) for arrays in zip(*(session.run([*read, graph.output[0].name], one(row)) for row in range(rows)))]
    read = np.concatenate(read, -1)
    if read.ndim == 3:
        read = read.mean(1) if position is None else np.ascontiguousarray(read[np.arange(rows), position])
    return read, logits


def main(folder=pathlib.Path(__file__).parent):
    folder = pathlib.Path(folder)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    token_axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    cases = {
        "text": (Text(reads="the first"), texts(random), token_axes),
        "pooled": (Text(reads="the mean"), texts(random), token_axes),
        "table": (table(), {"x": random.normal(size=(ROWS, 6)).astype(np.float32)}, {"x": {0: "batch"}}),
        "waves": (waves(), {"wave": random.normal(size=(ROWS, 2, 64)).astype(np.float32)}, {"wave": {0: "batch", 2: "time"}}),
    }
    # Behind the others, whose random numbers stay the same.
    cases |= {
        "selected": (Text(reads="all, of which the last is selected"), texts(random), token_axes),
        "averaged": (Text(reads="all, whose mean is taken"), texts(random), token_axes),
        "chosen": (Text(reads="all, of which the last that counts is selected"), texts(random), token_axes),
        "distilled": (Text(reads="the first and the second"), texts(random), token_axes),
        "normalised": (Normalised(), {"x": random.normal(size=(ROWS, 6)).astype(np.float32)}, {"x": {0: "batch"}}),
        "stacked": (Stacked(), {"x": random.normal(size=(ROWS, 6)).astype(np.float32)}, {"x": {0: "batch"}}),
    }
    expected = {}
    for name, (model, inputs, free) in cases.items():
        np.savez(folder / f"{name}.npz", **inputs)
        for path in export(model.eval(), inputs, free, folder, name):
            onnx.checker.check_model(str(path), full_check=True)
            position = {"selected": -1, "chosen": inputs.get("attention_mask", np.ones((1, 1))).sum(1) - 1}.get(name)
            expected[path.stem], expected[f"{path.stem}-logits"] = run(path, inputs, position)
    save_file(expected, folder / "expected.safetensors")
    quantise(folder, cases["waves"][1])
    unpadded(cases["text"][1], folder / "text.parquet")


def unpadded(inputs, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [ids[: mask.sum()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])]
    pq.write_table(pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32())), "label": [row % CLASSES for row in range(ROWS)]}), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
