import json
import sys
import warnings

import conftest
import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from scdask import BitstreamError, Sobol, encode, mux
from scdask.cli import main
from scdask.cluster import open_scheduler
from scdask.jobs import images

pytestmark = pytest.mark.component("images")
BYTES = np.random.default_rng(8).integers(0, 256, (24, 19, 3), np.uint8)


def call(*args, expect=0):
    result = CliRunner().invoke(main, ["run", *map(str, args)])
    assert result.exit_code == expect, result.output
    return " ".join(result.output.split())


def save(path, array):
    import imageio.v3 as iio

    path.write_bytes(iio.imwrite("<bytes>", array, extension=path.suffix))
    return path


def read(path):
    import skimage.io

    return skimage.io.imread(path)


def around(image):
    """The 3 x 3 pixels around each pixel, the border repeated; a loop, unlike what is tested."""
    rows, columns = image.shape[:2]
    near = [[(min(max(i + d, 0), n - 1)) for d in (-1, 0, 1)] for n in (rows, columns) for i in range(n)]
    return np.array([[image[np.ix_(near[i], near[rows + j])] for j in range(columns)] for i in range(rows)])


def lazy(circuit, pixels, sng, length, chunks, seed=0, flip=0.0):
    return images.circuit(da.from_array(pixels, chunks=chunks), images.Setting(circuit, sng, length, seed, flip))


# what circuits give


def test_exact_results_are_those_of_a_loop():
    pixels = BYTES / 255
    nine = around(pixels)
    np.testing.assert_array_equal(images.exact("median", pixels), np.median(nine, axis=(2, 3)))
    a, b, c, d = nine[:, :, 1, 1], nine[:, :, 1, 2], nine[:, :, 2, 1], nine[:, :, 2, 2]
    np.testing.assert_allclose(images.exact("edges", pixels), (abs(a - d) + abs(b - c)) / 2, atol=1e-15)
    assert images.exact("gamma", np.array([[0, 0.5, 1]])).round(3).tolist() == [[0, 0.732, 1]]


@pytest.mark.parametrize("sng", ["sobol", "thermometer"])
def test_the_median_of_8_bits_is_exact(sng):
    found = lazy("median", BYTES / 255, sng, 256, (7, 8, -1)).decode().compute()
    np.testing.assert_array_equal(images.in_8_bits(found), np.median(around(BYTES), axis=(2, 3)))


def test_edges_are_those_of_the_gates():
    pixels = BYTES[..., 0] / 255
    nine = around(pixels)
    x = encode(nine, 100, sng=Sobol(1))
    expected = mux(encode(0.5, 100, sng=Sobol(2)), x[:, :, 1, 1] ^ x[:, :, 2, 2], x[:, :, 1, 2] ^ x[:, :, 2, 1])
    np.testing.assert_array_equal(lazy("edges", pixels, "sobol", 100, 9).words.compute(), expected.words)


# PSNR in dB of edges of scikit-image's camera: of Sobol numbers that the pixels are below, and of independent streams.
EDGES = {16: 31.7, 64: 41.2, 256: 52.6, 1024: 62.3}


def psnr(found, exact):
    return -10 * np.log10(np.mean((found - exact) ** 2))


def test_edges_of_a_photograph():
    import skimage.data

    pixels = skimage.data.camera() / 255
    exact = images.exact("edges", pixels)
    shared = Sobol(1, rounding="up")
    for length, expected in EDGES.items():
        streams = encode(pixels, length, sng=shared, chunks=(200, 300))
        found = images.edges(streams, encode(0.5, length, sng=Sobol(2))).decode().compute()
        assert psnr(found, exact) == pytest.approx(expected, abs=0.06)
    rows = slice(100, 300)  # with a part of the face
    found = lazy("edges", pixels[rows], "mistake", 256, 128).decode().compute()
    assert 9 < psnr(found, images.exact("edges", pixels[rows])) < 11


def test_gamma_correction_is_that_of_the_polynomial():
    from scipy.interpolate import BPoly

    from scdask.arithmetic import bernstein

    x = np.linspace(0, 1, 33).reshape(3, 11)
    b = bernstein(lambda x: x**0.45, 6)
    curve = BPoly(b[:, None], [0, 1])(x)
    assert abs(curve - images.exact("gamma", x))[x > 0].max() < 0.05
    for sng, error in (("sobol", 0.01), ("bernoulli", 0.02), ("lfsr", 0.02)):
        found = lazy("gamma", x, sng, 4096, 2).decode().compute()
        assert np.sqrt(np.mean((found - curve) ** 2)) < error, sng
    wrong = lazy("gamma", x, "mistake", 4096, 2).decode().compute()
    line = b[0] + (b[-1] - b[0]) * x  # All ones come at once: the count is 0 or 6.
    assert np.sqrt(np.mean((wrong - line) ** 2)) < 0.02


