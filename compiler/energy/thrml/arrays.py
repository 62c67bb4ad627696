"""Arrays and random keys of JAX, numpy or Python as numpy's; JAX itself is not needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from neuc.compiler.energy.thrml.block_management import thrml_error


def key_words(key: object) -> np.ndarray:
    """A key as unsigned integers [..., words]: an integer, JAX's typed or raw keys, or integers of numpy.

    Raises:
        Error: NEUC-E639, it is no key.
    """
    found: object = key
    if str(getattr(key, "dtype", "")).startswith("key<"):
        found = sys.modules["jax"].random.key_data(key)
    words = np.asarray(found)
    if not np.issubdtype(words.dtype, np.integer):
        raise thrml_error(f"a key of {words.dtype}", "give jax.random.key(0), or an integer")
    return np.atleast_1d(words.astype(np.int64)).astype(np.uint64)


def generator(key: object) -> np.random.Generator:
    """Random numbers that depend on the key alone."""
    return np.random.default_rng([int(word) for word in key_words(key).reshape(-1)])


def as_array(values: object, name: str) -> np.ndarray:
    """Numbers of numpy, JAX or Python as a numpy array.

    Raises:
        Error: NEUC-E639, a value inside jax.jit or jax.grad, which has no numbers yet.
    """
    if is_traced([values]):
        hint = "build and observe models outside jax.jit, jax.vmap and jax.grad; sample_states itself may be inside"
        raise thrml_error(f"{name} are traced by JAX and have no values", hint)
    return np.asarray(values)


def is_traced(values: Sequence[object]) -> bool:
    """Whether one of the values stands for an array inside a JAX transformation."""
    jax = sys.modules.get("jax")
    return jax is not None and any(isinstance(value, jax.core.Tracer) for value in values)
