"""What 0.1.0 pickled and stored is read: tests/golden has files that it wrote."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import scdask as sc
from scdask import encode

GOLDEN = Path(__file__).parent / "golden"
X = np.linspace(0, 1, 6).reshape(2, 3)


@pytest.mark.component("jax")
def test_what_0_1_0_pickled():
    from scdask import snn

    old = pickle.loads((GOLDEN / "0.1.0.pickle").read_bytes())
    assert old["generators"] == [
        sc.Bernoulli(3),
        sc.Bernoulli(3, shared=True),
        sc.LFSR(),
        sc.Sobol(2, rounding="up"),
        sc.Halton(5, rounding="up"),
        sc.VanDerCorput(rounding="up"),
        sc.Thermometer(rounding="up"),
    ]
    for name, stream in {
        "stream": encode(X, 100, sng=sc.Sobol(1, rounding="up")),
        "bipolar": encode(X, 100, polarity="bipolar", sng=sc.LFSR()),
    }.items():
        np.testing.assert_array_equal(old[name].words, stream.words)
        assert (old[name].length, old[name].polarity, old[name].sng) == (100, stream.polarity, stream.sng)
        np.testing.assert_array_equal((old[name] & stream).words, stream.words)
    mlp = old["mlp"]
    assert isinstance(mlp, sc.SCMLP)
    assert mlp.predict(X, 256).tolist() == mlp.predict_float(X).tolist()
    assert set(mlp.classes) == {"a", "b"}
    np.testing.assert_array_equal(old["dense"](X, 64), mlp.layers[0](X, 64))
    assert old["settings"] == snn.Settings(hidden=(5,))
    assert old["results"][0].accuracy == 0.5
    assert old["results"].float_accuracy == 0.9
    assert old["jax"].dtype == np.uint64
    assert old["state"].classes.tolist() == [0, 1]
    assert isinstance(old["error"], sc.BitstreamError)


@pytest.mark.component("zarr")
def test_what_0_1_0_stored():
    stream = sc.open_zarr(GOLDEN / "0.1.0.zarr")
    assert stream.chunks == ((1, 1), (3,), (2,))
    np.testing.assert_array_equal(stream.words.compute(), encode(X, 100, sng=sc.Sobol(1, rounding="up")).words)
