"""Runs a model and the same model with a detector inside in ONNX Runtime; asserts what must not differ.

    python serve.py ORIGINAL.onnx EXPORTED.onnx INPUTS.f32 ROWS RESULTS

INPUTS.f32 holds float32 values of ROWS inputs, each of the shape that the model declares. Writes the outputs ood_score
and features as float32 and is_ood as bytes to RESULTS.score, RESULTS.features and RESULTS.ood.
"""

import sys

import numpy as np
import onnx
import onnxruntime


def main(original, exported, inputs, rows, results):
    onnx.checker.check_model(exported, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16 for value in onnx.load(original, load_external_data=False).graph.input):
        # On CPUs ONNX Runtime keeps f32 between operators in f16 and rounds where somebody reads, if it optimises: declaring
        # any inner tensor an output changes the others then.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    before, after = (onnxruntime.InferenceSession(path, options) for path in (original, exported))
    for old, new in zip(before.get_outputs(), after.get_outputs()):
        assert (old.name, old.type, old.shape) == (new.name, new.type, new.shape), (old, new)
    (declared,) = before.get_inputs()
    batch = declared.shape[0] if isinstance(declared.shape[0], int) else int(rows)
    kind = np.float16 if declared.type == "tensor(float16)" else np.float32
    values = np.fromfile(inputs, np.float32).reshape(int(rows), *declared.shape[1:]).astype(kind)
    scores, decisions, features = [], [], []
    for start in range(0, int(rows), batch):
        feed = {declared.name: values[start : start + batch]}
        names = [output.name for output in before.get_outputs()]
        for name, old, new in zip(names, before.run(names, feed), after.run(names, feed)):
            # A sequence of maps has no bytes of its own.
            same = old.tobytes() == new.tobytes() if isinstance(old, np.ndarray) else old == new
            assert same, f"output {name} changed"
        score, decision, feature = after.run(["ood_score", "is_ood", "features"], feed)
        assert score.shape == decision.shape == (batch,) and feature.shape[0] == batch
        scores.append(score), decisions.append(decision), features.append(feature)
    np.concatenate(scores).astype(np.float32).tofile(results + ".score")
    np.concatenate(decisions).astype(np.uint8).tofile(results + ".ood")
    np.concatenate(features).astype(np.float32).tofile(results + ".features")


if __name__ == "__main__":
    main(*sys.argv[1:])
