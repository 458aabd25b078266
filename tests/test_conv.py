import re
import tracemalloc
from collections import Counter
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import Alias
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

import scdask as sc
from scdask import Bernoulli, BitstreamError, SCConv2d, SCSequential, Sobol
from scdask.jit_kernels.conv import windows_of
from scdask.layers import AvgPool2d, Clip, Flatten, MaxPool2d, ReLU, SCDense, Softmax, Tanh
from scdask.vector_ops import products
from scdask.vector_ops.conv import Window, window_counts

SOBOL, BERNOULLI = (Sobol(1), Sobol(2)), (Bernoulli(1), Bernoulli(2))


def by_hand(layer, x, length):
    """A convolution from unpacked bits, a window after the other."""
    polarity = "bipolar" if layer.mode == "bipolar" else "unipolar"

    def bits(values, sng):
        return sc.encode(values, length, sng=sng, polarity=polarity).unpack().astype(np.int64)

    top, left, bottom, right = layer.padding
    padded = np.pad(x / layer.input_scale, ((0, 0), (0, 0), (top, bottom), (left, right)))
    images = np.moveaxis(padded, 1, -1)
    scale = np.abs(layer.weights).max()
    filters = np.moveaxis(layer.weights / scale, 1, -1)
    of_groups = filters.reshape(layer.groups, -1, *filters.shape[1:])
    if layer.mode == "bipolar":
        x_bits, w_bits = [bits(images, layer.x_sng)], [bits(of_groups, layer.w_sng)]
    else:
        both = np.concatenate([of_groups.clip(0), (-of_groups).clip(0)], axis=1)
        w_bits = np.split(bits(both, layer.w_sng), 2, axis=1)
        signs = np.stack([images.clip(0), (-images).clip(0)], axis=1) if layer.signed else images[:, None]
        x_bits = np.moveaxis(bits(signs, layer.x_sng), 1, 0)
    outputs = np.zeros((len(x), *layer.output_shape(x.shape[1:])))
    channels, rows, columns = layer.weights.shape[1:]
    for n, i, j in np.ndindex(outputs.shape[1:]):
        group, neuron = divmod(n, len(filters) // layer.groups)
        across = slice(group * channels, (group + 1) * channels)
        for (u, xs), (v, ws) in product(enumerate(x_bits), enumerate(w_bits)):
            for a, b in np.ndindex(rows, columns):
                pixels = xs[:, layer.stride[0] * i + layer.dilation[0] * a, layer.stride[1] * j + layer.dilation[1] * b]
                pixels, weights = pixels[:, across], ws[group, neuron, a, b]
                ones = (pixels == weights) if layer.mode == "bipolar" else pixels & weights
                outputs[:, n, i, j] += (-1) ** (u + v) * ones.sum(axis=(1, 2))
    if layer.mode == "bipolar":
        outputs = 2 * outputs - channels * rows * columns * length
    return outputs * scale / length * layer.input_scale + layer.bias[:, None, None]


@st.composite
def layers(draw):
    """Any convolution and images that it takes."""
    groups, channels, neurons = (draw(st.integers(1, 2)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (3, 2, 2))
    padding = draw(st.sampled_from([0, 1, (1, 2), (0, 2, 1, 0), (3, 0, 0, 1)]))
    signed = draw(st.booleans())
    x_sng, w_sng = draw(st.sampled_from([SOBOL, BERNOULLI]))
    layer = SCConv2d(
        rng.normal(size=(groups * neurons, channels, *kernel)),
        rng.normal(size=groups * neurons),
        input_scale=draw(st.sampled_from([1.0, 2.5])),
        mode=draw(st.sampled_from(["split", "bipolar"])),
        x_sng=x_sng,
        w_sng=w_sng,
        signed=signed,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    shape = (draw(st.integers(1, 3)), groups * channels, draw(st.integers(5, 7)), draw(st.integers(5, 6)))
    return layer, (rng.random(shape) - signed / 2) * layer.input_scale


@settings(max_examples=20)
@given(layers(), st.sampled_from([1, 64, 130]))
def test_a_convolution_counts_what_the_bits_say(case, length):
    layer, x = case
    np.testing.assert_allclose(layer(x, length), by_hand(layer, x, length), rtol=1e-12, atol=1e-12)


@settings(max_examples=25)
@given(layers(), st.sampled_from([64, 130]), st.tuples(*[st.integers(1, 7)] * 4), st.sampled_from([2**25, 900]))
def test_a_convolution_does_not_depend_on_chunks_or_tiles(case, length, chunks, tile):
    layer, x = case
    expected = layer(x, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "TILE_BYTES", tile)
        np.testing.assert_array_equal(layer(x, length), expected)
        np.testing.assert_array_equal(layer(x[1:], length, start=1), expected[1:])
        lazy = layer(da.from_array(x, chunks=chunks), length)
        assert lazy.shape == expected.shape
        np.testing.assert_array_equal(lazy.compute(scheduler="sync"), expected)


def test_words_of_a_convolution_in_ranges(monkeypatch):
    """What does not fit at once of the weights is encoded a range of words at a time."""
    rng = np.random.default_rng(0)
    layer, x = SCConv2d(rng.normal(size=(3, 2, 2, 2)), np.zeros(3), mode="bipolar"), rng.random((2, 2, 4, 4))
    expected = layer(x, 300)
    monkeypatch.setattr(products, "OPERAND_BYTES", 24 * 8 * 2)
    np.testing.assert_array_equal(layer(x, 300), expected)
    np.testing.assert_array_equal(layer(da.from_array(x, chunks=(1, 2, 2, 4)), 300).compute(), expected)


def test_a_convolution_on_every_backend(backend):
    rng = np.random.default_rng(1)
    x = rng.random((2, 2, 4, 4)) - 0.5
    layer = SCConv2d(rng.normal(size=(4, 1, 2, 1)), rng.normal(size=4), padding=(1, 0), groups=2, signed=True)
    result = backend.host(layer(backend.array(x), 100))
    np.testing.assert_array_equal(result, layer(x, 100))


@pytest.mark.component("jax")
def test_a_convolution_is_compiled_by_jax():
    import jax

    from scdask.jax_backend import to_jax

    rng = np.random.default_rng(1)
    layer = SCConv2d(rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3), stride=2)
    x = rng.random((2, 2, 4, 4))
    counts = jax.jit(lambda x: layer.counts(x, layer.streams(70)))(to_jax(x))
    np.testing.assert_array_equal(counts, layer.counts(x, layer.streams(70)))


@settings(max_examples=30)
@given(
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 2)] * 4),
    st.integers(1, 3),
    st.sampled_from([1, 3, 9]),
    st.integers(1, 3),
    st.sampled_from([1, 20]),
    st.sampled_from(["and", "xnor"]),
    st.sampled_from(["C", "F", "strided", "unaligned"]),
)
def test_windows_that_the_kernel_gathers(kernel, steps, groups, channels, n_words, neurons, gate, layout):
    """Few and many rows take two ways through the MAC, and runs of words may be short or long, or none."""
    rng = np.random.default_rng(0)
    window = Window(kernel, steps[:2], dilation=steps[2:], groups=groups)
    shape = (3, 5, 8, groups * channels, n_words)
    images = rng.integers(0, 2**64, shape, dtype=np.uint64)
    weights = rng.integers(0, 2**64, (groups * neurons, *kernel, channels, n_words), dtype=np.uint64)
    expected = window_counts.__wrapped__(weights, images, gate, window)
    if layout == "F":
        images, weights = np.asfortranarray(images), np.asfortranarray(weights)
    elif layout == "strided":
        images, weights = (np.repeat(a, 2, axis=-1)[..., ::2] for a in (images, weights))
    elif layout == "unaligned":
        images = np.frombuffer(b"x" + images.tobytes(), images.dtype, offset=1).reshape(shape)
    images.flags.writeable = False
    np.testing.assert_array_equal(window_counts(weights, images, gate, window), expected)
    some = windows_of(np.ascontiguousarray(images), window)[..., 0, 0]
    taps = np.stack(list(window.taps(images[..., 0, 0])), axis=-1)
    np.testing.assert_array_equal(some.reshape(taps.shape), taps)


