"""Campaigns: the values of cells, intervals, which cells there are, and what becomes of odd results."""

import itertools
import json
import math
import threading
import warnings
from functools import partial

import dask
import dask.array as da
import numpy as np
import pandas
import pytest
import xarray
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

import scdask as sc
from scdask.errors import ScdaskWarning, SweepError
from scdask.sweeps import of_mean, of_shares, sweep, wilson

pytest.importorskip("xarray")


def errors_of(found):
    return [error for error in found.error.values.ravel() if error]


@pytest.fixture
def failing():
    """Where cells are meant to fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScdaskWarning)
        yield


# Intervals


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999))
@example((0, 1), 0.95)
@example((10**6, 10**6), 0.95)
def test_wilson_is_that_of_scipy(share, confidence):
    right, samples = share
    theirs = stats.binomtest(right, samples).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson(right, samples, confidence), theirs, rtol=1e-9, atol=1e-12)


def test_wilson_of_arrays_holds_the_share_and_is_nan_without_samples():
    right, samples = np.array([[0, 3, 7], [0, 5, 0]]), np.array([[4, 3, 9], [0, 10, 1]])
    low, high = wilson(right, samples)
    assert np.isnan([low[1, 0], high[1, 0]]).all()
    assert low[0, 0] == 0
    assert high[0, 1] == 1
    there = samples > 0
    assert ((low <= right / np.maximum(samples, 1)) & (right / np.maximum(samples, 1) <= high))[there].all()


values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20)


@given(values, st.floats(0.01, 0.999))
def test_the_interval_of_a_mean_is_that_of_scipy(x, confidence):
    low, high = of_mean(x, confidence=confidence)
    mean, error = np.mean(x), stats.sem(x)
    half = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * error
    np.testing.assert_allclose((low, high), (mean - half, mean + half), rtol=1e-7, atol=1e-6)
    with_holes = of_mean([np.nan, *x, np.nan], confidence=confidence)
    np.testing.assert_allclose(with_holes, (low, high), rtol=1e-9, atol=1e-9)


def test_intervals_of_means_of_arrays_and_of_few_values():
    x = np.random.default_rng(1).normal(size=(3, 2, 8))
    x[0, 0, 3:] = np.nan
    x[1, 1, 1:] = np.nan
    x[2, 0] = np.nan
    x[2, 1] = 5.0
    for kind in ("t", "bootstrap"):
        low, high = of_mean(x, kind)
        for row in np.ndindex(3, 2):
            one = x[row][~np.isnan(x[row])]
            if len(one) < 2:
                assert np.isnan([low[row], high[row]]).all()
            elif kind == "t":
                np.testing.assert_allclose(
                    (low[row], high[row]), stats.ttest_1samp(one, 0).confidence_interval() if np.ptp(one) else (5, 5)
                )
            else:
                theirs = stats.bootstrap(
                    (one,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
                ).confidence_interval
                np.testing.assert_allclose((low[row], high[row]), theirs)
    assert np.isnan(of_mean([])).all()
    assert np.isnan(of_mean([3.0])).all()


def test_95_of_100_intervals_hold_the_true_value():
    rng = np.random.default_rng(2)
    p = 0.9
    low, high = wilson(rng.binomial(100, p, 20000), 100)
    assert 0.93 < ((low <= p) & (p <= high)).mean() < 0.97
    low, high = of_mean(rng.normal(size=(20000, 5)))
    assert 0.945 < ((low <= 0) & (high >= 0)).mean() < 0.955
    low, high = of_mean(rng.normal(size=(200, 40)), "bootstrap")
    assert ((low <= 0) & (high >= 0)).mean() > 0.88


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: wilson(3, 2),
        lambda: wilson(-1, 2),
        lambda: wilson(1, 2, 1.0),
        lambda: wilson(1, 2, float("nan")),
        lambda: of_mean([1.0, 2.0], "normal"),
        lambda: of_mean([1.0, 2.0], confidence=0),
        lambda: of_mean(1.0),
    ],
)
def test_no_interval(wrong):
    with pytest.raises(SweepError):
        wrong()


# Values


def everything(length, sng, share, seed):
    rng = np.random.default_rng([length, len(sng), round(100 * share), seed])
    p = rng.random((3, 2))
    decoded = sc.encode(p, length, sng=sc.Bernoulli(seed)).decode()
    return {
        "rmse": float(np.sqrt(((decoded - p) ** 2).mean())),
        "decoded": decoded,
        "right": abs(decoded - p) < share,
        "count": np.uint8(length % 200),
    }


@pytest.mark.parametrize(("a", "b"), [(97, 3), (30, 10)])
def test_the_interval_of_shares_holds_what_other_seeds_give(a, b):
    """Samples of a seed are alike: with all of them counted, Wilson's interval would hold it in half of the cases."""
    rng = np.random.default_rng(0)
    right = rng.binomial(540, rng.beta(a, b, (4000, 10)))
    low, high = of_shares(right, np.full(right.shape, 540))
    assert 0.93 < np.mean((low <= a / (a + b)) & (a / (a + b) <= high)) < 0.97
    low, high = wilson(right.sum(axis=1), 5400)
    assert np.mean((low <= a / (a + b)) & (a / (a + b) <= high)) < 0.7


