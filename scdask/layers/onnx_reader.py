"""ONNX models as layers: a chain of nodes from one input to one output is read node by node."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from .._files import refused_as, seekable
from ..errors import BitstreamError
from ..vector_ops.conv import Window
from .activations import Clip, Logistic, ReLU, Softmax, Tanh
from .affine import Affine, Saturation
from .conv import SCConv2d
from .dense import SCDense
from .imported import Imported, named
from .pooling import AvgPool2d, Flatten, MaxPool2d, Reshape, Transpose
from .products import ProductLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import Layer

METADATA = "scdask"  # the property of a model in which `network.to_onnx` writes what ONNX has no place for
ANY_BATCH = 9973  # stands for a number of samples that is not known: no product of other sizes is a multiple of it
LARGEST_FILE = 2**31  # bytes, those that protobuf reads


def read_onnx(file: Any, sample_shape: tuple[int, ...] | None = None) -> Imported:
    """The layers of an ONNX model: of a path, a file object, bytes or an onnx.ModelProto.

    `sample_shape` stands in for sizes that the model leaves open. All errors are BitstreamErrors that name the file,
    but for a file that is not there or may not be read.
    """
    onnx = require("onnx", "onnx")
    if isinstance(file, onnx.ModelProto):
        name, folder, model = "the ONNX model", None, file
    else:
        name = "the ONNX model" if isinstance(file, bytes) else f"the ONNX model {file}"
        folder = Path(file).expanduser().parent if isinstance(file, str | os.PathLike) else None
        with refused_as(f"{name} cannot be read", (FileNotFoundError, PermissionError)):
            model = onnx.load_model_from_string(_contents(file))
    with refused_as(f"{name} cannot be taken"), named(name):
        return replace(_Reader(onnx, model, folder).imported(sample_shape), name=name)


def _contents(file: Any) -> bytes:
    if isinstance(file, bytes):
        return file
    with seekable(file) as opened:
        contents: bytes = opened.read(LARGEST_FILE + 1)
    if len(contents) > LARGEST_FILE:
        raise BitstreamError(f"it is longer than the {LARGEST_FILE} bytes that an ONNX file may have")
    return contents


def _called(node: Any) -> str:
    return f"the node {node.name[:100]!r} ({node.op_type[:100]})" if node.name else f"a node {node.op_type[:100]}"


@dataclass
class _Reader:
    """Walks along the nodes of a model. `at` is the value that the layers so far give, of the shape `shape`."""

    onnx: Any
    model: Any
    folder: Path | None
    layers: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    at: str = ""
    shape: tuple[int, ...] = ()
    batch: int = ANY_BATCH
    classes: Any = ()
    readout: str = ""  # what the model says of it; where it does, only labels come after the last layer
    logarithms: str = ""  # the node after which nothing may come but the label
    stored: dict[str, Any] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    input_shape: tuple[int, ...] = ()

    def imported(self, sample_shape: tuple[int, ...] | None) -> Imported:
        graph = self._graph()
        self._read_metadata()
        for tensor in graph.initializer:
            self.constants[tensor.name] = self._array(tensor)
        self._read_input(graph, sample_shape)
        for node in self._needed(graph):
            try:
                self._read(node)
            except BitstreamError as error:
                raise BitstreamError(f"{_called(node)}: {error}") from error
        return self._result()

    def _graph(self) -> Any:
        if self.model.functions:
            self.model = require("onnx.inliner", "onnx").inline_local_functions(self.model)
        graph = self.model.graph
        if not graph.node or not graph.output:
            raise BitstreamError("it has no nodes, or no output: the file is empty, or no ONNX model")
        if graph.sparse_initializer:
            raise BitstreamError(f"the weights {graph.sparse_initializer[0].values.name!r} are sparse; dense ones fit")
        types = self.onnx.TensorProto
        first = graph.output[0].type.tensor_type.elem_type
        if len(graph.output) > 1 and first not in (types.INT64, types.STRING):  # else a label and probabilities
            raise BitstreamError(f"it has {len(graph.output)} outputs, and a network has one")
        return graph

    @property
    def opset(self) -> int:
        return max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=1)

    def _read_metadata(self) -> None:
        for entry in self.model.metadata_props:
            if entry.key == METADATA:
                with refused_as(f"its property {METADATA!r} is not what scdask writes"):
                    stored = json.loads(entry.value)
                    stored["scales"] = [(float(scale), bool(signed)) for scale, signed in stored["scales"]]
                    stored["saturations"] = [(float(low), float(high)) for low, high in stored["saturations"]]
                    self.classes, self.readout = np.array(stored["classes"]), str(stored["readout"])
                    self.stored = stored

    def _read_input(self, graph: Any, sample_shape: tuple[int, ...] | None) -> None:
        inputs = [value for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            names = ", ".join(repr(value.name[:50]) for value in inputs[:5])
            raise BitstreamError(f"it has {len(inputs)} inputs ({names or 'none'}), and a network has one")
        (value,) = inputs
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type in (
            self.onnx.TensorProto.STRING,
            self.onnx.TensorProto.COMPLEX64,
            self.onnx.TensorProto.COMPLEX128,
        ):
            raise BitstreamError(f"its input {value.name!r} is no tensor of real numbers")
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if not tensor.HasField("shape"):
            sizes = [None] * (1 + len(sample_shape or ()))
        if len(sizes) < 2:
            raise BitstreamError(f"its input {value.name!r} has the sizes {sizes}: a first axis of samples, and others")
        sample = list(sizes[1:])
        if None in sample and sample_shape is not None and len(sample) == len(sample_shape):
            sample = [given if size is None else size for size, given in zip(sample, sample_shape, strict=True)]
        if None in sample:
            shown = ", ".join("?" if size is None else str(size) for size in sample)
            raise BitstreamError(
                f"its input {value.name!r} leaves sizes open, (samples, {shown}): only the number of samples may be; "
                "calibration inputs of the shape to come tell the others"
            )
        if any(not size or size < 1 for size in sample):
            raise BitstreamError(f"its input {value.name!r} has samples of shape {tuple(sample)}, without any values")
        self.batch = sizes[0] or ANY_BATCH
        self.input_shape = tuple(int(size) for size in sample)  # type: ignore[arg-type]
        self._goes_on(value.name, self.input_shape)

    def _needed(self, graph: Any) -> list[Any]:
        """The nodes that the first output needs, in their order."""
        from_output, nodes = {graph.output[0].name}, []
        for node in reversed(graph.node):
            if from_output & set(node.output):
                from_output |= set(node.input)
                nodes.append(node)
        self.wanted = from_output
        nodes = self._without_complement(nodes[::-1])
        users: dict[str, list[Any]] = {}
        for node in nodes:
            if node.op_type != "Shape":
                for name in set(node.input):
                    users.setdefault(name, []).append(node)
        constant = set(self.constants) | {""}
        for node in nodes:
            if node.op_type == "Shape" or set(node.input) <= constant:
                constant |= set(node.output)
        for name, several in users.items():
            if len(several) > 1 and name not in constant:
                where = " and ".join(map(_called, several[:2]))
                raise BitstreamError(f"the value {name[:100]!r} goes to {where}: a network has no branches")
        return nodes

    @staticmethod
    def _without_complement(nodes: list[Any]) -> list[Any]:
        """The nodes without the pair (1 - p, p), as scikit-learn's converter writes the two classes of one output."""
        made = {name: node for node in nodes for name in node.output}
        for node in nodes:
            first = made.get(node.input[0]) if node.op_type == "Concat" and len(node.input) == 2 else None
            if first is not None and first.op_type == "Sub" and first.input[1] == node.input[1]:
                alone = type(node)()
                alone.CopyFrom(node)
                alone.op_type, alone.domain = "Identity", ""
                del alone.input[0], alone.attribute[:]
                return [alone if other is node else other for other in nodes if other is not first]
        return nodes

    def _array(self, tensor: Any) -> Any:
        what = f"the weights {tensor.name[:100]!r}"
        with refused_as(f"{what} are damaged"):
            if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
                self._check_external(tensor, what)
                return self.onnx.numpy_helper.to_array(tensor, str(self.folder))
            return self.onnx.numpy_helper.to_array(tensor)

    def _check_external(self, tensor: Any, what: str) -> None:
        """Weights may lie in a file beside the model, and nowhere else."""
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if self.folder is None:
            raise BitstreamError(f"{what} lie in another file, {location!r}: give the model as a path")
        path = self.folder / location
        if not location or path.is_symlink() or path.resolve().parent != self.folder.resolve():
            raise BitstreamError(f"{what} lie in {location!r}, which is no file in the folder of the model")
        if not path.is_file():
            raise BitstreamError(f"{what} lie in {location!r}, which is not there: it belongs beside the model")

    def _goes_on(self, name: str, shape: tuple[int, ...]) -> None:
        self.at, self.shape = name, shape
        self.shapes[name] = shape

    def _put(self, *layers: Layer) -> None:
        for layer in layers:
            if self.logarithms or (self.readout and not self.stored):
                raise BitstreamError("nothing but labels can come after the outputs of the network")
            self.layers.append(layer)
            self.shape = layer.output_shape(self.shape)

    def _read(self, node: Any) -> None:
        inputs = [name for name in node.input if name]
        data = [name for name in inputs if name in self.shapes]
        missing = [name for name in inputs if name not in self.shapes and name not in self.constants]
        if missing:
            raise BitstreamError(
                f"its input {missing[0][:100]!r} is neither in the file nor put out by a node before it"
            )
        standard = node.domain in ("", "ai.onnx")
        if standard and node.op_type == "Shape" and data:
            whole = np.array((self.batch, *self.shapes[data[0]]))
            attributes = self._attributes(node)
            self.constants[node.output[0]] = whole[slice(attributes.get("start"), attributes.get("end"))]
            return
        if not data and standard and node.op_type in EVALUATED:
            self.constants[node.output[0]] = self._evaluated(node)
            return
        read = (NODES if standard else ML_NODES if node.domain == "ai.onnx.ml" else {}).get(node.op_type)
        if read is None:
            domain = "" if standard else f" of {node.domain[:100]!r}"
            raise BitstreamError(f"no layer does what this operation{domain} does")
        if len(data) != 1 or data != [self.at]:
            raise BitstreamError(f"it takes {len(data)} values that depend on the input, where a network has one")
        read(self, node, [self.constants.get(name) for name in node.input])
        self._goes_on(next(name for name in node.output if name in self.wanted), self.shape)

    def _attributes(self, node: Any) -> dict[str, Any]:
        found = {}
        for attribute in node.attribute:
            value = self.onnx.helper.get_attribute_value(attribute)
            found[attribute.name] = value.decode() if isinstance(value, bytes) else value
        return found

    def _evaluated(self, node: Any) -> Any:
        """What a node gives that depends on constants only, as exporters write shapes and transposed weights."""
        if node.op_type == "Constant":
            attributes = self._attributes(node)
            tensor = attributes.get("value")
            if tensor is not None:
                return self._array(tensor)
            return np.array(next(iter(attributes.values())))
        helper = self.onnx.helper
        outputs = [self.onnx.ValueInfoProto(name=node.output[0])]
        inputs = [self.onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name]
        alone = helper.make_model(
            helper.make_graph([node], "constant", inputs, outputs), opset_imports=self.model.opset_import
        )
        evaluator = require("onnx.reference", "onnx").ReferenceEvaluator(alone)
        return evaluator.run(None, {value.name: self.constants[value.name] for value in inputs})[0]

    # Products

    def _weights(self, given: list[Any], at: int, what: str) -> Any:
        if at >= len(given) or given[at] is None:
            raise BitstreamError(f"its {what} do not come from the file, but from its input")
        return np.asarray(given[at]).astype(np.float64)

    def _gemm(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        weights = self._weights(given, 1, "weights (B)")
        if given[0] is not None or attributes.get("transA"):
            raise BitstreamError("the samples are not the rows of its first operand")
        weights = weights * float(attributes.get("alpha", 1.0))
        bias = self._weights(given, 2, "bias (C)") * float(attributes.get("beta", 1.0)) if len(node.input) > 2 else 0.0
        self._dense(weights if attributes.get("transB") else weights.T, bias)

    def _matmul(self, node: Any, given: list[Any]) -> None:
        self._dense(self._weights(given, 1, "weights").T, 0.0)

    def _dense(self, weights: Any, bias: Any) -> None:
        if len(self.shape) != 1:
            raise BitstreamError(f"a dense layer takes samples of shape (n,), not {self.shape}")
        if weights.ndim != 2:
            raise BitstreamError(f"the weights of a dense layer have two axes, not the shape {weights.shape}")
        bias = self._for_samples(bias, weights.shape[:1])
        self._put(SCDense(weights, np.broadcast_to(bias, weights.shape[:1])))

    def _conv(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        weights = self._weights(given, 1, "weights (W)")
        if weights.ndim != 4 or len(self.shape) != 3:
            raise BitstreamError(
                f"images have the shape (channels, rows, columns), not {self.shape}, and filters (neurons, channels, "
                f"rows, columns), not {weights.shape}"
            )
        kernel = weights.shape[2:]
        if tuple(attributes.get("kernel_shape", kernel)) != kernel:
            raise BitstreamError(
                f"its kernel_shape {attributes['kernel_shape']} is not that of filters {weights.shape}"
            )
        bias = self._weights(given, 2, "bias (B)") if len(node.input) > 2 and node.input[2] else np.zeros(len(weights))
        window = self._window(attributes, kernel)
        how = {name: getattr(window, name) for name in ("stride", "padding", "dilation")}
        self._put(SCConv2d(weights, bias, **how, groups=attributes.get("group", 1)))

    def _window(self, attributes: dict[str, Any], kernel: tuple[int, ...]) -> Window:
        ones = [1, 1]
        stride, dilation = attributes.get("strides", ones), attributes.get("dilations", ones)
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        kind = attributes.get("auto_pad", "NOTSET")
        if kind == "VALID":
            top = left = bottom = right = 0
        elif kind in ("SAME_UPPER", "SAME_LOWER"):
            spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
            both = [
                max(0, (-(-n // s) - 1) * s + span - n)
                for n, s, span in zip(self.shape[1:], stride, spans, strict=True)
            ]
            (top, left), (bottom, right) = ([n // 2 for n in both], [n - n // 2 for n in both])
            if kind == "SAME_LOWER":
                top, left, bottom, right = bottom, right, top, left
        elif kind != "NOTSET":
            raise BitstreamError(f"its auto_pad is none of ONNX, {kind!r}")
        rows, columns = kernel
        return Window((rows, columns), tuple(stride), (top, left, bottom, right), tuple(dilation))

    # What is done to each value or channel

    def _for_samples(self, value: Any, shape: tuple[int, ...]) -> Any:
        """A constant without the axis of samples, such that it broadcasts to samples of a shape."""
        value = np.asarray(value).astype(np.float64)
        plain = value.reshape(value.shape[1:]) if value.ndim == 1 + len(shape) and len(value) == 1 else value
        if plain.ndim > len(shape) or np.broadcast_shapes(plain.shape, shape) != shape:
            raise BitstreamError(f"a constant {value.shape} does not broadcast to samples of shape {shape}")
        return plain

    def _affine(self, scale: Any, shift: Any) -> None:
        scale, shift = (self._for_samples(value, self.shape) for value in (scale, shift))
        last = self.layers[-1] if self.layers else None
        if self.stored:
            if isinstance(last, Affine) and not last.shift.any() and (scale == 1).all():
                self.layers[-1] = Affine(last.scale, shift)
                return
        elif isinstance(last, Affine):
            self.layers[-1] = Affine(last.scale * scale, last.shift * scale + shift)
            return
        elif isinstance(last, ProductLayer):
            folded = Affine(scale, shift).into_previous(last, self.shape)
            if folded is not None:
                self.layers[-1] = folded
                return
        self._put(Affine(scale, shift))

    def _add(self, node: Any, given: list[Any]) -> None:
        self._affine(1.0, next(value for value in given if value is not None))

    def _mul(self, node: Any, given: list[Any]) -> None:
        self._affine(next(value for value in given if value is not None), 0.0)

    def _sub(self, node: Any, given: list[Any]) -> None:
        if given[0] is None:
            self._affine(1.0, -self._weights(given, 1, "numbers"))
        else:
            self._affine(-1.0, given[0])

    def _div(self, node: Any, given: list[Any]) -> None:
        self._affine(1.0 / self._weights(given, 1, "divisors"), 0.0)

    def _neg(self, node: Any, given: list[Any]) -> None:
        self._affine(-1.0, 0.0)

    def _batch_norm(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        if attributes.get("training_mode") or len([name for name in node.output if name]) > 1:
            raise BitstreamError("it is in training mode; export the model for inference")
        if not attributes.get("spatial", 1):
            raise BitstreamError("it normalizes pixels instead of channels")
        names = ("scale", "B", "mean", "var")
        gamma, beta, mean, var = (self._weights(given, i, name) for i, name in enumerate(names, 1))
        scale = gamma / np.sqrt(var + attributes.get("epsilon", 1e-5))
        of_channels = (len(gamma), *[1] * (len(self.shape) - 1))
        self._affine(scale.reshape(of_channels), (beta - mean * scale).reshape(of_channels))

    def _clip(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        bounds = [attributes.get("min"), attributes.get("max")]
        for i, name in enumerate(node.input[1:3]):
            if name:
                bounds[i] = self._weights(given, i + 1, "bounds").item()
        low, high = (limit if value is None else value for value, limit in zip(bounds, (-np.inf, np.inf), strict=True))
        self._put(ReLU(high) if low == 0 < high else Clip(low, high))

    def _relu(self, node: Any, given: list[Any]) -> None:
        self._put(ReLU())

    def _tanh(self, node: Any, given: list[Any]) -> None:
        self._put(Tanh())

    def _sigmoid(self, node: Any, given: list[Any]) -> None:
        self._put(Logistic())

    def _softmax(self, node: Any, given: list[Any]) -> None:
        axis = self._attributes(node).get("axis", 1 if self.opset < 13 else -1)
        whole = self.opset < 13 and axis == 1  # all axes from this one on
        if len(self.shape) != 1 if whole else (axis % (1 + len(self.shape)) != 1 or len(self.shape) != 1):
            raise BitstreamError(f"it is taken over axis {axis} of samples of shape {self.shape}, where (n,) fits")
        self._put(Softmax())

    def _log_softmax(self, node: Any, given: list[Any]) -> None:
        self._softmax(node, given)
        self.logarithms = _called(node)

    # Pooling, and what leaves the values as they are

    def _pool(self, node: Any) -> tuple[dict[str, Any], Window]:
        attributes = self._attributes(node)
        if len(self.shape) != 3 or len(attributes.get("kernel_shape", ())) != 2:
            raise BitstreamError(f"windows have two axes, and images three, not the shape {self.shape}")
        window = self._window(attributes, tuple(attributes["kernel_shape"]))
        if window.dilation != (1, 1):
            raise BitstreamError(f"windows with dilation {window.dilation} are not pooled")
        if attributes.get("ceil_mode"):
            top, left, bottom, right = window.padding
            sizes = (self.shape[1] + top + bottom, self.shape[2] + left + right)
            if any((n - k) % s for n, k, s in zip(sizes, window.kernel, window.stride, strict=True)):
                raise BitstreamError(f"with ceil_mode windows reach past the images of {self.shape[1:]} pixels")
        return attributes, window

    def _max_pool(self, node: Any, given: list[Any]) -> None:
        if len([name for name in node.output if name]) > 1:
            raise BitstreamError("it puts out indices too")
        _, window = self._pool(node)
        self._put(MaxPool2d(window.kernel, window.stride, window.padding))

    def _average_pool(self, node: Any, given: list[Any]) -> None:
        attributes, window = self._pool(node)
        counted = bool(attributes.get("count_include_pad", 0)) or not any(window.padding)
        self._put(AvgPool2d(window.kernel, window.stride, window.padding, counted))

    def _global_pool(self, node: Any, given: list[Any]) -> None:
        if len(self.shape) != 3:
            raise BitstreamError(f"images have the shape (channels, rows, columns), not {self.shape}")
        pool = AvgPool2d if node.op_type == "GlobalAveragePool" else MaxPool2d
        self._put(pool(self.shape[1:]))

    def _reduce_mean(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        axes = attributes.get("axes") if len(node.input) < 2 else given[1]
        axes = () if axes is None else tuple(int(axis) for axis in np.ravel(axes))
        if len(self.shape) != 3 or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise BitstreamError(f"means are taken over rows and columns, not over the axes {axes} of {self.shape}")
        channels = self.shape[0]
        self._put(AvgPool2d(self.shape[1:]))
        if not attributes.get("keepdims", 1):
            self._rearranged((self.batch, channels))

    def _rearranged(self, whole: tuple[int, ...]) -> None:
        """A new shape of (samples, ...)."""
        if not whole or whole[0] != self.batch or math.prod(whole[1:]) != math.prod(self.shape):
            old, new = (", ".join(map(self._size, sizes)) for sizes in ((self.batch, *self.shape), whole))
            raise BitstreamError(f"it turns ({old}) into ({new}), and does not leave the samples on the first axis")
        shape = tuple(int(size) for size in whole[1:])
        if shape != self.shape or self.stored:
            layer: Any = Flatten() if len(shape) == 1 else Reshape(shape)
            affine = self.layers[-1] if self.layers else None
            if isinstance(affine, Affine) and not self.stored:  # Now a layer of products may take it over.
                self.layers[-1:] = [layer, affine.reshaped(self.shape, shape)]
                self.shape = shape
            else:
                self._put(layer)

    def _size(self, size: int) -> str:
        times, rest = divmod(size, ANY_BATCH)
        if self.batch != ANY_BATCH or rest or not size:
            return str(size)
        return "samples" if times == 1 else f"{times} * samples"

    def _flatten(self, node: Any, given: list[Any]) -> None:
        axis = self._attributes(node).get("axis", 1)
        if axis % (1 + len(self.shape)) != 1:
            raise BitstreamError(f"its axis is {axis}, and only 1 leaves the samples apart")
        self._rearranged((self.batch, math.prod(self.shape)))

    def _reshape(self, node: Any, given: list[Any]) -> None:
        if self.readout and not self.stored:  # The labels may have any shape.
            return
        attributes = self._attributes(node)
        target = attributes.get("shape") if len(node.input) < 2 else self._weights(given, 1, "sizes")
        sizes = [int(size) for size in np.ravel(np.asarray(target))]
        old = (self.batch, *self.shape)
        if not attributes.get("allowzero"):
            sizes = [old[i] if size == 0 and i < len(old) else size for i, size in enumerate(sizes)]
        if sizes.count(-1) == 1:
            known = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = math.prod(old) // known if known else 0
        self._rearranged(tuple(sizes))

    def _axes(self, node: Any, given: list[Any], count: int) -> list[int] | None:
        axes = self._attributes(node).get("axes") if len(node.input) < 2 else given[1]
        return None if axes is None else [int(axis) % count for axis in np.ravel(np.asarray(axes))]

    def _squeeze(self, node: Any, given: list[Any]) -> None:
        old = (self.batch, *self.shape)
        axes = self._axes(node, given, len(old))
        if axes is None:
            axes = [i for i, size in enumerate(old) if i and size == 1]
        if self.readout and not self.stored:
            return
        if any(old[i] != 1 for i in axes):
            raise BitstreamError(
                f"it removes the axes {axes} of {('samples', *self.shape)}, which are not all of size 1"
            )
        self._rearranged(tuple(size for i, size in enumerate(old) if i not in axes))

    def _unsqueeze(self, node: Any, given: list[Any]) -> None:
        whole = [self.batch, *self.shape]
        axes = self._attributes(node).get("axes") if len(node.input) < 2 else given[1]
        axes = [int(axis) for axis in np.ravel(np.asarray(axes))]
        for axis in sorted(axis % (len(whole) + len(axes)) for axis in axes):
            whole.insert(axis, 1)
        self._rearranged(tuple(whole))

    def _transpose(self, node: Any, given: list[Any]) -> None:
        order = list(self._attributes(node).get("perm", range(len(self.shape), -1, -1)))
        if order[:1] != [0]:
            raise BitstreamError(f"its perm {order} does not leave the samples on the first axis")
        self._put(Transpose(tuple(axis - 1 for axis in order[1:])))

    def _identity(self, node: Any, given: list[Any]) -> None:
        if self.stored and node.name.startswith("Saturation"):
            if not self.stored["saturations"]:
                raise BitstreamError(f"its range is missing in the property {METADATA!r}")
            self._put(Saturation(*self.stored["saturations"].pop(0)))

    def _dropout(self, node: Any, given: list[Any]) -> None:
        training = given[2] if len(given) > 2 else None
        if training is not None and np.any(training):
            raise BitstreamError("it is in training mode; export the model for inference")

    def _cast(self, node: Any, given: list[Any]) -> None:
        types = self.onnx.TensorProto
        to = self._attributes(node).get("to", types.FLOAT)
        if to not in (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16) and not self.readout:
            raise BitstreamError("it rounds values to integers")

    # Labels

    def _decided(self, readout: str, classes: Any = ()) -> None:
        self.readout = readout
        if len(classes):
            self.classes = np.asarray(classes)

    def _arg_max(self, node: Any, given: list[Any]) -> None:
        axis = self._attributes(node).get("axis", 0)
        if len(self.shape) != 1 or axis % 2 != 1:
            raise BitstreamError(f"it is taken over axis {axis} of samples of shape {self.shape}, where (n,) fits")
        self._decided("classes")

    def _feature_extractor(self, node: Any, given: list[Any]) -> None:
        labels = given[0]
        if labels is None or not self.readout:
            raise BitstreamError("it picks inputs, instead of the labels of classes")
        self.classes = np.ravel(labels)

    def _binarizer(self, node: Any, given: list[Any]) -> None:
        threshold = self._attributes(node).get("threshold", 0.0)
        middle = 0.5 if self.layers and isinstance(self.layers[-1], Logistic) else 0.0
        if threshold != middle:
            raise BitstreamError(f"its threshold is {threshold}, where {middle} fits")
        self._decided("labels")

    def _scaler(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        offset, scale = (np.array(attributes.get(name, default)) for name, default in (("offset", 0.0), ("scale", 1.0)))
        self._affine(scale, -offset * scale)

    def _linear(self, node: Any, given: list[Any]) -> None:
        attributes = self._attributes(node)
        neurons = attributes.get("targets", 1)
        labels: Any = ()
        if node.op_type == "LinearClassifier":
            text = [label.decode() for label in attributes.get("classlabels_strings", ())]
            labels = np.array(text or attributes.get("classlabels_ints", ()))
            neurons = len(labels)
        elif attributes.get("post_transform", "NONE") != "NONE":
            raise BitstreamError(f"its post_transform is {attributes['post_transform']!r}, where NONE fits")
        weights = np.array(attributes.get("coefficients", ())).reshape(max(neurons, 1), -1)
        if len(self.shape) == 1 and weights.shape[1] != self.shape[0] and weights.size == self.shape[0]:
            weights = weights.reshape(1, -1)  # two classes of one output
        bias = np.array(attributes.get("intercepts", np.zeros(len(weights))))
        if (
            len(labels) == 2 and len(weights) == 2
        ):  # the outputs of two classes, of which the second is -1 times the first
            weights, bias = (weights[1:] - weights[:1]) / 2, (bias[1:] - bias[:1]) / 2
        self._dense(weights, bias)
        if len(labels):
            self._decided("classes", labels)

    def _result(self) -> Imported:
        if not self.layers:
            raise BitstreamError("it has no layers")
        if self.stored:
            return self._as_stored()
        imported = Imported(tuple(self.layers), self.input_shape, self.classes, self.readout)
        if self.logarithms:
            imported = replace(imported, only_classes=f"{self.logarithms} gives logarithms")
        return imported

    def _as_stored(self) -> Imported:
        scales = self.stored["scales"]
        encoding = [i for i, layer in enumerate(self.layers) if isinstance(layer, ProductLayer)]
        if len(scales) != len(encoding):
            raise BitstreamError(f"its property {METADATA!r} has {len(scales)} scales for {len(encoding)} layers")
        for i, (scale, signed) in zip(encoding, scales, strict=True):
            self.layers[i] = replace(self.layers[i], input_scale=scale, signed=signed)
        return Imported(tuple(self.layers), self.input_shape, self.classes, self.readout, scaled=True)


EVALUATED = {
    *("Constant", "Identity", "Cast", "Shape", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Transpose"),
    *("Reshape", "Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "ReduceProd"),
}
NODES: dict[str, Callable[[_Reader, Any, list[Any]], None]] = {
    "Add": _Reader._add,
    "ArgMax": _Reader._arg_max,
    "AveragePool": _Reader._average_pool,
    "BatchNormalization": _Reader._batch_norm,
    "Cast": _Reader._cast,
    "Clip": _Reader._clip,
    "Conv": _Reader._conv,
    "Div": _Reader._div,
    "Dropout": _Reader._dropout,
    "Flatten": _Reader._flatten,
    "Gemm": _Reader._gemm,
    "GlobalAveragePool": _Reader._global_pool,
    "GlobalMaxPool": _Reader._global_pool,
    "Identity": _Reader._identity,
    "LogSoftmax": _Reader._log_softmax,
    "MatMul": _Reader._matmul,
    "MaxPool": _Reader._max_pool,
    "Mul": _Reader._mul,
    "Neg": _Reader._neg,
    "ReduceMean": _Reader._reduce_mean,
    "Relu": _Reader._relu,
    "Reshape": _Reader._reshape,
    "Sigmoid": _Reader._sigmoid,
    "Softmax": _Reader._softmax,
    "Squeeze": _Reader._squeeze,
    "Sub": _Reader._sub,
    "Tanh": _Reader._tanh,
    "Transpose": _Reader._transpose,
    "Unsqueeze": _Reader._unsqueeze,
}
ML_NODES: dict[str, Callable[[_Reader, Any, list[Any]], None]] = {
    "ArrayFeatureExtractor": _Reader._feature_extractor,
    "Binarizer": _Reader._binarizer,
    "LinearClassifier": _Reader._linear,
    "LinearRegressor": _Reader._linear,
    "Scaler": _Reader._scaler,
}
