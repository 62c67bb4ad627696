"""Input data for a model: read from what the user names, or made up from its signature.

Made-up data are the same on every machine for the same signature and seed.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from neuc.errors import Error, Exit
from neuc.runtime.expr import Expr
from neuc.runtime.program import DTYPES, IoSpec

Arrays = dict[str, np.ndarray]

INTEGER_LIMIT = 1000
"""Made-up integers are below this, and below the rows of a table they pick from: large enough to differ."""

_SMALL_LIMITS = 50, 2
_BATCH_SIZE, _LENGTH, _IMAGE_SIDE = 2, 16, 64
_SHORT_DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "i1": "bool",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
# What numpy and zipfile raise for files that are not theirs, or damaged; np.load gives a plain array for an .npy.
_BAD_FILE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    AttributeError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
_LITERAL = re.compile(r"(?P<shape>(?:\d+x)*)(?P<dtype>[a-z]+\d+)=(?P<value>.+)")


def symbol_sizes(signature: Sequence[IoSpec], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """A size for each symbol of a signature.

    2 for one that stands first in a shape (a batch), 64 for the sides of images (axes from 2 on of four or more), and
    16 for any other (a length).
    """
    sizes: dict[str, int] = {}
    for spec in signature:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                for symbol in sorted(Expr.of(dim).names):
                    image = axis > 1 and len(spec.shape) > 3
                    sizes.setdefault(symbol, _BATCH_SIZE if axis == 0 else _IMAGE_SIDE if image else _LENGTH)
    return {**sizes, **{name: size for name, size in (given or {}).items() if name in sizes}}


def random_inputs(
    signature: Sequence[IoSpec], seed: int = 0, sizes: Mapping[str, int] | None = None, limit: int = INTEGER_LIMIT
) -> Arrays:
    """Made-up inputs that fit `signature`.

    Floats are standard normal; integers uniform in [0, limit), and below the rows of the smallest table that they are
    indices of; an input whose name contains "mask" is all ones, one whose name contains "token_type" or "segment" all
    zeros, as text encoders expect.
    """
    known = symbol_sizes(signature, sizes)
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for spec in signature:
        shape = tuple(dim if isinstance(dim, int) else Expr.of(dim).evaluate(known) for dim in spec.shape)
        below = limit if spec.index is None else min(limit, spec.index.rows)
        arrays[spec.name] = _random(spec.name.lower(), np.dtype(spec.dtype), shape, rng, below)
    return arrays


def more_modest(signature: Sequence[IoSpec]) -> Iterator[tuple[dict[str, int], int]]:
    """Sizes and limits of integers for made-up inputs, to be tried in turn until the model takes them.

    Types do not tell all: a batch that is symbolic may meet a state made for a batch of 1, and ids a small vocabulary.
    """
    single = {dim: 1 for spec in signature for dim in spec.shape[:1] if isinstance(dim, str)}
    for limit in (INTEGER_LIMIT, *_SMALL_LIMITS):
        yield {}, limit
        yield single, limit


def _random(name: str, dtype: np.dtype, shape: tuple[int, ...], rng: np.random.Generator, limit: int) -> np.ndarray:
    if "mask" in name:
        return np.full(shape, min(1, limit - 1), dtype)
    if "token_type" in name or "segment" in name:
        return np.zeros(shape, dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.integers(0, min(limit, np.iinfo(dtype).max + 1), shape).astype(dtype)


def parse_inputs(specs: Sequence[str], signature: Sequence[IoSpec]) -> Arrays:
    """The arrays that ``--input`` options name; inputs not named are made up with seed 0.

    Each spec is ``NAME=@file.npy``, ``NAME=1x28xf32=0`` (shape, dtype, value or comma-separated values),
    ``NAME=random:SEED``, or ``@file.npz`` for all inputs at once. ``NAME=`` may be left out of a model with one input.

    Raises:
        Error: NEUC-E006, a spec that cannot be read or names no input.
    """
    named: Arrays = {}
    seeds: dict[str, int] = {}
    names = [spec.name for spec in signature]
    for text in specs:
        if text.startswith("@") and text.endswith(".npz"):
            named.update(load_npz(Path(text[1:])))
            continue
        name, value = _split(text, names)
        if value.startswith("random"):
            seeds[name] = _seed(text, value)
        elif value.startswith("@"):
            named[name] = _load_npy(Path(value[1:]))
        else:
            named[name] = _literal(text, value)
    unknown = [name for name in named if name not in names]
    if unknown:
        raise _no_input(unknown[0], names)
    # Inputs that are made up agree in size with those that are given.
    sizes = _bound_symbols(signature, named)
    made = {seed: random_inputs(signature, seed, sizes) for seed in {0, *seeds.values()}}
    return {name: named[name] if name in named else made[seeds.get(name, 0)][name] for name in names}


def load_npz(path: Path) -> Arrays:
    """All arrays of an ``.npz`` file; nothing is unpickled.

    Raises:
        Error: NEUC-E006.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            hint = "write it with numpy.savez, each array under the name of an input"
            raise Error("NEUC-E006", f"{path} holds one array without a name", hint=hint, exit_code=Exit.USAGE)
        with archive:
            return {name: archive[name] for name in archive.files}
    except _BAD_FILE as error:
        raise _unreadable(path, error) from error