def test_shares_that_do_not_vary():
    """Seeds do not change them, or by chance did not; then the samples of all are what there is."""
    low, high = of_shares([[300] * 5, [300, 0, 0, 0, 0], [0] * 5], [[500] * 5, [500, 0, 0, 0, 0], [0] * 5])
    np.testing.assert_array_equal(low, [0.6, np.nan, np.nan])
    np.testing.assert_array_equal(high, low)
    low, high = of_shares([[3, 3, 3], [0, 0, 0], [5, 5, 5]], [[5] * 3] * 3)
    np.testing.assert_allclose((low, high), wilson([9, 0, 15], 15))


@pytest.mark.parametrize(
    ("p", "samples", "repeats"), [(0.97, 10, 3), (0.97, 10, 5), (0.99, 20, 5), (0.9, 10, 20), (0.97, 540, 5), (1, 9, 2)]
)
def test_the_interval_of_few_shares_holds_the_true_one(p, samples, repeats):
    right = np.random.default_rng(0).binomial(samples, p, (4000, repeats))
    low, high = of_shares(right, np.full_like(right, samples))
    assert ((low <= p) & (p <= high)).mean() > 0.94


OVER = {"length": [64, 16, 32], "sng": ("lfsr", "sobol"), "share": np.array([0.05, 0.1]), "seed": range(4)}


def check_against_loop(found, over):
    """All cells, means and intervals beside those of a plain loop."""
    names, rows = list(over), [name for name in over if name != "seed"]
    for setting in itertools.product(*over.values()):
        setting = dict(zip(names, setting, strict=True))
        one, expected = found.sel(setting), everything(**setting)
        assert one.rmse.item() == expected["rmse"]
        assert one.decoded.values.tobytes() == expected["decoded"].tobytes()
        assert one.right.item() == expected["right"].mean()
        assert one["count"].item() == expected["count"]
    for row in itertools.product(*(over[name] for name in rows)):
        row = dict(zip(rows, row, strict=True))
        cells = [everything(**row, seed=seed) for seed in over["seed"]]
        one = found.sel(row)
        right = np.concatenate([cell["right"].ravel() for cell in cells])
        assert one.right_samples == right.size
        assert one.right_mean == pytest.approx(right.mean())
        shares = np.array([cell["right"].mean() for cell in cells])
        p, error = shares.mean(), stats.sem(shares)
        z = stats.t.ppf(0.975, len(shares) - 1)
        for end in (one.right_low.item(), one.right_high.item()):  # where Wilson's test is just not passed
            n = p * (1 - p) / error**2 if error > 1e-12 else np.inf
            assert abs(end - p) == pytest.approx(z * np.sqrt(end * (1 - end) / n), abs=1e-9)
        decoded = np.stack([cell["decoded"] for cell in cells])
        theirs = stats.ttest_1samp(decoded, 0, axis=0)
        interval = theirs.confidence_interval()
        np.testing.assert_allclose(one.decoded_mean, decoded.mean(axis=0))
        np.testing.assert_allclose(one.decoded_low, interval.low)
        np.testing.assert_allclose(one.decoded_high, interval.high)
        assert one.rmse_samples == len(cells)


