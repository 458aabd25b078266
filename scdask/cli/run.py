"""`scdask run`: circuits on an image file."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import groupby
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .._extras import require
from ..jobs.names import CIRCUITS, IMAGE_SNGS
from .options import KEEP_OPEN, QUIET, SCHEDULERS, CommaList, FilePath, scheduler_options, seed_option, with_options
from .running import (
    Stopwatch,
    free_file,
    keep_open,
    make_folder,
    opened,
    plain_errors,
    plain_os_errors,
    print_wide,
    printing,
    refuse_ranks,
    say,
    stoppable,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..jobs.images import Result
    from .running import Spent

REPORT = "results.json"
LOSSLESS = (".png", ".tif", ".tiff")
OTHERS = (".jpg", ".jpeg", ".gif", ".bmp", ".webp")


@click.command(epilog=SCHEDULERS)
@click.argument("circuit", type=click.Choice(CIRCUITS))
@click.argument("image", type=FilePath(exists=True, dir_okay=False))
@click.option(
    "--sng",
    "sngs",
    type=CommaList(click.Choice(IMAGE_SNGS)),
    default="sobol",
    show_default=True,
    help=f"Number generators (SNG) to try: {', '.join(IMAGE_SNGS)}. With mistake the streams correlate as they must "
    "not: something to look at. There is no thermometer for gamma.",
)
@click.option(
    "--length",
    "lengths",
    type=CommaList(click.IntRange(1)),
    default="256",
    show_default=True,
    help="Lengths of the streams in bits.",
)
@click.option(
    "--flip",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="RATE",
    help="The share of the bits of all pixels that are flipped at random, before the circuit.",
)
@click.option(
    "--gain",
    type=float,
    default=1.0,
    show_default=True,
    help="Multiplies the images that are written, clipped at white: edges are dark. The errors in the table are those "
    "without it.",
)
@with_options(
    seed_option("Of the generators and the flips. Seed 0 of sobol is not scrambled."),
    *scheduler_options("threads"),
    click.option(
        "--out",
        type=FilePath(path_type=Path),
        default="results",
        show_default=True,
        help="Folder for results.json and the images; if it holds a run already, the next numbered one, such as "
        "results-2. Or a file that ends in .png or .tif, for the image alone, of one generator and length.",
    ),
    KEEP_OPEN,
    QUIET,
)
def run(
    circuit: str,
    image: str,
    sngs: list[str],
    lengths: list[int],
    flip: float,
    gain: float,
    seed: int,
    scheduler: str,
    workers: int | None,
    threads: int | None,
    interface: str | None,
    encrypted: bool,
    out: Path,
    keep: bool,
    quiet: bool,
) -> None:
    """Run a circuit of stochastic computing on an image file.

    \b
    scdask run edges photo.jpg --gain 3
    scdask run median photo.jpg --out clean.png
    scdask run gamma photo.jpg --length 16,64,256,1024 --sng sobol,mistake

    \b
    Each pixel is a stream, and the circuit one of
      edges   Roberts cross, half of |a - d| + |b - c| for 2 x 2 pixels a b, c d:
              XOR of streams that share a generator, then a MUX
      gamma   x ** 0.45: of six independent streams of a pixel, the count of ones
              chooses one of seven coefficients (ReSC, Bernstein polynomial)
      median  of 3 x 3 pixels, by 19 pairs of an AND and an OR, which sort
              streams that share a generator

    The image is cut into blocks, tasks of Dask, which share a border of one pixel; its own border is repeated. The
    result is the same wherever the job runs. That is in threads of this process unless --scheduler is given: a cluster
    has a dashboard, but for one image its start takes longer than the circuit. Channels of colours are done one by one;
    alpha stays as it is.

    Images are those that scikit-image reads, one grey or colour image a file. Pixels of 16 bits are used as such; what
    is written has 8 bits. The turn that a camera notes beside the pixels is not seen.

    \b
    The folder gets, of edges with Sobol at N = 256,
      edges-sobol-256.png               the image
      edges-exact.png                   the same in floating point
      results.json                      see below

    A table of errors is printed. PSNR is the peak signal-to-noise ratio to the result in floating point, for white at
    1, before --gain and before it is rounded to 8 bits.

    \b
    results.json holds
      scdask, job, scheduler, threads   what ran where
      shape                             rows, columns, and channels of colours
      gain                              what the images are multiplied by
      settings_left                     0, or more if the job was stopped
      wall_seconds, cpu_seconds         of the job, from its start to its results
      cpu_seconds_of                    "all processes" or "client": see
                                        scdask infer --help
      results: for each generator and length
        circuit, sng, length, seed,     the setting
        flip
        rmse                            root mean square error
        psnr                            in dB, null if there is no error
        values_off                      values of 8 bits that differ from those of
                                        the exact image
        seconds                         of the computation, scheduling included

    \b
    PSNR in dB of scikit-image's camera, 512 x 512 pixels
      circuit, generator     N = 16      64     256    1024
      edges, sobol             31.6    41.3    52.3    64.1
      edges, thermometer       31.6    41.1    52.2    69.9
      edges, lfsr              30.5    35.2    43.0    45.2
      edges, bernoulli         28.9    35.6    41.5    46.9
      edges, mistake            9.2     9.5     9.6     9.6
      gamma, sobol             20.8    26.2    33.9    41.3
      gamma, bernoulli         15.3    23.5    34.1    41.5
      gamma, mistake           10.6    14.0    18.0    17.5
      median, sobol            34.7    47.0    59.1    69.9

    Gamma is worst in dark pixels, where the curve is steep: black becomes 24 of 255, and a photo with much of it, as
    scikit-image's astronaut, has 28.5 dB with Sobol at N = 256.

    At N = 256 and more the median has no value off, with sobol or thermometer, of an image of 8 bits.

    It needs pip install "scdask[images]". In Python it is `scdask.jobs.images.run` (`from scdask.jobs import images`);
    `scdask.run` is another thing, which runs a machine, a circuit with memory, on streams.
    """
    refuse_ranks(scheduler)
    suffix = out.suffix.lower()
    alone = suffix in LOSSLESS and not out.is_dir()
    if suffix in OTHERS and not out.is_dir():
        raise click.UsageError(f"--out takes a folder, or a file that ends in .png or .tif, not {out}")
    if alone and len(sngs) * len(lengths) > 1:
        raise click.UsageError(f"the file {out} takes one generator and one length: give a folder for several")
    if not 0 < gain < inf:
        raise click.UsageError(f"--gain takes a number above 0, not {gain:g}")
    watch = Stopwatch()
    with plain_errors(), stoppable() as exit_if_stopped, ExitStack() as stack:
        opening = opened(quiet, scheduler, workers, threads, interface, encrypted)
        place = stack.enter_context(opening) if scheduler == "mpi" else None
        require("skimage", "images")
        from .._files import write_whole
        from ..jobs import images as job
        from ..progress import bar, stderr_console

        status = stderr_console(quiet=quiet)
        todo = job.settings(circuit, sngs, lengths, seed, flip)
        pixels, alpha = job.read_image(image)
        place = place or stack.enter_context(opening)
        with status.status("loading the kernels on the workers"):
            place.wait_until_ready()
        names = [f"{circuit}-{setting.sng}-{setting.length}.png" for setting in todo]
        exact = f"{circuit}-exact.png"
        folder = None if alone else make_folder(out, (REPORT, exact, *names))
        paths = [folder / name for name in names] if folder else [free_file(out)]
        written: list[Path] = []
        results: list[Result] = []

        def write(path: Path, values: Any) -> None:
            with plain_os_errors(path.parent):
                shown = (gain * values).clip(max=1)
                write_whole(path, partial(job.write_image, suffix=path.suffix, values=shown, alpha=alpha))
            written.append(path)

        def save() -> Spent:
            """Write what is done, also if the job is stopped or fails."""
            left = len(todo) - len(results)
            spent = watch.spent(place, ask=not left)  # Otherwise there may be little time.
            if folder:
                report = {
                    "scdask": __version__,
                    "job": f"run {circuit} {Path(image).name}",
                    "scheduler": place.name,
                    "threads": place.threads,
                    "shape": pixels.shape,
                    "gain": gain,
                    "settings_left": left,
                    **vars(spent),
                    "results": [vars(result) | {"psnr": result.psnr} for result in results],
                }
                write_report(folder, report)
                written.insert(0, folder / REPORT)
            done = f" ({len(results)} of {len(todo)} settings)" if left else ""
            say(status, f"Written{done}: {', '.join(map(str, written))}")
            return spent

        exit_if_stopped()
        if folder:
            write(folder / exact, job.exact(circuit, pixels))
        try:
            with bar(len(todo), circuit, "settings", quiet=quiet) as update:
                for path, (result, values) in zip(paths, job.run(pixels, todo, place), strict=True):
                    write(path, values)
                    results.append(result)
                    exit_if_stopped()
                    update(len(results), f"{result.sng}, N = {result.length}, PSNR {_decibels(result)}")
            exit_if_stopped()
        except BaseException:
            if results:
                save()
            raise
        spent = save()
        with printing(saved=True, quiet=quiet) as console:
            _print_table(console, circuit, results, pixels.size)
            say(console, f"From its start to its results, the job took {spent}.")
        if keep:
            keep_open(status, place)


def _decibels(result: Result) -> str:
    return "no error" if result.psnr is None else f"{result.psnr:.1f} dB"


def _print_table(console: Console, circuit: str, results: Sequence[Result], size: int) -> None:
    from rich.table import Table

    flips = f", {results[0].flip:g} of the bits flipped" if results[0].flip else ""
    note = f"PSNR: to floating point. Values off: of {size:,}, in 8 bits."
    table = Table(title=f"Circuit {circuit}{flips}", caption=note)
    for column in ("SNG", "N", "PSNR", "values off", "time (s)"):
        table.add_column(column, justify="left" if column == "SNG" else "right", no_wrap=True)
    for _, of_sng in groupby(results, key=lambda result: result.sng):
        table.add_section()
        for r in of_sng:
            table.add_row(r.sng, str(r.length), _decibels(r), f"{r.values_off:,}", f"{r.seconds:.3f}")
    print_wide(console, table)
