import io
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

import scdask as sc
from scdask import LFSR, SCMLP, Bernoulli, BitstreamError, SCDense, Sobol, VanDerCorput
from scdask.layers import Cycles, Reshape, Transpose, search_lengths
from scdask.vector_ops import products

CUT = Cycles(20)
PAIRS = [
    (Sobol(1), Sobol(2)),
    (Bernoulli(1), Bernoulli(2)),
    (LFSR(), LFSR(taps=(16, 5, 3, 2), seed=0x1D0F)),
    (VanDerCorput(), Sobol(2)),
]


@pytest.fixture
def data():
    rng = np.random.default_rng(7)
    return rng.random((9, 11)), rng.normal(size=(6, 11))


def by_hand(x, w, length, mode, x_sng, w_sng):
    """The product from unpacked bits, as the definition says."""
    scale = np.abs(w).max()
    if mode == "bipolar":
        xb, wb = (sc.encode(v, length, sng=g, polarity="bipolar").unpack() for v, g in ((x, x_sng), (w / scale, w_sng)))
        ones = (xb[:, None] == wb).sum(axis=(2, 3))
        return (2 * ones / length - x.shape[1]) * scale
    both = np.concatenate([np.maximum(w, 0), np.maximum(-w, 0)]) / scale
    xb, wb = sc.encode(x, length, sng=x_sng).unpack(), sc.encode(both, length, sng=w_sng).unpack()
    ones = (xb[:, None] & wb).sum(axis=(2, 3), dtype=np.int64)
    return (ones[:, : len(w)] - ones[:, len(w) :]) * scale / length


@pytest.mark.parametrize(("pair", "length"), [*((PAIRS[0], n) for n in (1, 64, 300)), *((p, 100) for p in PAIRS[1:])])
@pytest.mark.parametrize("mode", ["split", "bipolar"])
def test_matmul_counts_what_the_bits_say(data, mode, pair, length):
    x, w = data
    result = sc.matmul(x, w, length, mode=mode, x_sng=pair[0], w_sng=pair[1])
    np.testing.assert_allclose(result, by_hand(x, w, length, mode, *pair), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("pair", "length"), [(PAIRS[0], 64), (PAIRS[1], 100)])
@pytest.mark.parametrize("mode", ["split", "bipolar"])
def test_matmul_on_every_backend(backend, data, mode, pair, length):
    """With numbers that streams share and with those of their own; encoding is tested with every generator."""
    x, w = data
    expected = by_hand(x, w, length, mode, *pair)
    for right in (w, backend.array(w)):
        result = sc.matmul(backend.array(x), right, length, mode=mode, x_sng=pair[0], w_sng=pair[1])
        np.testing.assert_allclose(backend.host(result), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["split", "bipolar"])