def test_all_cells_are_those_of_a_loop_also_in_a_cluster(cluster):
    threads = sweep(everything, over=OVER, units={"share": "1", "rmse": "V"})
    check_against_loop(threads, OVER)
    assert threads.decoded.dims == ("length", "sng", "share", "seed", "decoded_0", "decoded_1")
    assert threads.decoded_mean.dims == ("length", "sng", "share", "decoded_0", "decoded_1")
    assert threads.length.values.tolist() == [64, 16, 32]
    assert threads.rmse.attrs["units"] == threads.rmse_mean.attrs["units"] == "V"
    assert threads.share.attrs["units"] == "1"
    assert threads.length.attrs["units"] == "bit"
    assert threads.attrs["function"] == "everything"
    assert not errors_of(threads)
    assert (threads.seconds > 0).all()
    there = sweep(everything, over=OVER, scheduler=cluster, units={"share": "1", "rmse": "V"})
    for name in ("rmse", "decoded", "right", "count", "decoded_low", "right_high", "error"):
        assert there[name].identical(threads[name]), name


def eagerly(length, fault, seed, chunks=None):
    p = np.linspace(0, 1, 24).reshape(6, 4)
    p = p if chunks is None else da.from_array(p, chunks)
    decoded = sc.faults.flip(sc.encode(p, length, sng=sc.Bernoulli(seed)), fault, seed).decode()
    return {"decoded": decoded, "half": decoded > 0.5, "eager": length * 1.5}


def lazily(**setting):
    return eagerly(**setting, chunks=(3, 4))


def test_50_random_cells_alone_are_the_same_to_the_bit(cluster):
    over = {"length": [16, 100], "fault": [0, 0.2], "seed": range(13)}
    together = {
        "lazy": sweep(lazily, over=over),
        "eager": sweep(eagerly, over=over),
        "in a cluster": sweep(eagerly, over=over, scheduler=cluster),
    }
    for found in together.values():
        assert not errors_of(found)
    assert 0 < together["lazy"].tasks < together["lazy"].tasks_alone
    settings = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    for number in np.random.default_rng(3).permutation(len(settings))[:50]:
        setting = settings[number]
        alone = eagerly(**setting)
        for found in together.values():
            one = found.sel(setting)
            assert one.decoded.values.tobytes() == alone["decoded"].tobytes(), setting
            assert one.eager == alone["eager"]
            assert one.half == alone["half"].mean()
    few = {"length": [100], "fault": [0.2], "seed": [4, 2, 9]}
    alone = sweep(lazily, over=few, scheduler=cluster)
    assert alone.decoded.identical(together["lazy"].decoded.sel(few))


def test_what_lazy_cells_share_is_computed_once():
    calls = []

    def slow(block):
        calls.append(threading.get_ident())
        return block + 1

    shared = da.zeros(8, chunks=4).map_blocks(slow, meta=np.zeros(0))

    def cell(factor, copy):
        return (shared * factor).sum() + copy

    found = sweep(cell, over={"copy": range(2), "factor": range(20)})
    assert found.value.values.tolist() == [[8 * factor + copy for factor in range(20)] for copy in range(2)]
    assert len(calls) == 2  # one a block
    assert found.tasks < found.tasks_alone


@dask.delayed
def later(x):
    return x / 2


def odd_lazies(kind, seed):
    x = da.arange(10, chunks=5)
    if kind == "unknown" or kind == "unknown own":
        x = x[x > seed]
        return {"a": x.sum(), "b": x > 4} | ({"own": x} if kind == "unknown own" else {})
    if kind == "empty":
        return {"a": da.zeros((0, 3)).sum(), "b": da.zeros(0, dtype=bool)}
    if kind == "delayed":
        return {"a": later(seed), "b": True}
    if kind == "fails":
        return {"a": x.map_blocks(partial(fail, seed), meta=np.zeros(0)).sum(), "b": True}
    if kind == "exits":
        return {"a": x.map_blocks(partial(leave, seed), meta=np.zeros(0)).sum(), "b": True}
    if kind == "stream":
        return {"a": sc.encode(da.from_array(np.array([0.5])), 64), "b": True}
    return {"a": Odd(), "b": True}


def fail(seed, block):
    if seed == 0:
        raise IndexError("of a block")
    return block


def leave(seed, block):
    if seed == 1:
        raise SystemExit(2)
    return block


class Odd:
    """Something that only looks like a collection."""

    def __dask_graph__(self):
        return {("x", 0): 1}


