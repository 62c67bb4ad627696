"""The accuracy benchmark: what it asks the peer's process for, what it keeps, and how shares are compared."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import spiking_accuracy
import spiking_pieces
from image_sets import ImageSet
from spiking_accuracy import Runs, best_peer, our_runs, peer_runs, summary
from spiking_pieces import Task, read_piece

IMAGES = 40


def _task(folder: Path, seeds: int = 2) -> Task:
    rng = np.random.default_rng(0)
    images, labels = rng.random((IMAGES, 1, 8, 8)).astype(np.float32), np.arange(IMAGES) % 10
    return Task("digits_mlp", ImageSet("digits", images, labels, images, labels), IMAGES, seeds, folder)


FAKE = """
import json, sys
import numpy as np
request = json.load(sys.stdin)
with np.load(request["images"]) as arrays:
    test = arrays["test"]
    assert set(arrays.files) == {"test", *(f"calibration_{seed}" for _, seed, _ in request["pieces"])}
np.savez(request["ann"], logits=np.zeros((len(test), 10), np.float32))
classes = np.stack([np.arange(len(test)) % 10] * len(request["steps"])).astype(np.int8)
for recipe, seed, path in request["pieces"]:
    facts = {"rate": 0.1, "seed": seed}
    if recipe == "max":
        np.savez(path, facts=json.dumps({"error": "RuntimeError: no"}))
    else:
        np.savez(path, facts=json.dumps(facts), classes=classes)
"""


def _python(folder: Path, text: str) -> str:
    """An interpreter that runs `text` whatever file it is told to run."""
    script, shell = folder / "worker.py", folder / "python"
    script.write_text(text, encoding="utf-8")
    shell.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n', encoding="utf-8")
    shell.chmod(shell.stat().st_mode | stat.S_IXUSR)
    return str(shell)


def test_the_peers_process_is_asked_for_every_recipe_and_seed_once(tmp_path: Path) -> None:
    task = _task(tmp_path)
    runs, ann = peer_runs(task, _python(tmp_path, FAKE))
    assert ann.shape == (IMAGES, 10)
    first, *others = spiking_accuracy.RATE_RECIPES
    assert first not in runs.right  # it failed
    assert runs.notes[first] == {"error": "RuntimeError: no"}
    assert list(runs.right) == others
    assert {step: right.shape for step, right in runs.right["LTB"].items()} == {
        step: (2, IMAGES) for step in spiking_accuracy.STEPS
    }
    assert runs.right["LTB"][4].all()
    again, _ = peer_runs(task, _python(tmp_path, "raise SystemExit(1)"))  # not asked: all is kept
    assert np.array_equal(again.right["LTB"][4], runs.right["LTB"][4])


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    task = _task(tmp_path)
    peer_runs(task, _python(tmp_path, FAKE))
    kept = sorted((tmp_path / "digits_mlp").glob("spikingjelly_LTB_seed1_*"))
    assert len(kept) == 1
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # as a machine that stops leaves it
    assert read_piece(kept[0]) is None
    asked = FAKE.replace("for recipe, seed", "assert len(request['pieces']) == 1\nfor recipe, seed")
    runs, _ = peer_runs(task, _python(tmp_path, asked))
    assert runs.right["LTB"][8].shape == (2, IMAGES)


def test_a_worker_that_fails_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        spiking_pieces.ask(_python(tmp_path, "raise SystemExit(3)"), {})


def test_our_pieces_are_kept_until_what_they_follow_from_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        start = 0

        def sweep(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(rows=[SimpleNamespace(spikes_per_neuron=0.5)])

    task = _task(tmp_path, seeds=1)
    monkeypatch.setattr(spiking_pieces.neuc, "convert_to_snn", lambda *_, **__: Model())
    monkeypatch.setattr(spiking_pieces, "emitted_classes", lambda *_: task.labels)
    assert our_runs(task, ["a"], [2], kept_only=True).right == {"a": {}}
    runs = our_runs(task, ["a"], [2])
    assert runs.right["a"][2].shape == (1, IMAGES)
    assert runs.notes["a"] == {"spikes": {2: 0.5}, "start": {2: 0}}
    monkeypatch.setattr(spiking_pieces, "emitted_classes", lambda *_: np.zeros(IMAGES, np.int64))
    assert our_runs(task, ["a"], [2], kept_only=True).right["a"][2].all()
    monkeypatch.setattr(spiking_pieces, "DECIDING", spiking_pieces.DECIDING[:1])
    assert our_runs(task, ["a"], [2]).right["a"][2].mean() == np.mean(task.labels == 0)


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
