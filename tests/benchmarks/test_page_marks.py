"""Tables of scripts go between the marks of a page, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

import page_marks
import pytest


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- decoder avx2: begin -->\nold\n<!-- decoder avx2: end -->\nb\n")
    page_marks.fill(page, "decoder avx2", "new\n| 1 |\n")
    assert page.read_text() == "a\n<!-- decoder avx2: begin -->\nnew\n| 1 |\n<!-- decoder avx2: end -->\nb\n"
    with pytest.raises(SystemExit, match="decoder native: begin"):
        page_marks.fill(page, "decoder native", "")


@pytest.mark.parametrize("text", ["<!-- t: end --> <!-- t: begin -->", "<!-- t: begin -->" * 2 + "<!-- t: end -->"])
def test_marks_in_disorder_are_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="t: begin"):
        page_marks.filled(text, "t", "new")
