"""Functions placed on a machine that is no CPU, and how they become segments of a program.

A pass moves what the machine runs into a function and calls it from @main (`passes/outlining.py:place`); `partition`
leaves such calls alone. The function takes no constants: it has its own.

What a machine does with its functions is its family's business (`backends/<family>/emit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import cast

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from neuc.dialects.weight_store import WeightStore
from neuc.errors import InternalError
from neuc.passes.outlining import EXECUTOR
from neuc.runtime.program import OtherSegment

_EMITTERS: dict[str, str] = {
    "npu": "neuc.backends.npu.emit:emit_segment",
    "npu-rows": "neuc.backends.npu.emit_rows:emit_rows",
}


@dataclass(frozen=True)
class PlacedProgram:
    """What an executor is given of a function.

    Attributes:
        data: plain JSON data, the executor's own.
        weights: arrays it reads, by names of its own.
    """

    data: Mapping[str, object]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


Emitter = Callable[[func.FuncOp, ModuleOp, WeightStore], PlacedProgram]


def executor_of(op: Operation) -> str | None:
    """The kind of executor a function is placed for; None if `op` is no such function."""
    kind = op.attributes.get(EXECUTOR)
    return kind.data if isinstance(op, func.FuncOp) and isinstance(kind, StringAttr) else None


def emit_placed(
    function: func.FuncOp, module: ModuleOp, store: WeightStore
) -> tuple[OtherSegment, dict[str, np.ndarray]]:
    """The segment of a placed function, and its weights by key.

    Raises:
        InternalError: nothing emits functions for its executor.
    """
    kind = executor_of(function)
    if kind is None or kind not in _EMITTERS:
        raise InternalError(f"@{function.sym_name.data} is placed for {kind!r}, which nothing emits")
    module_name, _, name = _EMITTERS[kind].partition(":")
    made = cast(Emitter, getattr(import_module(module_name), name))(function, module, store)
    own = function.sym_name.data
    keys = {f"{own}.{name}": array for name, array in made.weights.items()}
    inputs = tuple(f"in{i}" for i in range(len(function.function_type.inputs)))
    outputs = tuple(f"out{i}" for i in range(len(function.function_type.outputs)))
    return OtherSegment(kind, dict(made.data), inputs, outputs, tuple(keys)), keys
