"""The command line: `scdask infer`, `train`, `mpi-run`, `sbatch`, `bench` and `info`; also `dask scdask ...`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import MissingBackendError, ScdaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .jobs.bench import Speed
    from .jobs.infer import Results
    from .limits import Limits
    from .layers import SCMLP

OPTIONAL = {
    "sklearn": "apps",
    "matplotlib": "apps",
    "bokeh": "apps",
    "zarr": "zarr",
    "jax": "jax",
    "optax": "jax",
    "mpi4py": "mpi",
    "dask_mpi": "mpi",
    "dask_jobqueue": "slurm",
}
BENCHED = ("numpy", "numba", "numkong", "simsimd", "faiss-cpu", "sc-neurocore", "sc-neurocore-engine")


class CommaList(click.ParamType):  # type: ignore[type-arg]
    """Values of one type with commas between them, each once if they are to be distinct."""

    name = "list"

    def __init__(self, item: click.ParamType[Any], *, distinct: bool = True) -> None:
        self.item = item
        self.distinct = distinct

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        """Convert the text of an option; a list passes as it is."""
        if isinstance(value, list):
            return value
        items = [self.item.convert(part.strip(), param, ctx) for part in value.split(",")]
        return list(dict.fromkeys(items)) if self.distinct else items

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What stands for the value in the help."""
        return f"{self.item.name.upper()}[,...]"


class Matching(click.ParamType):  # type: ignore[type-arg]
    """Text that a regular expression matches as a whole."""

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self.pattern = pattern

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text as it is."""
        return value if re.fullmatch(self.pattern, value) else self.fail(f"{value!r} is no {self.name}", param, ctx)


SLURM_TIME = Matching("time", r"\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}")
SLURM_MEMORY = Matching("memory", r"\d+[KMGT]?")
SLURM_NAME = Matching("name", r"[\w.,@+-]+")


@click.group("scdask", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scdask")
def main() -> None:
    """Stochastic computing on Dask."""


SCHEDULER = (
    click.option(
        "--scheduler",
        default="local",
        show_default=True,
        metavar="local|threads|cuda|mpi|slurm|ADDRESS|FILE",
        help="Where to run: a cluster started for the job, this process, a worker a GPU, the ranks of this MPI job, "
        "jobs of Slurm, or a running scheduler.",
    ),
    click.option("--workers", type=click.IntRange(1), help="Processes of the local cluster, or jobs of Slurm."),
    click.option("--threads", type=click.IntRange(1), help="Threads of each process."),
    click.option("--interface", help="Network interface of mpi and slurm, such as ib0."),
)
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


def _seed(what: str) -> Callable[[Any], Any]:
    return click.option("--seed", type=click.IntRange(0, 2**32), default=0, show_default=True, help=what)


def _out(default: str, files: str) -> Callable[[Any], Any]:
    folder = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", type=folder, default=default, show_default=True, help=f"Folder for {files}.")


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options that several commands have, in this order in the help."""
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