def _load_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except _BAD_FILE as error:
        raise _unreadable(path, error) from error
    if not isinstance(array, np.ndarray):
        raise Error("NEUC-E006", f"{path} holds several arrays", hint=f"use --input @{path}", exit_code=Exit.USAGE)
    return array


def _unreadable(path: Path, error: Exception) -> Error:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    elif "pickled (object) data" in reason:  # what numpy takes any file for that begins otherwise
        reason = "it is no .npz or .npy file"
    elif "allow_pickle" in reason:
        reason = "an array holds Python objects, not numbers"
    return Error("NEUC-E006", f"cannot read {path}: {reason}", hint="give an .npy or .npz file written by numpy")


def _split(text: str, names: list[str]) -> tuple[str, str]:
    """The input's name and the value; one input needs no name."""
    name, equals, value = text.partition("=")
    if equals and name in names:
        return name, value
    if len(names) == 1 and (text.startswith(("@", "random")) or _LITERAL.fullmatch(text)):
        return names[0], text
    raise _no_input(name, names)


def _no_input(name: str, names: list[str]) -> Error:
    known = f"the model's inputs: {', '.join(names)}"
    return Error("NEUC-E006", f"the model has no input {name!r}", hint=known, exit_code=Exit.USAGE)


def _seed(text: str, value: str) -> int:
    _, colon, seed = value.partition(":")
    if not colon:
        return 0
    if not seed.isdigit():
        raise Error("NEUC-E006", f"--input {text}: the seed is no number", hint="random:7", exit_code=Exit.USAGE)
    return int(seed)


def _literal(text: str, value: str) -> np.ndarray:
    found = _LITERAL.fullmatch(value)
    dtype = _SHORT_DTYPES.get(found["dtype"], found["dtype"]) if found else ""
    if found is None or dtype not in DTYPES:
        raise Error(
            "NEUC-E006",
            f"--input {text}: cannot read {value!r}",
            hint="write NAME=@file.npy, NAME=1x28xf32=0 or NAME=random:7",
            exit_code=Exit.USAGE,
        )
    shape = tuple(int(size) for size in found["shape"].split("x") if size)
    try:
        values = np.array([float(item) for item in found["value"].split(",")]).astype(dtype)
        return np.broadcast_to(values.reshape(()), shape).copy() if values.size == 1 else values.reshape(shape)
    except (ValueError, OverflowError) as error:
        hint = "give one value, or as many as the shape holds, separated by commas"
        raise Error("NEUC-E006", f"--input {text}: {error}", hint=hint, exit_code=Exit.USAGE) from error


def check_calibration(arrays: Mapping[str, np.ndarray], source: str, names: Sequence[str]) -> None:
    """Refuse data on which nothing can be measured; only arrays of the inputs `names` are looked at.

    Masks may hold -inf, which is what leaves a place out.

    Raises:
        Error: NEUC-E263, an input is empty, or holds NaN or infinity.
    """
    for name in names:
        array = arrays.get(name)
        if array is None:
            continue
        if not array.size:
            what = f"{source}: calibration data {name!r} are empty, of shape {list(array.shape)}"
            raise Error("NEUC-E263", what, hint="give at least one row for every input")
        if array.dtype.kind != "f":
            continue
        bad = ~np.isfinite(array) & ~(np.isneginf(array) if "mask" in name.lower() else False)
        if bad.any():
            share = f"{int(bad.sum())} of {array.size} values"
            what = f"{source}: calibration data {name!r} hold NaN or infinity in {share}"
            raise Error("NEUC-E263", what, hint="clean the data: errors are measured on finite numbers alone")


def _bound_symbols(signature: Sequence[IoSpec], named: Arrays) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for spec in signature:
        array = named.get(spec.name)
        if array is not None and array.ndim == len(spec.shape):
            sizes.update({dim: size for dim, size in zip(spec.shape, array.shape) if isinstance(dim, str)})
    return sizes
