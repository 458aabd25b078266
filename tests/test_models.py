"""Models of others: ONNX files, with onnxruntime as the oracle, and estimators of scikit-learn."""

import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import scdask as sc
from scdask import Bernoulli, BitstreamError, SCConv2d, SCDense, SCSequential
from scdask.layers import (
    Affine,
    AvgPool2d,
    Clip,
    Flatten,
    Layer,
    Logistic,
    MaxPool2d,
    ReLU,
    Reshape,
    Saturation,
    Softmax,
    Tanh,
    Transpose,
    load_model,
)
from scdask.layers.activations import softmax

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:  # The component is not there, and so its tests do not run.
    onnx = None

needs_onnx = pytest.mark.component("onnx")
FOLDER = Path(__file__).parent / "data"


class Chain:
    """A model whose nodes stand in a row, in the words of some opset."""

    def __init__(self, shape, opset=17, batch="n", kind=None):
        self.opset, self.nodes, self.constants, self.at = opset, [], [], "x"
        self.kind = kind or TensorProto.FLOAT
        self.input = helper.make_tensor_value_info("x", self.kind, [batch, *shape])

    def constant(self, value):
        name = f"c{len(self.constants)}"
        value = np.asarray(value)
        value = value.astype("f4") if value.dtype.kind == "f" else value
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind, *constants, before=(), outputs=1, domain="", **attributes):
        given = [c if isinstance(c, str) else self.constant(c) for c in constants]
        first = [self.constant(c) for c in before]
        outputs = [f"v{len(self.nodes)}", *[f"v{len(self.nodes)}_{i}" for i in range(1, outputs)]]
        name = f"node {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [*first, self.at, *given], outputs, name, domain=domain, **attributes))
        self.at = outputs[0]

    def model(self):
        output = helper.make_tensor_value_info(self.at, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", [self.input], [output], self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("ai.onnx.ml", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    # What opsets write in different ways

    def clip(self, low, high):
        if self.opset < 11:
            bounds = {"min": low, "max": high}
            self.add("Clip", **{name: float(value) for name, value in bounds.items() if value is not None})
        else:
            self.add("Clip", *("" if b is None else np.float32(b) for b in (low, high)))

    def along(self, kind, axes):
        if self.opset < 13:
            self.add(kind, axes=axes)
        else:
            self.add(kind, np.array(axes))

    def dropout(self):
        self.add("Dropout", **({} if self.opset >= 12 else {"ratio": 0.3}))

    def softmax(self):
        self.add("Softmax", axis=1 if self.opset < 13 else -1)


def run(model, x):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


# Random networks


def random_network(rng):
    """A chain of random nodes for images of 6 x 6 pixels, or for vectors, and inputs for it."""
    chance = lambda p: rng.random() < p  # noqa: E731
    opset = int(rng.integers(7, 23))
    images = chance(0.75)
    shape = (int(rng.integers(1, 4)), 6, 6) if images else (int(rng.integers(2, 9)),)
    chain = Chain(shape, opset, "n" if chance(0.5) else 3)
    if chance(0.3):
        of_channels = rng.uniform(0.2, 0.5, (shape[0], 1, 1)) if images else rng.uniform(0.2, 0.5, shape)
        chain.add("Sub", of_channels if chance(0.5) else np.float32(0.4))
        chain.add(*(("Div", of_channels) if chance(0.5) else ("Mul", 1 / of_channels)))
    if images:
        shape = _image_blocks(chain, rng, chance, shape)
        shape = _flattened(chain, chance, shape)
    for _ in range(rng.integers(0, 3)):
        shape = _dense(chain, rng, chance, shape, int(rng.integers(2, 7)))
        _activation(chain, rng, chance, shape)
    _dense(chain, rng, chance, shape, int(rng.integers(2, 5)))
    if chance(0.2):
        chain.softmax()
    inner = chain.input.type.tensor_type.shape.dim[1:]
    x = rng.random((3, *(d.dim_value for d in inner)), "f4")
    return chain.model(), x if chance(0.5) else (4 * x - 2).astype("f4")


def _image_blocks(chain, rng, chance, shape):
    for last in (False, True)[: rng.integers(1, 3)]:
        channels, height, width = shape
        groups = channels if chance(0.2) else 1
        neurons = groups * int(rng.integers(1, 3)) if groups > 1 else int(rng.integers(2, 5))
        kernel = [int(rng.integers(1, min(4, height + 1))), int(rng.integers(1, min(4, width + 1)))]
        how = {"strides": [int(rng.integers(1, 3)), 1]}
        if chance(0.3):
            how["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        else:
            how["pads"] = [int(n) for n in rng.integers(0, 2, 4)]
            if all(2 * (k - 1) + 1 <= n for k, n in zip(kernel, (height, width), strict=True)) and chance(0.3):
                how["dilations"] = [2, 2]
        weights = rng.normal(size=(neurons, channels // groups, *kernel)) / math.sqrt(
            channels // groups * math.prod(kernel)
        )
        bias = rng.normal(size=neurons) / 4
        chain.add("Conv", weights, *([bias] if chance(0.5) else []), group=groups, kernel_shape=kernel, **how)
        if chance(0.3):
            chain.add("Add", rng.normal(size=(1, neurons, 1, 1)) / 4)
        if chance(0.4):
            _batch_norm(chain, rng, neurons)
        _activation(chain, rng, chance, (neurons, 1, 1))
        if chance(0.2):
            _batch_norm(chain, rng, neurons)
        shape = (neurons, *windows((height, width), kernel, **how))
        if chance(0.5) and min(shape[1:]) > 1:
            pads = {"pads": [int(n) for n in rng.integers(0, 2, 4)]} if chance(0.3) else {}
            if chance(0.5):
                how = {"strides": [2, int(rng.integers(1, 3))], **pads}
                chain.add("MaxPool", kernel_shape=[2, 2], **how)
            else:
                how = {"strides": [2, 2], **pads}
                chain.add("AveragePool", kernel_shape=[2, 2], count_include_pad=int(chance(0.5)), **how)
            shape = (neurons, *windows(shape[1:], (2, 2), **how))
        if chance(0.3):
            chain.add("Identity") if chance(0.5) else chain.dropout()
    return shape


def windows(sizes, kernel, strides, pads=(0, 0, 0, 0), dilations=(1, 1), auto_pad=""):
    """How many windows there are along each axis."""
    for axis, (n, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        yield -(-n // s) if "SAME" in auto_pad else (n + pads[axis] + pads[axis + 2] - d * (k - 1) - 1) // s + 1


def _batch_norm(chain, rng, n):
    chain.add("BatchNormalization", rng.uniform(-1, 2, n), *rng.normal(size=(2, n)) / 2, rng.uniform(0.5, 2, n))


def _flattened(chain, chance, shape):
    size = math.prod(shape)
    if chance(0.3):
        chain.add("GlobalAveragePool")
        size = shape[0]
        if chance(0.5):
            chain.along("Squeeze", [2, 3])
            return (size,)
    if chance(0.2):
        chain.add("Transpose", perm=[0, 2, 3, 1])
    if chance(0.5):
        chain.add("Flatten", axis=1)
    else:
        chain.add("Reshape", np.array([0, -1] if chance(0.5) else [-1, size]))
    if chance(0.2):
        chain.along("Unsqueeze", [2])
        chain.along("Squeeze", [2])
    return (size,)


def _dense(chain, rng, chance, shape, neurons):
    (n,) = shape
    weights, bias = rng.normal(size=(n, neurons)) / math.sqrt(n), rng.normal(size=neurons) / 4
    if chance(0.4):
        chain.add("MatMul", weights)
        if chance(0.7):
            chain.add("Add", bias)
    else:
        turned = chance(0.5)
        scales = {"alpha": 0.5, "beta": 2.0} if chance(0.2) else {}
        chain.add("Gemm", weights.T if turned else weights, bias, transB=int(turned), **scales)
    return (neurons,)


def _activation(chain, rng, chance, shape):
    kind = rng.choice(["Relu", "Relu", "Clip", "Tanh", "Sigmoid", ""])
    if kind == "Clip":
        chain.clip(*[(0, 6), (-0.5, 0.5), (None, 1), (0, None)][rng.integers(0, 4)])
    elif kind:
        chain.add(str(kind))
    if chance(0.1):
        chain.add("Mul", np.float32(-0.5))


# What theory says of the errors


def outputs_of(network, x):
    """What each layer takes in floating point, with the layer."""
    for layer in network.layers:
        yield layer, x
        x = layer.exact(x)


def worst_error(network, x, length):
    """A bound of |error| that holds for each output, if both generators are Sobol's first two dimensions.

    The first N = 2^m points of these are a (0, m, 2)-net in base 2. Its star discrepancy, by which the share of ones
    of x AND w may differ from the product of numbers in [0, 1], is at most floor((m - 0) / 2 + 3 / 2) / N
    (Niederreiter, Random Number Generation and Quasi-Monte Carlo Methods, 1992, theorem 4.7). Each operand is rounded
    to a multiple of 1 / N, which adds 1 / N to that at most.
    """
    of_product = (math.floor(math.log2(length) / 2 + 1.5) + 1) / length
    error = np.zeros_like(x)
    for layer, taken in outputs_of(network, x):
        if isinstance(layer, SCDense | SCConv2d):
            size = layer.fan_in * layer.weight_scale * layer.input_scale
            error = absolute(layer).exact(error) + size * of_product
        elif isinstance(layer, MaxPool2d):
            error = layer.exact(error)
        else:
            error = passed_on(layer, error)
    return error


def expected_error(network, x, length):
    """A bound of the root mean square of the error of each output, if both generators are Bernoulli's.

    Bits are independent. A product of p and q in [0, 1] is a share of ones with the variance pq (1 - pq) / N, and the
    products of one output are independent. Errors of what a layer takes may correlate: their roots of mean squares add
    up, each times |w|; and since they change p, pq is replaced by q (p + r). So this is the exact value for one layer,
    and a bound for several.
    """
    error = np.zeros_like(x)
    for layer, taken in outputs_of(network, x):
        if isinstance(layer, SCDense | SCConv2d):
            sizes = absolute(layer)
            first = sizes.exact(abs(taken) + error) * layer.weight_scale * layer.input_scale
            second = absolute(layer, 2).exact(taken**2)
            error = sizes.exact(error) + np.sqrt((first - second).clip(0) / length)
        elif isinstance(layer, MaxPool2d):  # The largest changes by one of the errors: the root of all their squares.
            size = math.prod(layer.kernel)
            error = np.sqrt(AvgPool2d(layer.kernel, layer.stride, layer.padding).exact(error**2) * size)
        else:
            error = passed_on(layer, error)
    return error


def absolute(layer, power=1):
    return replace(layer, weights=abs(layer.weights) ** power, bias=0 * layer.bias)


def passed_on(layer, error):
    """Errors behind a layer in binary, by how steep it is."""
    if isinstance(layer, Affine):
        return abs(layer.scale) * error
    if isinstance(layer, Logistic):
        return error / 4
    if isinstance(layer, ReLU | Clip | Tanh | Saturation):
        return error
    assert isinstance(layer, AvgPool2d | Flatten | Reshape | Transpose)
    return layer.exact(error)


@needs_onnx
def test_random_networks_are_what_onnxruntime_computes():
    """200 networks: float logits to 1e-5, and those of streams within the errors that theory allows."""
    rng = np.random.default_rng(20)
    length, shares = 4096, []
    for number in range(200):
        model, x = random_network(rng)
        network = SCSequential.from_onnx(model, x)
        exact, expected = network.exact(x.astype(float)), run(model, x)
        outputs = softmax(exact) if model.graph.node[-1].op_type == "Softmax" else exact
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5 * abs(expected).max(), err_msg=f"{number}")
        error = abs(network.logits(x, length) - exact)
        assert (error <= worst_error(network, x.astype(float), length) + 1e-12).all(), number
        seeds = iter(range(100 * number, 100 * number + 100))
        pairs = [(Bernoulli(next(seeds)), Bernoulli(next(seeds))) for _ in network.encoding_layers]
        error = network.with_generators(pairs).logits(x, length) - exact
        shares.append((error / (expected_error(network, x.astype(float), length) + 1e-12)).ravel())
    shares = np.concatenate(shares)
    assert 0.1 < np.mean(shares**2) < 1
    assert np.mean(abs(shares) > 2) < 0.046  # the share of a normal distribution, which counts of many bits have nearly


def test_errors_of_one_layer_have_the_variance_that_theory_says():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 2, 4, 4))
    conv = SCConv2d(rng.normal(size=(3, 2, 2, 2)), np.zeros(3), abs(x).max(), signed=True, padding=1)
    network = SCSequential([conv, Flatten()], input_shape=(2, 4, 4))
    squares = []
    for seed in range(60):
        streams = network.with_generators([(Bernoulli(2 * seed), Bernoulli(2 * seed + 1))])
        squares.append((streams.logits(x, 512) - network.exact(x)) ** 2)
    share = np.mean(squares, axis=0) / expected_error(network, x, 512) ** 2
    assert abs(share.mean() - 1) < 0.05


# Files


@pytest.fixture(scope="module")
def digits():
    """Real digits, as images."""
    from scdask.jobs.digits import load_digits

    found = load_digits()
    return found.x_train.reshape(-1, 1, 8, 8), found.x_test.reshape(-1, 1, 8, 8), found.y_test


@needs_onnx
@pytest.mark.component("apps")
def test_a_network_that_pytorch_exported(digits):
    """Its layers: the file was trained on the training digits and written by PyTorch 2.13, without names of files.

    nn.Sequential(
        Conv2d(1, 8, 3), BatchNorm2d(8), ReLU(), MaxPool2d(2), Conv2d(8, 16, 2), ReLU(), Flatten(), Dropout(0.2),
        Linear(64, 10),
    ) of (x - 0.3) / 0.37, by torch.onnx.export(net.eval(), (x,), file, dynamic_shapes=({0: Dim("n")},),
    external_data=False).
    """
    x_train, x_test, y_test = digits
    network = load_model(FOLDER / "digits_cnn.onnx", x_train)
    assert [type(layer) for layer in network.layers] == [
        *(SCConv2d, ReLU, MaxPool2d, SCConv2d, ReLU, Flatten, SCDense),
    ]  # What scales the inputs is part of the first convolution.
    assert not any(layer.signed for layer in network.encoding_layers)
    expected = run(onnx.load(FOLDER / "digits_cnn.onnx"), x_test.astype("f4"))
    np.testing.assert_allclose(network.exact(x_test), expected, atol=1e-5 * abs(expected).max())
    assert (network.predict_float(x_test) == y_test).mean() > 0.97
    assert network.score(x_test[:200], y_test[:200], 256) > 0.96
    lazy = da.from_array(x_test[:60], chunks=(20, 1, 8, 8))
    assert network.score(lazy, da.from_array(y_test[:60]), 64) == network.score(x_test[:60], y_test[:60], 64)


def every_layer():
    """A network of all layers, with numbers that float32 holds."""
    rng = np.random.default_rng(4)

    def numbers(*shape):
        return rng.normal(size=shape).astype("f4") / 2

    layers = [
        Transpose((2, 0, 1)),
        Affine(numbers(2, 1, 1), numbers(2, 1, 1)),
        Affine(2.0, 0.0),
        Saturation(-2.1, 2.1),
        SCConv2d(numbers(4, 1, 2, 2), numbers(4), 2.1, signed=True, padding=(0, 1, 1, 0), groups=2, dilation=2),
        ReLU(),
        AvgPool2d(2, 1, 1, count_padding=False),
        SCConv2d(numbers(3, 4, 2, 2), numbers(3), 1.3, stride=(1, 2)),
        Affine(numbers(3, 1, 1), 0.25),
        Clip(-0.5, 2.0),
        MaxPool2d(2, 1, (1, 0)),
        ReLU(6.0),
        Reshape((3, 6)),
        Flatten(),
        SCDense(numbers(5, 18), numbers(5), 0.9),
        SCDense(numbers(5, 5), numbers(5), 1.1),
        Tanh(),
        SCDense(numbers(3, 5), numbers(3), 0.7, signed=True),
        Logistic(),
        Clip(high=0.9),
        SCDense(numbers(3, 3), numbers(3)),
        Softmax(),
    ]
    return layers, rng.normal(size=(4, 6, 5, 2))


@needs_onnx
def test_what_is_written_is_read_again_bit_for_bit(tmp_path):
    layers, x = every_layer()
    network = SCSequential(layers, ["a", "b", "é"], (6, 5, 2))
    network.to_onnx(tmp_path / "m.onnx")
    again = SCSequential.from_onnx(tmp_path / "m.onnx")
    np.testing.assert_array_equal(again.logits(x, 128), network.logits(x, 128))
    assert again.predict(x, 64).tolist() == network.predict(x, 64).tolist()
    assert again.classes.tolist() == ["a", "b", "é"]
    assert again.input_shape == (6, 5, 2)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(network.exact(x), run(model, x.astype("f4")), atol=1e-5)
    with pytest.raises(BitstreamError, match=r"as \.onnx, not as .*m\.npz"):
        network.save(tmp_path / "m.npz")
    with pytest.raises(BitstreamError, match="numbers or text, not"):
        replace(network, classes=np.array(["a", None, "b"], object)).save(tmp_path / "m.onnx")
    with pytest.raises(BitstreamError, match="no node for the layer Own"):
        SCSequential([Own()], input_shape=(3,)).save(tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == model


class Own(Layer):
    def output_shape(self, shape):
        return shape

    def exact(self, x):
        return x

    def __repr__(self):
        return "Own()"


@needs_onnx
@pytest.mark.parametrize("readout", ["classes", "labels", "values"])
def test_a_perceptron_as_onnx(readout, tmp_path):
    """Where its hidden layers are cut to [0, scale], a runtime needs a Relu."""
    rng = np.random.default_rng(5)
    x = rng.random((7, 4))
    weights = [rng.normal(size=shape).astype("f4") for shape in ((6, 4), (2, 6))]
    mlp = sc.SCMLP.from_arrays(weights, [np.ones(6, "f4") / 4, np.zeros(2)], calibration=x, percentile=90)
    mlp = replace(mlp, classes=np.array([7, 8]) if readout == "classes" else np.array([]), readout=readout)
    mlp.save(tmp_path / "m.onnx")
    again = load_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(again.predict(x, 100), mlp.predict(x, 100))
    assert again.readout == readout
    assert [layer.input_scale for layer in again.encoding_layers] == [layer.input_scale for layer in mlp.layers]
    np.testing.assert_allclose(mlp.exact(x), run(onnx.load(tmp_path / "m.onnx"), x.astype("f4")), atol=1e-5)


@needs_onnx
def test_models_of_any_kind_of_file(tmp_path, digits):
    x_train, x_test, _ = digits
    contents = (FOLDER / "digits_cnn.onnx").read_bytes()
    expected = load_model(FOLDER / "digits_cnn.onnx", x_train).logits(x_test[:3], 64)
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        pool.submit((tmp_path / "pipe").write_bytes, contents)
        sources = [tmp_path / "pipe", contents, io.BytesIO(contents), str(FOLDER / "digits_cnn.onnx")]
        for source in sources:
            np.testing.assert_array_equal(load_model(source, x_train).logits(x_test[:3], 64), expected)
    finer = load_model(contents, x_train, 99).encoding_layers[1].input_scale
    assert finer < load_model(contents, x_train).encoding_layers[1].input_scale
    mlp = sc.SCMLP((SCDense(np.ones((2, 3)), np.zeros(2)),))
    mlp.save(tmp_path / "m.npz")
    (tmp_path / "other").write_bytes((tmp_path / "m.npz").read_bytes())
    for name in ("m.npz", "other"):
        assert isinstance(load_model(tmp_path / name), sc.SCMLP)
    with pytest.raises(BitstreamError, match="has no input scales: give it calibration"):
        load_model(contents)
    with pytest.raises(BitstreamError, match=r"calibration inputs are \(samples, 1, 8, 8\), not \(2, 64\)"):
        load_model(contents, np.zeros((2, 64)))
    with pytest.raises(BitstreamError, match="finite, but there is nan"):
        load_model(contents, np.full((2, 1, 8, 8), np.nan))
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.onnx")


@needs_onnx
def test_weights_beside_a_model_and_elsewhere(tmp_path):
    """PyTorch writes weights to a second file. Another one than that beside the model is never read."""
    chain = Chain((300,))
    chain.add("MatMul", np.full((300, 2), 0.5))
    model, folder = chain.model(), tmp_path / "models"
    folder.mkdir()
    x = np.full((1, 300), 0.5)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert load_model(folder / "m.onnx", x).exact(x).tolist() == [[75.0, 75.0]]
    contents = (folder / "m.onnx").read_bytes()
    (tmp_path / "secret").write_bytes((folder / "m.data").read_bytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link", "", "none", "."):
        other = onnx.load_model_from_string(contents)
        for entry in other.graph.initializer[0].external_data:
            entry.value = location if entry.key == "location" else entry.value
        (folder / "o.onnx").write_bytes(other.SerializeToString())
        with pytest.raises(BitstreamError, match=r"o\.onnx: the weights 'c0' lie in '.*', which is no"):
            load_model(folder / "o.onnx", x)
    with pytest.raises(BitstreamError, match="lie in another file, 'm.data': give the model as a path"):
        load_model(contents, x)
    (folder / "m.data").write_bytes(b"short")
    with pytest.raises(BitstreamError, match=r"m\.onnx: the weights 'c0' are damaged"):
        load_model(folder / "m.onnx", x)


@needs_onnx
def test_files_that_are_corrupt(tmp_path):
    path, x = tmp_path / "m.onnx", np.zeros((1, 1, 8, 8))
    whole = (FOLDER / "digits_cnn.onnx").read_bytes()
    rng = np.random.default_rng(6)
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, 1300 if rng.random() < 0.8 else len(broken), 3):
            broken[place] ^= rng.integers(1, 256)
        path.write_bytes(broken[: rng.integers(1, len(broken))] if rng.random() < 0.2 else broken)
        with suppress(BitstreamError):  # Some bytes do not matter.
            load_model(path, x)
    for contents in (b"", b"nonsense", b"\x1b[2J", b"\x08\x09", whole[:900], bytes(1000), b"PK"):
        path.write_bytes(contents)
        with pytest.raises(BitstreamError) as caught:
            load_model(path, x)
        assert str(path) in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 800


def two_inputs(chain):
    chain.add("Add", "x")


def branches(chain):
    chain.add("Relu")
    before = chain.at
    chain.add("Tanh")
    chain.add("Mul", before)


REFUSED = [
    (lambda c: c.add("LSTM", np.ones(3)), r"node 'node 0' \(LSTM\): no layer does what this operation does"),
    (lambda c: c.add("Foo", domain="mine"), r"\(Foo\): no layer does what this operation of 'mine' does"),
    (branches, r"the value 'v0' goes to the node 'node 1' \(Tanh\) and the node 'node 2' \(Mul\)"),
    (two_inputs, r"\(Add\): it takes 2 values that depend on the input"),
    (lambda c: c.add("Conv", np.ones((2, 3, 1, 1))), r"\(Conv\): .*takes images \(3, height, width\)"),
    (lambda c: c.add("Conv", np.ones((2, 2, 9, 9))), r"\(Conv\): windows that span"),
    (lambda c: c.add("Conv", np.ones((2, 2, 3))), r"\(Conv\): .*not \(2, 2, 3\)"),
    (lambda c: c.add("Gemm", np.ones((32, 2))), r"\(Gemm\): a dense layer takes samples of shape \(n,\)"),
    (lambda c: c.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), "ceil_mode"),
    (lambda c: c.add("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "dilation"),
    (lambda c: c.add("Flatten", axis=2), r"\(Flatten\): its axis is 2"),
    (lambda c: c.add("Reshape", np.array([16, -1])), r"it turns \(samples, 2, 4, 4\) into \(16, 2 \* samples\)"),
    (lambda c: c.add("Reshape", np.array([-1, 3])), "does not leave the samples on the first axis"),
    (lambda c: c.add("Transpose", perm=[1, 0, 2, 3]), r"its perm \[1, 0, 2, 3\]"),
    (lambda c: c.add("Softmax", axis=2), r"\(Softmax\): it is taken over axis 2"),
    (lambda c: c.add("Add", np.ones((3, 1, 4, 4))), r"constant \(3, 1, 4, 4\) does not broadcast"),
    (lambda c: c.add("Add", np.ones((1, 5, 1, 1))), r"\(Add\): "),
    (lambda c: c.add("Mul", np.float32(np.nan)), "nan"),
    (lambda c: c.add("Add", "missing"), "its input 'missing' is neither in the file nor"),
    (lambda c: c.add("Cast", to=7), "rounds values to integers"),
    (lambda c: c.add("Dropout", np.float32(0.5), np.bool_(True)), "training mode"),
    (lambda c: c.add("BatchNormalization", *np.ones((4, 2)), training_mode=1), "training mode"),
    (lambda c: c.add("Div", before=[np.float32(1)]), r"\(Div\): its divisors do not come from the file"),
    (lambda c: c.add("Relu"), "no layer of products"),
]


@needs_onnx
@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_what_cannot_be_taken_is_named(build, message):
    chain = Chain((2, 4, 4))
    build(chain)
    chain.add("Flatten")
    with pytest.raises(BitstreamError, match=message) as caught:
        SCSequential.from_onnx(chain.model(), np.zeros((1, 2, 4, 4)))
    assert str(caught.value).startswith("the ONNX model: ")


@needs_onnx
def test_inputs_and_outputs_that_no_network_has():
    x = np.zeros((1, 3))
    for change, message in [
        (lambda g: g.input.append(helper.make_tensor_value_info("z", 1, ["n", 3])), r"has 2 inputs \('x', 'z'\)"),
        (lambda g: g.output.append(helper.make_tensor_value_info("x", 1, None)), "it has 2 outputs"),
        (lambda g: g.input[0].CopyFrom(helper.make_tensor_value_info("x", 8, ["n", 3])), "no tensor of real numbers"),
        (lambda g: g.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, [3])), "a first axis of samples"),
        (lambda g: g.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["n", 0])), "without any values"),
        (lambda g: g.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["n", "k", 3])), r"\(samples, \?, 3\)"),
    ]:
        chain = Chain((3,))
        chain.add("MatMul", np.ones((3, 2)))
        model = chain.model()
        change(model.graph)
        with pytest.raises(BitstreamError, match=message):
            SCSequential.from_onnx(model, x)
    chain.input.CopyFrom(helper.make_tensor_value_info("x", 1, ["n", "k"]))  # Calibration inputs tell the size.
    assert SCSequential.from_onnx(chain.model(), x).input_shape == (3,)


