"""Networks as ONNX models in float32, which any runtime runs, and which scdask reads again with all scales."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from .._files import some, write_whole
from ..errors import BitstreamError
from .activations import Clip, Logistic, ReLU, Softmax, Tanh
from .affine import Affine, Saturation
from .conv import SCConv2d
from .dense import SCDense
from .imported import may_be_negative
from .onnx_reader import METADATA
from .pooling import AvgPool2d, Flatten, MaxPool2d, Reshape, Transpose
from .products import ProductLayer

if TYPE_CHECKING:
    from .network import SCSequential

OPSET, IR_VERSION = 17, 8  # of 2022: what reads ONNX reads these
NAMED = {Tanh: "Tanh", Logistic: "Sigmoid"}


def write_onnx(network: SCSequential, file: Any) -> None:
    """Write a network to an ONNX file, whole or not at all."""
    contents = _Writer(require("onnx", "onnx")).model(network).SerializeToString()
    if isinstance(file, str | os.PathLike):
        write_whole(Path(file), lambda opened: opened.write(contents))
    else:
        file.write(contents)


class _Writer:
    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.saturations: list[tuple[float, float]] = []
        self.at = "input"

    def model(self, network: SCSequential) -> Any:
        negative = True
        for i, (layer, inner) in enumerate(zip(network.layers, network.inner, strict=True)):
            if isinstance(layer, ProductLayer) and inner and not layer.signed and negative:
                self._node("Relu", f"Cut_{i}")
            self._layer(layer, f"{type(layer).__name__}_{i}")
            negative = may_be_negative(layer, negative)
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        self.nodes[-1].output[0] = "output"
        inputs = [helper.make_tensor_value_info("input", kind, ["samples", *network.input_shape])]
        outputs = [helper.make_tensor_value_info("output", kind, ["samples", *network.shapes[-1]])]
        graph = helper.make_graph(self.nodes, "scdask", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="scdask")
        stored = {
            "classes": _plain(network.classes),
            "readout": network.readout,
            "scales": [[layer.input_scale, layer.signed] for layer in network.encoding_layers],
            "saturations": self.saturations,
        }
        helper.set_model_props(model, {METADATA: json.dumps(stored)})
        return model

    def _node(self, kind: str, name: str, *constants: Any, **attributes: Any) -> None:
        """A node of the value so far and of constants; None stands for an input that is left out."""
        inputs = [self.at]
        for constant in constants:
            inputs.append("" if constant is None else f"{name}_{len(inputs)}")
            if constant is not None:
                self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(constant), inputs[-1]))
        self.at = name
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name, **attributes))

    def _layer(self, layer: Any, name: str) -> None:
        match layer:
            case SCDense():
                self._node("Gemm", name, layer.weights.astype("f4"), layer.bias.astype("f4"), transB=1)
            case SCConv2d():
                how = {
                    "strides": layer.stride,
                    "pads": layer.padding,
                    "dilations": layer.dilation,
                    "group": layer.groups,
                }
                self._node("Conv", name, layer.weights.astype("f4"), layer.bias.astype("f4"), **how)
            case MaxPool2d() | AvgPool2d():
                how = {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": layer.padding}
                if isinstance(layer, AvgPool2d):
                    how["count_include_pad"] = int(layer.count_padding)
                self._node("AveragePool" if isinstance(layer, AvgPool2d) else "MaxPool", name, **how)
            case Saturation():
                self._node("Identity", name)
                self.saturations.append((layer.low, layer.high))
            case ReLU() if layer.largest == np.inf:
                self._node("Relu", name)
            case ReLU():
                self._node("Clip", name, np.float32(0), np.float32(layer.largest))
            case Clip():
                bounds = (np.float32(b) if np.isfinite(b) else None for b in (layer.low, layer.high))
                self._node("Clip", name, *bounds)
            case Affine():
                self._node("Mul", f"{name}_scale", layer.scale.astype("f4"))
                self._node("Add", name, layer.shift.astype("f4"))
            case Tanh() | Logistic():
                self._node(NAMED[type(layer)], name)
            case Softmax():
                self._node("Softmax", name, axis=1)
            case Flatten():
                self._node("Flatten", name, axis=1)
            case Reshape():
                self._node("Reshape", name, np.array([-1, *layer.shape]))
            case Transpose():
                self._node("Transpose", name, perm=[0, *(axis + 1 for axis in layer.axes)])
            case _:
                raise BitstreamError(f"ONNX has no node for the layer {layer!r}")


def _plain(classes: Any) -> list[Any]:
    """Classes as JSON has them."""
    if classes.dtype.kind not in "biufU" and not all(isinstance(label, str) for label in classes):
        raise BitstreamError(f"a file holds classes that are numbers or text, not {some(map(repr, classes))}")
    return classes.tolist()  # type: ignore[no-any-return]
