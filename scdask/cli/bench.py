"""`scdask bench`: the speed of the kernels on this machine."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import ScdaskError, printable
from .options import FilePath
from .running import plain_errors, print_wide, printing, stoppable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from ..jobs.bench import Speed
    from ..jobs.machine import Machine
    from ..limits import Limits

BENCHED = ("numpy", "numba", "numkong", "simsimd", "faiss-cpu", "sc-neurocore", "sc-neurocore-engine")

BUSY = (
    "A share of {:.0%} is no speed of a kernel: the machine was busy when its limits were measured, and shares are too "
    "high. Run it again when nothing else runs."
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--peers", is_flag=True, help="Compare with other packages too: those of the extra bench.")
@click.option(
    "--compare",
    "saved",
    type=FilePath(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Compare with what --json printed before, here or on another machine, of this version or another.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 60),
    default=0.6,
    show_default=True,
    help="For how many seconds each kernel is timed.",
)
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def bench(as_json: bool, peers: bool, saved: Path | None, seconds: float, quiet: bool) -> None:
    """Time the kernels on this machine in about a minute.

    Each runs on one thread, in turn with NumPy doing the same, and with other packages if --peers is given (pip install
    "scdask[bench]"). Runs that are to give the same bits are compared before they are timed.

    The limits of the machine are measured too: how many bits it can AND and count in registers, by the quickest of
    several forms (trees of carry-save adders, scalar counts beside them, look-ups), how many random digits it can make,
    how fast it reads, and writes to new arrays, near the core (512 KiB) and far from it (256 MiB). The share of a
    kernel is the time that it would take at these limits, over the time that it takes.

    The ratios to others move by a tenth from run to run, and more where caches decide. The speeds that --compare
    divides are of two runs, and move more where other work runs. benchmarks/README.md of the source tree has a table
    that was measured, and says how to run the rest: Dask graphs against their kernels, stores larger than memory,
    scaling, MPI, GPUs.

    \b
    The table has a row a kernel
      speed     Gbitop/s: 10^9 pairs of bits gated and counted a second
                Gbit/s: 10^9 bits of the result, or counted, a second
      share     of the limits that are named beside it; above 105 %: busy
      times     the time of each other over ours
      speed-up  with --compare, the speed over that in the file; kernels that
                only one of both runs has are named below

    \b
    The JSON holds
      scdask, packages                  what was timed
      processor, threads, cores         where: the hyperthreads that may be used,
                                        and their cores, or null if not known
      level, compiled_for               of the instructions of the processor, and
                                        of the kernels, such as x86-64-v3
      limits                            of the machine, a second: arithmetic and
                                        arithmetic_of_two (bit operations on one
                                        thread and on two, by a form), digits, and
                                        bytes: read_near, read_far, write_near,
                                        write_far
      busy                              whether a share is over 105 %: then other
                                        work has slowed the limits
      kernels: of each
        case, work, unit, rate          its name, its bits, its speed in a unit
        seconds                         of the quickest call of each, ours first
        ratios                          the time of each other over ours
        share, limits                   the share that it reaches of these limits
        compared                        with --compare: the speed over that in
                                        the file, or null
      compared                          with --compare: file, and scdask and
                                        processor in it; kernels that are
                                        only_here or only_there
    """
    with plain_errors(), stoppable() as exit_if_stopped:
        from ..jobs.bench import cases, measure
        from ..jobs.machine import this_machine
        from ..limits import measure_limits
        from ..progress import bar, stderr_console

        if peers:
            from ..jobs.peers import require_all

            require_all()
        machine, before = this_machine(), _read(saved) if saved else None
        status = stderr_console(quiet=quiet)
        with status.status("the limits of this machine"):
            limits = measure_limits()
        speeds: list[Speed] = []
        try:
            with bar(None, "kernels", "kernels", quiet=quiet) as update:
                for case in cases(peers):
                    exit_if_stopped()
                    update(len(speeds), case.name)
                    speeds.append(measure(case, limits, seconds))
                update(len(speeds), "timed")
        finally:  # What is timed is printed also if the job is stopped.
            with printing(saved=False, quiet=not speeds) as console:
                if as_json:
                    click.echo(json.dumps(_report(speeds, limits, machine, before), indent=2))
                else:
                    _print_speeds(console, speeds, limits, machine, before)
                    if _is_busy(speeds):
                        console.print(BUSY.format(max(speed.share for speed in speeds)), highlight=False)


def _is_busy(speeds: Iterable[Speed]) -> bool:
    """Whether a kernel is quicker than the machine was while its limits were measured, by more than the noise."""
    return any(speed.share > 1.05 for speed in speeds)


@dataclass(frozen=True)
class Saved:
    """An earlier run, as --json printed it.

    Parameters
    ----------
    file : str
        The name of the file.
    scdask, processor : str
        The version that was timed, and where.
    rates : dict
        The speed of each kernel.
    """

    file: str
    scdask: str
    processor: str
    rates: dict[str, float]

    def ratio(self, speed: Speed) -> float | None:
        """The speed of a kernel over that of the earlier run, None if it was not timed then."""
        return speed.rate / self.rates[speed.case] if speed.case in self.rates else None

    def only_here(self, speeds: Iterable[Speed]) -> list[str]:
        """The kernels that were not timed then."""
        return [speed.case for speed in speeds if speed.case not in self.rates]

    def only_there(self, speeds: Iterable[Speed]) -> list[str]:
        """The kernels that were only timed then."""
        return [name for name in self.rates if name not in {speed.case for speed in speeds}]


def _read(path: Path) -> Saved:
    try:
        report = json.loads(path.read_bytes())
        rates = {str(kernel["case"]): float(kernel["rate"]) for kernel in report["kernels"]}
        if not rates or not all(0 < rate < math.inf for rate in rates.values()):
            raise ValueError
        return Saved(path.name, str(report["scdask"]), str(report["processor"]), rates)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ScdaskError(f"{path} holds no speeds of kernels that `scdask bench --json` printed") from error


def _report(speeds: Sequence[Speed], limits: Limits, machine: Machine, before: Saved | None) -> dict[str, Any]:
    report = {
        "scdask": __version__,
        **vars(machine),
        "packages": _versions(BENCHED),
        "limits": vars(limits),
        "busy": _is_busy(speeds),
        "kernels": [vars(s) | {"rate": s.rate, "ratios": s.ratios} for s in speeds],
    }
    if before is not None:
        for kernel, speed in zip(report["kernels"], speeds, strict=True):
            kernel["compared"] = before.ratio(speed)
        report["compared"] = {
            "file": before.file,
            "scdask": before.scdask,
            "processor": before.processor,
            "only_here": before.only_here(speeds),
            "only_there": before.only_there(speeds),
        }
    return report


def _print_speeds(
    console: Console, speeds: Sequence[Speed], limits: Limits, machine: Machine, before: Saved | None
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..core.digits import DIGITS

    gigabytes = ", ".join(
        f"{name.replace('_', ' ')} {rate / 1e9:.0f} GB/s"
        for name, rate in vars(limits).items()
        if name.startswith(("read", "write"))
    )
    caption = (
        f"{machine}. Gbitop/s: 10^9 pairs of bits gated and counted a second; Gbit/s: 10^9 bits of the result, or "
        "counted. Share: the time at the limits of what the kernel uses, one after the other, over its time. Limits of "
        f"a thread, measured to a few percent: arithmetic {limits.arithmetic / 1e9:.0f} Gbitop/s, by {limits.form}, "
        f"the quickest of the forms that are tried, on two threads {limits.arithmetic_of_two / 1e9:.0f}; random digits "
        f"{limits.digits / 1e9:.0f} 10^9/s, of which a bit takes {DIGITS:.1f}; {gigabytes}, near 512 KiB, far 256 MiB. "
        "Times: that of the other over ours."
    )
    if before is not None:
        caption += f" Speed-up: the speed over that in {before.file}, of scdask {before.scdask} on {before.processor}."
        for which, names in (("here", before.only_here(speeds)), ("there", before.only_there(speeds))):
            if names:
                caption += f" Only {which}: {'; '.join(names)}."
    caption = escape(printable(caption))
    table = Table(title="scdask kernels, one thread unless said", caption=caption, caption_justify="left")
    table.add_column("kernel")
    table.add_column("speed", justify="right", no_wrap=True)
    table.add_column("share")
    table.add_column("times", min_width=16)
    if before is not None:
        table.add_column("speed-up", justify="right", no_wrap=True)
    for speed in speeds:
        share = f"{speed.share:.0%} {', '.join(speed.limits).replace('_', ' ')}"
        row = [speed.case, f"{_short(speed.rate)} {speed.unit}", share, _ratios(speed)]
        if before is not None:
            ratio = before.ratio(speed)
            row.append("" if ratio is None else f"{ratio:.2f}")
        table.add_row(*row)
    print_wide(console, table)


def _ratios(speed: Speed) -> str:
    return ", ".join(f"{name} {_short(ratio)}" for name, ratio in speed.ratios.items())


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}"


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
