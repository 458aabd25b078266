"""ONNX models as a chain of nodes from one input to one output, along which a reader walks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._extras import require
from .._files import refused_as
from ..errors import BitstreamError
from .imported import Imported, named
from .products import ProductLayer

if TYPE_CHECKING:
    from pathlib import Path

    from .base import Layer

METADATA = "scdask"  # the property of a model in which `network.to_onnx` writes what ONNX has no place for
ANY_BATCH = 9973  # stands for a number of samples that is not known: a prime, of which sizes are no multiples
MOST_COMPUTED = 2**12  # constants, which are sizes, but for weights in another order
LARGEST_SAMPLE = 2**27  # values between two layers, 1 GiB: a damaged file may ask for any number
REARRANGED = {"Identity", "Cast", "Unsqueeze", "Squeeze", "Transpose", "Reshape"}
EVALUATED = REARRANGED | {
    *("Constant", "Shape", "Gather", "Slice", "Concat", "Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "ReduceProd"),
}


def called(node: Any) -> str:
    """A node in a message: its name and its operation."""
    return f"the node {node.name[:100]!r} ({node.op_type[:100]})" if node.name else f"a node {node.op_type[:100]}"


@dataclass
class Graph:
    """Walks along the nodes of a model. `at` is the value that the layers so far give, of the shape `shape`."""

    NODES: ClassVar[dict[str, Any]] = {}
    ML_NODES: ClassVar[dict[str, Any]] = {}

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
        """What the model says of a network."""
        graph = self._graph()
        self._read_metadata()
        for tensor in graph.initializer:
            self.constants[tensor.name] = self._array(tensor)
        self._read_input(graph, sample_shape)
        for node in self._needed(graph):
            with refused_as(f"{called(node)} cannot be taken"), named(called(node)):
                self._read(node)
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
        """The version of the standard operations."""
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
                where = " and ".join(map(called, several[:2]))
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
            shape = layer.output_shape(self.shape)
            self._check_size(shape)
            self.layers.append(layer)
            self.shape = shape

    def _check_size(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) > LARGEST_SAMPLE:
            raise BitstreamError(f"a sample would have the shape {shape}, which is more than {LARGEST_SAMPLE} values")

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
        read = (self.NODES if standard else self.ML_NODES if node.domain == "ai.onnx.ml" else {}).get(node.op_type)
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
        sizes = [self.constants[name].size for name in node.input if name]
        if node.op_type not in REARRANGED and max(sizes, default=0) > MOST_COMPUTED:
            raise BitstreamError(f"only sizes are computed here, and not with {max(sizes)} constants")
        helper = self.onnx.helper
        outputs = [self.onnx.ValueInfoProto(name=node.output[0])]
        inputs = [self.onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name]
        alone = helper.make_model(
            helper.make_graph([node], "constant", inputs, outputs), opset_imports=self.model.opset_import
        )
        evaluator = require("onnx.reference", "onnx").ReferenceEvaluator(alone)
        return evaluator.run(None, {value.name: self.constants[value.name] for value in inputs})[0]

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
