"""Running a module in numpy: walks functions, looks each operation's meaning up, keeps values.

The meanings are in the sibling files, one a dialect (`scalar.py` for `arith` and `math`), found by the dialect's name
when its first operation turns up; here are only `func` and `store`, which every level has.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.traits import IsTerminator

from neuc.dialects.dims import Dim
from neuc.dialects.spike_types import event_of
from neuc.dialects.store import ConstantOp, constant_array, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, InternalError

OpT = TypeVar("OpT", bound=Operation)
Implementation = Callable[[Operation, "list[np.ndarray]", "Env"], "list[np.ndarray]"]
Observer = Callable[[Operation, "list[np.ndarray]"], None]

_IMPLEMENTED: dict[type[Operation], Implementation] = {}
_FILES = {"arith": "scalar", "math": "scalar"}
"""Dialects whose meaning is not in the file of their own name."""


def implements(
    op_class: type[OpT],
) -> Callable[
    [Callable[[OpT, list[np.ndarray], Env], list[np.ndarray]]],
    Callable[[OpT, list[np.ndarray], Env], list[np.ndarray]],
]:
    """Register the decorated function as the meaning of `op_class`: operand arrays to result arrays."""

    def register(
        function: Callable[[OpT, list[np.ndarray], Env], list[np.ndarray]],
    ) -> Callable[[OpT, list[np.ndarray], Env], list[np.ndarray]]:
        def run(op: Operation, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
            assert isinstance(op, op_class)
            return function(op, args, env)

        _IMPLEMENTED[op_class] = run
        return function

    return register


def implementation_of(op: Operation) -> Implementation | None:
    """The registered meaning of `op`, or None."""
    if type(op) not in _IMPLEMENTED:
        _load(op.dialect_name())
    return _IMPLEMENTED.get(type(op))


@lru_cache
def _load(dialect: str) -> None:
    name = f"neuc.dialects.interp.{_FILES.get(dialect, dialect)}"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise


@dataclass
class Env:
    """What an operation may know beside its operands.

    Attributes:
        module: where called functions are looked up.
        store: the weights.
        symbols: the value of each symbolic dim known so far.
        fallback: runs operations nothing here implements.
        observe: is shown every operation's results.
        visible: values an operation's regions may use, as of the operation that is running.
    """

    module: ModuleOp
    store: WeightStore
    symbols: dict[str, int] = field(default_factory=dict)
    fallback: Implementation | None = None
    observe: Observer | None = None
    visible: Mapping[SSAValue, np.ndarray] = field(default_factory=dict["SSAValue", "np.ndarray"])

    def evaluate(self, dims: Sequence[Dim]) -> tuple[int, ...]:
        """The dims with the symbols' values."""
        return tuple(d.evaluate(self.symbols) for d in dims)

    def shape_of(self, value: SSAValue) -> tuple[int, ...]:
        """The shape `value` has in this run."""
        return self.evaluate(dims_of(value))


def interpret(
    module: ModuleOp,
    inputs: Sequence[np.ndarray],
    store: WeightStore,
    *,
    entry: str = "main",
    fallback: Implementation | None = None,
    observe: Observer | None = None,
) -> list[np.ndarray]:
    """Run function `entry` of `module` on `inputs`.

    Args:
        module: a module on any level that has interpreters.
        inputs: one array for each argument of the entry.
        store: the module's weights.
        entry: name of the function to run.
        fallback: runs operations without an implementation.
        observe: called with every operation and its results, in order.

    Raises:
        Error: NEUC-E210, there is no such function, or the inputs do not fit it.
        InternalError: an operation without implementation and no fallback, or one whose result contradicts its type.
    """
    return run_function(entry, list(inputs), Env(module, store, {}, fallback, observe))


def run_function(name: str, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    """Run function `name` of the module, its symbols added to those already known."""
    function = next((op for op in _functions(env.module) if op.sym_name.data == name), None)
    if function is None:
        known = ", ".join(op.sym_name.data for op in _functions(env.module))
        raise Error("NEUC-E210", f"the module has no function {name!r}", hint=f"it has: {known}")
    parameters = function.body.block.args
    if len(parameters) != len(args):
        raise Error("NEUC-E210", f"{name} takes {len(parameters)} inputs, got {len(args)}", hint="pass one array each")
    for parameter, array in zip(parameters, args):
        _bind(parameter, array, env, f"input {parameter.index} of {name}")
    return run_block(function.body.block, args, env)


def run_block(
    block: Block, args: list[np.ndarray], env: Env, outside: Mapping[SSAValue, np.ndarray] | None = None
) -> list[np.ndarray]:
    """Run a block, which may use values from `outside`, and return what its terminator has.

    The block's own arrays are dropped after their last use.
    """
    values: dict[SSAValue, np.ndarray] = {**(outside or {}), **dict(zip(block.args, args))}
    left = {value: sum(1 for _ in value.uses) for value in _values(block)}
    for op in block.ops:
        operands = [values[v] for v in op.operands]
        if op.has_trait(IsTerminator, value_if_unregistered=False):
            return operands
        env.visible = values
        results = run_op(op, operands, env)
        for value in op.operands:
            if value in left:
                left[value] -= 1
                if left[value] == 0:
                    del values[value]
        values.update((v, a) for v, a in zip(op.results, results) if left[v])
    raise InternalError(f"a block ends in {block.last_op} instead of a terminator")


def run_op(op: Operation, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    """Run one operation and check what it gives against its result types."""
    run = implementation_of(op) or env.fallback
    if run is None:
        raise InternalError(f"no interpreter for {op.name}, and no fallback")
    with np.errstate(all="ignore"):
        results = run(op, args, env)
    for value, array in zip(op.results, results, strict=True):
        _bind(value, array, env, f"result {value.index} of {op.name}", internal=True)
    if env.observe is not None:
        env.observe(op, results)
    return results


@implements(ConstantOp)
def _constant(op: ConstantOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    return [constant_array(op, env.store)]


@implements(func.CallOp)
def _call(op: func.CallOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    return run_function(op.callee.root_reference.data, args, env)


def _bind(value: SSAValue, array: np.ndarray, env: Env, what: str, *, internal: bool = False) -> None:
    """Check `array` against `value`'s type; symbols that occur for the first time get their value from it."""
    try:
        dims = dims_of(value)
    except ValueError:
        return
    fits = len(dims) == array.ndim
    for dim, size in zip(dims, array.shape):
        text = str(dim)
        if dim.symbols == {text}:
            env.symbols.setdefault(text, size)
        if dim.symbols <= env.symbols.keys():
            fits = fits and dim.evaluate(env.symbols) == size
    if not fits:
        message = f"{what} has shape {list(array.shape)}, its type says [{', '.join(map(str, dims))}]"
        if internal:
            raise InternalError(message)
        raise Error("NEUC-E210", message, hint="pass arrays of the shapes in the function's type")
    event = event_of(value)
    if event is not None and not event.holds(array):
        message = f"{what} is {array.dtype} and not all of it are {event.kind.data} events"
        if internal:
            raise InternalError(message)
        raise Error("NEUC-E210", message, hint=f"pass int8 of {', '.join(map(str, event.values))}")


def _functions(module: ModuleOp) -> Iterator[func.FuncOp]:
    return (op for op in module.ops if isinstance(op, func.FuncOp))


def _values(block: Block) -> Iterator[SSAValue]:
    yield from block.args
    for op in block.ops:
        yield from op.results
