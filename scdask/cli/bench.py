"""`scdask bench`: the speed of the kernels on this machine."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .running import plain_errors, print_wide, printing, stoppable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from ..jobs.bench import Speed
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
    "--seconds",
    type=click.FloatRange(0.001, 60),
    default=0.6,
    show_default=True,
    help="For how many seconds each kernel is timed.",
)
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def bench(as_json: bool, peers: bool, seconds: float, quiet: bool) -> None:
    """Time the kernels on this machine in under a minute.

    Each runs on one thread, in turn with NumPy doing the same, and with other packages if --peers is given (pip install
    "scdask[bench]"). Runs that are to give the same bits are compared before they are timed.

    The limits of the machine are measured too: how many bits it can AND and count in registers, how many random digits
    it can make, how fast it reads, and writes to new arrays, near the core (512 KiB) and far from it (256 MiB). The
    share of a kernel is the time that it would take at these limits, over the time that it takes.

    The ratios to others move by a tenth from run to run, and more where caches decide. benchmarks/README.md of the
    source tree has a table that was measured, and says how to run the rest: Dask graphs against their kernels, stores
    larger than memory, scaling, MPI, GPUs.

    \b
    The table has a row a kernel
      speed  Gbitop/s: 10^9 pairs of bits gated and counted a second
             Gbit/s: 10^9 bits of the result, or counted, a second
      share  of the limits that are named beside it; above 105 %: busy
      times  the time of each other over ours

    \b
    The JSON holds
      scdask, processor, packages       what was timed where
      limits                            of the machine, a second: arithmetic (bit
                                        operations), digits, and bytes: read_near,
                                        read_far, write_near, write_far
      busy                              whether a share is over 105 %: then other
                                        work has slowed the limits
      kernels: of each
        case, work, unit, rate          its name, its bits, its speed in a unit
        seconds                         of the quickest call of each, ours first
        ratios                          the time of each other over ours
        share, limits                   the share that it reaches of these limits
    """
    with plain_errors(), stoppable() as exit_if_stopped:
        from ..jobs.bench import cases, measure
        from ..limits import measure_limits
        from ..progress import bar, stderr_console

        if peers:
            from ..jobs.peers import require_all

            require_all()
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
                    click.echo(json.dumps(_report(speeds, limits), indent=2))
                else:
                    _print_speeds(console, speeds, limits)
                    if _is_busy(speeds):
                        console.print(BUSY.format(max(speed.share for speed in speeds)), highlight=False)


def _is_busy(speeds: Iterable[Speed]) -> bool:
    """Whether a kernel is quicker than the machine was while its limits were measured, by more than the noise."""
    return any(speed.share > 1.05 for speed in speeds)


def _report(speeds: Sequence[Speed], limits: Limits) -> dict[str, Any]:
    return {
        "scdask": __version__,
        "processor": _processor(),
        "packages": _versions(BENCHED),
        "limits": vars(limits),
        "busy": _is_busy(speeds),
        "kernels": [vars(s) | {"rate": s.rate, "ratios": s.ratios} for s in speeds],
    }


def _print_speeds(console: Console, speeds: Sequence[Speed], limits: Limits) -> None:
    from rich.table import Table

    from ..core.digits import DIGITS

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
    print_wide(console, table)


def _ratios(speed: Speed) -> str:
    return ", ".join(f"{name} {_short(ratio)}" for name, ratio in speed.ratios.items())


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}"


def _processor() -> str:
    from ..limits import simd

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