@needs_onnx
def test_what_models_say_of_their_outputs():
    x = np.random.default_rng(7).random((5, 3))

    def made(n, *kinds, **options):
        chain = Chain((3,))
        chain.add("MatMul", np.random.default_rng(8).normal(size=(3, n)))
        for kind in kinds:
            chain.add(kind, axis=1) if "max" in kind.lower() else chain.add(kind)
        return SCSequential.from_onnx(chain.model(), x, **options)

    for arguments, readout, layers in [
        ((2,), "classes", 1),
        ((2, "Softmax"), "classes", 1),
        ((2, "LogSoftmax"), "classes", 1),
        ((2, "Softmax", "ArgMax"), "classes", 1),
        ((2, "Sigmoid"), "labels", 1),
        ((1, "Sigmoid"), "classes", 1),
        ((1,), "values", 1),
        ((2, "Relu"), "classes", 2),
    ]:
        network = made(*arguments)
        assert (network.readout, len(network.layers)) == (readout, layers), arguments
    assert len(made(2, "Softmax", readout="values").layers) == 2
    assert made(1, classes=["no", "yes"]).predict(x, 64).tolist() <= ["yes"] * 5
    with pytest.raises(BitstreamError, match="gives logarithms, which are no values"):
        made(2, "LogSoftmax", readout="values")
    with pytest.raises(BitstreamError, match=r"\(Relu\): nothing but labels can come after"):
        made(2, "LogSoftmax", "Relu")
    with pytest.raises(BitstreamError, match="3 classes|outputs cannot tell classes"):
        made(2, classes=[1, 2, 3])


