"""The first example of the page on energies does what it says, from Python to the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from neuc.compiler.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "energy.md").read_text(encoding="utf-8")


def test_the_page_on_energies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})  # it saves ising.mlir
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()
    assert [command.split()[1] for command in commands] == ["compile", "run"]
    for command in commands:
        assert main(shlex.split(command, comments=True)[1:]) == 0, capsys.readouterr().err
    written = np.load("out.npz")
    assert set(np.unique(written["spins"])) == {-1, 1}
    assert written["energies"].shape == (5000, 4)  # sweeps as the command says, chains
    assert written["spins"].shape == (4, 256, 256)
