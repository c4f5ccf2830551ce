"""Makes colours.onnx, and apart.onnx with its weights in apart.data, with onnx 1.23: which of red, green and blue an image has most of, by its mean channels.

    python make.py
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

weight = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32)
graph = helper.make_graph(
    [
        helper.make_node("Relu", ["image"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["penultimate"], name="flatten"),
        helper.make_node("Gemm", ["penultimate", "weight", "bias"], ["logits"], name="fc", transB=1),
    ],
    "colours",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
    [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.zeros(3, np.float32), "bias")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="dice-ood")
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "colours.onnx")
onnx.save(model, "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
