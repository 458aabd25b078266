"""`scdask sweep`: campaigns, which go on where they were stopped."""

from __future__ import annotations

import tomllib
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .._extras import require
from ..errors import ScdaskWarning, SweepError
from .options import KEEP_OPEN, QUIET, SCHEDULERS, FilePath, home_of, scheduler_options, with_options
from .running import (
    Stopwatch,
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
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rich.console import Console

    from ..computing import Place
    from ..sweeps.config import Config
    from ..sweeps.jobs import Job

README = "readme"
PAGES = (Path("README.md"), Path("benchmarks/README.md"))
MOST_ROWS = 30  # of a table that is printed


class ConfigName(click.ParamType):  # type: ignore[type-arg]
    """A file, or the name of a campaign that comes with the package."""

    name = "config"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, with the home folder in place of ~."""
        return home_of(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete a name, or leave files to the shell."""
        from ..sweeps.config import shipped

        names = [CompletionItem(name) for name in (*shipped(), README) if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


class Pair(click.ParamType):  # type: ignore[type-arg]
    """A key and a text."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return both."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not (key.strip() and equals and text.strip()):
            self.fail(f"{value!r} is no key=value", param, ctx)
        return key.strip(), text.strip()


class Width(click.ParamType):  # type: ignore[type-arg]
    """Half of the width of an interval, and a metric before it unless it is that of the job."""

    name = "width"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Return the metric, or an empty text, and the number."""
        if isinstance(value, tuple):
            return value
        metric, _, number = value.rpartition("=")
        width = click.FLOAT.convert(number, param, ctx)
        if not 0 < width < inf:
            self.fail(f"half of the width of an interval is a number above 0, not {number}", param, ctx)
        return metric.strip(), width


@click.command(epilog=SCHEDULERS)
@click.argument("config", type=ConfigName(), required=False)
@click.option(
    "--over",
    type=Pair(),
    multiple=True,
    metavar="AXIS=VALUE[,...]",
    help="Other values of an axis, such as length=16,64 or seed=5, which is five seeds; again for another axis.",
)
@click.option(
    "--set",
    "options",
    type=Pair(),
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of an option of the job, such as network=perceptron; again for another. That is another "
    "campaign, which needs a --store of its own.",
)
@click.option(
    "--until",
    type=Width(),
    multiple=True,
    metavar="[METRIC=]WIDTH",
    help="Add seeds to each row until half of its interval is no wider, such as 0.005; of a metric that is no other.",
)
@click.option(
    "--figure",
    type=Pair(),
    multiple=True,
    metavar="KEY=VALUE",
    help='How the figure is drawn: metric=..., x=AXIS, lines=AXIS, or kind=lines or "heat map".',
)
@click.option("--retry", is_flag=True, help="Do the cells again that failed.")
@click.option(
    "--store",
    type=FilePath(path_type=Path),
    help="The Zarr store; by default the one of the name of the campaign in the folder of --out.",
)
@click.option("--status", type=FilePath(path_type=Path), metavar="STORE", help="Only say how far a campaign is.")
@click.option("--plot", type=FilePath(path_type=Path), metavar="STORE", help="Only write table and figure of a store.")
@click.option("--only", multiple=True, metavar="NAME", help="With readme: this campaign; again for another.")
@with_options(
    *scheduler_options("threads"),
    click.option(
        "--out",
        type=FilePath(file_okay=False, path_type=Path),
        default="results",
        show_default=True,
        help="Folder for store, table and figure. A campaign that is there already goes on.",
    ),
    KEEP_OPEN,
    QUIET,
)
def sweep(
    config: str | None,
    over: tuple[tuple[str, str], ...],
    options: tuple[tuple[str, str], ...],
    until: tuple[tuple[str, float], ...],
    figure: tuple[tuple[str, str], ...],
    retry: bool,
    store: Path | None,
    status: Path | None,
    plot: Path | None,
    only: tuple[str, ...],
    scheduler: str,
    workers: int | None,
    threads: int | None,
    interface: str | None,
    encrypted: bool,
    out: Path,
    keep: bool,
    quiet: bool,
) -> None:
    """Compute a table over many settings, with error bars.

    \b
    scdask sweep digits                    a campaign that comes with scdask
    scdask sweep mine.toml --until 0.005   one of your own
    scdask sweep --status results/digits.zarr
    scdask sbatch sweep mine.toml -n 4 -t 30 --array 8 --submit

    A campaign runs a job for all combinations of the values of its axes, and takes means over the axis seed, with their
    95 % intervals.

    \b
    title = "Accuracy of the digits"
    job = "infer"                 # or product, circuit, image
    dataset = "digits"            # an option of the job
    [over]                        # the axes
    sng = ["sobol", "lfsr", "bernoulli"]
    length = [16, 64, 256, 1024]
    seed = 20                     # the seeds 0 to 19
    [until]                       # add seeds until the interval is so narrow:
    accuracy = 0.005              # half of its width
    [figure]                      # all of it as you like
    x = "length"
    lines = "sng"
    kind = "lines"                # or "heat map"
    metric = "accuracy"

    Which options and axes a job has, says python -c "help('scdask.sweeps.jobs')". Paths of files begin in the folder of
    the configuration.

    \b
    The folder gets, of digits.toml or digits,
      digits.zarr  the store: each cell, that is a result for one setting and
                   seed, lands there as it is done, whole or not at all
      digits.csv   a row a setting: its axes, and of each metric the mean, the
                   ends low and high of the interval, and how many samples
      digits.png   lines with the bands of the intervals, a panel for each value
                   of a third axis; or a heat map

    A campaign that was stopped, or killed in any way, goes on when it is called again: what the store has is not done
    again. With more lengths or seeds, in the file or with --over, it does the new cells. Ctrl-C, SIGTERM or SIGHUP
    leaves table and figure as far as it came. Several jobs may have one store, on a file system that they share and
    that has locks: each does cells of its own. A store of another campaign is refused.

    So a batch job that its time limit ends goes on in the next, and the jobs of an array (scdask sbatch sweep --array)
    share the cells as they come. --status tells how far they are, --plot draws what is there: both at any time, and
    they write nothing to the store.

    A cell that fails is kept with its error, and does not end the campaign. The exit code is 1 if all have failed.

    It runs in threads of this process unless --scheduler is given, as most cells take milliseconds: a cluster has a
    dashboard, which shows how far the campaign is, and other machines.

    scdask sweep readme runs all campaigns that come with scdask, and writes their means as tables in Markdown, such as
    digits.md. Where README.md or benchmarks/README.md of the current folder has the lines <!-- sweep digits --> and
    <!-- end sweep -->, the table between them is renewed.

    It needs pip install "scdask[apps,sweeps]", and what its job needs. In Python it is `scdask.sweep`; results are
    opened with `scdask.sweeps.open_sweep`.
    """
    changes = changes_of(over, options, until, figure)
    if status or plot:
        if config or (status and plot):
            raise click.UsageError("give one of CONFIG, --status and --plot")
        refuse_what_changes_nothing(changes if status else changes.keys() - {"figure"}, retry, store, only)
        with plain_errors():
            for package, extra in NEEDED:
                require(package, extra)
            _tell(status, quiet) if status else _plot(Path(plot or ""), out, changes.get("figure", {}), quiet)
        return
    require_config(config, changes, store, only)
    refuse_ranks(scheduler)
    watch = Stopwatch()
    with plain_errors(), stoppable() as exit_if_stopped, ExitStack() as stack:
        opening = opened(quiet, scheduler, workers, threads, interface, encrypted)
        place = stack.enter_context(opening) if scheduler == "mpi" else None
        for package, extra in NEEDED:
            require(package, extra)
        from ..progress import stderr_console
        from ..sweeps.config import read_config, shipped
        from ..sweeps.jobs import make_job

        console = stderr_console(quiet=quiet)
        names = only or shipped() if config == README else [str(config)]
        for name in names:
            read = read_config(name, changes)
            with console.status("preparing the data"):
                job = make_job(read.job, dict(read.options), dict(read.over), read.folder)
            check_figure(read, job)
            exit_if_stopped()
            place = place or stack.enter_context(opening)
            campaign = Campaign(read, job, store or out / f"{read.name}.zarr", out, console, quiet)
            campaign.run(place, retry, exit_if_stopped)
            if config == README:
                campaign.renew()
        assert place is not None
        with printing(saved=True, quiet=quiet) as printed:
            say(printed, f"From its start to its results, the job took {watch.spent(place)}.")
        if keep:
            keep_open(console, place)


NEEDED = (("xarray", "sweeps"), ("zarr", "sweeps"), ("matplotlib", "apps"))  # packages and extras


@dataclass(frozen=True)
class Campaign:
    """A campaign of the command line, and where its files are."""

    config: Config
    job: Job
    store: Path
    out: Path
    status: Console
    quiet: bool

    def run(self, place: Place, retry: bool, exit_if_stopped: Callable[[], None]) -> None:
        """Do the cells that are left, and write what there is, also if it is stopped."""
        from ..sweeps import sweep

        config, job = self.config, self.job
        about: dict[str, Any] = {"title": config.title, "metric": job.metric} | config.figure
        if about["metric"] == job.metric and job.reference is not None:
            about["reference"] = job.reference
        make_folder(self.out, ())
        place.wait_until_ready()
        exit_if_stopped()  # What compiles kernels may have swallowed it.
        with plain_os_errors(self.store.parent), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"[\d]+ of [\d]+ cells failed", ScdaskWarning)  # The table says it.
            try:
                found = sweep(
                    job.function,
                    over=job.over,
                    data=job.data,
                    scheduler=place,
                    store=self.store,
                    until={metric or job.metric: width for metric, width in config.until.items()} or None,
                    where=job.where,
                    cost=job.cost,
                    units=job.units,
                    about=job.about,
                    attributes=about,
                    retry=retry,
                    progress=not self.quiet,
                )
                exit_if_stopped()
            except SweepError:
                raise
            except BaseException:
                if (self.store / "zarr.json").exists():
                    self.save()
                raise
        self.save()
        self.tell(found.attrs["cells"])
        errors = [error for error in found.error.values.ravel() if error]
        if errors and not any((found[name] > 0).any() for name in found if str(name).endswith("_samples")):
            raise click.ClickException(f"all {len(errors)} cells failed, the first with {errors[0]}")

    def save(self) -> None:
        """Write table and figure of what the store holds."""
        from ..sweeps.status import status_of

        written = write_files(self.store, self.out, self.store.stem, {}, self.status)
        far = status_of(self.store)
        done = f" ({far.done + far.failed:,} of {far.asked:,} cells)" if far.left else ""
        say(self.status, f"Written{done}: {', '.join(map(str, [self.store, *written]))}")

    def tell(self, now: int) -> None:
        """Print the table, and how many cells were done."""
        from ..sweeps import open_sweep
        from ..sweeps.status import status_of
        from ..sweeps.tables import in_order

        far = status_of(self.store, 3)
        with printing(saved=True, quiet=self.quiet) as console:
            _print_rows(console, self.config.title, in_order(open_sweep(self.store)), f"{self.store.stem}.csv")
            before = max(0, far.done + far.failed - now)
            say(console, f"{far.asked:,} cells: {now:,} computed now, {before:,} were there, {far.failed:,} failed.")
            _say_errors(console, far.errors, far.failed)

    def renew(self) -> None:
        """Write the table in Markdown, and renew it in the pages of the current folder."""
        from .._files import write_whole
        from ..sweeps import open_sweep
        from ..sweeps.tables import crossed, in_order, markdown, renewed

        text = markdown(*crossed(in_order(open_sweep(self.store))))
        name = self.config.name
        pages = {self.out / f"{name}.md": text}
        for path in PAGES:
            if path.is_file():
                before = path.read_text("utf-8")
                after = renewed(before, name, text)
                pages |= {path: after} if after != before else {}
        for path, content in pages.items():
            with plain_os_errors(path.parent):
                write_whole(path, methodcaller("write", content.encode()))
        say(self.status, f"Written: {', '.join(map(str, pages))}")


def changes_of(
    over: tuple[tuple[str, str], ...],
    options: tuple[tuple[str, str], ...],
    until: tuple[tuple[str, float], ...],
    figure: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """What options of the command line change of a configuration."""
    changes: dict[str, Any] = {key: _value(text) for key, text in options}
    tables = {
        "over": {axis: _axis(axis, text) for axis, text in over},
        "until": dict(until),
        "figure": dict(figure),
    }
    return changes | {name: table for name, table in tables.items() if table}


def _axis(axis: str, text: str) -> Any:
    values = [_value(part.strip()) for part in text.split(",")]
    return values[0] if axis == "seed" and len(values) == 1 else values


def _value(text: str) -> Any:
    """A value as TOML writes it; 64/256 is a list, and what is nothing else is text."""
    parts = text.split("/")
    if len(parts) > 1 and all(part.isdecimal() for part in parts):
        return [int(part) for part in parts]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def refuse_what_changes_nothing(changes: Collection[str], retry: bool, store: Path | None, only: Any) -> None:
    """Raise a UsageError if --status or --plot has options of a campaign that is computed."""
    if changes or retry or store or only:
        raise click.UsageError("--status takes no options of a campaign, and --plot none but --figure and --out")


def require_config(config: str | None, changes: dict[str, Any], store: Path | None, only: tuple[str, ...]) -> None:
    """Raise a UsageError unless the arguments say what to do."""
    from ..sweeps.config import shipped

    known = ", ".join((*shipped(), README))
    if config is None:
        raise click.UsageError(f"give a file CONFIG.toml, or one of {known}")
    if config == README and (changes or store):
        raise click.UsageError(
            "readme runs the campaigns as they are: it takes no --store, and nothing that changes them"
        )
    if only and config != README:
        raise click.UsageError("--only goes with readme")
    for name in only:
        if name not in shipped():
            raise click.UsageError(f"--only takes one of {', '.join(shipped())}, not {name}")


def check_figure(config: Config, job: Job) -> None:
    """Raise a SweepError if the axes of the figure are none."""
    from ..plotting.sweeps import roles
    from ..sweeps.grid import Axis, label_of

    values = {
        name: Axis(name, []).coordinate([label_of(value) for value in of])
        for name, of in job.over.items()
        if name != "seed"
    }
    roles(values, *(config.figure.get(key) for key in ("x", "lines", "kind")))


def write_files(store: Path, out: Path, name: str, figure: dict[str, str], status: Console) -> list[Path]:
    """Write table and figure of a store, if there is anything to show, and return their paths."""
    from .._files import write_whole
    from ..plotting import sweep_figure
    from ..sweeps import open_sweep
    from ..sweeps.tables import in_order, metrics_of, rows_of

    dataset = in_order(open_sweep(store))
    if not metrics_of(dataset):
        return []
    table = rows_of(dataset)
    written = [out / f"{name}.csv"]
    with plain_os_errors(out):
        write_whole(written[0], lambda file: table.to_csv(file, index=False))
    try:
        drawn = sweep_figure(dataset, **figure)
    except SweepError as error:
        say(status, f"Warning: no figure: {error}")
        return written
    write_figure(out, f"{name}.png", lambda: drawn)
    return [*written, out / f"{name}.png"]


def _plot(store: Path, out: Path, figure: dict[str, str], quiet: bool) -> None:
    from ..plotting.sweeps import KINDS
    from ..progress import stderr_console
    from ..sweeps.config import FIGURE

    status = stderr_console(quiet=quiet)
    for key in figure.keys() - {*FIGURE}:
        raise SweepError(f"the figure has no {key}, but {', '.join(FIGURE)}")
    if figure.get("kind", KINDS[0]) not in KINDS:
        raise SweepError(f"the kind of the figure is {' or '.join(map(repr, KINDS))}, not {figure['kind']!r}")
    make_folder(out, ())
    written = write_files(store, out, store.stem, figure, status)
    say(status, f"Written: {', '.join(map(str, written))}" if written else f"{store} has no results yet.")


def _tell(store: Path, quiet: bool) -> None:
    """Print how far a campaign is."""
    from rich.table import Table

    from ..sweeps.status import status_of

    far = status_of(store)
    with printing(saved=False, quiet=quiet) as console:
        say(console, f"{far.title}: {far.done:,} of {far.asked:,} cells done, {far.failed:,} failed,")
        alive = sum(job.alive for job in far.jobs)
        what = "no job" if not alive else "1 job" if alive == 1 else f"{alive} jobs"
        say(console, f"{far.left:,} left, of which {far.claimed:,} are claimed; {what} at work.")
        _say_errors(console, far.errors, far.failed)
        table = Table(title="Jobs")
        for column in ("job", "host", "process", "started (UTC)", "", "claimed"):
            table.add_column(column, justify="right" if column in ("job", "process", "claimed") else "left")
        shown = [(number, job) for number, job in enumerate(far.jobs, 1) if job.alive]
        shown += [(number, job) for number, job in enumerate(far.jobs, 1) if not job.alive][-MOST_ROWS:]
        for number, job in sorted(shown, key=lambda each: each[0]):
            how = "at work" if job.alive else "ended"
            started = job.started.removesuffix("+00:00").replace("T", " ")
            table.add_row(str(number), job.host, str(job.pid), started, how, f"{job.claimed:,}" if job.alive else "")
        print_wide(console, table)


def _say_errors(console: Console, errors: list[tuple[dict[str, Any], str]], failed: int) -> None:
    for setting, error in errors:
        say(console, f"Failed: {', '.join(f'{name} {value}' for name, value in setting.items())}: {error}")
    if failed > len(errors):
        say(console, f"Failed: {failed - len(errors):,} more")


def _print_rows(console: Console, title: str, dataset: Any, file: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..errors import printable
    from ..sweeps.tables import metrics_of, rows_of, with_half

    names = metrics_of(dataset)
    if not names:
        return
    frame = rows_of(dataset)
    plus_minus = "±" if console.encoding.startswith("utf") else "+-"
    axes = [name for name in frame if name in dataset.coords]
    alone = [(name, str(dataset[name].values[0])) for name in axes if dataset.sizes[name] == 1]
    shown = frame[:MOST_ROWS].to_dict("records")
    columns = {str(name): [str(row[name]) for row in shown] for name in axes if dataset.sizes[name] > 1}
    count = [f"{row[f'{names[0]}_samples']:,}" for row in shown]
    for name in names:
        ends = [[row[f"{name}_{end}"] for end in ("mean", "low", "high")] for row in shown]
        column = [with_half(*of).replace("±", plus_minus) for of in ends]
        if name == names[0] or _width(columns | {name: column, "samples": count}) <= max(console.width, 80):
            columns[name] = column
    columns["samples"] = count
    more = "" if len(frame) == len(shown) and set(names) <= set(columns) else f" All rows and metrics are in {file}."
    one = ", ".join(f"{name} {value}" for name, value in alone if value)
    note = f"{one}. " * bool(one) + f"{plus_minus}: half of the 95 % interval.{more}"
    table = Table(title=escape(printable(title)), caption=escape(printable(note)))
    for name in columns:
        table.add_column(
            escape(name),
            justify="left" if name in axes and dataset[name].dtype.kind not in "iuf" else "right",
            no_wrap=True,
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(escape(printable(text)) for text in row))
    print_wide(console, table)


def _width(columns: dict[str, list[str]]) -> int:
    """How wide a table is."""
    return 1 + sum(3 + max(map(len, [name, *texts])) for name, texts in columns.items())
