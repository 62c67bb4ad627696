"""The signature of a session as onnxruntime users know it, and the checks of what they feed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuc.errors import Error, Exit
from neuc.runtime.executors.base import Array
from neuc.runtime.program import IoSpec, Program
from neuc.runtime.shapes import CompiledShape

_TENSOR_TYPES = {"float32": "float", "float64": "double", "float16": "float16"}
_SHOWN = 4


@dataclass(frozen=True)
class NodeArg:
    """An input or output: ``shape`` has an int for a fixed dim and a string for a symbolic one."""

    name: str
    shape: list[int | str]
    type: str


@dataclass(frozen=True)
class ModelMeta:
    """What is known about where a model comes from."""

    producer_name: str = "neuc"
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    version: int = 0
    custom_metadata_map: Mapping[str, str] = field(default_factory=dict[str, str])


def node_arg(spec: IoSpec) -> NodeArg:
    """An `IoSpec` in onnxruntime's words."""
    return NodeArg(spec.name, list(spec.shape), f"tensor({_TENSOR_TYPES.get(spec.dtype, spec.dtype)})")


def signature_text(program: Program) -> str:
    """Inputs and outputs on one line, ``x float32[N, 64] -> y float32[N, 10]``; decoders have too many to name all."""
    return f"{listed(program.inputs)} -> {listed(program.outputs)}"


def listed(specs: Sequence[IoSpec]) -> str:
    """Names, types and shapes of the first few."""
    shown = [f"{spec.name} {spec.dtype}{_shape_text(spec.shape) if spec.ranked else ''}" for spec in specs[:_SHOWN]]
    return ", ".join([*shown, f"{len(specs) - _SHOWN} more"] if len(specs) > _SHOWN else shown) or "nothing"


