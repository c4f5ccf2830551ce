"""Runs a model and the same model with a detector inside on arrays in ONNX Runtime; asserts that the model's outputs are the same bits.

    python serve.py ORIGINAL.onnx EXPORTED.onnx INPUTS.npz RESULTS

Writes ood_score and features as float32 and is_ood as bytes to RESULTS.score, RESULTS.features and RESULTS.ood.
"""
import sys

import numpy as np
import onnx
import onnxruntime


def main(original, exported, inputs, results):
    onnx.checker.check_model(exported, full_check=True)
    before, after = (onnxruntime.InferenceSession(path) for path in (original, exported))
    feed = dict(np.load(inputs))
    for name, old, new in zip([output.name for output in before.get_outputs()], before.run(None, feed), after.run(None, feed)):
        assert old.tobytes() == new.tobytes(), f"output {name} changed"
    score, decision, features = after.run(["ood_score", "is_ood", "features"], feed)
    score.astype(np.float32).tofile(results + ".score")
    decision.astype(np.uint8).tofile(results + ".ood")
    features.astype(np.float32).tofile(results + ".features")


if __name__ == "__main__":
    main(*sys.argv[1:])
