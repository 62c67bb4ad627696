"""Files that are no decoders, contradict themselves or lie: one line that names the thing, before much is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decoder_files import Decoder, metadata, random_decoder, tensors, write_folder_decoder, write_gguf_decoder
from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.importers.decoder.config import config_of
from neuc.compiler.importers.decoder.importer import import_decoder
from neuc.compiler.universe import new_context
from neuc.errors import Error
from weight_files import F32, U32, T

GOOD = random_decoder()
K = "blk.1.attn_k.weight"

BAD_METADATA: dict[str, tuple[dict[str, object], str]] = {
    "another architecture": ({"architecture": "gpt2"}, "architecture 'gpt2' is not supported"),
    "no layers": ({"block_count": 0}, "layers = 0"),
    "absurdly many layers": ({"block_count": 2**31}, "layers = 2147483648"),
    "no heads": ({"attention_head_count": 0}, "head"),
    "heads that do not divide": ({"attention_head_count_kv": 3}, "4 heads are no multiple of 3"),
    "no kv heads": ({"attention_head_count_kv": 0}, "key and value heads = 0"),
    "odd heads": ({"attention_head_count": 64}, "heads of 1 elements have no rotary pairs"),
    "absurd width": ({"embedding_length": 2**31}, "hidden size = 2147483648"),
    "no width": ({"embedding_length": None}, "'bitnet-b1.58.embedding_length' is missing"),
    "no context": ({"context_length": 0}, "context = 0"),
    "no epsilon": ({"layer_norm_rms_epsilon": None}, "epsilon 0"),
    "epsilon not a number": ({"layer_norm_rms_epsilon": float("nan")}, "epsilon nan"),
    "rotary base infinite": ({"freq_base": float("inf")}, "rotary base inf"),
    "an end outside the vocabulary": ({"eos_token_id": 48}, "token 48 is outside the vocabulary of 48"),
}


@pytest.mark.parametrize("what", BAD_METADATA)
def test_metadata(tmp_path: Path, what: str) -> None:
    changes, said = BAD_METADATA[what]
    refuse(write_gguf_decoder(tmp_path / "m.gguf", GOOD, fields=metadata(GOOD, **changes)), said)


def without(found: dict[str, T], name: str) -> None:
    del found[name]


def put(found: dict[str, T], name: str, array: np.ndarray, type_id: int = 0) -> None:
    found[name] = T(name, array.shape, type_id, array.tobytes())


BAD_TENSORS: dict[str, tuple[Callable[[dict[str, T]], None], str]] = {
    "one missing": (lambda t: without(t, K), f"{K}: it is missing"),
    "no embedding": (lambda t: without(t, "token_embd.weight"), "token_embd.weight: it is missing"),
    "another shape": (
        lambda t: put(t, K, np.zeros((16, 64), np.float32)),
        f"{K}: its shape is [16, 64], and the model's sizes ask for [32, 64]",
    ),
    "a linear layer of floats": (
        lambda t: put(t, K, np.zeros((32, 64), np.float32)),
        f"{K}: its type is f32, which is no ternary format",
    ),
    "a norm that is not finite": (
        lambda t: put(t, "output_norm.weight", np.full(64, np.nan, np.float32)),
        "output_norm.weight: it holds infinity",
    ),
    "an embedding of integers": (
        lambda t: put(t, "token_embd.weight", np.zeros((48, 64), np.int32), 26),
        "token_embd.weight: its type is i32",
    ),
    "one too many": (
        lambda t: put(t, "blk.0.attn_q.bias", np.zeros(64, np.float32)),
        "blk.0.attn_q.bias: nothing here has a use for it",
    ),
}


@pytest.mark.parametrize("what", BAD_TENSORS)
def test_tensors(tmp_path: Path, what: str) -> None:
    change, said = BAD_TENSORS[what]
    found = tensors(GOOD)
    change(found)
    refuse(write_gguf_decoder(tmp_path / "m.gguf", GOOD, with_tensors=found), said)


def test_all_are_listed(tmp_path: Path) -> None:
    fields = metadata(GOOD) | {"bitnet-b1.58.feed_forward_length": (U32, 192)}
    found = refuse(write_gguf_decoder(tmp_path / "m.gguf", GOOD, fields=fields), "8 tensors")
    assert {node.name.split(".")[2] for node in found.nodes} == {"ffn_gate", "ffn_up", "ffn_down", "ffn_sub_norm"}


def test_a_rotary_factor_without_a_type_is_linear(tmp_path: Path) -> None:
    fields = metadata(GOOD) | {"bitnet-b1.58.rope.scaling.factor": (F32, 4.0)}
    file = GgufFile.open(write_gguf_decoder(tmp_path / "m.gguf", GOOD, fields=fields))
    assert config_of(file).rope_scale == 0.25


def test_a_rotary_factor_by_its_old_name(tmp_path: Path) -> None:
    fields = metadata(GOOD) | {"bitnet-b1.58.rope.scale_linear": (F32, 2.0)}
    file = GgufFile.open(write_gguf_decoder(tmp_path / "m.gguf", GOOD, fields=fields))
    assert config_of(file).rope_scale == 0.5


def test_what_would_change_the_model_is_not_passed_over(tmp_path: Path) -> None:
    more = {"expert_count": (U32, 8), "attention.sliding_window": (U32, 16), "final_logit_softcapping": (F32, 0.0)}
    fields = metadata(GOOD) | {f"bitnet-b1.58.{key}": value for key, value in more.items()}
    path = write_gguf_decoder(tmp_path / "m.gguf", GOOD, fields=fields)
    refuse(path, "expert_count, attention.sliding_window is asked for")


def test_a_norm_some_layers_have(tmp_path: Path) -> None:
    found = tensors(GOOD)
    del found["blk.0.ffn_sub_norm.weight"]
    path = write_gguf_decoder(tmp_path / "m.gguf", GOOD, with_tensors=found)
    assert [node.name for node in refuse(path, "it is missing").nodes] == ["blk.0.ffn_sub_norm.weight"]


def test_an_embedding_beyond_16_bit_scales(tmp_path: Path) -> None:
    found = tensors(GOOD)
    put(found, "token_embd.weight", np.full((48, 64), 1e9, np.float32))
    path = write_gguf_decoder(tmp_path / "m.gguf", GOOD, with_tensors=found)
    refuse(path, "beyond what 16-bit scales reach", code="NEUC-E122")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "model type 'gpt2' is not supported"),
        ({"hidden_act": "gelu"}, "activation 'gelu' is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary scaling is not supported"),
        ({"num_key_value_heads": 3}, "4 heads are no multiple of 3"),
        ({"intermediate_size": 192}, "8 tensors"),
    ],
)
def test_folders(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    refuse(write_folder_decoder(tmp_path / "model", GOOD, **changes), said)


def refuse(path: Path, said: str, code: str = "NEUC-E126") -> Error:
    """The error a file is refused with."""
    with pytest.raises(Error) as caught:
        import_decoder(path, new_context())
    text = str(caught.value)
    assert caught.value.code == code
    assert said in text
    assert path.name in text or code != "NEUC-E126"
    assert "\n" not in caught.value.message
    return caught.value


def test_the_good_one_is_good(tmp_path: Path) -> None:
    d: Decoder = GOOD
    import_decoder(write_gguf_decoder(tmp_path / "m.gguf", d), new_context())
