"""Runs models that take features in ONNX Runtime.

    python features.py FOLDER UNITS

FOLDER holds models *.onnx with an input features [N, UNITS], and features.f32 with the rows to give them. Checks each model, which has
no initializer that nothing reads, and writes its outputs, in batches of 1, 7 and 64, to MODEL.onnx.OUTPUT.BATCH: float32, int64 or one byte a bool.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime


def unread(graph):
    """Names of the initializers that no operator takes."""
    return {tensor.name for tensor in graph.initializer} - {name for node in graph.node for name in node.input}


def main(folder, units):
    rows = np.fromfile(pathlib.Path(folder) / "features.f32", np.float32).reshape(-1, int(units))
    models = sorted(pathlib.Path(folder).glob("*.onnx"))
    assert models, "no models"
    for model in models:
        onnx.checker.check_model(str(model), full_check=True)
        graph = onnx.load(model).graph
        assert not unread(graph), f"{model}: nothing reads {unread(graph)}"
        session = onnxruntime.InferenceSession(model)
        names = [output.name for output in session.get_outputs()]
        for batch in (1, 7, 64):
            parts = [session.run(names, {"features": rows[start : start + batch]}) for start in range(0, len(rows), batch)]
            for name, values in zip(names, zip(*parts)):
                np.concatenate(values).tofile(f"{model}.{name}.{batch}")


if __name__ == "__main__":
    main(*sys.argv[1:])
