"""`scdask infer`: inference of a perceptron in stochastic computing."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .._extras import require
from ..errors import BitstreamError
from ..jobs.names import SEEDLESS, SNGS
from .options import QUIET, SCHEDULER, SCHEDULERS, CommaList, out_option, seed_option, with_options
from .running import make_folder, opened, plain_errors, print_wide, stoppable, write_results

if TYPE_CHECKING:
    from rich.console import Console

    from ..jobs.infer import Results
    from ..layers import SCMLP


@click.command(epilog=SCHEDULERS)
@click.argument("dataset", type=click.Choice(["digits"]), required=False)
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="Your own perceptron: an npz file.")
@click.option("--data", type=click.Path(exists=True, dir_okay=False), help="Your own inputs: an npz file of x and y.")
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
    help=f"How many seeds to try; {', '.join(SEEDLESS)} have none and run once.",
)
@with_options(seed_option("The first seed."), *SCHEDULER, out_option("results", "results.json and accuracy.png"), QUIET)
def infer(
    dataset: str | None,
    model: str | None,
    data: str | None,
    sngs: list[str],
    lengths: list[int],
    mode: Any,
    repeat: int,
    seed: int,
    scheduler: str,
    workers: int | None,
    threads: int | None,
    interface: str | None,
    out: Path,
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
      results: for each generator, length and seed
        sng, length, seed, mode         the setting
        accuracy                        the share that was right
        seconds                         of the computation, scheduling included
        sc_operations                   pairs of bits gated and counted
        sc_operations_per_second        their speed

    \b
    Accuracy on the digits, 0.970 in floating point; the mean of the seeds 0, 1
    and 2 (--repeat 3) for lfsr, bernoulli and shared
      mode, generator      N = 16      64     256    1024    4096
      split, sobol          0.917   0.972   0.972   0.970   0.970
      split, halton         0.941   0.965   0.974   0.972   0.970
      split, lfsr           0.841   0.954   0.964   0.973   0.972
      split, bernoulli      0.742   0.924   0.959   0.972   0.972
      split, shared         0.509   0.876   0.799   0.831   0.840
      bipolar, sobol        0.202   0.911   0.963   0.974   0.970
      bipolar, bernoulli    0.202   0.374   0.663   0.893   0.961

    It needs pip install "scdask[apps]". In Python it is `scdask.jobs.infer.run`
    (`from scdask.jobs import infer`); the network is `scdask.SCMLP`.
    """
    require_inputs(dataset, model, data)
    with plain_errors(), stoppable() as exit_if_stopped, ExitStack() as stack:
        for package in ("matplotlib", "sklearn") if dataset else ("matplotlib",):
            require(package, "apps")
        from rich.console import Console

        from ..jobs.infer import Results, float_accuracy, run, settings
        from ..plotting import accuracy_figure
        from ..progress import bar

        status = Console(stderr=True, quiet=quiet)
        given = _own(model, data) if data else _digits(model) if model else None
        place = stack.enter_context(opened(status, scheduler, workers, threads, interface))
        with status.status("training the float perceptron"):
            perceptron, x, y = given or _digits(model)
        exit_if_stopped()
        with status.status("loading the kernels on the workers"):
            exact = float_accuracy(perceptron, x, y)
            place.wait_until_ready()
        make_folder(out)
        results = []
        todo = settings(sngs, lengths, mode, seed=seed, repeat=repeat)
        exit_if_stopped()
        with bar(len(todo), "inference", "settings", quiet=quiet) as update:
            for result in run(perceptron, x, y, todo, place):
                results.append(result)
                exit_if_stopped()
                update(len(results), f"{result.sng}, N = {result.length}, accuracy {result.accuracy:.4f}")
        exit_if_stopped()
        found = Results(results, exact)
        _print_table(Console(quiet=quiet), found)
        name = " ".join(Path(given).name for given in (dataset, model) if given)
        report = {
            "scdask": __version__,
            "job": f"infer {name}",
            "scheduler": place.name,
            "threads": place.threads,
            "samples": len(x),
            "float_accuracy": exact,
            "results": [vars(r) | {"sc_operations_per_second": r.sc_operations_per_second} for r in found],
        }
        write_results(out, report, "accuracy.png", accuracy_figure(found, f"SC inference, {name}, {mode}"))
        status.print(f"Written: {out / 'results.json'}, {out / 'accuracy.png'}", highlight=False, soft_wrap=True)


def require_inputs(dataset: str | None, model: str | None, data: str | None) -> None:
    """Raise a UsageError unless there is something to classify, and something to classify it with."""
    if (dataset is None) == (data is None) or (data is not None and model is None):
        raise click.UsageError("give either the dataset digits, or both --model and --data; digits may have a --model")


def _digits(model: str | None) -> tuple[SCMLP, Any, Any]:
    from ..jobs.digits import load_digits, train_perceptron
    from ..layers import SCMLP

    digits = load_digits()
    perceptron = SCMLP.load(model, digits.x_train) if model else train_perceptron(digits)
    return perceptron, digits.x_test, digits.y_test


def _own(model: str | None, data: str | None) -> tuple[SCMLP, Any, Any]:
    from .._files import read_npz
    from ..layers import SCMLP

    arrays = read_npz(data)
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise BitstreamError(f"the data {data} have no array {missing[0]}, only {', '.join(arrays)}")
    return SCMLP.load(model, arrays["x"]), arrays["x"], arrays["y"]


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
