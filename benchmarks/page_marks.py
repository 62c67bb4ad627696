"""Pages whose tables scripts write: what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

Tables of a second machine have marks of their own, `NAME on MACHINE`; what one machine measured is never written over
by another.
"""

from __future__ import annotations

from pathlib import Path


def filled(text: str, name: str, content: str, what: str = "the page") -> str:
    """`text` with `content` between the marks of `name`.

    Raises:
        SystemExit: it has no such marks, or has them twice.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise SystemExit(f"{what} has no {begin} … {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content.rstrip()}\n{end}{rest.split(end)[1]}"


def fill(page: Path, name: str, content: str) -> None:
    """Put `content` between the marks of `name` on a page."""
    page.write_text(filled(page.read_text(encoding="utf-8"), name, content, str(page)), encoding="utf-8")


def fill_for(page: Path, name: str, machine: str, content: str) -> None:
    """Put a machine's tables between the marks of `name on machine`, or of `name` if what stands there is its own.

    Args:
        page: the page.
        name: of the tables.
        machine: what the processor is called; `content` must say so in its first line.
        content: the tables.

    Raises:
        SystemExit: there are no such marks.
    """
    text = page.read_text(encoding="utf-8")
    own = f"{name} on {machine}"
    if f"<!-- {own}: begin -->" not in text:
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        there = text.partition(begin)[2].partition(end)[0].strip().partition("\n")[0]
        if there and machine not in there.split(", "):
            raise SystemExit(f"{page}: {name} has another machine's tables; give this one <!-- {own}: begin -->, end")
        own = name
    fill(page, own, content)