def test_lazy_results_of_any_kind(failing):
    kinds = ["unknown", "empty", "delayed", "fails", "exits", "stream", "odd"]
    found = sweep(odd_lazies, over={"kind": kinds, "seed": range(3)})
    errors = {kind: errors_of(found.sel(kind=kind)) for kind in kinds}
    assert not errors["unknown"] + errors["empty"] + errors["delayed"]
    assert found.a.sel(kind="unknown").values.tolist() == [45, 44, 42]
    assert found.b_samples.sel(kind="unknown") == 9 + 8 + 7
    assert found.b.sel(kind="unknown", seed=0) == 5 / 9
    assert found.a.sel(kind="delayed").values.tolist() == [0, 0.5, 1]
    assert np.isnan(found.b.sel(kind="empty")).all()
    assert found.error.sel(kind="fails").values.tolist()[1:] == ["", ""]
    assert "IndexError" in errors["fails"][0]
    assert errors["exits"] == ["SystemExit"]
    assert found.a.sel(kind="exits").values.tolist()[::2] == [45, 45]
    assert len(errors["stream"]) == len(errors["odd"]) == 3
    assert "decode" in errors["stream"][0]


# Which cells there are


class Named:
    def __init__(self, number):
        self.number = number

    def __repr__(self):
        return f"Named({self.number})"


def first_of(value):
    return value


def second_of(value):
    return value * 2


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([(16, 32), (64, 8)], ["16/32", "64/8"]),
        ([[1, 2], [3]], ["1/2", "3"]),
        ([Named(1), Named(2)], ["Named(1)", "Named(2)"]),
        ([sc.Sobol(1), sc.Bernoulli(2)], [repr(sc.Sobol(1)), repr(sc.Bernoulli(2))]),
        ([first_of, second_of], [f"{__name__}.first_of", f"{__name__}.second_of"]),
        ([0.5, 2], [0.5, 2]),
        ([True, False], [True, False]),
        ([True, "yes"], ["True", "yes"]),
        (["b", "a"], ["b", "a"]),
        ([10**20, 1], [str(10**20), "1"]),
        (np.arange(6).reshape(3, 2), ["0/1", "2/3", "4/5"]),
        (np.array([0.5, 0.25], np.float32), [0.5, 0.25]),
        ((n * n for n in range(3)), [0, 1, 4]),
        ({3: "x", 5: "y"}.keys(), [3, 5]),
        ([None, 1], ["None", "1"]),
    ],
)
def test_values_of_axes(values, labels):
    values = list(values) if not isinstance(values, np.ndarray) else values
    asked = []

    def cell(axis):
        asked.append(axis)
        return 1.0

    found = sweep(cell, over={"axis": iter(values)})
    assert found.axis.values.tolist() == labels
    assert all(any(one is value or np.array_equal(one, value) for value in values) for one in asked)


def test_arrays_that_look_alike_when_they_are_printed_are_two_values():
    one = np.arange(5000)
    two = one.copy()
    two[2500] = 0
    assert repr(one) == repr(two)
    assert len(set(sweep(lambda x: int(x.sum()), over={"x": [one, two]}).value.values)) == 2


@pytest.mark.parametrize(
    "over",
    [
        {},
        [("a", [1])],
        {"a": []},
        {"a": iter(())},
        {"a": 5},
        {"a": "text"},
        {"a": {1: 2}},
        {"a": [1, 1.0]},
        {"a": [True, 1]},
        {"a": [(1, 2), "1/2"]},
        {"a": [float("nan")]},
        {"a": [np.inf]},
        {"a": [object()]},
        {"a": [lambda: 0]},
        {"not a name": [1]},
        {3: [1]},
        {"state": [1]},
        {"seconds": [1]},
        {"error": [1]},
        {"a": range(10**4), "b": range(10**4)},
        {"a": range(10**9)},
    ],
)
def test_axes_that_are_none(over):
    with pytest.raises(SweepError):
        sweep(lambda **setting: 1, over=over)


def test_cheap_cells_come_first():
    with dask.config.set(scheduler="synchronous"):
        asked = []
        over = {"length": [256, (16, 64), 32], "b": ["y", "x"], "seed": [1, 0]}
        sweep(lambda length, b, seed: asked.append((length, b, seed)) or 1, over=over)
        expected = itertools.product([32, (16, 64), 256], ["y", "x"], [1, 0])
        assert asked == list(expected)
        asked.clear()
        sweep(lambda n: asked.append(n) or 1, over={"n": range(6)}, cost=lambda setting: 9 - setting["n"])
        assert asked == [5, 4, 3, 2, 1, 0]