@needs_onnx
def test_what_comes_before_the_first_layer():
    """Images of bytes, sizes that are computed, and means and scales of channels."""
    chain = Chain((2, 4, 4), kind=TensorProto.UINT8)
    chain.add("Cast", to=1)
    chain.add("Div", np.float32(255))
    chain.add("Sub", np.array([0.4, 0.5]).reshape(2, 1, 1))
    chain.add("Shape")
    chain.add("Gather", np.array(0))
    chain.along("Unsqueeze", [0])
    chain.add("Concat", np.array([-1]), axis=0)
    sizes, chain.at = chain.at, "v2"
    chain.add("Reshape", sizes)
    weights = np.random.default_rng(9).normal(size=(32, 3))
    chain.add("MatMul", weights)
    x = np.random.default_rng(9).integers(0, 256, (50, 2, 4, 4), np.uint8)
    x[0, 0, 0, :2] = 0, 255
    network = SCSequential.from_onnx(chain.model(), x)
    assert [type(layer) for layer in network.layers] == [Flatten, Saturation, SCDense]
    assert network.layers[-1].input_scale == 255
    assert not network.layers[-1].signed
    np.testing.assert_allclose(network.exact(x.astype(float)), run(chain.model(), x), atol=1e-4)
    assert network.score(x, run(chain.model(), x).argmax(axis=1), 4096) > 0.9


