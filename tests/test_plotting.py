import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import scdask as sc
from scdask import Bitstream, BitstreamError, Sobol, plotting
from scdask.jobs.infer import EarlyResult, Result, Results

pytestmark = pytest.mark.component("apps")

RESULTS = [
    Result("sobol", 16, 0, "split", 0.9, 0.1, 10**9),
    Result("sobol", 64, 0, "split", 0.96, 0.2, 10**9),
    *(Result("lfsr", n, seed, "split", 0.8 + 0.01 * seed + n / 1000, 0.1, 10**9) for n in (64, 16) for seed in (0, 1)),
]
EARLY = [
    EarlyResult("sobol", 64, seed, "split", stop, 0.9 + least, ((16, 3), (64, count)), 0.1)
    for stop, least, count in (("margin=0.9", 0.01, 1), ("margin=0.99", 0.05, 3), ("stability=3", 0.04, 5))
    for seed in (0, 1)
]
STATE = SimpleNamespace(losses=(2.0, 1.0, 0.25), train_accuracies=(0.5, 0.6, 0.8), test_accuracies=(0.4, 0.5, 0.7))
STREAMS = sc.encode(np.linspace(0.1, 0.9, 12).reshape(3, 4), 100, sng=Sobol(1))


def campaign(over):
    return sc.sweep(measured, over=over | {"seed": [1, 2]}, about={}, attributes={"reference": 0.9})


def measured(length, seed, sng="", fault=0):
    return {"accuracy": np.arange(8) > seed + 8 / length + 10 * fault, "theory": length, "binary_accuracy": fault}


DRAWN = {
    "accuracy": lambda ax: plotting.plot_accuracy(RESULTS, 0.97, ax=ax),
    "early exit": lambda ax: plotting.plot_early_exit(EARLY, RESULTS, 0.97, ax=ax),
    "rmse": lambda ax: plotting.plot_rmse([16, 64], {"a": [0.1, 0.0]}, {"1/N": [0.06, 0.02]}, ax=ax),
    "raster": lambda ax: plotting.plot_raster(np.eye(5, 3), ax=ax),
    "scc": lambda ax: plotting.plot_scc(np.eye(3), ["a", "b", "c"], ax=ax),
    "stream": lambda ax: plotting.plot_stream(STREAMS, ax=ax),
    "method": STREAMS.plot,
    "loss": lambda ax: plotting.plot_loss(STATE, ax=ax),
    "campaign": lambda ax: plotting.plot_sweep(campaign({"sng": ["sobol", "lfsr"], "length": [64, 16]}), ax=ax),
    "heat map": lambda ax: plotting.plot_sweep(
        campaign({"fault": [0, 0.1], "length": [16, 64]}), kind="heat map", ax=ax
    ),
    "training": lambda ax: plotting.plot_training_accuracy(STATE, ax=ax),
}


@pytest.fixture
def ax():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure.add_subplot()
    figure.canvas.draw()


@pytest.fixture(autouse=True)
def no_figures_left():
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("agg")
    yield
    plt.close("all")


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


@pytest.mark.parametrize("name", DRAWN)
def test_on_given_axes_or_new_ones_with_labels(ax, name):
    import matplotlib.pyplot as plt

    assert DRAWN[name](ax) is ax
    assert not plt.get_fignums()
    new = DRAWN[name](None)
    assert plt.get_fignums() == [new.figure.number]
    assert new.get_xlabel() or name == "scc"
    assert new.get_ylabel()
    new.figure.canvas.draw()


def test_accuracy_is_a_mean_over_seeds_with_their_range(ax):
    plotting.plot_accuracy(Results(RESULTS, 0.97), ax=ax)
    drawn = lines(ax)
    assert list(drawn) == ["float (0.970)", "sobol", "lfsr"]
    np.testing.assert_allclose(drawn["lfsr"].get_xydata(), [[16, 0.821], [64, 0.869]])
    (band,) = ax.collections
    np.testing.assert_allclose(band.get_datalim(ax.transData).extents, [16, 0.816, 64, 0.874])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["16", "64"]
    assert "bits" in ax.get_xlabel()
    assert "float (0.500)" in lines(plotting.plot_accuracy(Results(RESULTS, 0.97), 0.5))
    assert list(lines(plotting.plot_accuracy(RESULTS))) == ["sobol", "lfsr"]
    with pytest.raises(BitstreamError, match="at least one result"):
        plotting.plot_accuracy([], ax=ax)


