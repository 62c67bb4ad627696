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


def test_a_machine_never_writes_over_the_tables_of_another(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- t: begin -->\n2026, icelake, 2 CPUs\n1\n<!-- t: end -->\n")
    page_marks.fill_for(page, "t", "icelake", "2027, icelake, 2 CPUs\n2")
    first = page.read_text()
    assert first == "<!-- t: begin -->\n2027, icelake, 2 CPUs\n2\n<!-- t: end -->\n"
    with pytest.raises(SystemExit, match="t on zen"):
        page_marks.fill_for(page, "t", "zen", "2027, zen\n3")
    page.write_text(first + "<!-- t on zen: begin -->\n<!-- t on zen: end -->\n")
    page_marks.fill_for(page, "t", "zen", "2027, zen\n3")
    page_marks.fill_for(page, "t", "icelake", "2028, icelake, 2 CPUs\n4")
    own = "<!-- t on zen: begin -->\n2027, zen\n3\n<!-- t on zen: end -->\n"
    assert page.read_text() == first.replace("2027", "2028").replace("\n2\n", "\n4\n") + own
    page_marks.fill_for(page, "t", "zen", "2029, zen\n5")
    assert page.read_text() == first.replace("2027", "2028").replace("\n2\n", "\n4\n") + own.replace(
        "2027, zen\n3", "2029, zen\n5"
    )
