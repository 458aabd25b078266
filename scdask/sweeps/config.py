"""Campaigns as TOML files, of a user or of those that come with the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._files import reason, some
from ..errors import SweepError
from ..plotting.sweeps import KINDS

SHIPPED = Path(__file__).parent / "configs"
FIGURE = ("metric", "x", "lines", "kind")
MOST_SEEDS = 10**6


@dataclass(frozen=True)
class Config:
    """What a campaign is.

    Parameters
    ----------
    name : str
        What its files are called.
    title : str
    job : str
        One of `scdask.sweeps.jobs.JOBS`.
    over : dict of str to list
        The values of each axis.
    options : dict
        Those of the job.
    until : dict of str to float
        Half widths of intervals that are narrow enough, by the metric; "" is that of the job.
    figure : dict of str to str
        How it is drawn: "metric", "x", "lines" and "kind".
    folder : Path
        The one that paths of options begin in.
    """

    name: str
    title: str
    job: str
    over: dict[str, list[Any]]
    options: dict[str, Any] = field(default_factory=dict)
    until: dict[str, float] = field(default_factory=dict)
    figure: dict[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)


def shipped() -> list[str]:
    """The names of the campaigns that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def read_config(config: str | Path, changes: Mapping[str, Any] | None = None) -> Config:
    """Read a campaign from a TOML file.

    Parameters
    ----------
    config : path
        A file, or one of the names of `shipped`.
    changes : mapping, optional
        What is to be there in place of what the file says: its keys, and of a table only the ones that change.

    Raises
    ------
    SweepError
        If there is no such file, or a key of it is missing, unknown or of another type than it must be.
    """
    from .jobs import JOBS

    path = Path(config).expanduser()
    if not path.exists() and str(config) in shipped():
        path = SHIPPED / f"{config}.toml"
    try:
        read = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SweepError(f"there is no file {path}, and no campaign of that name, only {some(shipped())}") from None
    except (OSError, ValueError) as error:
        raise SweepError(f"{path} is no TOML file that can be read: {reason(error)}") from error
    for key, value in (changes or {}).items():
        tables = isinstance(value, Mapping) and isinstance(read.get(key, {}), dict)
        read[key] = {**read.get(key, {}), **value} if tables else value
    found = _Table(path, "", read)
    job = found.take("job", str)
    if job not in JOBS:
        raise SweepError(f"{path}: job is one of {', '.join(JOBS)}, not {job!r}")
    figure = found.table("figure")
    drawn = {key: figure.take(key, str) for key in FIGURE if key in figure.values}
    figure.refuse_the_rest()
    if drawn.get("kind", KINDS[0]) not in KINDS:
        raise SweepError(f"{path}: figure.kind is {' or '.join(map(repr, KINDS))}, not {drawn['kind']!r}")
    over = found.table("over")
    axes = {name: over.axis(name) for name in list(over.values)}
    if not axes:
        raise SweepError(f"{path}: over is a table of axes, such as length = [16, 64], and has none")
    until = found.table("until")
    widths = {name: until.width(name) for name in list(until.values)}
    title = found.take("title", str) if "title" in read else path.stem
    return Config(path.stem, title, job, axes, found.values, widths, drawn, path.parent)


class _Table:
    """A table of a file, from which keys are taken one after the other."""

    def __init__(self, path: Path, name: str, values: dict[str, Any]) -> None:
        self.path, self.name, self.values = path, name, dict(values)

    def take(self, key: str, kind: type) -> Any:
        """The value of a key, which must be there."""
        if key not in self.values:
            raise SweepError(f"{self._named(key)} is missing")
        value = self.values.pop(key)
        if not isinstance(value, kind):
            raise SweepError(f"{self._named(key)} is a {NAMES[kind]}, not {value!r}")
        return value

    def table(self, key: str) -> _Table:
        """A table in it, empty if it is not there."""
        return _Table(self.path, key, self.take(key, dict) if key in self.values else {})

    def refuse_the_rest(self) -> None:
        """Raise if a key is left."""
        for key in self.values:
            raise SweepError(f"{self._named(key)} is no key, those of {self.name} are {', '.join(FIGURE)}")

    def axis(self, name: str) -> list[Any]:
        """The values of an axis: those of a list, or the first seeds if it is a number."""
        values = self.values.pop(name)
        if name == "seed" and isinstance(values, int) and not isinstance(values, bool):
            if not 1 <= values <= MOST_SEEDS:
                raise SweepError(f"{self._named(name)} is a number of seeds from 1 to {MOST_SEEDS:,}, not {values}")
            return list(range(values))
        if not isinstance(values, list) or not values:
            raise SweepError(f"{self._named(name)} is a list of one value or more, not {values!r}")
        for value in values:
            if not isinstance(value, int | float | str | list) or value == []:
                raise SweepError(f"{self._named(name)} is a list of numbers, texts or lists of them, not of {value!r}")
        return [tuple(value) if isinstance(value, list) else value for value in values]

    def width(self, name: str) -> float:
        """Half of the width of an interval."""
        value = self.values.pop(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise SweepError(f"{self._named(name)} is half of the width of an interval, above 0, not {value!r}")
        return float(value)

    def _named(self, key: str) -> str:
        return f"{self.path}: {self.name}.{key}" if self.name else f"{self.path}: {key}"


NAMES: dict[type, str] = {str: "text", dict: "table"}
