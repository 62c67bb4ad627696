"""Text to tokens and back, with what an artifact brings of its model's tokenizer: `tokenizer_of`.

Hugging Face's tokenizer.json is used as it is. Of a GGUF file's metadata the two common kinds are made: byte-level BPE
(``gpt2``) and SentencePiece BPE (``llama``). The package ``tokenizers`` does the work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, cast

from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Model

_JSON = "extra/tokenizer.json"
_GGUF = "extra/tokenizer.gguf.json"
_MODEL = "tokenizer.ggml.model"
_PRE = "tokenizer.ggml.pre"

# How text is cut into words before byte-level BPE, by the name GGUF gives it; of "" ByteLevel's own pattern, GPT-2's.
_GPT2 = ""
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_WORDS: Mapping[str, str] = {
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "falcon-h1": _LLAMA3,
    "gpt-2": _GPT2,
    "qwen2": _QWEN2,
}
_WHOLE_WORDS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1"})
"""Words that are tokens themselves are not put together from pieces, and a sequence begins with bos."""

_LLAMA3_TOKEN = "<|begin_of_text|>"
"""Files that do not say how words are cut, but have this token, have Llama 3's vocabulary."""

_CONTROL, _USER_DEFINED = 3, 4
_ABSENT = "the model came without a tokenizer"
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer.

    Attributes:
        model: what does the work.
        bos: the token every prompt begins with, where `model` does not add it itself.
    """

    model: Model
    bos: int | None = None

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt, special ones at its beginning among them."""
        tokens = cast("list[int]", self.model.encode(text).ids)
        return tokens if self.bos is None or tokens[:1] == [self.bos] else [self.bos, *tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return cast(str, self.model.decode(list(tokens), skip_special_tokens=True))

    def stream(self, prompt: Sequence[int] = ()) -> TextStream:
        """For text that comes token by token after a prompt."""
        return TextStream(self, list(prompt)[-_CONTEXT:])


_CONTEXT = 8
"""Tokens before that decide how the next are written: whether with a space, and as part of which character."""


@dataclass
class TextStream:
    """Text that comes token by token: characters are given out when they are whole."""

    tokenizer: TextTokenizer
    _held: list[int]
    _said: str = field(init=False)

    def __post_init__(self) -> None:
        self._said = self.tokenizer.decode(self._held)

    def add(self, token: int) -> str:
        """What a token adds to the text."""
        self._held.append(token)
        text = self.tokenizer.decode(self._held)
        if text.endswith(_UNFINISHED) and len(self._held) < 4 * _CONTEXT:
            return ""
        new = text[len(self._said) :] if text.startswith(self._said) else text
        self._held = self._held[-_CONTEXT:]
        self._said = self.tokenizer.decode(self._held)
        return new


def tokenizer_of(extra: Mapping[str, bytes | memoryview]) -> TextTokenizer:
    """The tokenizer an artifact brings.

    Args:
        extra: the artifact's members by name.

    Raises:
        Error: NEUC-E325, it brings none that can be used; NEUC-E411, the package tokenizers is not installed.
    """
    if _JSON not in extra and _GGUF not in extra:
        raise _unusable(_ABSENT)
    try:
        package = import_module("tokenizers")
    except ImportError as error:
        raise Error(
            "NEUC-E411",
            "text needs the package tokenizers, which is not installed",
            hint="pip install tokenizers, or give --prompt-tokens",
        ) from error
    try:
        if _JSON in extra:
            return TextTokenizer(package.Tokenizer.from_str(bytes(extra[_JSON]).decode()))
        data = json.loads(bytes(extra[_GGUF]))
        if not isinstance(data, dict):
            raise _unusable("its data cannot be read: they are no JSON object")
        return _of_gguf(cast("dict[str, object]", data))
    except Error:
        raise
    except Exception as error:
        # The package raises plain Exception; what else data of wrong kinds raise is listed, and the rest are our bugs.
        if type(error) is not Exception and not isinstance(error, (KeyError, TypeError, ValueError, OverflowError)):
            raise
        raise _unusable(f"its data cannot be read: {error}"[:300]) from error


def _of_gguf(data: Mapping[str, object]) -> TextTokenizer:
    kind = str(data.get(_MODEL, ""))
    tokens = [str(token) for token in cast("list[object]", data["tokenizer.ggml.tokens"])]
    pre = str(data.get(_PRE, "llama-bpe" if _LLAMA3_TOKEN in tokens else "default"))
    if kind == "gpt2":
        model = _bytes_bpe(data, tokens, pre)
    elif kind == "llama":
        model = _pieces_bpe(data, tokens)
    else:
        raise _unusable(f"it is of kind '{kind[:40]}', of which neuc makes none" if kind else _ABSENT)
    _add_special(model, tokens, cast("list[int]", data.get("tokenizer.ggml.token_type", [])))
    wanted = data.get("tokenizer.ggml.add_bos_token", kind == "llama" or pre in _WHOLE_WORDS)
    bos = data.get("tokenizer.ggml.bos_token_id")
    return TextTokenizer(model, bos if wanted and isinstance(bos, int) else None)


def _bytes_bpe(data: Mapping[str, object], tokens: list[str], pre: str) -> Model:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    if pre not in _WORDS:
        raise _unusable(f"it cuts text into words as '{pre[:40]}' does, which neuc does not know")
    pairs = [str(merge).partition(" ") for merge in cast("list[object]", data["tokenizer.ggml.merges"])]
    merges = [(left, right) for left, _, right in pairs]
    model = Tokenizer(models.BPE(_numbered(tokens), merges, ignore_merges=pre in _WHOLE_WORDS))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not _WORDS[pre])
    cut = [pre_tokenizers.Split(Regex(_WORDS[pre]), "isolated")] if _WORDS[pre] else []
    model.pre_tokenizer = pre_tokenizers.Sequence([*cut, whole])
    model.decoder = decoders.ByteLevel()
    return model