def test_flips_move_the_median_to_the_middle():
    pixels = np.full((20, 20), 0.9)
    found = lazy("median", pixels, "sobol", 1024, 8, flip=0.1).decode().compute()
    assert found.mean() == pytest.approx(0.9, abs=0.01)  # Most of nine bits are not flipped.
    found = lazy("median", pixels, "sobol", 1024, 8, flip=1.0).decode().compute()
    np.testing.assert_allclose(found, 0.1, atol=1 / 1024)
    first, second = (lazy("edges", pixels, "sobol", 64, 8, seed=s, flip=0.1).words.compute() for s in (1, 2))
    assert not np.array_equal(first, second)


@settings(max_examples=20)
@given(
    st.sampled_from(["edges", "gamma", "median"]),
    st.sampled_from(["sobol", "lfsr", "bernoulli", "mistake"]),
    st.sampled_from([0.0, 0.2]),
    st.integers(1, 200),
    st.data(),
)
def test_any_chunks_give_the_same_bits(circuit, sng, flip, length, data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    colours = data.draw(st.sampled_from([(), (3,)]))
    pixels = BYTES[: shape[0], : shape[1]] / 255
    pixels = pixels if colours else pixels[..., 0]
    chunks = tuple(data.draw(st.integers(1, n)) for n in pixels.shape)
    whole, cut = (lazy(circuit, pixels, sng, length, c, seed=3, flip=flip) for c in (-1, chunks))
    assert cut.words.chunks[:-1] == da.from_array(pixels, chunks=chunks).chunks
    np.testing.assert_array_equal(cut.words.compute(scheduler="sync"), whole.words.compute(scheduler="sync"))


def test_streams_may_be_cut_in_time():
    pixels = BYTES[:4, :5, 0] / 255
    for circuit, run in (
        ("edges", lambda x: images.edges(x, encode(0.5, 640, sng=Sobol(2)))),
        ("median", images.median_3x3),
    ):
        cut = run(encode(pixels, 640, sng=Sobol(1), chunks=(2, 3, 4)))
        assert cut.words.numblocks == (2, 2, 3)
        np.testing.assert_array_equal(cut.words, lazy(circuit, pixels, "sobol", 640, -1).words)


LAZY = [conftest.marked(backend) for backend in conftest.Backend if backend.value.startswith("dask of")]


@pytest.mark.parametrize("circuit", ["edges", "gamma", "median"])
@pytest.mark.parametrize("backend", LAZY, indirect=True)
def test_blocks_of_other_libraries(backend, circuit):
    pixels = BYTES[:4, :6, 0] / 255
    setting = images.Setting(circuit, "sobol", 100, 0, flip=0.1)
    found = images.circuit(backend.array(pixels), setting)
    np.testing.assert_array_equal(backend.host(found.words), images.circuit(da.from_array(pixels), setting).words)


def test_a_run_says_how_far_off_it_is():
    pixels = BYTES[..., 0] / 255
    todo = images.settings("median", ["sobol", "thermometer"], [16, 256]) + images.settings("gamma", ["sobol"], [64])
    with open_scheduler("threads") as place:
        found = list(images.run(pixels, todo, place))
    for result, values in found:
        exact = images.exact(result.circuit, pixels)
        assert result.psnr == pytest.approx(psnr(values, exact))
        assert result.values_off == np.sum(np.rint(values * 255) != np.rint(exact * 255))
    assert [result.values_off > 0 for result, _ in found] == [True, False, True, False, True]
    assert images.Result("median", "sobol", 4, 0, 0, rmse=0.0, values_off=0, seconds=1.0).psnr is None


def test_settings_that_a_generator_cannot_have():
    with pytest.raises(BitstreamError, match="from 1 to 4294967296, not 8589934592"):
        images.settings("edges", ["bernoulli", "sobol"], [64, 2**33])
    with pytest.raises(BitstreamError, match="takes 7 generators that are independent"):
        images.settings("gamma", ["thermometer"], [64])


# files


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("grey.png", BYTES[..., 0]),
        ("grey alpha.png", BYTES[..., :2]),
        ("colour.png", BYTES),
        ("colour alpha.png", np.dstack([BYTES, BYTES[..., 1]])),
        ("bits.png", BYTES[..., 0] > 127),
        ("16 bits.png", BYTES[..., 0].astype(np.uint16) * 257),
        ("16 bits.tif", BYTES.astype(np.uint16) * 257),
        ("float.tif", BYTES[..., 0] / np.float32(255)),
        ("one.png", BYTES[:1, :1, 0]),
        ("row.png", BYTES[:1]),
        ("one.gif", BYTES[..., 0]),
    ],
)
def test_images_of_many_kinds(tmp_path, name, array):
    array = np.array(array)
    file, out = save(tmp_path / name, array), tmp_path / "out"
    assert call("median", file, "--out", out, "--quiet") == ""
    found = read(out / "median-sobol-256.png")
    if name == "one.gif":
        array = read(file)[0]
    scale = {"b": 255, "f": 255, "u": 1 / 257 if array.dtype == np.uint16 else 1}[array.dtype.kind]
    expected = np.rint(array * scale).astype(np.uint8)
    alpha = expected.shape[-1] in (2, 4) and expected.ndim == 3
    colours = expected[..., :-1] if alpha else expected
    colours = np.median(around(colours), axis=(2, 3)).astype(np.uint8)
    np.testing.assert_array_equal(found, np.dstack([colours, expected[..., -1]]) if alpha else colours)
    np.testing.assert_array_equal(found, read(out / "median-exact.png"))
    shape = colours.shape[: 2 if "grey" in name else None]
    assert json.loads((out / "results.json").read_text())["shape"] == list(shape)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.txt", b"hello", "text.txt is no image that scikit-image can read"),
        ("empty.png", b"", "empty.png is no image that scikit-image can read"),
        ("broken.png", b"\x89PNG\r\n\x1a\n....", "broken.png is no image that can be read: "),
        ("pages.tif", np.zeros((6, 5, 7), np.uint8), "pages.tif is (6, 5, 7)"),
        ("nothing.tif", np.zeros((0, 5), np.uint8), "nothing.tif is (0, 5)"),
        ("large.tif", np.array([[0, 3.5]], np.float32), "are from 0 to 1, but those of"),
        ("nan.tif", np.array([[0, np.nan]], np.float32), "from nan to nan"),
        ("below.tif", np.array([[-1, 1]], np.int16), "are from 0 to 1, but those of"),
    ],
)
def test_files_that_are_no_images(tmp_path, name, content, message):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        import tifffile

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an image without pixels
            tifffile.imwrite(file, content, photometric="minisblack")
    said = call("edges", file, "--out", tmp_path / "out", expect=1)
    assert said.startswith("Error: ")
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_picture_in_colours_of_print(tmp_path):
    from PIL import Image

    Image.fromarray(BYTES).convert("CMYK").save(tmp_path / "print.jpg")
    said = call("edges", tmp_path / "print.jpg", "--out", tmp_path / "out", expect=1)
    assert "has the four colours of print (CMYK)" in said


