"""The few building blocks of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def section(name: str, heading: str, lead: str, *parts: str) -> str:
    """One part of the page; `lead` and `parts` are HTML already."""
    said = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}"><h2>{escape(heading)}</h2>{said}{"".join(parts)}</section>'


def card(*parts: str, kind: str = "") -> str:
    """A box."""
    return f'<div class="card {kind}">{"".join(parts)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = (), look: str = "") -> str:
    """An HTML table; cells are HTML already. `head` empty: no head. `kinds`: a class per row; `look`: of the table."""
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    body = ""
    for place, row in enumerate(rows):
        kind = f' class="{kinds[place]}"' if kinds and kinds[place] else ""
        body += f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    return f'<div class="scroll"><table class="{look}">{top}<tbody>{body}</tbody></table></div>'


def count(n: int, one: str, many: str = "") -> str:
    """`1 video`, `3 videos`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def span(low: float, high: float) -> str:
    """`8 to 40`, or `25` where both are the same."""
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def task_name(task: str) -> str:
    """`EF`, `view`: abbreviations as they are written."""
    return task.upper() if len(task) <= 3 else task


def minus(words: str) -> str:
    """Figures with a true minus sign, escaped."""
    return escape(words.replace("-", "−"))
