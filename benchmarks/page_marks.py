"""Pages whose tables scripts write: what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

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
