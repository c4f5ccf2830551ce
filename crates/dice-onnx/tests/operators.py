"""Writes ONNX's own test cases of operators, for the built-in runtime to pass.

    python operators.py FOLDER [OPERATOR ...]

Cases of one of these operators alone, or all, of the package onnx: those of its newest operator set, and old ones that PyTorch exported.
FOLDER/cases.json lists name, operator, model file, inputs and expected outputs: name, type, shape and values, row-major.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests


def tensor(info, value):
    return {"name": info.name, "type": str(value.dtype), "shape": list(value.shape), "values": value.flatten().tolist()}


def read(path, info):
    if info.type.WhichOneof("value") != "tensor_type":
        return None
    return numpy_helper.to_array(onnx.load_tensor(str(path)))


def sets(case):
    """Pairs of inputs and outputs."""
    if case.data_sets:
        yield from case.data_sets
        return
    for folder in sorted(pathlib.Path(case.model_dir).glob("test_data_set_*")):
        yield tuple([numpy_helper.to_array(onnx.load_tensor(str(path))) for path in sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))] for kind in ("input", "output"))


def main(folder, *operators):
    warnings.filterwarnings("ignore")
    folder, cases = pathlib.Path(folder), []
    for kind in ("node", "pytorch-operator", "pytorch-converted", "simple"):
        for case in load_model_tests(kind=kind):
            model = case.model or onnx.load(f"{case.model_dir}/model.onnx")
            used = {node.op_type for node in model.graph.node}
            if operators and not used & set(operators):
                continue
            initial = {one.name for one in model.graph.initializer}
            infos = [one for one in model.graph.input if one.name not in initial]
            try:
                for inputs, outputs in sets(case):
                    listed = {
                        "name": case.name,
                        "operators": sorted(used),
                        "model": f"{len(cases)}.onnx",
                        "inputs": [tensor(info, np.asarray(value)) for info, value in zip(infos, inputs)],
                        "outputs": [tensor(info, np.asarray(value)) for info, value in zip(model.graph.output, outputs)],
                    }
                    json.dumps(listed, allow_nan=False)
                    onnx.save(model, folder / listed["model"])
                    cases.append(listed)
                    break
            except Exception as error:
                print("left out:", case.name, type(error).__name__, file=sys.stderr)
    (folder / "cases.json").write_text(json.dumps(cases))
    print(len(cases))


if __name__ == "__main__":
    main(*sys.argv[1:])
