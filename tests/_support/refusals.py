"""Runs the command line on bad input and checks that it refuses it properly.

What a proper refusal is stands here once: a documented exit code, one line that says what is wrong and names the thing,
perhaps lines about nodes and a hint, nothing on stdout, and a folder that looks as it did before.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from neuc.compiler.cli import main

FIRST_LINE = re.compile(r"error\[NEUC-E\d{3}\]: \S.*")
DOCUMENTED = (0, 1, 2, 3, 4, 130)


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


def neuc(*arguments: str) -> Outcome:
    """Run `neuc` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return Outcome(code, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with the bytes of regular files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def check_refusal(outcome: Outcome, code: int, named: Sequence[str]) -> None:
    """Check exit code and wording."""
    shown = f"exit code {outcome.code}\n{outcome.err}"
    assert code in DOCUMENTED
    assert outcome.code == code, shown
    assert "Traceback" not in outcome.out + outcome.err, shown
    first, *rest = outcome.err.splitlines()
    assert FIRST_LINE.fullmatch(first), shown
    strange = [line for line in rest if not line.startswith(("  ", "hint: "))]
    assert not strange, f"more than one line of error: {strange}\n{shown}"
    for name in named:
        assert name in outcome.err, f"{name!r} is not named\n{shown}"


def refuse(folder: Path, code: int, arguments: Sequence[str], *named: str) -> Outcome:
    """Run `neuc` and check that it refuses, names all of `named`, and leaves `folder` alone."""
    before = contents(folder)
    outcome = neuc(*arguments)
    check_refusal(outcome, code, named)
    assert not outcome.out, outcome.out
    after = contents(folder)
    assert after == before, f"left behind: {sorted(after.keys() ^ before.keys())}"
    return outcome