@needs_onnx
def test_what_scikit_learns_converter_writes():
    """Nodes of ai.onnx.ml: scalers, linear models, and the labels behind them."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=(40, 3)).astype("f4")
    for kind in ("labels", "two", "three"):
        n = {"two": 1, "three": 3, "labels": 3}[kind]
        chain = Chain((3,))
        chain.add("Scaler", domain="ai.onnx.ml", offset=[0.1, 0.2, 0.3], scale=[1.0, 2.0, 0.5])
        chain.add("MatMul", rng.normal(size=(3, n)))
        chain.add("Sigmoid" if n == 1 or kind == "labels" else "Softmax")
        if n == 1:
            yes = chain.at
            chain.add("Sub", before=[np.float32(1)])
            chain.add("Concat", yes, axis=1)
        if kind == "labels":
            chain.add("Binarizer", domain="ai.onnx.ml", threshold=0.5)
        else:
            chain.add("ArgMax", axis=1)
            labels, chain.at = chain.at, chain.constant(np.array([5, 6, 7][: max(n, 2)]))
            chain.add("ArrayFeatureExtractor", labels, domain="ai.onnx.ml")
            chain.add("Reshape", np.array([-1]))
        chain.add("Cast", to=7)
        model = chain.model()
        model.graph.output[0].type.tensor_type.elem_type = 7
        network = SCSequential.from_onnx(model, x)
        np.testing.assert_array_equal(network.predict_float(x), run(model, x), err_msg=kind)
        assert network.readout == ("labels" if kind == "labels" else "classes")
    for coefficients, classes in ((rng.normal(size=9), [3, 4, 9]), (rng.normal(size=6), [3, 4])):
        if len(classes) == 2:
            coefficients[:3] = -coefficients[3:]
        chain = Chain((3,))
        linear = {"coefficients": coefficients.tolist(), "intercepts": [0.0] * len(classes)}
        chain.add("LinearClassifier", domain="ai.onnx.ml", outputs=2, classlabels_ints=classes, **linear)
        model = chain.model()
        model.graph.output[0].type.tensor_type.elem_type = 7
        network = SCSequential.from_onnx(model, x)
        np.testing.assert_array_equal(network.predict_float(x), run(model, x))
    chain = Chain((3,))
    chain.add("LinearRegressor", domain="ai.onnx.ml", coefficients=[1.0, 2.0, 3.0], intercepts=[4.0])
    network = SCSequential.from_onnx(chain.model(), x)
    np.testing.assert_allclose(network.predict_float(x), run(chain.model(), x)[:, 0], rtol=1e-5, atol=1e-5)


# Layers in binary


def test_layers_of_inputs_on_every_backend(backend):
    x = np.random.default_rng(11).normal(size=(4, 3, 2))
    affine, transpose = Affine([[0.3], [2.0], [-1.0]], 0.7), Transpose((1, 0))
    for layer, expected in [
        (affine, x * affine.scale + 0.7),
        (transpose, x.transpose(0, 2, 1)),
        (Saturation(-0.5, 0.25), x.clip(-0.5, 0.25)),
    ]:
        np.testing.assert_array_equal(backend.host(layer(backend.array(x), 64)), expected)
    assert (Saturation(-0.5, 0.25).exact(x) == x).all()
    for make, message in [
        (lambda: affine.output_shape((2, 2)), r"\(3, 1\) and a shift \(\) do not broadcast to samples \(2, 2\)"),
        (lambda: Affine([np.inf], 0), "inf"),
        (lambda: Transpose((1, 1)), r"not \(1, 1\)"),
        (lambda: transpose.output_shape((2,)), r"\(1, 0\) are not those of samples of shape \(2,\)"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            make()


# Estimators of scikit-learn


@pytest.fixture(scope="module")
def tables():
    """Real tables: of classes, of which there are three, and of values."""
    from sklearn.datasets import load_diabetes, load_wine

    return load_wine(return_X_y=True), load_diabetes(return_X_y=True)


def estimators():
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
    from sklearn.svm import LinearSVC

    def mlp(activation, kind=MLPClassifier, **options):
        return kind(hidden_layer_sizes=(6,), activation=activation, max_iter=60, random_state=0, **options)

    yield "three", make_pipeline(StandardScaler(), mlp("relu"))
    yield "two", make_pipeline("passthrough", RobustScaler(with_centering=False), mlp("tanh"))
    yield "text", make_pipeline(MinMaxScaler(), StandardScaler(with_std=False), mlp("logistic"))
    yield "labels", make_pipeline(MaxAbsScaler(), mlp("identity"))
    yield "two", LogisticRegression()
    yield "text", make_pipeline(StandardScaler(), make_pipeline(LogisticRegression()))
    yield "three", make_pipeline(StandardScaler(), LinearSVC())
    yield "values", make_pipeline(StandardScaler(), mlp("tanh", MLPRegressor, learning_rate_init=0.1))
    yield "pairs", make_pipeline(MinMaxScaler(clip=True), mlp("relu", MLPRegressor, learning_rate_init=0.1))
    yield "values", LinearRegression(fit_intercept=False)
    yield "pairs", make_pipeline(StandardScaler(), Ridge())


@pytest.mark.component("apps")
@pytest.mark.filterwarnings("ignore")
def test_estimators(tables):
    """In floating point the same predictions, of inputs beyond the calibration too, and nearly so by streams."""
    (x_wine, y_wine), (x_diabetes, y_diabetes) = tables
    right = {
        "three": y_wine,
        "two": y_wine == 1,
        "text": np.array(["a", "b", "c"])[y_wine],
        "labels": np.eye(3, dtype=int)[y_wine],
        "values": y_diabetes,
        "pairs": np.stack([y_diabetes, -2 * y_diabetes], axis=1),
    }
    for kind, estimator in estimators():
        x, y = (x_diabetes if kind in ("values", "pairs") else x_wine), right[kind]
        estimator.fit(x[::2], y[::2])
        network = SCSequential.from_sklearn(estimator, x[::2])
        expected = estimator.predict(x)
        assert_same = np.testing.assert_allclose if kind in ("values", "pairs") else np.testing.assert_array_equal
        assert_same(network.predict_float(x), expected, err_msg=f"{estimator}")
        score = network.score(x, y, 4096)
        assert score == pytest.approx(estimator.score(x, y), abs=0.03), estimator
        assert network.score(da.from_array(x, chunks=(50, 2)), da.from_array(y), 4096) == score
        assert network.score(x, network.predict(x, 64), 64) == 1
    with pytest.raises(BitstreamError, match=r"right values of \(442, 2\) predictions, not \(442,\)"):
        network.score(x, y_diabetes, 64)


@pytest.mark.component("apps")
def test_columns_of_different_units_keep_their_own_scales(tables):
    """In one scale the largest column leaves nothing of the others."""
    from sklearn.linear_model import LogisticRegression

    (x, y), _ = tables
    units = x.max(axis=0) / 1000 ** np.linspace(0, 1, 13)
    estimator = LogisticRegression(max_iter=2000).fit(x / x.max(axis=0), y)
    estimator.coef_ /= units / x.max(axis=0) * x.max(axis=0)
    network = SCSequential.from_sklearn(estimator, x / x.max(axis=0) * units)
    assert [type(layer) for layer in network.layers] == [Affine, Saturation, SCDense]
    assert network.score(x / x.max(axis=0) * units, y, 64) > 0.9


@pytest.mark.component("apps")
@pytest.mark.filterwarnings("ignore")
def test_estimators_that_are_not_taken(tables):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    (x, y), _ = tables
    one = MLPClassifier((2,), max_iter=2).fit(x, 0 * y)
    for estimator, message in [
        (SVC(), r"an estimator is one of MLPClassifier, .*, not SVC\(\)"),
        (3, "not 3"),
        (make_pipeline(PCA(2), LogisticRegression()).fit(x, y), r"is one of StandardScaler, .*, not PCA\(n_comp"),
        (make_pipeline(StandardScaler()).fit(x), r"an estimator is one of .*, not StandardScaler\(\)"),
        (make_pipeline("passthrough"), "a pipeline has a classifier or a regressor at its end"),
        (MLPClassifier(), r"MLPClassifier\(\) is not fitted: it has no coefs_"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "is not fitted: it has no scale_"),
        (one, r"two classes or more apart, but .* knows \[0\]"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            SCSequential.from_sklearn(estimator, x)
    with pytest.raises(BitstreamError, match=r"calibration inputs are \(samples, 13\), not \(178, 12\)"):
        SCSequential.from_sklearn(LogisticRegression(max_iter=5).fit(x, y), x[:, 1:])