def test_matmul_comes_closer_to_the_product(data, mode):
    x, w = data
    errors = [np.sqrt(np.mean((sc.matmul(x, w, n, mode=mode) - x @ w.T) ** 2)) for n in (64, 1024, 16384)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


@pytest.mark.parametrize("pair", PAIRS[:2], ids=repr)
@pytest.mark.parametrize("mode", ["split", "bipolar"])
def test_matmul_does_not_depend_on_chunks(data, mode, pair):
    x, w = data
    options = {"mode": mode, "x_sng": pair[0], "w_sng": pair[1]}
    expected = sc.matmul(x, w, 500, **options)
    for x_chunks, w_chunks in [((9, 11), (6, 11)), ((2, 3), (4, 5)), ((1, 11), (6, 11)), ((9, 4), (1, 1))]:
        lazy_x, lazy_w = da.from_array(x, chunks=x_chunks), da.from_array(w, chunks=w_chunks)
        for left, right in [(lazy_x, w), (x, lazy_w), (lazy_x, lazy_w)]:
            lazy = sc.matmul(left, right, 500, **options)
            assert isinstance(lazy, da.Array)
            np.testing.assert_allclose(lazy.compute(), expected, rtol=1e-13, atol=1e-13)


def test_matmul_in_pieces(data, monkeypatch):
    """Operands that do not fit at once: ranges of words, and tiles of rows."""
    x, w = data
    expected = sc.matmul(x, w, 5000, mode="bipolar"), sc.matmul(x, w, 5000)
    monkeypatch.setattr(products, "OPERAND_BYTES", 8 * 12 * 11 * 3)
    monkeypatch.setattr(products, "TILE_BYTES", 1)
    for left in (x, da.from_array(x, chunks=(4, 6))):
        for mode, value in zip(("bipolar", "split"), expected, strict=True):
            result = sc.matmul(left, w, 5000, mode=mode)
            np.testing.assert_allclose(np.asarray(result), value, rtol=1e-13, atol=1e-13)


def test_memory_of_a_layer_does_not_grow_with_its_products():
    import tracemalloc

    x, w = np.full((2000, 200), 0.5), np.full((50, 200), 0.5)
    sc.matmul(x[:4], w, 4096)
    tracemalloc.start()
    sc.matmul(x, w, 4096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    streams_of_x = x.size * 4096 / 8
    assert peak < streams_of_x / 2


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("x", "w"), [((0, 3), (2, 3)), ((4, 0), (2, 0)), ((4, 3), (0, 3))])
def test_empty_products(x, w, lazy):
    left = da.zeros(x) if lazy else np.zeros(x)
    for mode in ("split", "bipolar"):
        result = sc.matmul(left, np.ones(w), 100, mode=mode)
        assert result.shape == (x[0], w[0])
        np.testing.assert_array_equal(np.asarray(result), np.zeros((x[0], w[0])))


def test_weights_of_zero_and_integers():
    x = np.full((2, 3), 0.5)
    np.testing.assert_array_equal(sc.matmul(x, np.zeros((4, 3)), 100), np.zeros((2, 4)))
    np.testing.assert_array_equal(sc.matmul([[1, 0, 1]], [[2, 4, -1]], 64), [[1.0]])
    np.testing.assert_array_equal(sc.matmul(x.astype("f4"), np.eye(3, dtype="i2"), 64), x)


@pytest.mark.parametrize(
    ("x", "w", "length", "options", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), 8, {}, r"\(2, 4\) and \(2, 3\)"),
        (np.zeros(3), np.zeros((2, 3)), 8, {}, r"\(3,\)"),
        (np.full((2, 3), 1.5), np.ones((2, 3)), 8, {}, r"1\.5 at \(0, 0\)"),
        (np.full((2, 3), -0.5), np.ones((2, 3)), 8, {}, r"-0\.5 at \(0, 0\)"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), 8, {}, "there is nan"),
        (np.zeros((2, 3)), np.full((2, 3), np.inf), 8, {}, "there is inf"),
        (np.zeros((2, 3)), np.ones((2, 3)), 0, {}, "not 0"),
        (np.zeros((2, 3)), np.ones((2, 3)), 8, {"mode": "xor"}, "'xor'"),
        (np.zeros((2, 3), complex), np.ones((2, 3)), 8, {}, "complex"),
    ],
)
def test_matmul_refuses(x, w, length, options, message):
    with pytest.raises(BitstreamError, match=message):
        sc.matmul(x, w, length, **options)


def test_lazy_values_are_checked_in_their_chunks(data):
    x, w = data
    bad = x.copy()
    bad[8, 10] = 2
    with pytest.raises(BitstreamError, match=r"2\.0 at \(0, 1\).* in the chunk \[8:9, 9:11\]"):
        sc.matmul(da.from_array(bad, chunks=(4, 3)), w, 100).compute()
    broken = da.from_array(np.where(w == w.max(), np.nan, w), chunks=3)
    with pytest.raises(BitstreamError, match="nan"):
        sc.matmul(x, broken, 100).compute()


# layers