def test_where_and_repeats():
    over = {"a": [1, 2, 3], "seed": range(3), "run": range(2)}
    found = sweep(lambda a, seed, run: a + seed + run, over=over, where=lambda s: s["a"] > s["seed"])
    assert found.value_mean.dims == ("a", "run")
    assert np.isfinite(found.value.sel(run=0)).values.tolist() == [[a > s for s in range(3)] for a in (1, 2, 3)]
    assert found.value_samples.sel(run=1).values.tolist() == [1, 2, 3]
    assert not errors_of(found)
    other = sweep(lambda a, seed, run: a + seed + run, over=over, repeats="run")
    assert other.value_mean.dims == ("a", "seed")
    assert other.value_mean.values.tolist() == [[a + s + 0.5 for s in range(3)] for a in (1, 2, 3)]
    for none in (None, "absent"):
        alone = sweep(lambda a, seed, run: a > seed, over=over, repeats=none)
        assert alone.value_mean.dims == alone.value.dims == ("a", "seed", "run")
        assert (alone.value_samples == 1).all()
    nothing = sweep(lambda a, seed, run: 1, over=over, where=lambda setting: False)
    assert "value" not in nothing


@pytest.mark.parametrize("of", [xarray.DataArray, lambda values: xarray.Variable("x", values), pandas.Series])
def test_results_may_be_those_of_xarray_and_pandas(of):
    found = sweep(lambda seed: of(np.arange(3) + seed), over={"seed": range(2)})
    assert found.value.values.tolist() == [[0, 1, 2], [1, 2, 3]]
    found = sweep(lambda seed: of(np.array([True, False, seed > 0])), over={"seed": range(2)}, repeats=None)
    np.testing.assert_allclose(found.value.values, [1 / 3, 2 / 3])


def test_results_of_nan_are_results_and_not_part_of_means():
    found = sweep(lambda seed: np.nan if seed == 1 else seed, over={"seed": range(3)})
    assert np.array_equal(found.value, [0, np.nan, 2], equal_nan=True)
    assert found.value_mean == 1
    assert not errors_of(found)


# Failures


class WordlessError(Exception):
    def __str__(self):
        raise ValueError("none")


def recursion(x):
    return recursion(x)


ODD = {
    "nothing": lambda: None,
    "text": lambda: "text",
    "complex": lambda: 1j,
    "objects": lambda: np.array([None, 1]),
    "ragged": lambda: [[1], [1, 2]],
    "date": lambda: np.datetime64("2020-01-01"),
    "stream": lambda: sc.encode([0.5], 64),
    "shape": lambda: [1.0, 2.0],
    "truth": lambda: True,
    "axis": lambda: {"kind": 1},
    "state": lambda: {"state": 1},
    "mean": lambda: {"x_mean": 1},
    "dims": lambda: {"x": [1], "x_0": 1},
    "no name": lambda: {"a b": 1},
    "number": lambda: {1: 1},
    "none": dict,
    "exit": lambda: leave(1, 0),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "wordless": lambda: (_ for _ in ()).throw(WordlessError),
    "surrogate": lambda: (_ for _ in ()).throw(ValueError("\ud800")),
    "recursion": lambda: recursion(1),
    "memory": lambda: np.empty(2**60),
}


def test_a_cell_that_fails_keeps_its_error_and_the_others_go_on(failing, tmp_path):
    kinds = ["first", *ODD, "last"]

    def cell(kind, seed):
        return ODD[kind]() if kind in ODD else seed

    found = sweep(
        cell,
        over={"kind": kinds, "seed": range(2)},
        cost=lambda setting: kinds.index(setting["kind"]),
        store=tmp_path / "found.zarr",
        about={},
    )
    assert found.value.sel(kind=["first", "last"]).values.tolist() == [[0, 1], [0, 1]]
    for kind in ODD:
        for error in found.error.sel(kind=kind).values:
            assert "Error" in error or error in ("SystemExit", "KeyboardInterrupt"), (kind, error)
            assert "\n" not in error
    assert np.isnan(found.value.sel(kind=list(ODD))).all()
    assert (found.value_samples.sel(kind=list(ODD)) == 0).all()
    assert sc.sweeps.open_sweep(tmp_path / "found.zarr").error.identical(found.error)


