"""The accuracy benchmark: what it asks the peer's process for, what it keeps, and how shares are compared."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import spiking_accuracy
from image_sets import ImageSet
from spiking_accuracy import Runs, Task, best_peer, kept_peer_runs, peer_runs, summary

IMAGES = 40


def _task(seeds: int = 2) -> Task:
    rng = np.random.default_rng(0)
    images, labels = rng.random((IMAGES, 1, 8, 8)).astype(np.float32), np.arange(IMAGES) % 10
    return Task("digits_mlp", ImageSet("digits", images, labels, images, labels), IMAGES, seeds)


FAKE = """
import json, sys
import numpy as np
request = json.load(sys.stdin)
with np.load(request["images"]) as arrays:
    test = arrays["test"]
    assert sorted(arrays.files) == ["calibration_0", "calibration_1", "test"]
made = {{"ann": np.zeros((len(test), 10), np.float32)}}
for recipe in request["recipes"][1:]:
    for seed, steps in enumerate(request["steps"]):
        made[f"{{recipe}}/{{seed}}"] = np.stack([np.arange(len(test)) % 10] * len(steps))
np.savez(request["result"], **made)
runs = {{f"{{recipe}}/{{seed}}": {{"rate": 0.1}} for recipe in request["recipes"] for seed in (0, 1)}}
print(json.dumps({{"spikingjelly": "0", "torch": "0", "runs": runs, "asked": request["steps"]}}))
"""


def _python(folder: Path, text: str) -> str:
    """An interpreter that runs `text` whatever file it is told to run."""
    script, shell = folder / "worker.py", folder / "python"
    script.write_text(text, encoding="utf-8")
    shell.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n', encoding="utf-8")
    shell.chmod(shell.stat().st_mode | stat.S_IXUSR)
    return str(shell)


def test_the_peers_process_is_asked_for_every_recipe(tmp_path: Path) -> None:
    runs, ann, versions = peer_runs(_task(), _python(tmp_path, FAKE.format()), [2, 4, 16])
    assert versions == {"spikingjelly": "0", "torch": "0"}
    assert ann.shape == (IMAGES, 10)
    first, *others = spiking_accuracy.RATE_RECIPES
    assert first not in runs.right  # it failed
    assert list(runs.right) == others
    # Several choices of calibration images at the T of the goals alone.
    assert {step: right.shape for step, right in runs.right["LTB"].items()} == {2: (1, 40), 4: (2, 40), 16: (1, 40)}
    assert runs.right["LTB"][4].all()


def test_a_worker_that_fails_ends_the_run_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such network"):
        spiking_accuracy.ask(_python(tmp_path, "raise SystemExit('no such network')"), {})


def test_what_peers_said_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = {step: np.eye(2, IMAGES, dtype=bool) for step in spiking_accuracy.STEPS}
    runs = Runs({"LTB": right}, {"LTB": {"rate": 0.5}})
    monkeypatch.setattr(spiking_accuracy, "peer_runs", lambda *_: (runs, np.ones((IMAGES, 10)), {"torch": "1"}))
    kept_peer_runs(_task(), "python", tmp_path)
    monkeypatch.setattr(spiking_accuracy, "peer_runs", lambda *_: pytest.fail("asked again"))
    again, ann, versions = kept_peer_runs(_task(), "python", tmp_path)
    assert versions == {"torch": "1"}
    assert ann.sum() == 10 * IMAGES
    assert again.notes == runs.notes
    assert all(np.array_equal(again.right["LTB"][step], right[step]) for step in spiking_accuracy.STEPS)


def test_shares_gaps_and_leads() -> None:
    ann, right = np.ones(IMAGES, bool), np.ones((2, IMAGES), bool)
    right[0, :4] = False
    peer = {4: np.ones((1, IMAGES), bool)}
    peer[4][0, :10] = False
    (row,) = summary({4: right}, ann, peer)
    assert row["accuracy"] == pytest.approx(0.95)
    assert row["spread"] == pytest.approx(0.1)
    assert row["gap"] == pytest.approx(-0.05)
    assert row["lead"] == pytest.approx(0.2)
    assert row["lead_interval"][0] < 0.2 < row["lead_interval"][1]
    assert "lead" not in summary({4: right}, ann, None)[0]
    json.dumps(row)


def test_the_best_peer_is_chosen_at_each_t() -> None:
    good, bad = np.ones((1, IMAGES), bool), np.zeros((1, IMAGES), bool)
    best, names = best_peer(Runs({"x": {1: good, 2: bad}, "y": {1: bad, 2: good}}))
    assert names == {1: "x", 2: "y"}
    assert best[1].all()
    assert best[2].all()
