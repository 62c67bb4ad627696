"""Generating tokens with a decoder whose most likely token depends on every token before."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import decoder_programs as made_up
import runtime_programs
from neuc.errors import Error, Exit
from neuc.runtime.artifact import write_artifact
from neuc.runtime.generation import Decoder, DecoderFacts, load_decoder
from neuc.runtime.sampling import Sampling
from neuc.runtime.session import Session

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def decoder(context: int | None = 64, chunk: int = 4) -> Decoder:
    return Decoder(made_up.session(), made_up.facts(), context=context, chunk=chunk)


def expected(prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(made_up.following(tokens))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 64])
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:1], PROMPT[:4], PROMPT[:8]])
def test_greedy_tokens_depend_on_all_before(chunk: int, prompt: list[int]) -> None:
    d = decoder(chunk=chunk)
    assert list(d.generate(prompt, 20, stop_tokens=())) == expected(prompt, 20)
    assert d.tokens == (*prompt, *expected(prompt, 19))
    assert d.position == len(prompt) + 19


def test_prefill_then_decode() -> None:
    d = decoder()
    logits = d.prefill(np.array(PROMPT))
    assert logits.shape == (made_up.VOCAB,)
    assert int(logits.argmax()) == made_up.following(PROMPT)
    kept = logits.copy()
    assert int(d.decode(7).argmax()) == made_up.following([*PROMPT, 7])
    np.testing.assert_array_equal(logits, kept)  # they are the caller's own


def test_generating_goes_on_where_it_ended() -> None:
    d = decoder()
    first = list(d.generate(PROMPT, 5, stop_tokens=()))
    second = list(d.generate(first[-1:], 5, stop_tokens=()))
    assert first + second == expected(PROMPT, 10)


def test_reset_and_truncate() -> None:
    d = decoder()
    d.prefill(PROMPT)
    d.truncate(4)
    assert d.tokens == tuple(PROMPT[:4])
    assert int(d.decode(8).argmax()) == made_up.following([*PROMPT[:4], 8])
    d.reset()
    assert d.position == 0
    assert int(d.prefill([2, 2]).argmax()) == made_up.following([2, 2])
    for wrong in (3, -1):
        with pytest.raises(Error) as caught:
            d.truncate(wrong)
        assert (caught.value.code, caught.value.exit_code) == ("NEUC-E321", Exit.USAGE)


def test_stop_tokens_end_it_and_are_not_given() -> None:
    whole = expected(PROMPT, 12)
    stop = whole[6]
    assert list(decoder().generate(PROMPT, 12, stop_tokens={stop})) == whole[: whole.index(stop)]
    ends = next(p for p in range(made_up.VOCAB) if made_up.following([p, 1]) == made_up.EOS)
    assert list(decoder().generate([ends, 1], 9)) == []
    assert list(decoder().generate([ends, 1], 1, stop_tokens=())) == [made_up.EOS]


def test_what_does_not_fit_is_refused_before_anything_runs() -> None:
    d = decoder(context=20)
    d.prefill(PROMPT)
    for call in (
        lambda: d.prefill([1] * 10),
        lambda: d.generate([1], 10),
        lambda: d.generate([1] * 10),
    ):
        with pytest.raises(Error, match="do not fit") as caught:
            call()
        assert caught.value.code == "NEUC-E321"
        assert d.tokens == tuple(PROMPT)
    assert len(list(d.generate([1], 9, stop_tokens=()))) == 9
    assert d.position == 20
    with pytest.raises(Error, match="20 of 20 places are taken"):
        d.decode(1)


def test_without_a_limit_tokens_come_until_the_caches_are_full() -> None:
    d = decoder(context=20)
    assert list(d.generate(PROMPT, stop_tokens=())) == expected(PROMPT, 10)
    assert d.position == 20


@pytest.mark.parametrize("tokens", [[], [made_up.VOCAB], [-1], [1.5], ["a"], 7, None])
def test_what_are_no_tokens_is_refused(tokens: object) -> None:
    with pytest.raises(Error) as caught:
        decoder().prefill(tokens)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E322", Exit.USAGE)


def test_a_sequence_changed_in_between_is_told() -> None:
    d = decoder()
    generation = d.generate(PROMPT, 10, stop_tokens=())
    next(generation)
    d.decode(1)
    with pytest.raises(Error, match="was changed"):
        next(generation)
    # Also by as many tokens as there were.
    generation = d.generate([1], 10, stop_tokens=())
    next(generation)
    last = d.tokens[-1]
    d.truncate(d.position - 1)
    d.decode(last)
    with pytest.raises(Error, match="was changed"):
        next(generation)


def test_numbers_that_make_no_sense_are_refused() -> None:
    d = decoder()
    d.prefill(PROMPT)
    for call in (
        lambda: d.new_sequence(2.5),  # type: ignore[arg-type]
        lambda: d.new_sequence(0),
        lambda: d.truncate("1"),  # type: ignore[arg-type]
        lambda: d.generate([1], 0),
        lambda: d.generate([1], 1.5),  # type: ignore[arg-type]
        lambda: d.generate([1], 1, {"temperature": 1}),  # type: ignore[arg-type]
    ):
        with pytest.raises(Error, match="makes no sense") as caught:
            call()
        assert caught.value.exit_code == Exit.USAGE


def test_sequences_of_their_own_share_the_session() -> None:
    first = decoder()
    second = first.new_sequence()
    assert second.session is first.session
    both = zip(first.generate(PROMPT, 15, stop_tokens=()), second.generate([5], 15, stop_tokens=()), strict=True)
    assert list(both) == list(zip(expected(PROMPT, 15), expected([5], 15), strict=True))


def test_many_threads_take_turns() -> None:
    d = decoder(context=64)
    threads = [threading.Thread(target=lambda: [d.decode(2) for _ in range(10)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert d.tokens == (2,) * 60
    assert int(d.decode(2).argmax()) == made_up.following([2] * 61)


def test_sampling_is_repeatable_and_varied() -> None:
    def drawn(seed: int | None) -> list[int]:
        return list(decoder().generate(PROMPT, 30, Sampling(temperature=2.0, top_k=20, seed=seed), stop_tokens=()))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)


def test_the_default_context() -> None:
    assert decoder(context=None).capacity == 100  # the model's
    for wrong in (0, -5):
        with pytest.raises(Error):
            decoder(context=wrong)


def artifact(path: Path, **manifest: object) -> Path:
    write_artifact(
        path,
        program=made_up.program(),
        kernels=made_up.kernels(),
        weights={},
        manifest={"decoder": {**made_up.manifest(), **manifest}},
        debug_map={},
        extra={"extra/tokenizer.json": b"{}"},
    )
    return path


def test_a_file(tmp_path: Path) -> None:
    d = load_decoder(artifact(tmp_path / "m.neuc"), threads=2, chunk=4)
    assert list(islice(d.generate(PROMPT, stop_tokens=()), 5)) == expected(PROMPT, 5)
    assert bytes(d.extra["extra/tokenizer.json"]) == b"{}"
    assert d.facts.bos == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"layers": 3}, "NEUC-E320"),
        ({"layers": 2**31}, "NEUC-E320"),
        ({"kv_heads": 2}, "NEUC-E320"),
        ({"kv": "f16"}, "NEUC-E320"),
        ({"vocab": 96}, "NEUC-E320"),
        ({"kv": "f8"}, "NEUC-E302"),
        ({"layers": 0}, "NEUC-E302"),
        ({"vocab": "many"}, "NEUC-E302"),
        ({"eos": [97]}, "NEUC-E302"),
        ({"bos": -1}, "NEUC-E302"),
    ],
)
def test_manifests_that_do_not_fit_the_program(tmp_path: Path, change: dict[str, object], code: str) -> None:
    with pytest.raises(Error) as caught:
        load_decoder(artifact(tmp_path / "m.neuc", **change))
    assert caught.value.code == code


def test_an_artifact_that_is_no_decoder(tmp_path: Path) -> None:
    path = tmp_path / "m.neuc"
    parts = runtime_programs.chain(), runtime_programs.kernels(), runtime_programs.chain_weights()
    write_artifact(path, program=parts[0], kernels=parts[1], weights=parts[2], manifest={}, debug_map={})
    with pytest.raises(Error) as caught:
        load_decoder(path)
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E320", Exit.USAGE)
    with Session.from_parts(*parts) as session, pytest.raises(Error, match=r"'k_cache\.0' is missing"):
        Decoder(session, DecoderFacts(1, 1, 1, 10, 10, "f32", None, frozenset()))


def test_generation_needs_no_compiler(tmp_path: Path) -> None:
    path = artifact(tmp_path / "m.neuc")
    code = (
        f"import sys, neuc; d = neuc.load_decoder({str(path)!r}, threads=1); "
        "print(list(d.generate([5], 3, neuc.Sampling(), ()))); "
        "print([m for m in sys.modules if m.startswith(('xdsl', 'onnx', 'neuc.compiler', 'neuc.dialects'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(expected([5], 3)), "[]"]