# the command


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", BYTES[..., 0])


def test_a_run_writes_images_and_a_report(tmp_path, photo):
    out = tmp_path / "out"
    options = ["--length", "16,256", "--sng", "sobol,mistake"]
    said = call("edges", photo, *options, "--out", out)
    names = [f"edges-{sng}-{n}.png" for sng in ("sobol", "mistake") for n in (16, 256)]
    assert {path.name for path in out.iterdir()} == {"results.json", "edges-exact.png", *names}
    written = json.loads((out / "results.json").read_text())
    assert (written["job"], written["shape"], written["settings_left"]) == ("run edges photo.png", [24, 19], 0)
    assert (written["scheduler"], written["gain"]) == ("threads", 1)
    exact = images.exact("edges", BYTES[..., 0] / 255)
    for name, entry in zip(names, written["results"], strict=True):
        assert name == f"edges-{entry['sng']}-{entry['length']}.png"
        found = lazy("edges", BYTES[..., 0] / 255, entry["sng"], entry["length"], -1).decode().compute()
        np.testing.assert_array_equal(read(out / name), np.rint(found * 255))
        assert entry["psnr"] == pytest.approx(psnr(found, exact))
        assert f"{entry['psnr']:.1f} dB" in said
    assert "Values off: of 456" in said
    assert f"the job took {written['wall_seconds']:.1f} s" in said
    said = call("edges", photo, *options, "--out", out)  # Nothing is overwritten.
    assert "out-2" in said.partition("Written:")[2]


