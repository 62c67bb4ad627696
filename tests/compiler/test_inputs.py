"""Input specs and made-up inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuc.compiler.inputs import INTEGER_LIMIT, parse_inputs, random_inputs
from neuc.errors import Error, Exit
from neuc.runtime.program import IoSpec

TEXT = (IoSpec("int64", ("B", "S"), "input_ids"), IoSpec("int64", ("B", "S"), "attention_mask"))
IMAGE = (IoSpec("float32", (1, 3, "H"), "x"),)


def test_random_inputs_fit_the_signature_and_repeat():
    first, again, other = (random_inputs(TEXT, seed) for seed in (3, 3, 4))
    assert first["input_ids"].shape == first["attention_mask"].shape == (2, 16)
    assert first["input_ids"].dtype == np.int64
    assert 0 <= first["input_ids"].min() <= first["input_ids"].max() < INTEGER_LIMIT
    assert (first["attention_mask"] == 1).all()
    assert np.array_equal(first["input_ids"], again["input_ids"])
    assert not np.array_equal(first["input_ids"], other["input_ids"])


def test_small_integers_stay_in_range():
    made = random_inputs((IoSpec("uint8", (1000,), "x"), IoSpec("bool", (1000,), "y")))
    assert made["x"].max() > 200
    assert set(made["y"].tolist()) == {True, False}


def test_specs_are_read(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.ones((1, 3, 5), np.float32))
    assert parse_inputs([f"x=@{tmp_path}/x.npy"], IMAGE)["x"].shape == (1, 3, 5)
    literal = parse_inputs(["x=1x3x2xf32=1,2,3,4,5,6"], IMAGE)["x"]
    assert literal.dtype == np.float32
    assert literal[0].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (parse_inputs(["1x3x4xf32=0.5"], IMAGE)["x"] == 0.5).all()
    assert np.array_equal(parse_inputs(["x=random:7"], IMAGE)["x"], random_inputs(IMAGE, 7)["x"])
    np.savez(tmp_path / "all.npz", x=np.zeros((1, 3, 1), np.float32))
    assert parse_inputs([f"@{tmp_path}/all.npz"], IMAGE)["x"].shape == (1, 3, 1)


def test_inputs_that_are_made_up_agree_with_those_given():
    made = parse_inputs(["input_ids=3x7xi64=5"], TEXT)
    assert made["attention_mask"].shape == (3, 7)


@pytest.mark.parametrize(
    "spec",
    ["y=1xf32=0", "x=1xq7=0", "x=", "x=2xf32=1,2,3", "x=random:z", "x=@missing.npy", "@missing.npz", "x=1xf32=a"],
)
def test_bad_specs_are_refused(spec: str):
    with pytest.raises(Error) as caught:
        parse_inputs([spec], IMAGE)
    assert caught.value.code == "NEUC-E006"
    assert caught.value.exit_code in (Exit.USAGE, Exit.FAULT)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes):
    for name, spec in (("a.npz", "@{}"), ("a.npy", "x=@{}")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(Error, match="cannot read"):
            parse_inputs([spec.format(path)], IMAGE)


@pytest.mark.parametrize(("name", "spec"), [("a.npz", "@{}"), ("a.npy", "x=@{}")])
def test_other_files_are_named_in_our_words(tmp_path: Path, name: str, spec: str):
    path = tmp_path / name
    path.write_text("hello")
    with pytest.raises(Error, match=r"it is no \.npz or \.npy file"):
        parse_inputs([spec.format(path)], IMAGE)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    with pytest.raises(Error, match="an array holds Python objects"):
        parse_inputs([f"@{tmp_path}/objects.npz"], IMAGE)