def test_a_dense_layer_scales_and_adds(data):
    x, w = data
    bias = np.arange(6.0)
    layer = SCDense(w, bias, input_scale=4.0)
    np.testing.assert_allclose(layer(4 * x, 512), 4 * sc.matmul(x, w, 512) + bias)
    np.testing.assert_allclose(layer(da.from_array(4 * x, chunks=3), 512).compute(), layer(4 * x, 512))
    with pytest.raises(BitstreamError, match="0 to 1"):
        layer(8 * np.ones((1, 11)), 512)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SCDense(np.ones(3), np.ones(3)), r"\(3,\)"),
        (lambda: SCDense(np.ones((2, 3)), np.ones(3)), r"\(2, 3\) and \(3,\)"),
        (lambda: SCDense(np.ones((2, 3)), np.ones(2), input_scale=0.0), "0.0"),
        (lambda: SCMLP(()), "at least one layer"),
        (lambda: SCMLP((SCDense(np.ones((2, 3)), np.ones(2)), SCDense(np.ones((2, 3)), np.ones(2)))), "2 neurons"),
        (lambda: SCMLP((SCDense(np.ones((3, 3)), np.ones(3)),), np.arange(2)), "3 outputs"),
        (lambda: SCMLP.from_arrays([np.ones((2, 3))], [], calibration=np.ones((1, 3))), "0 biases"),
    ],
)
def test_layers_refuse(make, message):
    with pytest.raises(BitstreamError, match=message):
        make()


@pytest.fixture
def mlp():
    rng = np.random.default_rng(8)
    weights = [rng.normal(size=(12, 5)), rng.normal(size=(3, 12))]
    return SCMLP.from_arrays(
        weights, [rng.normal(size=12), np.zeros(3)], calibration=rng.random((50, 5)), classes=["a", "b", "c"]
    )


def test_a_perceptron_follows_its_float_twin(mlp):
    x = np.random.default_rng(9).random((200, 5))
    exact = mlp.predict_float(x)
    assert set(exact) == {"a", "b", "c"}
    assert np.mean(mlp.predict(x, 4096) == exact) > 0.95
    lazy = mlp.predict(da.from_array(x, chunks=(50, 5)), 4096)
    assert isinstance(lazy, da.Array)
    assert lazy.dtype == exact.dtype
    np.testing.assert_array_equal(lazy.compute(), mlp.predict(x, 4096))


def test_a_perceptron_on_every_backend(backend, mlp):
    x = np.random.default_rng(9).random((20, 5))
    np.testing.assert_array_equal(backend.host(mlp.logits(backend.array(x), 256)), mlp.logits(x, 256))
    labels = mlp.predict(backend.array(x), 256)
    assert isinstance(labels, da.Array if backend.lazy else np.ndarray)
    np.testing.assert_array_equal(labels, mlp.predict(x, 256))


def test_a_prediction_does_not_depend_on_its_neighbours(mlp):
    x = np.random.default_rng(9).random((20, 5))
    together = mlp.logits(x, 256)
    np.testing.assert_array_equal(np.concatenate([mlp.logits(row[None], 256) for row in x]), together)


def test_hidden_outputs_beyond_the_calibration_saturate(mlp):
    small = SCMLP((mlp.layers[0], SCDense(mlp.layers[1].weights, mlp.layers[1].bias, input_scale=1e-3)), mlp.classes)
    assert np.isfinite(small.logits(np.ones((1, 5)), 64)).all()


def test_reprs_are_short(mlp):
    assert repr(mlp.layers[0]) == "SCDense(5 -> 12, split, x_sng=Sobol(dimension=1), w_sng=Sobol(dimension=2))"
    assert repr(mlp).startswith("SCMLP(SCDense(5 -> 12")


def test_one_output_tells_two_classes():
    mlp = SCMLP((SCDense(np.array([[1.0, -1.0]]), np.zeros(1)),), np.array(["no", "yes"]))
    assert mlp.predict(np.array([[1.0, 0.0], [0.0, 1.0]]), 64).tolist() == ["yes", "no"]


