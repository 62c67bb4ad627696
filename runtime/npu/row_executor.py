"""The executor of segments of kind ``npu-rows``: chains, softmax and norms on the simulated array."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, InternalError
from neuc.runtime.checked_json import Node
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.npu.executor import MOST
from neuc.runtime.npu.functions import from_bf16, to_bf16
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.machine_file import machine_of
from neuc.runtime.npu.program_json import CODE, CURE, design_from_json
from neuc.runtime.npu.row_functions import BINARY, OCTAVES, chain_steps, checked_curve
from neuc.runtime.npu.rows import FUNCTIONS, RowPlan, laid_out, with_tokens
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.usage import Usage, record
from neuc.runtime.program import OtherSegment, Segment

MOST_OPERANDS = 8
MOST_CURVES = 4
_FIELDS = "machine program kind operands arguments rows width columns steps curves eps rms switch".split()


def plan_from(node: Node) -> RowPlan:
    """The plan that a segment's data say.

    Raises:
        Error: NEUC-E687, a field makes no sense.
    """
    kind = node.get("kind").string(32)
    if kind not in FUNCTIONS:
        raise node.get("kind").refuse(f"{kind!r} is none of {', '.join(FUNCTIONS)}")
    rows, width, columns = (node.get(key).integer(1, MOST) for key in ("rows", "width", "columns"))
    if columns > width or width % 2:
        raise node.get("columns").refuse(f"lines of {width} do not hold {columns} numbers")
    operands = node.get("operands").integer(1, MOST_OPERANDS)
    curves = tuple(node.get("curves").list_of(lambda n: n.integer(OCTAVES + 2, 1 << 16), MOST_CURVES))
    steps = node.get("steps").string(4000)
    if kind == "chain":
        _check_steps(node.get("steps"), steps, operands, len(curves))
    elif kind == "softmax" and len(curves) != 1:
        raise node.get("curves").refuse("softmax has one table")
    eps, rms = node.get("eps").number(), node.get("rms").boolean()
    return RowPlan(kind, operands, rows, width, columns, steps, curves, eps, rms)


def _check_steps(node: Node, text: str, operands: int, curves: int) -> None:
    for number, (kind, *words) in enumerate(chain_steps(text)):
        known = operands + number
        if kind == "constant" and len(words) == 1:
            try:
                float(words[0])
            except ValueError:
                raise node.refuse(f"{words[0]!r} is no number") from None
            continue
        limits = (known, curves if kind == "curve" else known)
        sound = kind in (*BINARY, "curve") and len(words) == 2 and all(w.isdecimal() and len(w) < 4 for w in words)
        if not sound or any(int(word) >= limit for word, limit in zip(words, limits)):
            raise node.refuse(f"step {number} of the chain makes no sense")


class RowExecutor:
    """Runs a placed chain, softmax or norm: f32 tensors to an f32 tensor whose numbers are bf16's.

    Operands of a chain are broadcast to one shape here, and rounded to bf16. What the array would have taken is added
    up in ``usage``.
    """

    def __init__(self, name: str, segment: Segment, setting: Setting) -> None:
        if not isinstance(segment, OtherSegment):
            raise InternalError(f"segment {name} is no segment of an NPU")
        node = Node(segment.data, f"segment {name}", CODE, CURE)
        node.only(_FIELDS)
        self.machine: Machine = machine_of(node.get("machine").value, f"segment {name}: machine")
        self._graph = design_from_json(node.get("program").value, f"segment {name}: program")
        self._plan = plan_from(node)
        self._switch = node.get("switch").boolean()
        weights = setting.weights
        self._arguments = node.get("arguments").list_of(lambda n: n.integer(-1, MOST_OPERANDS), MOST_OPERANDS)
        if len(self._arguments) != self._plan.operands or max(self._arguments) >= len(segment.inputs):
            raise node.get("arguments").refuse("expected the number of an input, or -1, for each operand")
        self._constants = {i: weights[f"{name}.operand{i}"] for i, n in enumerate(self._arguments) if n < 0}
        self._curves = [
            checked_curve(weights[f"{name}.curve{i}"], size, name) for i, size in enumerate(self._plan.curves)
        ]
        self._lines: list[NDArray[np.uint16]] = []
        if self._plan.kind == "layer_norm":
            self._lines = [np.asarray(weights[f"{name}.{key}"], np.uint16) for key in ("scale", "bias")]
            if any(line.shape != (self._plan.columns,) for line in self._lines):
                raise Error(CODE, f"segment {name}: scales or biases have the wrong size", hint=CURE)
        self.usage = Usage()
        self._name, self._profile = name, setting.profile

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Simulate it for these tensors."""
        before, began = replace(self.usage), time.monotonic_ns()
        operands = [self._constants[i] if n < 0 else inputs[n] for i, n in enumerate(self._arguments)]
        shape = np.broadcast_shapes(*(x.shape for x in operands)) if outputs[0] is None else outputs[0].shape
        made = self._computed(operands, shape) if prod(shape) else np.zeros(shape, np.float32)
        if self._profile is not None:
            record(self._profile, self._name, self.machine, (before, self.usage), began)
        if outputs[0] is None:
            return [made]
        outputs[0][...] = made
        return [outputs[0]]

    def _computed(self, operands: Sequence[Array], shape: tuple[int, ...]) -> Array:
        plan = self._plan
        if plan.kind == "chain":
            lines = [to_bf16(np.broadcast_to(x, shape)) for x in operands]
        elif shape[-1] != plan.columns:
            raise InternalError(f"segment {self._name}: rows of {shape[-1]}, not {plan.columns}")
        else:
            lines = [to_bf16(operands[0]).reshape(-1, plan.columns), *self._lines]
        x, count = laid_out(plan, self.machine, lines)
        design = with_tokens(self._graph, plan, self.machine, x.shape[1], self._curves)
        run = simulate(design, self.machine, {"x": x})
        if run.deadlock is not None:
            raise Error("NEUC-E679", f"{design.name} deadlocks: {run.deadlock}", hint="please report this program")
        self.usage.add(run, self.machine, "bf16", (0, 0), self._switch)
        rows = np.asarray(run.outputs["y"], np.uint16).reshape(-1, plan.width)
        if plan.kind == "chain":
            return from_bf16(rows.reshape(-1)[: prod(shape)]).reshape(shape)
        return from_bf16(rows[:count, : plan.columns]).reshape(shape)