def test_names_of_metrics_that_an_axis_has(failing):
    assert "SweepError" in errors_of(sweep(lambda x_mean: {"x": 1}, over={"x_mean": [1]}))[0]
    assert "SweepError" in errors_of(sweep(lambda x_0: {"x": [1]}, over={"x_0": [1]}))[0]


def test_what_functions_do_beside_their_results(capsys):
    def cell(a, **rest):
        print("printed", a)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("of a cell", stacklevel=1)
        rest["seed"] = rest.pop("seed") + 1
        return {"inner": sweep(lambda b: b * a, over={"b": [1, 2]}).value.values.sum(), "seed_after": rest["seed"]}

    with dask.config.set(scheduler="synchronous"):
        found = sweep(cell, over={"a": [1, 2], "seed": range(2)})
    assert found.inner.values.tolist() == [[3, 3], [6, 6]]
    assert found.seed_after.values.tolist() == [[1, 2], [1, 2]]
    assert capsys.readouterr().out.count("printed") == 4


def test_data_comes_first_and_may_be_read_only():
    data = np.arange(5.0)
    data.flags.writeable = False
    assert sweep(lambda x, k: x[k], over={"k": range(5)}, data=data).value.values.tolist() == data.tolist()


def inner(seed):
    return sweep(lambda b: b + seed, over={"b": [1, 2]}).value.values


def test_campaigns_in_the_cells_of_one_in_a_cluster(cluster):
    found = sweep(inner, over={"seed": range(4)}, scheduler=cluster)
    assert found.value.values.tolist() == [[1 + seed, 2 + seed] for seed in range(4)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"function": lambda a: 1},
        {"function": lambda a, b, c: 1},
        {"function": 3},
        {"function": lambda a, b: 1, "data": 5},
        {"interval": "normal"},
        {"until": 0.1},
        {"until": 0, "repeats": "a"},
        {"until": True, "repeats": "a"},
        {"until": {}, "repeats": "a"},
        {"until": 0.1, "repeats": "b"},
        {"until": 0.1, "repeats": "a", "most_repeats": 1},
        {"store": "s3://bucket/found.zarr"},
        {"store": 5},
        {"store": ""},
    ],
)
def test_arguments_that_are_none(wrong):
    with pytest.raises(SweepError):
        sweep(**{"function": lambda a, b: 1, "over": {"a": [1, 2], "b": ["x"]}} | wrong)


# Enough repeats


def noisy(scale, seed):
    rng = np.random.default_rng([scale, seed])
    return {"x": rng.normal(scale=scale), "right": rng.random(50) < 0.9}


@pytest.mark.parametrize(
    ("until", "name"), [({"x": 0.5}, "x"), ({"right": 0.03}, "right"), ({"x": 1, "right": 0.02}, 0)]
)
def test_repeats_are_added_until_rows_are_narrow_enough(until, name):
    over = {"scale": [1, 2, 4], "seed": [3, 5, 4]}
    found = sweep(noisy, over=over, until=until, most_repeats=100)
    for each, width in until.items():
        half = (found[f"{each}_high"] - found[f"{each}_low"]) / 2
        counts = np.isfinite(found[each]).sum("seed")
        assert ((half <= width) | (counts == 100)).all()
    assert counts.max() <= 100
    assert counts.min() < 100
    assert found.seed.values.tolist() == [3, 5, 4, *range(6, 6 + counts.max().item() - 3)]
    for scale in over["scale"]:  # The cells of a row are its first ones.
        there = np.isfinite(found.x.sel(scale=scale)).values
        assert there[: counts.sel(scale=scale).item()].all()
    for threads in (1, 4):
        with dask.config.set(num_workers=threads):
            again = sweep(noisy, over=over, until=until, most_repeats=100)
        assert again.drop_vars("seconds").equals(found.drop_vars("seconds"))


def test_nan_is_no_narrow_interval():
    def values(seed):
        x = np.random.default_rng(seed).normal(size=3)
        x[1], x[2] = np.nan, x[2] if seed == 1 or seed > 4 else np.nan
        return x

    found = sweep(values, over={"seed": range(3)}, until=0.8)
    half = (found.value_high - found.value_low).values / 2
    assert np.isnan(half[1])
    assert (half[[0, 2]] <= 0.8).all()
    assert found.value_samples > 5
    found = sweep(lambda seed: np.inf, over={"seed": range(3)}, until=0.1)
    assert found.value_samples == 3