def test_a_model_is_saved_whole_or_not_at_all(mlp, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "m.npz"
    mlp.save("~/m")  # NumPy adds the suffix.
    path.chmod(0o640)
    (tmp_path / "link.npz").symlink_to(path)
    before = path.read_bytes()
    objects = replace(mlp, classes=np.array([*mlp.classes[1:], ("a", 1)], object))
    with pytest.raises(BitstreamError, match=r"classes that are numbers or text, not .*\('a', 1\)"):
        objects.save(path)

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            mlp.save(path)
    assert path.read_bytes() == before
    text = np.array([f"class {c}" for c in mlp.classes], object)
    replace(mlp, classes=text).save(tmp_path / "link.npz")
    assert SCMLP.load("~/m.npz").classes.tolist() == text.tolist()
    assert (tmp_path / "link.npz").is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.npz", "m.npz"]


def test_models_through_pipes(mlp, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for target, source in [(tmp_path / "pipe", tmp_path / "pipe"), (io.BytesIO(), None)]:
        with ThreadPoolExecutor(1) as pool:
            saved = pool.submit(mlp.save, target)
            if source is None:
                saved.result()
                source = io.BufferedReader(Unseekable(target.getvalue()))
            assert SCMLP.load(source).layers[1].input_scale == mlp.layers[1].input_scale
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


class Unseekable(io.BytesIO):
    def seekable(self):
        return False


def npy(shape):
    """The header of an array of 8-byte floats, without its data."""
    header = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def test_files_that_are_corrupt_or_hostile(mlp, tmp_path):
    path = tmp_path / "m.npz"

    def refused(message=None):
        with pytest.raises(BitstreamError, match=message) as caught:
            SCMLP.load(path)
        assert str(path) in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 800

    whole = io.BytesIO()
    np.savez_compressed(whole, weights_0=np.random.default_rng(0).normal(size=(8, 16)), bias_0=np.zeros(8))
    rng = np.random.default_rng(1)
    for _ in range(100):
        broken = bytearray(whole.getvalue())
        broken[rng.integers(0, len(broken), 3)[0]] ^= 0x5A
        path.write_bytes(broken[: rng.integers(1, len(broken))] if rng.random() < 0.2 else broken)
        with suppress(BitstreamError):  # Some bytes do not matter.
            SCMLP.load(path)
    for name, contents in {
        "weights_0.npy": npy((2**45, 2)),
        "weights_0.npy ": npy((10**30,)),
        "weights_0": b"no array",
        "\x1b]0;title\x07.npy": npy((0,)),
    }.items():
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name.strip(" "), contents)
        refused()
    one = {"weights_0": np.ones((2, 2)), "bias_0": np.zeros(2)}
    for change, message in [
        ({"weights_0": np.ones((2, 2), object)}, "Object arrays"),
        ({"weights_0": np.ones((2, 2), "V8")}, "real numbers"),
        ({"bias_0": np.zeros(2, "M8[s]")}, "real numbers"),
        ({"classes": np.zeros((2, 2))}, "classes of shape"),
        ({"input_scales": np.array(["x"])}, "real numbers"),
        ({f"{i}\x1b[2J": np.zeros(1) for i in range(1000)} | {"weights_1": np.ones(1)}, "no array bias_1"),
    ]:
        np.savez(path, **one | change)
        refused(message)
    for contents in (b"", b"\x1b[2J", pickle.dumps(one), whole.getvalue()[:200]):
        path.write_bytes(contents)
        refused("is not an npz file")
    np.save(tmp_path / "m.npy", np.ones(2))
    path.write_bytes((tmp_path / "m.npy").read_bytes())
    refused("one array without a name")
    for no_file in (tmp_path, None, 7, io.StringIO("x")):
        with pytest.raises(BitstreamError, match="is not an npz file"):
            SCMLP.load(no_file)
    with pytest.raises(FileNotFoundError):
        SCMLP.load(tmp_path / "none.npz")


def test_npz_round_trip(mlp, tmp_path):
    mlp.save(tmp_path / "m.npz")
    same = SCMLP.load(tmp_path / "m.npz")
    x = np.random.default_rng(9).random((20, 5))
    np.testing.assert_array_equal(same.logits(x, 256), mlp.logits(x, 256))
    assert same.classes.tolist() == ["a", "b", "c"]


def test_a_file_without_scales_is_calibrated(mlp, tmp_path):
    arrays = {f"weights_{i}": layer.weights for i, layer in enumerate(mlp.layers)}
    arrays |= {f"bias_{i}": layer.bias for i, layer in enumerate(mlp.layers)}
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(BitstreamError, match="no input_scales"):
        SCMLP.load(tmp_path / "m.npz")
    loaded = SCMLP.load(tmp_path / "m.npz", np.ones((1, 5)))
    assert loaded.layers[1].input_scale > 0
    assert loaded.classes.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "weights_0"),
        ({"weights_0": np.ones((2, 3))}, "bias_0"),
        ({"weights_0": np.ones((2, 3)), "bias_0": np.ones(2), "input_scales": np.ones(2)}, r"\(2,\)"),
        ({"weights_0": np.ones((2, 3)), "bias_0": np.ones(2), "input_scales": np.array(["a"])}, "real numbers"),
        ({"weights_0": np.array([{}]), "bias_0": np.ones(2)}, "plain arrays"),
    ],
)
def test_bad_model_files(tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(BitstreamError, match=message):
        SCMLP.load(tmp_path / "m.npz")
    (tmp_path / "m.npz").write_bytes(b"nonsense")
    with pytest.raises(BitstreamError, match="npz"):
        SCMLP.load(tmp_path / "m.npz")


@pytest.mark.component("apps")
def test_a_fitted_classifier():
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(10)
    x = rng.random((200, 4))
    y = np.where(x.sum(axis=1) > 2, "big", "small")
    classifier = MLPClassifier((8,), max_iter=2000, learning_rate_init=0.02, random_state=0).fit(x, y)
    mlp = SCMLP.from_sklearn(classifier, x)
    np.testing.assert_array_equal(mlp.predict_float(x), classifier.predict(x))
    assert np.mean(mlp.predict(x, 4096) == classifier.predict(x)) > 0.97
    with pytest.raises(BitstreamError, match="has no coefs_"):
        SCMLP.from_sklearn(MLPClassifier((8,)), x)
    classifier.activation = "tanh"
    with pytest.raises(BitstreamError, match="'tanh'"):
        SCMLP.from_sklearn(classifier, x)


@pytest.mark.component("apps")
@pytest.mark.filterwarnings("ignore")
def test_classifiers_that_are_no_perceptron_of_classes():
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x, labels = np.random.default_rng(10).random((60, 4)), np.arange(60) % 3
    small = {"hidden_layer_sizes": (4,), "max_iter": 5}
    several = (np.arange(60)[:, None] >> np.arange(3) & 1, np.eye(3, dtype=int)[labels])
    for y in several:
        with pytest.raises(BitstreamError, match=r"each of the classifier's 3 outputs is a label of its own"):
            SCMLP.from_sklearn(MLPClassifier(**small).fit(x, y), x)
    with pytest.raises(BitstreamError, match="tells two classes or more apart, but the classifier knows 0"):
        SCMLP.from_sklearn(MLPClassifier(**small).fit(x, 0 * labels), x)
    with pytest.raises(BitstreamError, match="has no classes_"):
        SCMLP.from_sklearn(MLPRegressor(**small).fit(x, labels), x)
    for classifier, y in (
        (MLPClassifier(**small), labels),
        (MLPClassifier(**small), labels == 1),
        (MLPClassifier((), activation="tanh", max_iter=5), labels),
    ):
        classifier.fit(x, y)
        np.testing.assert_array_equal(SCMLP.from_sklearn(classifier, x).predict_float(x), classifier.predict(x))


class Sparse:
    """What has a dtype and a shape, and is no array."""

    dtype, shape = np.dtype(float), (4, 5)

    def toarray(self):
        return np.ones((4, 5))


def test_inputs_of_a_perceptron(mlp, tmp_path):
    x = np.random.default_rng(9).random((10, 5))
    lazy = da.from_array(x, chunks=(4, 2))
    float_labels = mlp.predict_float(lazy)
    assert float_labels.dtype == mlp.classes.dtype
    np.testing.assert_array_equal(float_labels.compute(), mlp.predict_float(x))
    weights, biases = [layer.weights for layer in mlp.layers], [layer.bias for layer in mlp.layers]
    scales = [
        [layer.input_scale for layer in SCMLP.from_arrays(weights, biases, calibration=given).layers]
        for given in (x, lazy, column(x))
    ]
    assert scales[0] == scales[1] == scales[2]
    for call in (mlp.predict, lambda x, length: mlp.predict_float(x)):
        with pytest.raises(BitstreamError, match=r"the network takes x \(samples, 5\), not \(10, 4\)"):
            call(x[:, :4] + 9, 64)
        with pytest.raises(sc.UnsupportedArrayError, match=r"x: .*Sparse, .*; its \.toarray\(\) is one"):
            call(Sparse(), 64)
    with pytest.raises(sc.UnsupportedArrayError, match="calibration: scdask has no kernels for"):
        SCMLP.from_arrays(weights, biases, calibration=Sparse())
    with pytest.raises(BitstreamError, match=r"calibration inputs are \(samples, 5\), not \(10, 4\)"):
        SCMLP.from_arrays(weights, biases, calibration=x[:, :4] + 9)
    mlp.save(tmp_path / "m.npz")
    with pytest.raises(BitstreamError, match=r"m\.npz takes x \(samples, 5\), not \(10, 4\)"):
        SCMLP.load(tmp_path / "m.npz", x[:, :4])


def column(values):
    """A stand-in for a column of pandas, which is no NumPy array but makes one."""

    class Series:
        dtype, shape = np.asarray(values).dtype, np.shape(values)

        def __array__(self, *args, **kwargs):
            return np.asarray(values)

    Series.__module__ = "pandas.core.series"
    return Series()


def test_columns_of_a_table_are_numpy_arrays():
    p = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(sc.encode(column(p), 64, sng=Sobol(1)).words, sc.encode(p, 64, sng=Sobol(1)).words)
    np.testing.assert_array_equal(sc.vector_ops.pack_bitstream(column([0, 1, 1])), [6])
    with pytest.raises(BitstreamError, match="values to encode: streams encode real numbers, not object"):
        sc.encode(column(np.array([None])), 64)


@pytest.mark.parametrize("lazy", [False, True])
def test_small_floats_past_the_range_of_a_layer(mlp, lazy):
    x = np.ones((4, 5), np.float32)
    past = np.nextafter(x, np.float32(2))
    given = da.from_array(past, chunks=2) if lazy else past
    np.testing.assert_array_equal(np.asarray(mlp.logits(given, 64)), mlp.logits(x, 64))


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("mode", ["split", "bipolar"])
def test_operands_of_any_real_type(mode, lazy):
    rng = np.random.default_rng(11)
    x, w = rng.integers(0, 2, (5, 7)), rng.integers(-128, 128, (3, 7), dtype=np.int8)
    w[0, 0] = -128
    expected = sc.matmul(x.astype(float), w.astype(float), 2048, mode=mode)
    for dtype in ("?", "f2", "f4", "g", "u1"):
        left = da.from_array(x.astype(dtype), chunks=3) if lazy else x.astype(dtype)
        result = sc.matmul(left, w, 2048, mode=mode)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(np.asarray(result), expected)
    tiny = sc.matmul(x, (w / 1e5).astype("f2"), 2**15, mode=mode)
    np.testing.assert_allclose(tiny, x @ (w / 1e5).astype("f2").astype(float).T, atol=3e-5)
    booleans = sc.matmul(x, w > 0, 64, mode=mode)
    np.testing.assert_array_equal(booleans, sc.matmul(x, (w > 0).astype(float), 64, mode=mode))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_lengths_of_any_integer_type(data, kind):
    x, w = data
    for pair in PAIRS[:2]:
        options = {"x_sng": pair[0], "w_sng": pair[1]}
        expected = sc.matmul(x, w, 200, **options)
        np.testing.assert_array_equal(sc.matmul(x, w, kind(200), **options), expected)
        np.testing.assert_array_equal(sc.matmul(da.from_array(x, chunks=4), w, kind(200), **options), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, w: sc.matmul(x, w, 64, x_sng=3), "not 3"),
        (lambda x, w: sc.matmul(da.from_array(x), w, 64, w_sng=Sobol), "class"),
        (lambda x, w: sc.matmul(x, w, 2**60), "4294967296"),
        (lambda x, w: sc.matmul(x, np.ma.array(w, mask=True), 64), "MaskedArray"),
        (lambda x, w: sc.matmul([[1], [1, 2]], w, 64), "rectangular"),
        (lambda x, w: sc.matmul([np.ma.array(x[0])], w, 64), "MaskedArray"),
        (lambda x, w: sc.matmul(x, w, 2**50, x_sng=Bernoulli(), w_sng=Bernoulli(1)), "steps"),
        (lambda x, w: sc.matmul(x, da.from_array(np.where(w > 1, np.inf, w)), 64).compute(), "there is inf"),
        (lambda x, w: SCDense(w, np.full(6, np.nan)), "there is nan"),
        (lambda x, w: SCDense(w + 1j, np.ones(6)), "complex"),
        (lambda x, w: SCDense(np.ma.array(w), np.ones(6)), "MaskedArray"),
        (lambda x, w: SCDense(da.from_array(w), np.ones(6)), "dask"),
        (lambda x, w: SCDense(w, np.ones(6), mode="x"), "'x'"),
        (lambda x, w: SCDense(w, np.ones(6), x_sng=1), "not 1"),
        (lambda x, w: SCDense(w, np.ones(6), input_scale="1"), "'1'"),
        (lambda x, w: SCDense(w, np.ones(6))(1j * x, 64), "complex"),
        (lambda x, w: SCMLP((1,)), "SCDense"),
        (lambda x, w: SCMLP(SCDense(w, np.ones(6))), "at least one layer"),
        (lambda x, w: SCMLP([SCDense(w, np.ones(6))], np.ones((6, 1))), r"\(6, 1\)"),
        (lambda x, w: SCMLP([SCDense(w[:0], np.ones(0))]), "0 outputs"),
        (lambda x, w: SCMLP([SCDense(w, np.ones(6))]).with_generators([]), "0 pairs"),
        (lambda x, w: SCMLP.from_arrays([w], [np.ones(6)], calibration=np.ones((2, 3))), r"\(2, 3\)"),
    ],
)
def test_what_cannot_work_is_refused_at_once(data, make, message):
    with pytest.raises(sc.ScdaskError, match=message):
        make(*data)


