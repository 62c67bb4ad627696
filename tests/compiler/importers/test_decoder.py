"""Decoders from GGUF files and Hugging Face folders compute what the equations say, interpreted and compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neuc
from decoder_files import (
    GGUF_NAMES,
    Decoder,
    caches,
    random_decoder,
    reference,
    tensors,
    write_folder_decoder,
    write_gguf_decoder,
)
from neuc.compiler.formats.i2_s import I2_S_ROWS4
from neuc.compiler.formats.ternary import TENSOR, Ternary
from neuc.compiler.importers.decoder.importer import import_decoder
from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret
from neuc.dialects.lazy_array import LazyArray
from neuc.errors import Error
from neuc.runtime.artifact import Artifact
from weight_files import T

KV: dict[str, type] = {"f16": np.float16, "f32": np.float32, "int8": np.int8}
TOKENS = [3, 17, 40, 5, 17, 29, 11]
ONE_CODE = 0.02
"""Relative error that activations which round the other way may cause: one code in 127 of a few of them, per layer."""


def error(found: np.ndarray, right: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(found.reshape(-1) - right.reshape(-1)) / np.linalg.norm(right))


def interpreted(path: Path, d: Decoder, tokens: list[int], **options: object) -> np.ndarray:
    """Logits of an imported model in the interpreters."""
    context = new_context()
    module, _ = import_decoder(path, context, **options)  # type: ignore[arg-type]
    module.verify()
    kv = KV[str(options.get("kv", "f16"))]
    inputs = [np.array(tokens, np.int64), np.array(0, np.int64), *caches(d, 1, kv).values()]
    return interpret(module, inputs, context.weights)[0]


@pytest.mark.parametrize("kv", list(KV))
def test_the_equations(tmp_path: Path, kv: str) -> None:
    d = random_decoder()
    found = interpreted(write_gguf_decoder(tmp_path / "m.gguf", d), d, TOKENS, kv=kv)
    right = reference(d, TOKENS, kv=KV[kv])
    assert found.shape == (1, d.vocab)
    assert error(found, right) < ONE_CODE


@pytest.mark.parametrize("arch", ["llama", "bitnet"])
def test_silu_without_sub_norms_and_interleaved_pairs(tmp_path: Path, arch: str) -> None:
    d = random_decoder(arch=arch, sub_norms=False)
    found = interpreted(write_gguf_decoder(tmp_path / "m.gguf", d), d, TOKENS)
    assert error(found, reference(d, TOKENS)) < ONE_CODE


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
def test_a_folder_is_the_same_model(tmp_path: Path, arch: str) -> None:
    d = random_decoder(arch=arch, sub_norms=arch != "llama")
    found = interpreted(write_folder_decoder(tmp_path / "model", d), d, TOKENS)
    assert error(found, reference(d, TOKENS)) < ONE_CODE


@pytest.mark.parametrize(
    "target",
    ["cpu", "cpu-tl2", *(pytest.param(t, marks=pytest.mark.slow) for t in ("cpu-i2", "cpu-t5", "cpu-tl1", "cpu-ref"))],
)
def test_compiled(tmp_path: Path, target: str) -> None:
    d = random_decoder()
    session = neuc.compile(write_gguf_decoder(tmp_path / "m.gguf", d), target).session(threads=2)
    held = caches(d, 2)
    whole = session.run(None, {"tokens": TOKENS, "position": 0, **held})
    assert error(whole[0], reference(d, TOKENS)) < ONE_CODE
    # Token by token, after the first three at once, caches handed on.
    logits, position = whole[0], 0
    for part in (TOKENS[:3], *([token] for token in TOKENS[3:])):
        logits, *new = session.run(None, {"tokens": part, "position": position, **held})
        held, position = dict(zip(held, new, strict=True)), position + len(part)
    assert error(logits, whole[0]) < ONE_CODE
    for one, other in zip(held.values(), whole[1:], strict=True):
        assert error(one.astype(np.float32), other.astype(np.float32)) < ONE_CODE


def test_weights_are_never_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = random_decoder()
    path = write_gguf_decoder(tmp_path / "m.gguf", d)

    def refuse(self: LazyArray) -> np.ndarray:
        raise AssertionError(f"{list(self.shape)} was made whole")

    with monkeypatch.context() as patch:
        patch.setattr(LazyArray, "array", refuse)
        compiled = neuc.compile(path)
        compiled.save(tmp_path / "lazy.neuc")
    compiled.session(threads=1)  # makes the arrays, which a second artifact is written from
    compiled.save(tmp_path / "whole.neuc")
    assert (tmp_path / "lazy.neuc").read_bytes() == (tmp_path / "whole.neuc").read_bytes()


def test_the_artifact_says_what_generation_needs(tmp_path: Path) -> None:
    d = random_decoder()
    neuc.compile(write_folder_decoder(tmp_path / "model", d)).save(tmp_path / "m.neuc")
    artifact = Artifact.open(tmp_path / "m.neuc")
    assert artifact.manifest["decoder"] == {
        "arch": "bitnet",
        "bos": 1,
        "context": 64,
        "eos": [2, 3],
        "head_dim": 16,
        "heads": 4,
        "hidden": 64,
        "kv": "f16",
        "kv_heads": 2,
        "layers": 2,
        "vocab": 48,
    }
    assert bytes(artifact.extra["extra/tokenizer.json"]) == b"{}"
    cache = artifact.program.inputs[2]
    assert (cache.name, cache.dtype, cache.shape) == ("k_cache.0", "float16", (2, "C", 16, 16))


def test_the_report_says_what_was_rounded(tmp_path: Path) -> None:
    d = random_decoder(arch="llama", sub_norms=False)
    report = neuc.compile(write_gguf_decoder(tmp_path / "m.gguf", d), head="int4").report
    assert any("token_embd.weight (f32) rounded to int4, groups of 32" in hint for hint in report.hints)
    assert any("whether this llama model was trained so" in hint for hint in report.hints)
    by_name = {row.node: row for row in report.layers}
    q = by_name["blk.0.attn_q"]
    assert (q.source, q.activations, q.sqnr_db) == ("recognised", "neuc", None)
    head = by_name["token_embd"]
    assert (head.source, head.levels, head.scale) == ("fitted", tuple(range(-8, 8)), "group<32>")
    assert head.sqnr_db == pytest.approx(21, abs=4)  # sixteen levels over uniform weights: about 20 log10(16) - 3


def test_layouts_that_share_an_id(tmp_path: Path) -> None:
    d = random_decoder(hidden=128, heads=4, kv_heads=2)
    named = tensors(d)
    for key, (levels, scale) in d.linears.items():
        n, role = key.split(".")
        name = f"blk.{n}.{GGUF_NAMES[role]}.weight"
        data = I2_S_ROWS4.encode(Ternary(levels, np.full((1, 1), scale), TENSOR))
        named[name] = T(name, levels.shape, 36, data)
    path = write_gguf_decoder(tmp_path / "m.gguf", d, with_tensors=named)
    found = interpreted(path, d, TOKENS, read_as=("i2_s-rows4",))
    assert error(found, reference(d, TOKENS)) < ONE_CODE
    assert error(interpreted(path, d, TOKENS), reference(d, TOKENS)) > 0.5


def test_a_target_that_generates_no_tokens_is_told(tmp_path: Path) -> None:
    compiled = neuc.compile(write_gguf_decoder(tmp_path / "m.gguf", random_decoder()), "npu-xdna2")
    assert any("generates no tokens" in hint for hint in compiled.report.hints)
    compiled.save(tmp_path / "m.neuc")
    with pytest.raises(Error, match="compiled for target npu-xdna2 generates no tokens") as caught:
        neuc.load_decoder(tmp_path / "m.neuc")
    assert caught.value.code == "NEUC-E320"
