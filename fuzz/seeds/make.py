"""Makes the seeds of the fuzz targets with onnx 1.23: small models with heads of every kind.

    python make.py
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
POOLED = [
    helper.make_node("Relu", ["x"], ["r"]),
    helper.make_node("GlobalAveragePool", ["r"], ["g"]),
    helper.make_node("Flatten", ["g"], ["h"]),
]


def save(name, nodes, **tensors):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="seed")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, name + ".onnx")


save("gemm", POOLED + [helper.make_node("Gemm", ["h", "w", "b"], ["y"], transB=1)], w=WEIGHT, b=WEIGHT[:, 0])
save(
    "matmul",
    POOLED
    + [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHT.reshape(6))),
        helper.make_node("Reshape", ["c", "shape"], ["w2"]),
        helper.make_node("Transpose", ["w2"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Softmax", ["a"], ["y"]),
    ],
    shape=np.array([2, 3], np.int64),
    b=WEIGHT[:, 0],
)
save(
    "convolution",
    [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ],
    w=WEIGHT.reshape(2, 3, 1, 1),
)
save(
    "quantised",
    POOLED
    + [
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ],
    s=np.float32(0.1),
    z=np.uint8(3),
    w=WEIGHT.T.astype(np.int8),
    ws=np.array([0.5, 0.25], np.float32),
    wz=np.array([0, 1], np.int8),
)
save(
    "dynamic",
    POOLED
    + [
        helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["both"]),
        helper.make_node("Mul", ["f", "both"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ],
    w=WEIGHT.T.astype(np.int8),
    ws=np.float32(0.5),
    wz=np.int8(1),
    b=WEIGHT[:, 0],
)
