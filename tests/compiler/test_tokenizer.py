"""Tokenizers made of what artifacts bring, on vocabularies small enough to tell the tokens by hand."""

from __future__ import annotations

import json

import pytest

from neuc.compiler.tokenizer import tokenizer_of
from neuc.errors import Error, Exit

GGUF, HF = "extra/tokenizer.gguf.json", "extra/tokenizer.json"


def byte_symbols() -> list[str]:
    """The character that byte-level BPE writes for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


BYTES = byte_symbols()
SPACE = BYTES[32]


def words(**more: object) -> dict[str, bytes]:
    tokens = [*BYTES, "lo", f"{SPACE}lo", "hel", "he", f"{SPACE}low", "<|begin|>", "12", "123"]
    merges = ["l o", f"{SPACE} lo", "h e", "he l", f"{SPACE}lo w", "1 2", "12 3"]
    types = [3 if token == "<|begin|>" else 1 for token in tokens]
    data = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 261,
        **more,
    }
    return {GGUF: json.dumps({key: value for key, value in data.items() if value is not None}).encode()}


def pieces(**more: object) -> dict[str, bytes]:
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "ab",
        "▁a",
        "▁ab",
        "ba",
    ]
    scores = [0.0] * 259 + [-5.0, -5.0, -5.0, -2.0, -3.0, -4.0, -1.0]
    types = [2, 3, 3, *[6] * 256, *[1] * 7]
    data = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        **more,
    }
    return {GGUF: json.dumps(data).encode()}


def test_byte_level_bpe() -> None:
    tokenizer = tokenizer_of(words())
    assert tokenizer.encode("hello low") == [261, 258, 256, 260]
    assert tokenizer.encode("12312") == [261, 263, 262]  # at most three digits at a time
    assert tokenizer.encode("<|begin|>é") == [261, 0xC3, 0xA9]
    assert tokenizer.decode([261, 258, 256, 260, 0xC3, 0xA9]) == "hello lowé"


def test_which_prompts_begin_with_bos() -> None:
    assert tokenizer_of(words(**{"tokenizer.ggml.add_bos_token": False})).encode("he") == [259]
    assert tokenizer_of(words(**{"tokenizer.ggml.pre": "gpt-2"})).encode("he") == [259]
    assert tokenizer_of(words(**{"tokenizer.ggml.bos_token_id": None})).encode("he") == [259]
    assert tokenizer_of(pieces(**{"tokenizer.ggml.add_bos_token": False})).encode("b") == [259, 261]


def test_sentence_pieces() -> None:
    """The best score is joined first, wherever it stands; what is no piece becomes bytes."""
    tokenizer = tokenizer_of(pieces())
    assert tokenizer.encode("ab") == [1, 264]
    assert tokenizer.encode("bab") == [1, 259, 265, 261]
    assert tokenizer.encode("b a") == [1, 259, 261, 263]
    assert tokenizer.encode("é") == [1, 259, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode([1, 264, 263, 3 + 0xC3, 3 + 0xA9]) == "ab aé"


def test_hugging_faces_own_file() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = Tokenizer(models.WordLevel({"to": 0, "be": 1, "?": 2}, unk_token="?"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = tokenizer_of({HF: model.to_str().encode(), GGUF: b"unused"})
    assert tokenizer.encode("to be or") == [0, 1, 2]


@pytest.mark.parametrize("extra", [words(), pieces()], ids=["bytes", "pieces"])
def test_a_stream_gives_whole_characters_and_in_all_the_text(extra: dict[str, bytes]) -> None:
    tokenizer = tokenizer_of(extra)
    text = "a hello é 日本 😀 low ab" * 3
    tokens = tokenizer.encode(text)
    first, *rest = tokens if tokens[0] != tokenizer.bos else tokens[1:]
    stream = tokenizer.stream([first])
    parts = [stream.add(token) for token in rest]
    assert all("\N{REPLACEMENT CHARACTER}" not in part for part in parts)
    assert tokenizer.decode([first]) + "".join(parts) == text


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({}, "came without"),
        (words(**{"tokenizer.ggml.pre": "unheard-of"}), "unheard-of"),
        (words(**{"tokenizer.ggml.pre": None}), "default"),
        (words(**{"tokenizer.ggml.model": "t5"}), "t5"),
        (words(**{"tokenizer.ggml.tokens": None}), "cannot be read"),
        (words(**{"tokenizer.ggml.merges": ["not there"]}), "cannot be read"),
        (pieces(**{"tokenizer.ggml.scores": [0.0]}), "266 tokens and 1 scores"),
        (pieces(**{"tokenizer.ggml.unknown_token_id": 999}), "unknown token 999 is not among its 266"),
        ({GGUF: b"{"}, "cannot be read"),
        ({GGUF: b"[]"}, "no JSON object"),
        ({HF: b"{}"}, "cannot be read"),
        ({HF: b"\xff"}, "cannot be read"),
    ],
)
def test_what_cannot_be_used(extra: dict[str, bytes], why: str) -> None:
    with pytest.raises(Error, match=why) as caught:
        tokenizer_of(extra)
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E325", Exit.USAGE)


def test_a_vocabulary_of_llama_3_needs_no_name() -> None:
    extra = json.loads(words()[GGUF])
    extra["tokenizer.ggml.tokens"][261] = "<|begin_of_text|>"
    del extra["tokenizer.ggml.pre"]
    assert tokenizer_of({GGUF: json.dumps(extra).encode()}).encode("12312") == [261, 263, 262]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(Error) as caught:
        tokenizer_of(words())
    assert caught.value.code == "NEUC-E411"