@main.command()
@click.argument("dataset", type=click.Choice(["digits"]), required=False)
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="Your own perceptron: an npz file.")
@click.option("--data", type=click.Path(exists=True, dir_okay=False), help="Your own inputs: an npz file of x and y.")
@click.option(
    "--sng",
    "sngs",
    type=CommaList(click.Choice(["sobol", "halton", "lfsr", "bernoulli", "shared"])),
    default="sobol,lfsr,bernoulli",
    show_default=True,
    help="Number generators: sobol, halton, lfsr, bernoulli, shared.",
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
    help="How many seeds to try; sobol and halton have none and run once.",
)
@_options(_seed("The first seed."), *SCHEDULER, _out("results", "results.json and accuracy.png"), QUIET)
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

    DATASET digits trains a 64-32-10 perceptron on scikit-learn's digits, unless --model gives one, and classifies its
    540 test images. With --model and --data it takes your own ReLU perceptron: an npz file of weights_0 (n_neurons,
    n_inputs), bias_0, weights_1, ..., and, if the labels are not 0, 1, ..., classes; and one of x (samples, n_inputs)
    in [0, 1] and the labels y (samples,).
    """
    _check_inputs(dataset, model, data)
    with _plain_errors(), _stoppable() as check, ExitStack() as stack:
        from rich.console import Console

        from ._extras import require

        for package in ("matplotlib", "sklearn") if dataset else ("matplotlib",):
            require(package, "apps")
        status = Console(stderr=True, quiet=quiet)
        place = stack.enter_context(_place(status, scheduler, workers, threads, interface))
        given = _own(model, data) if data else _digits(model) if model else None
        with status.status("training the float perceptron"):
            perceptron, x, y = given or _digits(model)
        check()
        with status.status("loading the kernels on the workers"):
            from .jobs.infer import Results, float_accuracy, run, settings
            from .progress import bar

            exact = float_accuracy(perceptron, x, y)
            place.wait_until_ready()
        _make_folder(out)
        results = []
        todo = settings(sngs, lengths, mode, seed=seed, repeat=repeat)
        check()
        with bar(len(todo), "inference", "settings", quiet=quiet) as update:
            for result in run(perceptron, x, y, todo, place):
                results.append(result)
                check()
                update(len(results), f"{result.sng}, N = {result.length}, accuracy {result.accuracy:.4f}")
        check()
        table = Results(results, exact)
        _print_table(Console(quiet=quiet), table)
        name = " ".join(Path(given).name for given in (dataset, model) if given)
        _save(out, table, name, len(x), place)
        status.print(f"Written: {out / 'results.json'}, {out / 'accuracy.png'}", highlight=False, soft_wrap=True)


def _check_inputs(dataset: str | None, model: str | None, data: str | None) -> None:
    if (dataset is None) == (data is None) or (data is not None and model is None):
        raise click.UsageError("give either the dataset digits, or both --model and --data; digits may have a --model")


@contextmanager
def _place(
    status: Console, scheduler: str, workers: int | None, threads: int | None, interface: str | None
) -> Iterator[Place]:
    from .cluster import open_scheduler

    with ExitStack() as stack:
        with status.status(f"waiting for the scheduler: {scheduler}"):
            place = stack.enter_context(open_scheduler(scheduler, workers, threads, interface))
        if place.dashboard:
            status.print(f"Dask dashboard: {place.dashboard}", highlight=False, soft_wrap=True)
        if place.page:
            status.print(f"Bitstreams: {place.page}", highlight=False, soft_wrap=True)
        yield place


def _digits(model: str | None) -> tuple[SCMLP, Any, Any]:
    from .jobs.digits import load_digits, train_perceptron
    from .layers import SCMLP

    digits = load_digits()
    perceptron = SCMLP.load(model, digits.x_train) if model else train_perceptron(digits)
    return perceptron, digits.x_test, digits.y_test


def _own(model: str | None, data: str | None) -> tuple[SCMLP, Any, Any]:
    from ._files import read_npz
    from .errors import BitstreamError
    from .layers import SCMLP

    arrays = read_npz(data)
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise BitstreamError(f"the data {data} have no array {missing[0]}, only {', '.join(arrays)}")
    return SCMLP.load(model, arrays["x"]), arrays["x"], arrays["y"]


def _make_folder(out: Path) -> None:
    """Make the folder and try it, before the work is done."""
    with _plain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass


@contextmanager
def _plain_os_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write to {out}: {error}") from error


def _save(out: Path, results: Results, name: str, samples: int, place: Place) -> None:
    from .plotting import accuracy_figure

    report = {
        "scdask": __version__,
        "job": f"infer {name}",
        "scheduler": place.name,
        "threads": place.threads,
        "samples": samples,
        "float_accuracy": results.float_accuracy,
        "results": [vars(r) | {"sc_operations_per_second": r.sc_operations_per_second} for r in results],
    }
    figure = accuracy_figure(results, f"SC inference, {name}, {results[0].mode}")
    with _plain_os_errors(out):
        _write_report(out / "results.json", report)
        _write_figure(out / "accuracy.png", figure)


def _write_report(path: Path, report: dict[str, Any]) -> None:
    from ._files import write_whole

    write_whole(path, lambda file: file.write(json.dumps(report, indent=2).encode() + b"\n"))


def _write_figure(path: Path, figure: Any) -> None:
    from ._files import write_whole

    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))


def _print_table(console: Console, results: Results) -> None:
    from itertools import groupby

    from rich.table import Table

    plus_minus = "±" if console.encoding.startswith("utf") else "+-"
    table = Table(title=results.title, caption=results.note)
    for column in results.COLUMNS:
        table.add_column(column, justify="left" if column == "SNG" else "right", no_wrap=True)
    for _, of_sng in groupby(results.rows(), key=lambda row: row[0]):
        table.add_section()
        for row in of_sng:
            table.add_row(*(cell.replace("±", plus_minus) for cell in row))
    console.width = max(console.width, 80)  # a narrower table would hide figures
    console.print(table)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Our errors as one line instead of a traceback; that of another rank is shown there."""
    try:
        yield
    except ScdaskError as error:
        from ._mpi import is_foreign

        if is_foreign(error):
            sys.exit(1)
        raise click.ClickException(str(error)) from error


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """On Ctrl-C or SIGTERM, unwind, so that the workers are closed and nothing is half-written, then exit.

    Yields a check to call between steps: libraries swallow exceptions here and there, as scikit-learn's training does
    with a KeyboardInterrupt, and a stopped job must not go on.
    """
    stopped: list[int] = []

    def check() -> None:
        if stopped:
            sys.exit(128 + stopped[0])

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        check()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
        check()
    except BaseException as error:
        if not stopped:
            raise
        click.echo(f"Stopped by {signal.Signals(stopped[0]).name}.", err=True)
        raise SystemExit(128 + stopped[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@main.command()
@click.argument("dataset", type=click.Choice(["digits"]))
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Passes over the images.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images between two updates.")
@click.option("--shards", type=click.IntRange(1), default=4, show_default=True, help="Tasks that share a batch.")
@click.option(
    "--hidden",
    type=CommaList(click.IntRange(1), distinct=False),
    default="100",
    show_default=True,
    help="Neurons of each hidden layer.",
)
@click.option("--steps", type=click.IntRange(1), default=25, show_default=True, help="Steps in time of an image.")
@click.option("--learning-rate", type=float, default=2e-3, show_default=True, help="Of Adam.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the folder.")
@_options(
    _seed("Of the initial weights, the order of the images and their spikes."),
    *SCHEDULER,
    _out("trained", "results.json, training.png, weights.npz and checkpoint.npz"),
    QUIET,
)
def train(
    dataset: str,
    hidden: list[int],
    resume: bool,
    scheduler: str,
    workers: int | None,
    threads: int | None,
    interface: str | None,
    out: Path,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a spiking network with surrogate gradients.

    DATASET digits trains leaky integrate-and-fire neurons on scikit-learn's digits, data-parallel, and tests on its 540
    test images after each epoch. The weights do not depend on the workers. Each epoch ends with a checkpoint: --resume
    goes on from it, and gives the weights of a training that was never stopped. `scdask infer digits --model
    weights.npz` runs the trained network as a perceptron in stochastic computing.
    """
    with _plain_errors(), _stoppable() as check, ExitStack() as stack:
        from rich.console import Console

        from ._extras import require

        for package, extra in {"matplotlib": "apps", "sklearn": "apps", "jax": "jax", "optax": "jax"}.items():
            require(package, extra)
        from . import snn
        from .jobs import train as job
        from .jobs.digits import load_digits
        from .progress import bar

        status = Console(stderr=True, quiet=quiet)
        place = stack.enter_context(_place(status, scheduler, workers, threads, interface))
        settings = snn.Settings(hidden=tuple(hidden), **options)
        checkpoint = out / "checkpoint.npz"
        before = snn.load_checkpoint(checkpoint, settings) if resume else None
        resumed = before.epoch if before else 0
        _make_folder(out)
        check()
        with status.status("loading the kernels on the workers"):
            digits = load_digits()
            place.wait_until_ready()
        start = perf_counter()
        with bar(settings.epochs, "compiling", "epochs", done=resumed, quiet=quiet) as update:
            state = before
            for state in job.train(digits, settings, place, before):
                with _plain_os_errors(out):
                    snn.save_checkpoint(checkpoint, state, settings)
                check()
                update(state.epoch, f"loss {state.losses[-1]:.4f}, test accuracy {state.test_accuracies[-1]:.4f}")
        seconds = perf_counter() - start
        check()
        assert state is not None
        report = {
            "scdask": __version__,
            "job": f"train {dataset}",
            "scheduler": place.name,
            "threads": place.threads,
            "samples": len(digits.x_train),
            "test_samples": len(digits.x_test),
            "seconds": seconds,
            "resumed_from": resumed,
        } | job.report(state, settings)
        sizes = (state.weights[0].shape[1], *map(len, state.weights))
        title = f"Spiking network, {dataset}, {'-'.join(map(str, sizes))}"
        figure = job.figure(state, settings, digits, title)
        with _plain_os_errors(out):
            job.save_weights(out / "weights.npz", state, settings)
            _write_report(out / "results.json", report)
            _write_figure(out / "training.png", figure)
        last = (
            f"Test accuracy {state.test_accuracies[-1]:.4f} after {state.epoch} epochs, "
            f"{state.epoch - resumed} of them in {seconds:.1f} s"
        )
        Console(quiet=quiet).print(last, highlight=False, soft_wrap=True)
        files = ", ".join(str(out / name) for name in ("results.json", "training.png", "weights.npz"))
        status.print(f"Written: {files}", highlight=False, soft_wrap=True)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--peers", is_flag=True, help="Compare with other packages too: those of the extra bench.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 60),
    default=0.6,
    show_default=True,
    help="For how many seconds each kernel is timed.",
)
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def bench(as_json: bool, peers: bool, seconds: float, quiet: bool) -> None:
    """Time the kernels on this machine in under a minute.

    Each runs on one thread, in turn with NumPy doing the same, and with other packages if --peers is given. Runs that
    are to give the same bits are compared before they are timed.

    The limits of the machine are measured too: how many bits it can AND and count in registers, how many random digits
    it can make, how fast it reads, and writes to new arrays, near the core (512 KiB) and far from it (256 MiB). The
    share of a kernel is the time that it would take at these limits, over the time that it takes.
    """
    with _plain_errors(), _stoppable() as stopped:
        from rich.console import Console

        from .jobs.bench import cases, measure
        from .limits import measure_limits
        from .progress import bar

        if peers:
            from .jobs.peers import require_all

            require_all()
        status = Console(stderr=True, quiet=quiet)
        with status.status("the limits of this machine"):
            limits = measure_limits()
        speeds: list[Speed] = []
        with bar(None, "kernels", "kernels", quiet=quiet) as update:
            for case in cases(peers):
                stopped()
                update(len(speeds), case.name)
                speeds.append(measure(case, limits, seconds))
            update(len(speeds), "timed")
        if as_json:
            report = {
                "scdask": __version__,
                "processor": _processor(),
                "packages": _versions(BENCHED),
                "limits": vars(limits),
                "kernels": [vars(s) | {"rate": s.rate, "ratios": s.ratios} for s in speeds],
            }
            click.echo(json.dumps(report, indent=2))
        else:
            _print_speeds(Console(), speeds, limits)


def _print_speeds(console: Console, speeds: Sequence[Speed], limits: Limits) -> None:
    from rich.table import Table

    from .jit_kernels import DIGITS

    gigabytes = ", ".join(
        f"{name.replace('_', ' ')} {rate / 1e9:.0f} GB/s" for name, rate in vars(limits).items() if "_" in name
    )
    caption = (
        f"{_processor()}. Gbitop/s: 10^9 pairs of bits gated and counted a second; Gbit/s: 10^9 bits of the result, or "
        "counted. Share: the time at the limits of what the kernel uses, one after the other, over its time. Limits of "
        f"a thread, measured to a few percent: arithmetic {limits.arithmetic / 1e9:.0f} Gbitop/s; random digits "
        f"{limits.digits / 1e9:.0f} 10^9/s, of which a bit takes {DIGITS:.1f}; {gigabytes}, near 512 KiB, far 256 MiB. "
        "Times: that of the other over ours."
    )
    table = Table(title="scdask kernels, one thread unless said", caption=caption, caption_justify="left")
    table.add_column("kernel")
    table.add_column("speed", justify="right", no_wrap=True)
    table.add_column("share")
    table.add_column("times", min_width=16)
    for speed in speeds:
        share = f"{speed.share:.0%} {', '.join(speed.limits).replace('_', ' ')}"
        table.add_row(speed.case, f"{_short(speed.rate)} {speed.unit}", share, _ratios(speed))
    console.width = max(console.width, 80)  # a narrower table would hide figures
    console.print(table)


def _ratios(speed: Speed) -> str:
    return ", ".join(f"{name} {_short(ratio)}" for name, ratio in speed.ratios.items())


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}"


def _processor() -> str:
    import platform

    from .limits import simd

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({', '.join(simd())})"


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@main.command("mpi-run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(1), help="Threads of each worker.")
@click.option("--interface", help="Network interface of the cluster, such as ib0.")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def mpi_run(script: str, args: tuple[str, ...], threads: int | None, interface: str | None) -> None:
    """Run a Dask script in an MPI job.

    Under mpiexec or srun, one rank runs SCRIPT with its ARGS, and finds the other ranks as the cluster of its
    `Client()`. Of three ranks or more, one is the scheduler, and all but two are workers.
    """
    with _plain_errors(), _stoppable():
        from .mpi_batch import run_script

        run_script(script, args, threads, interface)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("job", type=click.Choice(["infer", "train"]))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("-N", "--nodes", type=click.IntRange(1), default=1, show_default=True, help="Nodes.")
@click.option("-n", "--ntasks", type=click.IntRange(1), required=True, help="Ranks.")
@click.option(
    "-t", "--time", "limit", type=SLURM_TIME, required=True, help="Time limit, such as 30 (minutes), 2:00:00 or 1-0."
)
@click.option("-c", "--cpus-per-task", type=click.IntRange(1), default=1, show_default=True, help="Cores of each rank.")
@click.option("--mem", type=SLURM_MEMORY, help="Memory of each node, such as 16G.")
@click.option("-p", "--partition", type=SLURM_NAME, help="Partition of the cluster.")
@click.option("-A", "--account", type=SLURM_NAME, help="Account that pays.")
@click.option("--launcher", type=click.Choice(["srun", "mpiexec"]), default="srun", show_default=True)
@click.option(
    "--mpi", "mpi_type", type=SLURM_NAME, help="What srun knows as --mpi: pmi2, pmix, cray_shasta; see srun --mpi=list."
)
@click.option("--setup", multiple=True, help="A line to run first, such as 'module load mpich'; again for more.")
@click.option("--script", type=click.Path(dir_okay=False, path_type=Path), help="File to write; by default JOB.sbatch.")
@click.option("--submit", is_flag=True, help="Submit it too.")
def sbatch(job: str, args: tuple[str, ...], script: Path | None, submit: bool, **options: Any) -> None:
    """Write, and submit, a Slurm script that runs a job of scdask in MPI.

    JOB is infer or train, ARGS what it takes, such as `infer digits --repeat 3`. The script runs it with --scheduler
    mpi, in the environment of this command and the folder from which it is submitted.
    """
    with _plain_errors():
        from . import slurm

        if options["nodes"] > options["ntasks"]:
            raise click.UsageError(f"{options['ntasks']} ranks cannot be on {options['nodes']} nodes")
        given = main.commands[job].make_context(f"scdask {job}", list(args)).params  # refuses options that are wrong
        if given["scheduler"] not in ("local", "mpi") or given["workers"] is not None:
            raise click.UsageError("a job in MPI takes no --scheduler and no --workers: its ranks are the workers")
        if job == "infer":
            _check_inputs(given["dataset"], given["model"], given["data"])
        path = script or Path(f"{job}.sbatch")
        with _plain_os_errors(path.parent):
            path.write_text(slurm.batch_script([job, *args], **options))
        click.echo(f"Written: {path}", err=True)
        if submit:
            click.echo(f"Submitted: job {slurm.submit(path)}")


@main.command()
def info() -> None:
    """Print versions, cores, SIMD, and what works."""
    import platform

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from .cluster import available_cores
    from .limits import SIMD, simd

    table = Table(show_header=False)
    table.add_row("scdask", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("numpy", "numba", "dask", "distributed"):
        table.add_row(package, version(package))
    table.add_section()
    table.add_row("cores", f"{available_cores()} of {os.cpu_count()} usable")
    table.add_row("SIMD", ", ".join(simd()) or "none of " + ", ".join(SIMD))
    table.add_section()
    checks = {"NumPy": _check_numpy, "Dask": _check_dask, "CuPy": _check_cupy, "JAX": _check_jax}
    for name, check in checks.items():
        table.add_row(f"{name} arrays", escape(_outcome(check)))
    table.add_section()
    for package, extra in OPTIONAL.items():
        table.add_row(package, escape(_installed(package, extra)))
    Console().print(table)


def _check_numpy() -> None:
    from .encoding import Sobol, encode

    ones = (encode(0.75, 256, sng=Sobol(1)) & encode(0.5, 256, sng=Sobol(2))).popcount()
    if ones != 96:
        raise ScdaskError(f"0.75 * 0.5 gave {ones} ones of 256 instead of 96")


def _check_dask() -> None:
    from .encoding import Sobol, encode

    ones = encode([0.75, 0.5], 256, sng=Sobol(1), chunks=(1, -1)).popcount().compute(scheduler="synchronous")
    if ones.tolist() != [192, 128]:
        raise ScdaskError(f"0.75 and 0.5 gave {ones} ones of 256 instead of 192 and 128")


def _check_cupy() -> str:
    from . import gpu_backend

    reason = gpu_backend.why_no_gpu()
    if reason is not None:
        return reason
    _check_device(gpu_backend.to_device)
    return f"works on {', '.join(gpu_backend.devices())}"


def _check_device(to_device: Callable[[Any], Any]) -> None:
    from .bitstream import to_host
    from .encoding import Sobol, encode

    ones = to_host(encode(to_device([0.75, 0.5]), 256, sng=Sobol(1)).popcount())
    if ones.tolist() != [192, 128]:
        raise ScdaskError(f"0.75 and 0.5 gave {ones} ones of 256 instead of 192 and 128")


def _check_jax() -> str:
    from . import jax_backend

    _check_device(jax_backend.to_jax)
    return f"works on {', '.join(str(device) for device in jax_backend.jax.devices())}"


def _outcome(check: Callable[[], str | None]) -> str:
    try:
        return check() or "works"
    except MissingBackendError as error:
        return str(error)
    except Exception as error:  # whatever is wrong here is what the user asks about
        return f"does not work: {error}"


def _installed(package: str, extra: str) -> str:
    from importlib.util import find_spec

    if find_spec(package) is None:
        return f"not installed: pip install 'scdask[{extra}]'"
    return version({"sklearn": "scikit-learn"}.get(package, package))


if TYPE_CHECKING:
    from rich.console import Console

    from .cluster import Place
