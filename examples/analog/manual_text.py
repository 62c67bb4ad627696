"""Text that every Python carries: the manual's topics that `help()` shows, each paragraph once, as token numbers.

Topics repeat each other, so what is held out is the end of the text after paragraphs that occurred before are left out.
The manual changes from one version of Python to the next; `digest` tells texts apart.
"""

from __future__ import annotations

import hashlib
import pydoc_data.topics
from dataclasses import dataclass

import numpy as np

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""The vocabulary: a token's number is its place here."""
HELD_OUT_SHARE = 0.08


@dataclass(frozen=True)
class Text:
    """The manual in two parts.

    Attributes:
        train, held_out: tokens, u8 [N], numbers of `CHARACTERS`.
        digest: first 12 hex digits of the SHA-256 of the whole.
    """

    train: np.ndarray
    held_out: np.ndarray
    digest: str


def manual() -> Text:
    """The manual of this Python; characters outside of the vocabulary are spaces."""
    topics = pydoc_data.topics.topics
    paragraphs = dict.fromkeys(part for name in sorted(topics) for part in topics[name].split("\n\n"))
    text = "\n\n".join(paragraphs)
    numbers = {character: number for number, character in enumerate(CHARACTERS)}
    tokens = np.array([numbers.get(character, numbers[" "]) for character in text], np.uint8)
    cut = int(len(tokens) * (1 - HELD_OUT_SHARE))
    return Text(tokens[:cut], tokens[cut:], hashlib.sha256(tokens.tobytes()).hexdigest()[:12])


def windows(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive pieces of a text and, for each token, the one that follows it.

    Returns:
        i64 [N, length] and i64 [N, length]; the rest that fills no window is left out.
    """
    count = (len(tokens) - 1) // length
    pieces = tokens.astype(np.int64)
    return pieces[: count * length].reshape(count, length), pieces[1 : count * length + 1].reshape(count, length)
