"""What the sections of the page share: colours, titles, tables and numbers."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = 7  # lines of a figure: as many as there are colours that everybody tells apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")  # the colours of Okabe and Ito
MUTED = "#595959"
TEXTS = ("operation", "worker", "backend", "SIMD", "rule", "campaign")  # columns of tables that hold text


def table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """An HTML table, whose columns are the keys of its rows: texts on the left, numbers on the right."""
    head = "".join(_cell("th", title, "") for title in rows[0]) if rows else ""
    body = "".join(f"<tr>{''.join(_cell('td', *item) for item in r.items())}</tr>" for r in rows)
    return f"<table data-table='{name}' style='border-collapse: collapse; width: 100%'><tr>{head}</tr>{body}</table>"


def _cell(tag: str, title: str, value: Any) -> str:
    side = "left" if title in TEXTS else "right"
    text = title if tag == "th" else value
    style = f"text-align: {side}; padding: 3px 10px; border-bottom: 1px solid #ddd; font-size: 13px"
    return f"<{tag} style='{style}'>{escape(str(text))}</{tag}>"


def title(text: str, note: str = "") -> str:
    """A heading of a section, with a note in grey."""
    return f"<b>{text}</b> <span style='color: {MUTED}'>{escape(note)}</span>"


def scaled(number: float, unit: str) -> str:
    """The number with three digits and an SI prefix."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return (
                f"{number / size:.3g} {prefix}{unit}"
                if number < 999.5 * size
                else f"{number / size:,.0f} {prefix}{unit}"
            )
    return f"{number:.0f} {unit}"