def _pieces_bpe(data: Mapping[str, object], tokens: list[str]) -> Model:
    """SentencePiece joins the neighbours that make the piece of the best score; merges ordered by score do so, too."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    numbers = _numbered(tokens)
    scores = cast("list[float]", data["tokenizer.ggml.scores"])
    if len(scores) != len(tokens):
        raise _unusable(f"it has {len(tokens)} tokens and {len(scores)} scores")
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for token, score in zip(tokens, scores, strict=True):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in numbers and right in numbers:
                merges.append((-score, numbers[left], numbers[right], (left, right)))
    number = cast(int, data.get("tokenizer.ggml.unknown_token_id", 0))
    if not 0 <= number < len(tokens):
        raise _unusable(f"its unknown token {number} is not among its {len(tokens)}")
    unknown = tokens[number]
    ordered = [pair for *_, pair in sorted(merges)]
    model = Tokenizer(models.BPE(numbers, ordered, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    first = [normalizers.Prepend("▁")] if data.get("tokenizer.ggml.add_space_prefix", True) else []
    model.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    spaces = decoders.Replace("▁", " ")
    model.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return model


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _add_special(model: Model, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Control tokens stand in texts as they are written; they are not part of what is decoded."""
    from tokenizers import AddedToken

    for number, kind in enumerate(types[: len(tokens)]):
        if kind in (_CONTROL, _USER_DEFINED):
            token = AddedToken(tokens[number], normalized=False, special=kind == _CONTROL)
            (model.add_special_tokens if kind == _CONTROL else model.add_tokens)([token])


def _unusable(why: str) -> Error:
    return Error(
        "NEUC-E325",
        f"the artifact has no tokenizer that can be used: {why}",
        hint="give --prompt-tokens, numbers made by the model's own tokenizer",
        exit_code=Exit.USAGE,
    )