def test_html():
    layer = SCDense(np.ones((3, 5)), np.zeros(3), x_sng=Sobol(3))
    for text in ("SCDense", "Sobol(dimension=3)", "split", "144 bytes"):
        assert text in layer._repr_html_()
    model = SCMLP((layer, SCDense(np.ones((2, 3)), np.zeros(2), input_scale=2.5)), np.array(["<a>", "b"]))
    html = model._repr_html_()
    for text in ("2.5", "2 classes", "&lt;a&gt;", "Sobol(dimension=3)"):
        assert text in html
    assert "<a>" not in html
    assert html.count("<tr>") == 3


class Halved(sc.layers.Layer):
    """A layer of one's own, which encodes nothing."""

    def output_shape(self, shape):
        return shape

    def exact(self, x):
        return x / 2

    def facts(self):
        return {"Kind": "halved"}


def test_a_network_is_any_layers_in_a_row(mlp, backend):
    first, second = mlp.layers
    network = sc.SCSequential((first, Halved(), second), mlp.classes)
    rng = np.random.default_rng(0)
    x = rng.random((20, 5))
    result = backend.host(network.logits(backend.array(x), 256))
    hidden = np.maximum(first(x, 256), 0) / 2
    np.testing.assert_allclose(result, second(hidden.clip(0, second.input_scale), 256), rtol=1e-15)
    assert network.products == mlp.products == first.weights.size + second.weights.size
    other = network.with_generators([(Bernoulli(1), Bernoulli(2))] * 2)
    assert [layer.x_sng for layer in other.encoding_layers] == [Bernoulli(1)] * 2
    assert other.layers[1] is network.layers[1]
    bipolar = other.with_generators(None, "bipolar")
    assert [(layer.x_sng, layer.mode) for layer in bipolar.encoding_layers] == [(Bernoulli(1), "bipolar")] * 2
    assert network.predict_float(x).shape == network.predict(x, 64).shape == (20,)
    assert "halved" in network._repr_html_()
    assert repr(network).startswith("SCSequential(SCDense(")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "at least one layer"),
        ((1,), "unlike 1"),
        ((Halved(),), "given its input_shape"),
    ],
)
def test_networks_that_are_none(layers, message):
    with pytest.raises(BitstreamError, match=message):
        sc.SCSequential(layers)