def test_exact_is_the_cross_correlation():
    rng = np.random.default_rng(2)
    w, x = rng.normal(size=(4, 2, 3, 2)), rng.random((3, 4, 7, 8))
    layer = SCConv2d(w, rng.normal(size=4), stride=(2, 1), padding=(1, 0, 2, 3), dilation=(1, 2), groups=2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 3)))
    wide = np.zeros((4, 2, 3, 3))
    wide[..., ::2] = w
    expected = [
        [sum(correlate2d(image[n // 2 * 2 + c], wide[n, c], "valid")[::2] for c in range(2)) for n in range(4)]
        for image in padded
    ]
    np.testing.assert_allclose(layer.exact(x), np.array(expected) + layer.bias[:, None, None], rtol=1e-12)
    errors = [np.sqrt(np.mean((layer(x, n) - layer.exact(x)) ** 2)) for n in (64, 1024)]
    assert errors[0] > 4 * errors[1]


def pooled_by_hand(layer, x):
    top, left, bottom, right = layer.padding
    fill = -np.inf if isinstance(layer, MaxPool2d) else np.nan
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    outputs = np.empty((len(x), *layer.output_shape(x.shape[1:])))
    for b, c, i, j in np.ndindex(outputs.shape):
        at = [slice(s * k, s * k + n) for s, k, n in zip(layer.stride, (i, j), layer.kernel, strict=True)]
        seen = padded[b, c, at[0], at[1]]
        if isinstance(layer, MaxPool2d):
            outputs[b, c, i, j] = seen.max()
        else:
            outputs[b, c, i, j] = np.nansum(seen) / (seen.size if layer.count_padding else (~np.isnan(seen)).sum())
    return outputs


@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d, lambda *args: AvgPool2d(*args, count_padding=False)])
@pytest.mark.parametrize("where", [(2,), ((3, 2), (2, 1), (1, 0, 0, 1))])
def test_pooling(backend, kind, where):
    layer, x = kind(*where), np.random.default_rng(3).normal(size=(2, 2, 7, 8))
    result = backend.host(layer(backend.array(x), 64))
    np.testing.assert_allclose(result, pooled_by_hand(layer, x), rtol=1e-12)
    np.testing.assert_array_equal(result, layer.exact(x))


@settings(max_examples=12)
@given(st.tuples(*[st.integers(1, 3)] * 4), st.tuples(*[st.integers(1, 8)] * 4))
def test_pooling_does_not_depend_on_chunks(sizes, chunks):
    x = np.random.default_rng(4).normal(size=(2, 3, 8, 7))
    padding = [n // 2 for n in sizes[:2]]
    for layer in (MaxPool2d(sizes[:2], sizes[2:], padding), AvgPool2d(sizes[:2], sizes[2:], padding, False)):
        lazy = layer(da.from_array(x, chunks=chunks), 64)
        np.testing.assert_array_equal(lazy.compute(scheduler="sync"), layer.exact(x))


def rows_of_windows(height, chunks, **window):
    return Window(**window).bands(da.core.normalize_chunks(chunks, (height,))[0], 9)


def test_images_stay_cut_into_rows():
    """Windows belong to the rows that have their centres, so that a convolution that keeps the size keeps chunks."""
    x = da.zeros((4, 2, 12, 9), chunks=(2, 2, 4, 9))
    layer = SCConv2d(np.ones((3, 2, 3, 3)), np.zeros(3), padding=1)
    assert layer(x, 64).chunks == ((2, 2), (3,), (4, 4, 4), (9,))
    assert MaxPool2d(2)(x, 64).chunks == ((2, 2), (2,), (2, 2, 2), (4,))
    for activation in (ReLU(), Tanh(), Clip(0, 1)):
        assert activation(x, 64).chunks == x.chunks
    assert Softmax()(x, 64).chunks == ((2, 2), (2,), (12,), (9,))
    assert rows_of_windows(12, 4, kernel=(1, 1), stride=(5, 1)) == [range(1), range(1, 2), range(2, 3)]
    assert rows_of_windows(12, 3, kernel=(11, 1)) == [range(1), range(1, 2)]


def tasks_of(lazy):
    """How many of our tasks of each kind there are in a graph as it is run."""
    (optimized,) = dask.optimize(lazy)
    tasks = dict(optimized.__dask_graph__())
    names = [re.search("sc-[a-z]+", str(key)) for key, task in tasks.items() if not isinstance(task, Alias)]
    return Counter(name.group() for name in names if name)


def test_a_task_convolves_a_chunk():
    """A network is a task for each chunk of samples; a convolution too, with one that encodes its weights."""
    x = da.zeros((6, 1, 8, 8), chunks=(2, 1, 8, 8))
    rng = np.random.default_rng(5)
    layers = [SCConv2d(rng.normal(size=(2, 1, 3, 3)), np.zeros(2)), MaxPool2d(2), Tanh(), Flatten()]
    network = SCSequential([*layers, SCDense(rng.normal(size=(3, 18)), np.zeros(3))], input_shape=(1, 8, 8))
    assert tasks_of(network.logits(x, 64)) == {"sc-samples": 3}
    assert tasks_of(layers[0].counts(x, layers[0].streams(64))) == {"sc-conv": 3, "sc-encode": 1}
    cut = x.rechunk({2: 3, 1: 1, 3: 4})
    np.testing.assert_array_equal(network.logits(cut, 64).compute(), network.logits(x, 64).compute())


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError

    x = da.zeros((2, 1, 8, 8), chunks=(1, 1, 4, 8)).map_blocks(fail, dtype=float, meta=np.empty((0,) * 4))
    lazy = MaxPool2d(2)(Tanh()(SCConv2d(np.ones((2, 1, 3, 3)), np.zeros(2))(x, 64), 64), 64)
    assert isinstance(lazy, da.Array)
    assert lazy.shape == (2, 2, 3, 3)


def test_no_images():
    layer, x = SCConv2d(np.ones((2, 1, 3, 3)), np.zeros(2), signed=True), np.zeros((0, 1, 8, 8))
    for values in (x, da.from_array(x)):
        result = MaxPool2d(2)(layer(values, 64), 64)
        assert np.asarray(result).shape == (0, 2, 3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer, x: layer(x[:, :1], 64), r"images \(2, height, width\)"),
        (lambda layer, x: layer(x[0], 64), r"of shape \(5, 6\)"),
        (lambda layer, x: layer(x[..., :2], 64), r"span \(3, 3\) pixels do not fit in images of \(5, 2\)"),
        (lambda layer, x: MaxPool2d(6)(x, 64), r"span \(6, 6\)"),
        (lambda layer, x: AvgPool2d(2, padding=2, count_padding=False)(x, 64), "may see no pixel"),
        (lambda layer, x: layer(x + 1, 64), r"1\.5"),
        (lambda layer, x: layer(x, 0), "length"),
        (
            lambda layer, x: layer(da.from_array(x + 1, chunks=(1, 2, 3, 6)), 64).compute(),
            r"in the chunk \[0:1, 0:2, [02]:[45], 0:6\]",
        ),
        (lambda layer, x: layer(da.from_array(x)[da.from_array(np.array([True]))], 64), "compute_chunk_sizes"),
        (lambda layer, x: layer(cut_short(x), 64).compute(), r"\(1, 2, 4, 6\).*\(1, 2, 5, 6\)"),
    ],
)
def test_images_that_a_convolution_does_not_take(call, message):
    with pytest.raises(BitstreamError, match=message):
        call(SCConv2d(np.ones((2, 2, 3, 3)), np.zeros(2)), np.full((1, 2, 5, 6), 0.5))


def cut_short(x):
    return da.from_array(x).map_blocks(lambda block: block[:, :, 1:], dtype=x.dtype, meta=x[:0])


def test_memory_is_bounded(monkeypatch):
    """Beyond what goes in and comes out, a convolution takes two tiles, however many images there are."""
    monkeypatch.setattr(products, "TILE_BYTES", 2**20)
    rng = np.random.default_rng(6)
    layer = SCConv2d(rng.normal(size=(2, 4, 3, 3)), np.zeros(2), signed=True, padding=1)
    for batch in (1, 4):
        x = rng.random((batch, 4, 40, 40))
        layer(x, 2048)
        tracemalloc.start()
        outputs = layer(x, 2048)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * outputs.nbytes + 2 * x.nbytes + 2 * 2**20 < 2 * x.nbytes * 2048 // 64