def test_a_gain_is_of_what_is_written_alone(tmp_path):
    file = save(tmp_path / "grey alpha.png", BYTES[..., :2])
    for gain in (1, 4):
        call("edges", file, "--gain", gain, "--out", tmp_path / str(gain), "--quiet")
    pixels = BYTES[..., 0] / 255
    exact, found = images.exact("edges", pixels), lazy("edges", pixels, "sobol", 256, -1).decode().compute()
    assert (4 * exact > 1).any()
    for name, values in (("exact", exact), ("sobol-256", found)):
        shown = np.rint(np.minimum(4 * values, 1) * 255)
        np.testing.assert_array_equal(read(tmp_path / "4" / f"edges-{name}.png"), np.dstack([shown, BYTES[..., 1]]))
    plain, bright = (json.loads((tmp_path / gain / "results.json").read_text()) for gain in "14")
    assert (plain["gain"], bright["gain"]) == (1, 4)
    for key in ("rmse", "psnr", "values_off"):
        assert plain["results"][0][key] == bright["results"][0][key]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_image_as_a_file(tmp_path, photo, suffix):
    file = tmp_path / "new" / f"clean{suffix}"
    for name in ("clean", "clean-2"):
        said = call("median", photo, "--flip", 0.01, "--seed", 2, "--out", file)
        assert f"Written: {file.with_stem(name)}" in said
        assert "0.01 of the bits flipped" in said
    assert {path.stem for path in file.parent.iterdir()} == {"clean", "clean-2"}
    found = lazy("median", BYTES[..., 0] / 255, "sobol", 256, -1, seed=2, flip=0.01).decode().compute()
    np.testing.assert_array_equal(read(file), np.rint(found * 255))


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["blur", "photo.png"], 2, "blur"),
        (["edges", "none.png"], 2, "none.png"),
        (["edges", "photo.png", "--length", "0"], 2, "0"),
        (["edges", "photo.png", "--sng", "dice"], 2, "dice"),
        (["edges", "photo.png", "--flip", "2"], 2, "2"),
        (["edges", "photo.png", "--gain", "0"], 2, "--gain takes a number above 0, not 0"),
        (["edges", "photo.png", "--gain", "nan"], 2, "--gain takes a number above 0, not nan"),
        (["edges", "photo.png", "--gain", "inf"], 2, "--gain takes a number above 0, not inf"),
        (["edges", "photo.png", "--out", "edges.jpg"], 2, "or a file that ends in .png or .tif, not edges.jpg"),
        (["edges", "photo.png", "--out", "edges.png", "--length", "16,64"], 2, "one generator and one length"),
        (["edges", "photo.png", "--length", 2**33], 1, "from 1 to 4294967296, not 8589934592"),
        (["gamma", "photo.png", "--sng", "thermometer"], 1, "takes 7 generators that are independent"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, photo, args, code, message):
    monkeypatch.chdir(tmp_path)
    assert message in call(*args, expect=code)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_ranks_that_would_each_do_the_whole_job(monkeypatch, photo):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    assert "2 processes were launched together" in call("edges", photo, expect=2)


def test_a_job_of_slurm(tmp_path, monkeypatch, photo):
    monkeypatch.chdir(tmp_path)
    args = ["sbatch", "run", "edges", str(photo), "-n", "4", "-t", "5", "--length", "64"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert f"scdask run edges {photo} --length 64 --scheduler mpi" in (tmp_path / "run.sbatch").read_text()


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, photo):
    monkeypatch.setitem(sys.modules, "skimage", None)
    said = call("edges", photo, "--out", tmp_path / "out", expect=1)
    assert said == "Error: skimage is not installed; pip install 'scdask[images]' brings it"


def test_a_job_that_fails_leaves_what_is_done(tmp_path, monkeypatch, photo):
    run = images.run

    def fails(*args):
        yield next(run(*args))
        raise BitstreamError("it failed")

    monkeypatch.setattr(images, "run", fails)
    options = ["--length", "16,64", "--out", tmp_path / "out"]
    said = call("edges", photo, *options, expect=1)
    assert "Written (1 of 2 settings)" in said
    assert said.endswith("Error: it failed")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["settings_left"] == 1
    assert (tmp_path / "out" / "edges-sobol-16.png").is_file()
