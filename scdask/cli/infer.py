"""`scdask infer`: inference of a perceptron in stochastic computing."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .._extras import require
from ..errors import BitstreamError
from ..jobs.names import SEEDLESS, SNGS
from .options import (
    KEEP_OPEN,
    QUIET,
    SCHEDULERS,
    CommaList,
    FilePath,
    out_option,
    scheduler_options,
    seed_option,
    with_options,
)
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
    write_results,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..jobs.infer import Result, Results
    from ..layers import SCMLP
    from .running import Spent


FILES = ("results.json", "accuracy.png")


@click.command(epilog=SCHEDULERS)
@click.argument("dataset", type=click.Choice(["digits"]), required=False)
@click.option("--model", type=FilePath(exists=True, dir_okay=False), help="Your own perceptron: an npz file.")
@click.option("--data", type=FilePath(exists=True, dir_okay=False), help="Your own inputs: an npz file of x and y.")
@click.option(
    "--sng",
    "sngs",
    type=CommaList(click.Choice(list(SNGS))),
    default="sobol,lfsr,bernoulli",
    show_default=True,
    help=f"Number generators (SNG) to try: {', '.join(SNGS)}. With shared both operands have one register: a mistake "
    "to look at.",
)
@click.option(
    "--length",
    "lengths",
    type=CommaList(click.IntRange(1)),
    default="16,64,256,1024",
    show_default=True,
    help="Lengths of the streams in bits.",
)
@click.option(
    "--mode",
    type=click.Choice(["split", "bipolar"]),
    default="split",
    show_default=True,
    help="How signed weights multiply: W+ and W- by AND, or bipolar streams by XNOR.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help=f"How many seeds to try; without one, {', '.join(SEEDLESS)} runs once. Seed 0 of sobol is not scrambled.",
)
@click.option(
    "--predictions",
    type=FilePath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the labels that were predicted too, to a .csv or .npz file; see below.",
)
@with_options(
    seed_option("The first seed."),
    *scheduler_options("local"),
    out_option("results", "results.json and accuracy.png"),
    KEEP_OPEN,
    QUIET,
)
def infer(
    dataset: str | None,
    model: str | None,
    data: str | None,
    sngs: list[str],
    lengths: list[int],
    mode: Any,
    repeat: int,
    predictions: Path | None,
    seed: int,
    scheduler: str,
    workers: int | None,
    threads: int | None,
    interface: str | None,
    out: Path,
    keep: bool,
    quiet: bool,
) -> None:
    """Classify with a trained perceptron in stochastic computing.

    With digits it trains a 64-32-10 perceptron on scikit-learn's digits, unless --model gives one, and classifies their
    540 test images. With --model and --data it takes your own ReLU perceptron and your own inputs.

    \b
    The model is an npz file of
      weights_0     (neurons, inputs), any real numbers
      bias_0        (neurons,)
      weights_1 ... and bias_1 ..., one pair for each layer
      classes       labels of the outputs, if they are not 0, 1, ...
      input_scales  (layers,): the largest activation that each layer is given;
                    if it is missing, the largest that x causes

    `SCMLP.save` writes such a file, and `scdask train` one of a spiking network.

    \b
    The data are an npz file of
      x  (samples, inputs), in [0, 1]
      y  (samples,), the labels

    Every generator is tried with every length and seed, and gives the same bits wherever the job runs. A table of
    accuracies is printed; accuracy.png shows them over the length, a line a generator: the mean over the seeds, and
    their range.

    \b
    results.json holds
      scdask, job, scheduler, threads   what ran where
      samples                           how many inputs were classified
      float_accuracy                    that of the same weights without streams
      settings_left                     0, or more if the job was stopped
      wall_seconds, cpu_seconds         of the job, from its start to its results
      cpu_seconds_of                    "all processes" or "client": without the
                                        workers, if the scheduler was there, as
                                        it serves others too, or if the job was
                                        stopped
      results: for each generator, length and seed
        sng, length, seed, mode         the setting
        accuracy                        the share that was right
        seconds                         of the computation, scheduling included;
                                        what it runs was loaded before
        sc_operations                   pairs of bits gated and counted
        sc_operations_per_second        their speed

    \b
    The file of --predictions
      .csv  a row a sample: its number, its label, and what each setting predicted
      .npz  label (samples,), prediction (settings, samples), and of the settings
            sng, length, seed and mode (settings,)

    \b
    Accuracy on the digits, 0.970 in floating point; the mean of the seeds 0, 1
    and 2 (--repeat 3) for all but halton
      mode, generator      N = 16      64     256    1024    4096
      split, sobol          0.923   0.969   0.973   0.970   0.970
      split, halton         0.909   0.972   0.974   0.970   0.970
      split, lfsr           0.841   0.954   0.964   0.973   0.972
      split, bernoulli      0.742   0.924   0.959   0.972   0.972
      split, shared         0.509   0.876   0.799   0.831   0.840
      bipolar, sobol        0.640   0.935   0.966   0.974   0.971
      bipolar, bernoulli    0.202   0.374   0.663   0.893   0.961

    It needs pip install "scdask[apps]". In Python it is `scdask.jobs.infer.run`
    (`from scdask.jobs import infer`); the network is `scdask.SCMLP`.
    """
    require_inputs(dataset, model, data)
    if predictions and predictions.suffix not in (".csv", ".npz"):
        raise click.UsageError(f"--predictions takes a .csv or .npz file, not {predictions}")
    refuse_ranks(scheduler)
    watch = Stopwatch()
    with plain_errors(), stoppable() as exit_if_stopped, ExitStack() as stack:
        for package in ("matplotlib", "sklearn") if dataset else ("matplotlib",):
            require(package, "apps")
        from .._files import write_whole
        from ..jobs.infer import Results, float_accuracy, run, save_predictions, settings
        from ..plotting import accuracy_figure
        from ..progress import bar, stderr_console

        status = stderr_console(quiet=quiet)
        todo = settings(sngs, lengths, mode, seed=seed, repeat=repeat)
        # Of the ranks of MPI only one goes on, and says what is wrong.
        given = _given(dataset, model, data) if model and scheduler != "mpi" else None
        place = stack.enter_context(opened(status, scheduler, workers, threads, interface))
        with status.status("training the float perceptron"):
            perceptron, x, y = given or _given(dataset, model, data)
        exit_if_stopped()
        with status.status("loading the kernels on the workers"):
            exact = float_accuracy(perceptron, x, y)
            place.wait_until_ready()
        folder = make_folder(out, FILES)
        if predictions:
            predictions = free_file(predictions)
        results: list[Result] = []
        labels: dict[Any, Any] | None = {} if predictions else None

        def save() -> tuple[Results, Spent]:
            """Write what is done, also if the job is stopped or fails."""
            found = Results(results, exact)
            spent = watch.spent(place, ask=len(found) == len(todo))  # Otherwise there may be little time.
            name = " ".join(Path(given).name for given in (dataset, model) if given)
            report = {
                "scdask": __version__,
                "job": f"infer {name}",
                "scheduler": place.name,
                "threads": place.threads,
                "samples": len(x),
                "float_accuracy": exact,
                "settings_left": len(todo) - len(found),
                **vars(spent),
                "results": [vars(r) | {"sc_operations_per_second": r.sc_operations_per_second} for r in found],
            }
            where = make_folder(folder, FILES)  # Another job may have written there meanwhile.
            written = [where / FILES[0]]
            if predictions and labels is not None:
                with plain_os_errors(predictions.parent):
                    kind = predictions.suffix[1:]
                    write_whole(predictions, partial(save_predictions, kind=kind, y=y, predictions=labels))
                written.append(predictions)
            if len(found) < len(todo):
                write_report(where, report)
                say(status, f"Written ({len(found)} of {len(todo)} settings): {', '.join(map(str, written))}")
                return found, spent
            title = f"SC inference, {name}, {mode}"
            write_results(where, report, FILES[1], lambda: accuracy_figure(found, title))
            written.insert(1, where / FILES[1])
            say(status, f"Written: {', '.join(map(str, written))}")
            return found, spent

        exit_if_stopped()
        try:
            with bar(len(todo), "inference", "settings", quiet=quiet) as update:
                for result in run(perceptron, x, y, todo, place, predictions=labels):
                    results.append(result)
                    exit_if_stopped()
                    update(len(results), f"{result.sng}, N = {result.length}, accuracy {result.accuracy:.4f}")
            exit_if_stopped()
        except BaseException:
            if results:
                save()
            raise
        found, spent = save()
        with printing(saved=True, quiet=quiet) as console:
            _print_table(console, found)
            say(console, f"From its start to its results, the job took {spent}.")
        if keep:
            keep_open(status, place)


def require_inputs(dataset: str | None, model: str | None, data: str | None) -> None:
    """Raise a UsageError unless there is something to classify, and something to classify it with."""
    if (dataset is None) == (data is None) or (data is not None and model is None):
        raise click.UsageError("give either the dataset digits, or both --model and --data; digits may have a --model")


def _given(dataset: str | None, model: str | None, data: str | None) -> tuple[SCMLP, Any, Any]:
    """The perceptron, which is trained without a model, the inputs, and their labels."""
    from .._files import read_npz, some
    from ..jobs.digits import load_digits, train_perceptron
    from ..jobs.infer import check_data
    from ..layers import SCMLP

    if data:
        arrays = read_npz(data)
        missing = [name for name in ("x", "y") if name not in arrays]
        if missing:
            raise BitstreamError(f"the data {data} have no array {missing[0]}, only {some(arrays)}")
        x, y, calibration = arrays["x"], arrays["y"], arrays["x"]
    else:
        digits = load_digits()
        if not model:
            return train_perceptron(digits), digits.x_test, digits.y_test
        x, y, calibration = digits.x_test, digits.y_test, digits.x_train
    stored = read_npz(model)  # The file may be a pipe, which is read once.
    weights = stored.get("weights_0")
    if weights is not None and weights.ndim == x.ndim == 2 and weights.shape[1] != x.shape[1]:
        what = f"the data {data}" if data else f"the images of {dataset}"
        raise BitstreamError(f"the model {model} takes {weights.shape[1]} inputs, but {what} have {x.shape[1]}")
    perceptron = SCMLP._of_arrays(stored, model, calibration)
    check_data(perceptron, x, y)
    return perceptron, x, y


def _print_table(console: Console, results: Results) -> None:
    from rich.table import Table

    plus_minus = "±" if console.encoding.startswith("utf") else "+-"
    table = Table(title=results.title, caption=results.note)
    for column in results.COLUMNS:
        table.add_column(column, justify="left" if column == "SNG" else "right", no_wrap=True)
    for _, of_sng in groupby(results.rows(), key=lambda row: row[0]):
        table.add_section()
        for row in of_sng:
            table.add_row(*(cell.replace("±", plus_minus) for cell in row))
    print_wide(console, table)
