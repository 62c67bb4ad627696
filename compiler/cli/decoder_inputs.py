"""Inputs of decoders for `neuc run`: those made up are made to fit, those given must.

Kernels read the nearest row for an impossible token and leave out what has no place in the caches, which is right for
them and a trap for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from neuc.compiler.inputs import Arrays
from neuc.errors import Error, Exit
from neuc.runtime.generation import CACHE_LANES


def check_decoder_inputs(facts: object, feeds: Arrays, given: Sequence[str]) -> Arrays:
    """The feeds; tokens that are made up are within the vocabulary, position and caches zeros.

    Args:
        facts: the manifest's ``decoder``.
        feeds: all inputs.
        given: the texts of ``--input``; one that begins with @ may hold any of them.

    Raises:
        Error: NEUC-E322, a token is beyond the vocabulary; NEUC-E321, tokens have no place in the caches.
    """
    vocab = cast("Mapping[str, int]", facts)["vocab"]
    named = {text.partition("=")[0] for text in given}
    if not any(text.startswith("@") for text in given):
        made_up = {name: np.zeros_like(array) for name, array in feeds.items() if name != "tokens"}
        made_up["tokens"] = feeds["tokens"] % vocab
        feeds = {name: array if name in named else made_up[name] for name, array in feeds.items()}
    tokens = feeds["tokens"]
    if tokens.dtype != np.int64 or feeds["position"].shape != ():
        return feeds  # refused later, as of any model
    position = int(feeds["position"])
    wrong = tokens[(tokens < 0) | (tokens >= vocab)]
    if wrong.size:
        raise Error(
            "NEUC-E322",
            f"token {wrong[0]} is none of this decoder's",
            hint=f"tokens are 0 to {vocab - 1}",
            exit_code=Exit.USAGE,
        )
    blocks = {array.shape[1] for name, array in feeds.items() if name.startswith("k_cache.")}
    places = CACHE_LANES * min(blocks, default=0)
    if position < 0 or position + tokens.size > places:
        raise Error(
            "NEUC-E321",
            f"{tokens.size} tokens from position {position} on have no place in caches of {places} tokens",
            hint="give caches of more blocks, such as --input k_cache.0=5x8x128x16xf16=0, or an earlier position",
            exit_code=Exit.USAGE,
        )
    return feeds
