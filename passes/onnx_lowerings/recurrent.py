"""LSTM with ONNX's default activations; other recurrent operators stay on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from neuc.dialects import dense
from neuc.dialects.dense_attrs import Direction
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import tensor_type
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported

Results = Sequence[SSAValue | None]
_DEFAULT_ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")


def lower_lstm(node: OnnxOp, build: Builder) -> Results:
    """LSTM without peepholes, clipping or sequences of different length."""
    _refuse_variants(node, build)
    x, w, r = (build.operand(i) for i in range(3))
    bias, h0, c0 = (node.operand_at(i) for i in (3, 5, 6))
    build.require_float(x, w, r, bias, h0, c0)
    batch_first = bool(node.int_attribute("layout", 0))
    if batch_first:
        x = build.transpose(x, (1, 0, 2))
    steps, batch, _ = build.dims(x)
    ways, hidden = (d.value if d.is_static else 0 for d in (build.dims(r)[0], build.dims(r)[2]))
    if not ways or not hidden:
        raise Unsupported("weights of unknown shape")
    operands = [x, w, r]
    if bias is not None or h0 is not None or c0 is not None:
        operands.append(bias or build.constant(np.zeros((ways, 8 * hidden), np.float32), "bias"))
    if h0 is not None or c0 is not None:
        for state in (h0, c0):
            if state is None:
                operands.append(build.broadcast(build.scalar(0.0), (ways, batch, hidden)))
            else:
                operands.append(build.transpose(state, (1, 0, 2)) if batch_first else state)
    state_type = tensor_type(f32, (ways, batch, hidden))
    op = dense.LstmOp(
        operands,
        hidden=hidden,
        direction=Direction(node.str_attribute("direction", "forward")),
        result_types=[tensor_type(f32, (steps, ways, batch, hidden)), state_type, state_type],
    )
    build.add(op)
    results: list[SSAValue] = list(op.results)
    if batch_first:
        results = [build.transpose(op.y, (2, 0, 1, 3)), *(build.transpose(s, (1, 0, 2)) for s in (op.h, op.c))]
    return results[: len(node.results)]


def _refuse_variants(node: OnnxOp, build: Builder) -> None:
    if node.attribute("clip") is not None:
        raise Unsupported("clip")
    if node.int_attribute("input_forget", 0):
        raise Unsupported("input_forget")
    activations = node.attribute("activations")
    ways = 2 if node.str_attribute("direction", "forward") == "bidirectional" else 1
    if activations is not None and tuple(activations) not in ((), _DEFAULT_ACTIVATIONS * ways):  # pyright: ignore
        raise Unsupported("activations other than the default ones")
    if node.operand_at(7) is not None:
        raise Unsupported("peepholes")
    lengths = node.operand_at(4)
    if lengths is not None:
        known = build.integers(lengths)
        time_axis = 1 if node.int_attribute("layout", 0) else 0
        if known is None or any(n != build.dims(build.operand(0))[time_axis] for n in known):
            raise Unsupported("sequences of different lengths")


RULES: dict[str, Rule] = {"LSTM": lower_lstm}