class Signature:
    """A program's inputs and outputs, with the checks of a call."""

    def __init__(self, program: Program) -> None:
        self.inputs = [CompiledShape(spec) for spec in program.inputs]
        self.input_names = [spec.name for spec in program.inputs]
        self.output_names = [spec.name for spec in program.outputs]
        self._by_name = dict(zip(self.input_names, self.inputs))
        self._names = frozenset(self.input_names)
        self._indices = [(i, spec, spec.index) for i, spec in enumerate(program.inputs) if spec.index is not None]

    def check_output_names(self, names: Iterable[str]) -> None:
        """Refuse names of outputs that do not exist."""
        for name in names:
            if name not in self.output_names:
                raise _unknown("output", name, self.output_names)

    def check_feeds(self, feeds: Mapping[str, ArrayLike]) -> tuple[list[Array], dict[str, int]]:
        """The feeds as C-contiguous arrays in order, and the sizes of all symbols.

        Raises:
            Error: a name, dtype, rank or size is not the signature's; the message says which and what was expected.
        """
        if not isinstance(feeds, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  callers need not check types
            raise Error(
                "NEUC-E310",
                f"inputs are a {type(feeds).__name__}, not a mapping from names to arrays",
                hint="call run(None, {'name': array})",
                exit_code=Exit.USAGE,
            )
        if len(feeds) != len(self.inputs) or not self._names.issuperset(feeds):
            self._refuse_names(feeds)
        arrays = [self._array(spec, feeds[name]) for name, spec in self._by_name.items()]
        symbols: dict[str, int] = {}
        for spec, array in zip(self.inputs, arrays):
            if array.shape != spec.static:
                spec.bind(array.shape, symbols)
        for spec, array in zip(self.inputs, arrays):
            if array.shape != spec.static:
                axis = spec.mismatch(array.shape, symbols)
                if axis is not None:
                    raise self._wrong_size(spec, array.shape, axis, symbols)
        return arrays, symbols

    def check_indices(self, arrays: Sequence[Array]) -> None:
        """Refuse values of inputs that are no rows of the tables they pick from, which kernels would take for others.

        Raises:
            Error: NEUC-E326; the message names the first such value, the table's rows and the node.
        """
        for position, spec, bound in self._indices:
            array = cast("NDArray[np.int64]", arrays[position])  # or of another integer type
            if array.size and (array.max() >= bound.rows or array.min() < -bound.rows):
                wrong = array[(array >= bound.rows) | (array < -bound.rows)]
                raise Error(
                    "NEUC-E326",
                    f"input '{spec.name}': {wrong[0]} is no index of the table of {bound.rows} rows that {bound.node} "
                    f"picks from" + (f" ({wrong.size} such values)" if wrong.size > 1 else ""),
                    hint=f"indices are {-bound.rows} to {bound.rows - 1}; negative ones count from the end",
                    exit_code=Exit.USAGE,
                )

    def check_feed(self, name: str, value: ArrayLike) -> Array:
        """One feed as a C-contiguous array; sizes are checked with the others."""
        if name not in self._by_name:
            raise _unknown("input", name, self.input_names)
        return self._array(self._by_name[name], value)

    def _refuse_names(self, feeds: Mapping[str, ArrayLike]) -> None:
        for name in feeds:
            if name not in self._by_name:
                raise _unknown("input", name, self.input_names)
        missing = [name for name in self.input_names if name not in feeds]
        raise Error(
            "NEUC-E310",
            f"missing input{'s' if len(missing) > 1 else ''}: "
            + ", ".join(_described(self._by_name[n]) for n in missing),
            hint="every input of the model must be fed",
            exit_code=Exit.USAGE,
        )

    def _array(self, spec: CompiledShape, value: ArrayLike) -> Array:
        array = _as_array(spec, value)
        if array.dtype != spec.dtype:
            if array.dtype.newbyteorder("=") == spec.dtype:
                array = array.astype(spec.dtype)
            else:
                raise Error(
                    "NEUC-E311",
                    f"input '{spec.spec.name}': expected {spec.spec.dtype}, got {array.dtype}",
                    hint=f"convert it with .astype(np.{spec.spec.dtype.replace('bool', 'bool_')})",
                    exit_code=Exit.USAGE,
                )
        if array.ndim != spec.rank:
            raise Error(
                "NEUC-E312",
                f"input '{spec.spec.name}': expected {spec.rank} dimensions {_shape_text(spec.spec.shape)}, "
                f"got {array.ndim} {_shape_text(array.shape)}",
                hint="reshape it, or add the batch dimension",
                exit_code=Exit.USAGE,
            )
        flags = array.flags
        return array if flags.c_contiguous and flags.aligned else array.copy(order="C")

    def _wrong_size(self, spec: CompiledShape, shape: Sequence[int], axis: int, symbols: Mapping[str, int]) -> Error:
        expected = str(spec.spec.shape[axis])
        used = [f"{name} = {size}" for name, size in symbols.items() if name in spec.names(axis)]
        if used:
            expected += f" ({', '.join(used)})"
        return Error(
            "NEUC-E312",
            f"input '{spec.spec.name}': expected shape {_shape_text(spec.spec.shape)}, got {_shape_text(shape)}: "
            f"dimension {axis} must be {expected}",
            hint="dimensions of the same name must have the same size in all inputs"
            if spec.names(axis)
            else f"dimension {axis} is fixed in the model: feed {spec.spec.shape[axis]} along it",
            exit_code=Exit.USAGE,
        )


def _as_array(spec: CompiledShape, value: ArrayLike) -> Array:
    if isinstance(value, np.ndarray):
        return cast(Array, value)
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise Error(
            "NEUC-E311",
            f"input '{spec.spec.name}': a {type(value).__name__} that is not an array: {error}",
            hint=f"pass a numpy array of {spec.spec.dtype}",
            exit_code=Exit.USAGE,
        ) from error


def _shape_text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _described(spec: CompiledShape) -> str:
    return f"'{spec.spec.name}' ({spec.spec.dtype}{_shape_text(spec.spec.shape)})"


def _unknown(what: str, name: object, known: Sequence[str]) -> Error:
    near = difflib.get_close_matches(str(name), known, 1)
    listed = ", ".join(f"'{n}'" for n in known[:20])
    return Error(
        "NEUC-E310" if what == "input" else "NEUC-E313",
        f"the model has no {what} '{name}'",
        hint=f"did you mean '{near[0]}'?" if near else f"its {what}s are {listed}",
        exit_code=Exit.USAGE,
    )