def test_early_exit_is_a_mark_a_rule_beside_streams_of_a_fixed_length(ax):
    plotting.plot_early_exit(EARLY, Results(RESULTS, 0.97), ax=ax)
    drawn = lines(ax)
    assert list(drawn) == ["float (0.970)", "streams of a fixed length", "sobol, margin", "sobol, stability"]
    np.testing.assert_allclose(drawn["streams of a fixed length"].get_xydata(), [[16, 0.9], [64, 0.96]])
    np.testing.assert_allclose(drawn["sobol, margin"].get_xydata(), [[28, 0.91], [40, 0.95]])
    np.testing.assert_allclose(drawn["sobol, stability"].get_xydata(), [[46, 0.94]])
    assert [text.get_text() for text in ax.texts] == ["0.9", "0.99", "3"]
    assert "cycles" in ax.get_xlabel()
    with pytest.raises(BitstreamError, match="at least one result"):
        plotting.plot_early_exit([], ax=ax)


def test_modes_and_lengths_of_layers_have_lines_and_places_of_their_own(ax):
    other = [Result("sobol", (16, 64), 0, "bipolar", 0.5, 0.1, 10**9)]
    plotting.plot_accuracy(Results([*RESULTS[:2], *other], 0.97, "R²"), ax=ax)
    drawn = lines(ax)
    assert list(drawn) == ["float (0.970)", "sobol split", "sobol bipolar"]
    np.testing.assert_allclose(drawn["sobol bipolar"].get_xydata(), [[40, 0.5]])
    assert ax.get_ylabel() == "R²"
    assert len(plotting.accuracy_figure(RESULTS, "digits", EARLY).axes) == 2


def test_lines_differ_in_colour_and_in_marker():
    many = {str(i): [0.1, 0.01] for i in range(20)}
    ax = plotting.plot_rmse([16, 64], many)
    styles = [(line.get_color(), line.get_marker()) for line in lines(ax).values()]
    assert len(set(styles)) == 20
    assert all(len({style[part] for style in styles[:6]}) == 6 for part in (0, 1))


def test_rmse_on_logarithmic_axes_with_theory(ax):
    plotting.plot_rmse([16, 64, 1024], {"sobol": [0.04, 0.007, 0]}, {"1/N": [1 / 16, 1 / 64, 1 / 1024]}, ax=ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["sobol"].get_ydata(), [0.04, 0.007, np.nan])
    assert drawn["1/N"].get_linestyle() == "--"
    assert [text.get_text() for text in ax.texts] == ["exactly 0"]
    (edge,) = (line for line in ax.get_lines() if line.get_label().startswith("_"))
    np.testing.assert_array_equal(edge.get_xydata(), [[1024, 0]])
    for wrong in ({"a": [1.0]}, {"a": [[1.0, 1.0]]}):
        with pytest.raises(BitstreamError, match=r"lengths \(2,\) do not go with .* of a"):
            plotting.plot_rmse([16, 64], wrong, ax=ax)


