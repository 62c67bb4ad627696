"""What every test may use: filecheck tests in ``.mlir`` files, ``--update-golden``, and CPU-feature markers.

A ``.mlir`` file with ``// RUN: neuc opt %s ... | filecheck %s`` lines is a test; both programs run in this process.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".mlir" and "// RUN:" in file_path.read_text(encoding="utf-8"):
        return FilecheckFile.from_parent(parent, path=file_path)
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("isa"):
        from neuc.backends.cpu.target import host_isa

        widening = ["scalar", "portable", "sse4", "avx2", "avx512"]
        if widening.index(mark.args[0]) > widening.index(host_isa().name):
            pytest.skip(f"this CPU has no {mark.args[0]}")


class FilecheckFile(pytest.File):
    """A ``.mlir`` file: one test for each RUN line."""

    def collect(self) -> Iterable[pytest.Item]:
        command = ""
        number = 0
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("// RUN:"):
                continue
            command += line.removeprefix("// RUN:").strip()
            if command.endswith("\\"):  # continued on the next RUN line
                command = command[:-1]
                continue
            number += 1
            yield FilecheckTest.from_parent(self, name=f"run{number}", command=command)
            command = ""


class FilecheckFailure(Exception):
    """A RUN line that failed, with what it printed."""


class FilecheckTest(pytest.Item):
    """One RUN line: commands joined by pipes."""

    def __init__(self, *, command: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.command = command

    def runtest(self) -> None:
        text = ""
        for part in self.command.split("|"):
            words = [word.replace("%s", str(self.path)) for word in shlex.split(part)]
            text = self._run(words, text)

    def _run(self, words: list[str], stdin: str) -> str:
        fails = words[0] == "not"
        words = words[1:] if fails else words
        merge = "2>&1" in words
        words = [word for word in words if word != "2>&1"]
        match words[0]:
            case "neuc":
                return self._neuc(words[1:], stdin, fails, merge)
            case "filecheck":
                return self._filecheck(words, stdin)
            case other:
                raise FilecheckFailure(f"cannot run {other!r}: only neuc and filecheck run in-process")

    def _neuc(self, arguments: list[str], stdin: str, fails: bool, merge: bool) -> str:
        from neuc.compiler.cli import main

        out, errors = io.StringIO(), io.StringIO()
        with (
            redirect_stdout(out),
            redirect_stderr(out if merge else errors),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        ):
            status = main(arguments)
        if (status != 0) != fails:
            raise FilecheckFailure(f"exit code {status} from `neuc {shlex.join(arguments)}`\n{errors.getvalue()}")
        return out.getvalue()

    def _filecheck(self, words: list[str], stdin: str) -> str:
        from filecheck.finput import FInput
        from filecheck.matcher import Matcher
        from filecheck.options import parse_argv_options
        from filecheck.parser import Parser

        options = parse_argv_options(list(words))
        complaint = io.StringIO()
        with redirect_stdout(complaint), redirect_stderr(complaint):
            status = Matcher(options, FInput("<output>", stdin), Parser.from_opts(options)).run()
        if status != 0:
            raise FilecheckFailure(f"{complaint.getvalue()}\n--- output ---\n{stdin}")
        return ""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, FilecheckFailure):
            return f"RUN: {self.command}\n{excinfo.value}"
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: {self.name}"


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare text with ``golden/<test file>/<name>.txt``; with ``--update-golden``, write it."""

    def check(name: str, text: str) -> None:
        path = Path(request.path).parent / "golden" / Path(request.path).stem / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"{path} is missing: run pytest --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterable[None]:
    """Tests neither use nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEUC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
