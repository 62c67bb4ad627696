"""What the README says of spiking networks can be typed as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import neuc
from neuc.compiler.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_commands_and_the_python_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Spiking networks\n")[1].split("\n## ")[0]
    shell, python = (re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[0] for language in ("sh", "python"))
    monkeypatch.chdir(tmp_path)
    for line in shell.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            subprocess.run([sys.executable, ROOT / words[1], *words[2:]], check=True)
        else:
            assert main(words[1:]) == 0
    with np.load("digits_test.npz") as test:
        images, labels = test["images"], test["labels"]
    names = {"neuc": neuc, "images": images}
    exec(python, names)  # the README's own text
    logits = np.asarray(names["logits"])
    compiled = np.asarray(neuc.load("digits.neuc").run(None, {"images": images})[0])
    assert np.array_equal(compiled.argmax(1), logits.argmax(1))
    assert np.mean(logits.argmax(1) == labels) > 0.96