def test_samples_are_those_that_gave_a_number():
    found = sweep(lambda seed: {"a": seed} if seed % 2 else {"b": np.nan if seed == 2 else 1}, over={"seed": range(6)})
    assert (int(found.a_samples), int(found.b_samples)) == (3, 2)


@pytest.mark.parametrize("name", ["where", "cost"])
def test_what_fails_to_say_something_of_a_setting(name, tmp_path):
    def fails(setting):
        return 1 if setting["seed"] < 3 else setting["my key"]

    def value(seed):
        return float(seed)

    options = {"until": 0.01, name: fails}
    for store in (None, tmp_path / "s.zarr"):
        with pytest.raises(SweepError, match=rf"{name} fails for {{'seed': 3}}: KeyError: 'my key'"):
            sweep(value, over={"seed": range(3)}, store=store, **options)
    with pytest.raises(SweepError, match=f"{name} is a function of a setting, not 3"):
        sweep(value, over={"seed": range(3)}, **{name: 3})


def test_dates_are_what_was_given():
    days = np.array(["2026-01-01", "2026-02-01"], "M8[ns]")
    found = sweep(lambda day: (day - days[0]) / np.timedelta64(1, "D"), over={"day": days})
    assert found.value.values.tolist() == [0, 31]
    assert found.day.values.tolist() == [str(day) for day in days]
    with pytest.raises(SweepError, match="not an array of 0 axes"):
        sweep(lambda a: a, over={"a": np.array(3)})


def test_repeats_that_are_not_there_do_not_keep_a_row_from_more():
    found = sweep(
        noisy,
        over={"scale": [1, 2], "seed": range(6)},
        until={"x": 0.5},
        where=lambda setting: setting["scale"] == 1 or setting["seed"] % 2 == 1,
        most_repeats=400,
    )
    assert ((found.x_high - found.x_low) / 2 <= 0.5).all()
    assert np.isnan(found.x.sel(scale=2)[::2]).all()
    assert np.isfinite(found.x.sel(scale=1)[:6]).all()


def test_until_asks_which_metric_it_means():
    with pytest.raises(SweepError, match="which of the metrics"):
        sweep(noisy, over={"scale": [1], "seed": range(3)}, until=0.1)
    with pytest.raises(SweepError, match="until names wrong"):
        sweep(noisy, over={"scale": [1], "seed": range(3)}, until={"wrong": 0.1})


def test_about_holds_what_json_can(tmp_path):
    with pytest.raises(SweepError, match="JSON"):
        sweep(lambda a: a, over={"a": [1]}, store=tmp_path / "s.zarr", about={"x": object()})
    sweep(lambda a: a, over={"a": [1]}, store=tmp_path / "s.zarr", about=json.loads('{"x": [1, {"y": null}]}'))


@pytest.mark.parametrize(
    "options",
    [
        {"repeats": ["seed"]},
        {"units": "V"},
        {"units": {"value": object()}},
        {"most_repeats": "x"},
        {"most_repeats": 2.5},
        {"cost": lambda setting: None},
        {"cost": lambda setting: math.nan},
        {"over": {"a": ["\ud800"]}},
        {"over": {"a": [{"x", "y"}]}},
        {"over": {"a": [1, "1"]}},
        {"store": "/"},
        {"store": "x\0y"},
        {"about": {"x": math.nan}, "store": "there.zarr"},
    ],
)
def test_arguments_of_other_kinds_are_refused(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepError):
        sweep(lambda **setting: 1, **{"over": {"a": [1], "seed": [1, 2]}} | options)


def test_a_row_without_cells_needs_no_more_repeats(tmp_path):
    options = {"over": {"a": [1, 2], "seed": range(3)}, "until": 0.5, "most_repeats": 10}
    run = partial(sweep, lambda a, seed: seed % 2, where=lambda s: s["a"] == 1, store=tmp_path / "s.zarr", **options)
    assert run(about={}).equals(run(about={}).assign_attrs())


def test_a_row_with_one_repeat_gets_no_others():
    found = sweep(
        lambda a, seed: np.arange(10) < seed % 4,
        over={"a": [1, 2], "seed": range(4)},
        where=lambda s: s["a"] == 2 or s["seed"] == 0,
        until=0.15,
    )
    assert found.value.count("seed").values.tolist()[0] == 1
    assert 4 < found.sizes["seed"] < 64
