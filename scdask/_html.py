"""Tables of objects, for notebooks in HTML that takes the colours of the page, so that dark themes can be read too."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BARE = "background: none; border: none"
LEFT, RIGHT = "text-align: left", "text-align: right"


def facts(title: str, values: Mapping[str, Any], picture: str = "") -> str:
    """A table of names and values, with an SVG picture beside it."""
    rows = "".join(
        f"<tr><th style='{LEFT}'>{escape(name)}</th><td style='{LEFT}'>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    left = f"<table>{_caption(title)}<tbody>{rows}</tbody></table>"
    if not picture:
        return left
    cells = "".join(f"<td style='{BARE}; vertical-align: top'>{cell}</td>" for cell in (left, picture))
    return f"<table style='{BARE}'><tr style='{BARE}'>{cells}</tr></table>"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A table with a head, and a note below; the first column is aligned to the left, the others to the right."""
    head = "".join(_cell("th", name, i) for i, name in enumerate(columns))
    body = "".join(f"<tr>{''.join(_cell('td', value, i) for i, value in enumerate(row))}</tr>" for row in rows)
    below = f"<p style='font-size: smaller; max-width: 50em'>{escape(note)}</p>" if note else ""
    return f"<table>{_caption(title)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as text."""
    lines = [columns, *rows]
    first, *others = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))]
        for name, *cells in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in padded)


def in_colours_of_page(svg: str) -> str:
    """The drawing of Dask's chunks with lines and numbers in the colour of the text around it instead of black."""
    return svg.replace("rgb(0,0,0)", "currentColor").replace("<text ", '<text fill="currentColor" stroke="none" ')


def size(n_bytes: float) -> str:
    """A number of bytes as text, from 1 KiB on also in a unit that is easy to read."""
    if math.isnan(n_bytes):
        return "not known"
    exact, value, unit = f"{n_bytes:,} bytes", n_bytes, ""
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:.1f} {unit} ({exact})" if unit else exact


def _caption(title: str) -> str:
    return f"<caption style='{LEFT}; font-weight: bold; color: inherit'>{escape(title)}</caption>"


def _cell(tag: str, value: Any, column: int) -> str:
    return f"<{tag} style='{RIGHT if column else LEFT}'>{escape(str(value))}</{tag}>"