class Narrowed(Halved):
    def exact(self, x):
        return x[:, :1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda n, x, size=size: n.logits(x, size), "integer of at least 1, not")
            for size in (1.5, 0, "64", (64, 0))
        ),
        (lambda n, x: n.predict(x, lengths="64", stop=CUT), "not '64'"),
        (lambda n, x: n.logits(x, lengths={64, 32}), "not {"),
        (lambda n, x: n.score(x, np.full((2, 2), "a"), 64), "not <U1"),
        (lambda n, x: replace(n, input_shape=4), "not 4"),
        (lambda n, x: replace(n, layers=(Halved(), *n.layers), input_shape=(-4,)), r"not \(-4,\)"),
        (lambda n, x: replace(n, layers=(Narrowed(), *n.layers), input_shape=(4,)).logits(x, 64), r"\(2, 4\)"),
        (
            lambda n, x: replace(n, layers=(Narrowed(), *n.layers), input_shape=(4,)).logits(da.array(x), 64).compute(),
            "4",
        ),
        (lambda n, x: replace(n.layers[0], signed="no"), "signed"),
        (lambda n, x: Reshape(4), "not 4"),
        (lambda n, x: Transpose(1), "not 1"),
        (lambda n, x: search_lengths(replace(n, readout="classes"), x, [0, 1], np.nan), "not nan"),
    ],
)
def test_what_a_network_does_not_take(call, message):
    layers = [SCDense(np.ones((3, 4)), np.zeros(3)), SCDense(np.ones((2, 3)), np.zeros(2))]
    with pytest.raises(BitstreamError, match=message):
        call(sc.SCSequential(layers, readout="values"), np.full((2, 4), 0.5))


@pytest.mark.parametrize("chunks", [(2, 3), (0, 1, 4), (5, 0)])
@pytest.mark.parametrize("readout", ["classes", "labels", "values"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_all_that_is_read_out_in_any_chunks(outputs, readout, chunks):
    rng = np.random.default_rng(3)
    network = sc.SCSequential([SCDense(rng.normal(size=(outputs, 4)), np.zeros(outputs))], readout=readout)
    x = rng.random((5, 4))
    lazy = da.from_array(x, chunks=(chunks, (1, 3)))
    for run in (network.predict_float, lambda x: network.predict(x, 64), lambda x: network.predict(x, 64, stop=CUT)[0]):
        found, expected = run(lazy), run(x)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found.compute(), expected, rtol=1e-12)  # BLAS rounds as many rows ask