def test_a_raster_has_a_mark_a_spike(ax):
    spikes = np.array([[1, 0], [0, 0], [1, 1]])
    plotting.plot_raster(spikes, ax=ax)
    assert [events.get_positions() for events in ax.collections] == [[0, 2], [2]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time step", "neuron")
    plotting.plot_raster(np.zeros((4, 0)), ax=ax)
    with pytest.raises(BitstreamError, match=r"not \(3,\)"):
        plotting.plot_raster(spikes[:, 0], ax=ax)


def test_a_correlation_matrix_has_its_numbers_where_they_can_be_read(ax):
    matrix = np.array([[1, -0.001], [-0.5, 1]])
    plotting.plot_scc(matrix, ["a", "b"], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.00", "\N{MINUS SIGN}0.50", "1.00"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    (image,) = ax.get_images()
    assert image.get_clim() == (-1, 1)
    np.testing.assert_array_equal(image.get_array(), matrix)
    assert ax.figure.axes[1].get_ylabel() == "SCC"
    assert len(plotting.plot_scc(np.eye(8)).texts) == 64
    assert not plotting.plot_scc(np.eye(9)).texts
    assert plotting.plot_scc(sc.scc_matrix(sc.encode([0.5, 0.25], 64, chunks=1))).get_images()
    for wrong, labels in ((np.ones((2, 3)), None), (np.ones(4), None), (np.eye(2), ["a"])):
        with pytest.raises(BitstreamError, match=r"\(n, n\)"):
            plotting.plot_scc(wrong, labels, ax=ax)


@pytest.mark.parametrize("chunks", [None, 1])
def test_the_picture_of_a_stream_is_its_bits(ax, chunks):
    values = np.linspace(0.1, 0.9, 12).reshape(3, 4)
    stream = sc.encode(values, 100, sng=Sobol(1), chunks=chunks)
    plotting.plot_stream(stream, ax=ax)
    (image,) = ax.get_images()
    np.testing.assert_array_equal(image.get_array(), STREAMS.unpack().reshape(12, 100))
    assert ax.get_xlabel() == "bit (dark: 1)"


def test_of_long_streams_a_part_is_computed_and_the_axes_say_so(ax):
    import dask.array as da

    asked = []

    def words(block_info=None):
        asked.append(block_info[None]["chunk-location"])
        return np.ones((10, 4), np.uint64)

    lazy = da.map_blocks(words, chunks=((10,) * 10, (4,) * 10), dtype=np.uint64, meta=np.empty((0, 0), np.uint64))
    plotting.plot_stream(Bitstream(lazy, 2560), ax=ax)
    assert {column for _, column in asked} == {0}
    assert {row for row, _ in asked} == set(range(7))
    assert ax.get_images()[0].get_array().shape == (64, 256)
    assert ax.get_xlabel() == "bit (first 256 of 2,560; dark: 1)"
    assert ax.get_ylabel() == "stream\n(first 64 of 100)"


def test_streams_that_have_no_picture(ax):
    with pytest.raises(BitstreamError, match="ndarray"):
        plotting.plot_stream(STREAMS.words, ax=ax)
    lazy = sc.encode([0.5, 0.25], 64, chunks=1)
    with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
        plotting.plot_stream(lazy[lazy.popcount() > 20], ax=ax)
    with pytest.raises(BitstreamError, match="at least one stream"):
        plotting.plot_stream(sc.encode([], 64), ax=ax)


def test_the_picture_takes_arrays_of_any_library(ax, backend):
    stream = Bitstream(backend.array(STREAMS.words), 100)
    stream.plot(ax)
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), STREAMS.unpack().reshape(12, 100))


def test_curves_of_a_training(ax):
    plotting.plot_loss(STATE, ax=ax)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), [[1, 2.0], [2, 1.0], [3, 0.25]])
    assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "epoch", "training loss (nats, log scale)")
    assert list(lines(plotting.plot_training_accuracy(STATE))) == ["training (0.800)", "test (0.700)"]
    without = SimpleNamespace(losses=(0.0,), train_accuracies=(1.0,), test_accuracies=())
    assert plotting.plot_loss(without).get_yscale() == "linear"
    assert list(lines(plotting.plot_training_accuracy(without))) == ["training (1.000)"]
    for plot in (plotting.plot_loss, plotting.plot_training_accuracy):
        with pytest.raises(BitstreamError, match="first epoch"):
            plot(SimpleNamespace(losses=(), train_accuracies=(), test_accuracies=()))


def test_a_missing_matplotlib_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import scdask\n"
        "try: scdask.encode([0.5], 64).plot()\n"
        "except scdask.MissingBackendError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib is not installed; pip install 'scdask[apps]'" in done.stdout


def test_names_of_others_are_no_formulas():
    name = "a$\\foo$b_%\x1b[2J\udcff.npz"
    results = [SimpleNamespace(sng=name, mode="split", length=n, accuracy=0.5) for n in (16, 64)]
    figure = plotting.accuracy_figure(results, name)
    figure.savefig(io.BytesIO())
    (ax,) = figure.axes
    assert ax.get_title() == "a$\\foo$b_%\\x1b[2J\\udcff.npz"
    assert not ax.title.get_usetex()


@pytest.mark.component("sweeps")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "pie"}, "kind is 'lines' or 'heat map', not 'pie'"),
        ({"kind": "heat map", "lines": "fault"}, "a heat map has two axes of several values, and these have: length"),
    ],
)
def test_campaigns_that_cannot_be_drawn_so(options, message):
    with pytest.raises(sc.errors.SweepError, match=message):
        plotting.plot_sweep(campaign({"fault": [0], "length": [16, 64]}), **options)


@pytest.mark.component("sweeps")
def test_a_heat_map_of_what_has_no_end():
    found = campaign({"fault": [0, 0.1], "length": [16, 64]})
    name = next(str(name) for name in found if str(name).endswith("_mean"))
    found[name][0] = np.inf
    ax = plotting.plot_sweep(found, kind="heat map")
    assert np.isfinite(ax.images[0].get_clim()).all()
    ax.figure.savefig(io.BytesIO())
