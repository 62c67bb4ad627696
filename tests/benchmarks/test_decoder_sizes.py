"""Decoders of random weights, and what `decoder_sizes.py` measures of them. Nothing is timed."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import decoder_sizes
import numpy as np
import pytest
from decoder_models import BODIES, HEADS, SHAPES, Shape, write_model

from neuc.compiler.formats.sources import open_source

SMALL = Shape("llama", 1, 256, 512, 4, 2, 300, 64, tied=False)


@pytest.mark.parametrize(("body", "head"), list(zip(cycle(BODIES), HEADS, strict=False)))
def test_random_weights_are_all_ternary_and_all_there(tmp_path: Path, body: str, head: str) -> None:
    write_model(tmp_path / "m.gguf", SMALL, body=body, head=head)
    ternary = [tensor.decode() for tensor in open_source(tmp_path / "m.gguf").tensors if tensor.decode is not None]
    assert len(ternary) == 7
    assert sum(weight.levels.size for weight in ternary) == decoder_sizes.weights(SMALL)[0]
    for weight in ternary:
        assert np.unique(weight.levels).tolist() == [-1, 0, 1]


def test_one_seed_makes_one_file(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_model(tmp_path / name, SMALL, seed=seed)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize("body", BODIES)
def test_memory_for_writing_is_that_of_a_tensor_not_of_the_file(tmp_path: Path, body: str) -> None:
    shape = replace(SMALL, layers=12, hidden=1024, ffn=4096, vocab=8192)
    largest = shape.vocab * shape.hidden * 2
    tracemalloc.start()
    try:
        size = write_model(tmp_path / "m.gguf", shape, body=body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 4 * largest
    assert peak < 2 * largest


def test_released_models_have_their_numbers_of_weights() -> None:
    # 6.74 and 69.0 billion parameters, less norms.
    assert sum(decoder_sizes.weights(SHAPES["7b"])) == 6_738_149_376
    assert sum(decoder_sizes.weights(SHAPES["70b"])) == 68_975_329_280


def test_private_and_file_backed_memory_of_a_child_are_told_apart(tmp_path: Path) -> None:
    megabytes = 1 << 20
    (tmp_path / "f").write_bytes(bytes(64 * megabytes))
    code = (
        "import mmap, time; own = bytearray(b'1') * (96 << 20); file = open('f', 'rb');"
        "view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(view[::4096]); print(len(own));"
        "time.sleep(0.3)"
    )
    seen = decoder_sizes.watch([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}"])
    assert int(seen.output) == 96 * megabytes
    assert 96 * megabytes < seen.private < 160 * megabytes
    assert 64 * megabytes < seen.mapped < 96 * megabytes


def test_what_fails_or_takes_the_last_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        decoder_sizes.watch([sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(decoder_sizes, "LEAST_AVAILABLE", 1e18)
    with pytest.raises(SystemExit, match="memory were left"):
        decoder_sizes.watch([sys.executable, "-c", "import time; time.sleep(600)"])


def test_claims_are_printed_of_whole_models_alone() -> None:
    def row(shape: Shape) -> decoder_sizes.Row:
        took = {"load": 0.5, "prompts": [4.0, 8.0], "steps": [0.5, 0.25, 2.0]}
        watched = decoder_sizes.Watched(10.0, 2 * 10**8, 3 * 10**9, "")
        sizes = decoder_sizes.Sizes(1_600_000_000, 1_300_000_000, 290_000_000)
        return decoder_sizes.Row("model", shape, sizes, watched, watched, (took, took), 1.25)

    whole, large, part = row(SHAPES["7b"]), row(SHAPES["70b"]), row(replace(SHAPES["7b"], layers=3))
    printed = "\n".join(decoder_sizes.table([whole]))
    assert "| as FP16 | 13.48 GB |" in printed
    assert "| **generating, tokens/s** (best) | 2.00 (4.00) |" in printed
    assert (
        "13.48 GB → 1.60 GB, a ratio of 8.4; the ternary layers alone are 1.30 GB" in decoder_sizes.claims([whole])[0]
    )
    # 2 tokens/s, times 68.975 of 100 billion weights.
    assert (
        "2.00 tokens/s. Extrapolated to 100B by the number of weights, not measured: 1.38."
        in (decoder_sizes.claims([large])[0])
    )
    assert decoder_sizes.claims([part]) == []


@pytest.mark.slow
def test_a_model_is_weighed_run_and_put_into_the_table(tmp_path: Path) -> None:
    source = tmp_path / "small.gguf"
    decoder_sizes.make(source, SMALL)
    row = decoder_sizes.measured(source, "small, int8", SMALL, "int8", "cpu-i2")
    assert not source.with_suffix(".neuc").exists()
    layers, head = decoder_sizes.weights(SMALL)
    # Two bits and a scale for each row and tensor; eight bits and for each 32 at most a scale of 32 bits.
    assert layers / 4 <= row.sizes.layers < layers / 4 * 1.1
    assert head < row.sizes.head <= head * (8 + 1) / 8 * 1.1
    assert row.sizes.layers + row.sizes.head < row.sizes.file
    assert [len(run["steps"]) for run in row.runs] == [decoder_sizes.ROUNDS * decoder_sizes.NEW_TOKENS] * 2
    assert decoder_sizes.table([row, row])[0] == "| | small, int8 | small, int8 |"
