"""A compiled decoder with its caches in place computes what the equations say of all tokens at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neuc
from decoder_files import Decoder, random_decoder, reference, write_gguf_decoder

PROMPT = [3, 17, 40, 5, 17, 29, 11]
ONE_CODE = 0.02
"""Relative error that activations which round the other way may cause: one code in 127 of a few of them, per layer."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, Path]:
    folder = tmp_path_factory.mktemp("decoder")
    d = random_decoder()
    neuc.compile(write_gguf_decoder(folder / "m.gguf", d)).save(folder / "m.neuc")
    return d, folder / "m.neuc"


def error(found: np.ndarray, right: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(found.reshape(-1) - right.reshape(-1)) / np.linalg.norm(right))


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_any_chunks_and_steps_give_the_equations_logits(made: tuple[Decoder, Path], chunk: int) -> None:
    d, path = made
    decoder = neuc.load_decoder(path, threads=2, chunk=chunk, context=40)
    assert error(decoder.prefill(PROMPT), reference(d, PROMPT)) < ONE_CODE
    tokens = list(PROMPT)
    for token in (4, 40, 4, 31):
        tokens.append(token)
        assert error(decoder.decode(token), reference(d, tokens)) < ONE_CODE
    # What was forgotten leaves nothing behind.
    decoder.truncate(5)
    tokens = [*PROMPT[:5], 8]
    assert error(decoder.decode(8), reference(d, tokens)) < ONE_CODE
    decoder.reset()
    assert error(decoder.decode(9), reference(d, [9])) < ONE_CODE


def test_int8_caches(tmp_path: Path) -> None:
    """As the equations with rounded keys and values say; and less than two codes from those with f16 ones."""
    d = random_decoder()
    compiled = neuc.compile(write_gguf_decoder(tmp_path / "m.gguf", d), kv="int8")
    assert any("rounded to int8" in hint for hint in compiled.report.hints)
    compiled.save(tmp_path / "m.neuc")
    decoder = neuc.load_decoder(tmp_path / "m.neuc", threads=2, chunk=3, context=40)
    tokens = list(PROMPT)
    logits = decoder.prefill(PROMPT)
    for token in (4, 40, 4, 31):
        assert error(logits, reference(d, tokens, kv=np.int8)) < ONE_CODE
        assert error(logits, reference(d, tokens)) < 2 * ONE_CODE
        tokens.append(token)
        logits = decoder.decode(token)


def test_results_do_not_depend_on_threads(made: tuple[Decoder, Path]) -> None:
    """Nor on who takes which piece: the same bits every time."""
    _, path = made
    first = None
    for threads in (1, 2, 3, 4, 2):
        decoder = neuc.load_decoder(path, threads=threads, context=64)
        logits = np.stack([decoder.prefill(PROMPT), *(decoder.decode(token) for token in range(20))])
        first = logits if first is None else first
        np.testing.assert_array_equal(logits, first)


def test_full_caches(made: tuple[Decoder, Path]) -> None:
    d, path = made
    decoder = neuc.load_decoder(path, threads=2, context=21)  # not a whole number of blocks
    tokens = [int(token) for token in np.random.default_rng(3).integers(0, d.vocab, 21)]
    assert error(decoder.prefill(tokens), reference(d, tokens)) < ONE_CODE
    with pytest.raises(neuc.Error, match="do not fit"):
        decoder.decode(1)
