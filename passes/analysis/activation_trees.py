"""Recognising activations: a map's body as an expression tree, compared with the known spellings of each activation."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from xdsl.dialects import arith
from xdsl.dialects.builtin import FloatAttr, f32
from xdsl.ir import Block, Operation, SSAValue

from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dense_attrs import ActivationAttr, ActivationKind
from neuc.passes import scalar_builder as sb
from neuc.passes.scalar_builder import Scalar

Tree: TypeAlias = tuple[object, ...]
_COMMUTATIVE = frozenset({"arith.addf", "arith.mulf", "arith.maximumf", "arith.minimumf"})
_TOLERANCE = 1e-6
"""Relative difference at which two f32 constants are the same: exporters round √2 and 1/6 in their own ways."""

_ALPHA, _BETA = 0.73205, 1.41399
"""Stand-ins for parameters in the templates; no exporter writes them."""


def activation_of(op: MapOp) -> ActivationAttr | None:
    """The activation that a map of one f32 operand computes, or None."""
    block = op.body.block
    if len(op.inputs) != 1 or block.args[0].type != f32:
        return None
    last = block.last_op
    assert isinstance(last, YieldOp)
    tree = _tree(last.value, block.args[0])
    for kind, template in _templates():
        found: dict[float, float] = {}
        if _matches(tree, template, found):
            return ActivationAttr.of(kind, found.get(_ALPHA, 0.0), found.get(_BETA, 0.0))
    return None


def _tree(value: SSAValue, argument: SSAValue) -> Tree:
    if value is argument:
        return ("x",)
    op = value.owner
    assert isinstance(op, Operation)
    if isinstance(op, arith.ConstantOp):
        return ("constant", op.value.value.data if isinstance(op.value, FloatAttr) else str(op.value))
    head: tuple[object, ...] = (op.name,)
    if isinstance(op, arith.CmpfOp):
        head = (op.name, op.predicate.value.data)
    if op.name == "arith.divf" and _is_number(divisor := _tree(op.operands[1], argument)):
        # x / c and x * (1/c) are the same to the tolerance below.
        return ("arith.mulf", _tree(op.operands[0], argument), ("constant", _inverse(divisor)))
    return (*head, *(_tree(operand, argument) for operand in op.operands))


def _is_number(tree: Tree) -> bool:
    return tree[0] == "constant" and isinstance(tree[1], float) and tree[1] != 0.0


def _inverse(tree: Tree) -> float:
    assert isinstance(tree[1], float)
    return 1.0 / tree[1]


def _matches(tree: object, template: object, found: dict[float, float]) -> bool:
    if not isinstance(tree, tuple) or not isinstance(template, tuple):
        return tree == template
    if len(tree) != len(template) or tree[0] != template[0]:
        return False
    if tree[0] == "constant":
        return _same_constant(tree[1], template[1], found)
    if tree[0] in _COMMUTATIVE:
        for first, second in ((1, 2), (2, 1)):
            attempt = dict(found)
            if _matches(tree[first], template[1], attempt) and _matches(tree[second], template[2], attempt):
                found.update(attempt)
                return True
        return False
    return all(_matches(a, b, found) for a, b in zip(tree[1:], template[1:]))


def _same_constant(value: object, wanted: object, found: dict[float, float]) -> bool:
    if not isinstance(value, float) or not isinstance(wanted, float):
        return value == wanted
    for parameter in (_ALPHA, _BETA):
        if wanted == _f32(parameter):
            return found.setdefault(parameter, value) == value
    return math.isclose(value, wanted, rel_tol=_TOLERANCE) or value == wanted


def _f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _spell(body: Callable[[Scalar], Scalar]) -> Tree:
    block = Block(arg_types=[f32])
    return _tree(body(Scalar(block.args[0], block)).value, block.args[0])


def _hardsigmoid(x: Scalar, alpha: float, beta: float) -> Scalar:
    return sb.minimum(sb.maximum(x * alpha + beta, 0.0), 1.0)


def _relu6(x: Scalar) -> Scalar:
    return sb.minimum(sb.maximum(x, 0.0), 6.0)


def _tanh_argument(x: Scalar, cube: Scalar) -> Scalar:
    return sb.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * cube))


@lru_cache(maxsize=1)
def _templates() -> tuple[tuple[ActivationKind, Tree], ...]:
    kind, root = ActivationKind, math.sqrt(2)
    spellings: list[tuple[ActivationKind, Callable[[Scalar], Scalar]]] = [
        (kind.RELU, lambda x: sb.maximum(x, 0.0)),
        (kind.CLIP, lambda x: sb.minimum(sb.maximum(x, _ALPHA), _BETA)),
        (kind.CLIP, lambda x: sb.maximum(sb.minimum(x, _BETA), _ALPHA)),
        (kind.LEAKY_RELU, lambda x: sb.where(x < 0.0, x * _ALPHA, x)),
        (kind.SIGMOID, sb.sigmoid),
        (kind.TANH, sb.tanh),
        (kind.SILU, lambda x: x * sb.sigmoid(x)),
        (kind.HARDSIGMOID, lambda x: _hardsigmoid(x, _ALPHA, _BETA)),
        (kind.HARDSWISH, lambda x: x * _hardsigmoid(x, 1 / 6, 0.5)),
        # As MobileNetV3 exporters write it: x * relu6(x + 3) / 6, grouped either way.
        (kind.HARDSWISH, lambda x: (x * _relu6(x + 3.0)) / 6.0),
        (kind.HARDSWISH, lambda x: x * (_relu6(x + 3.0) / 6.0)),
        (kind.GELU, lambda x: 0.5 * (x * (1.0 + sb.erf(x / root)))),
        (kind.GELU, lambda x: x * (0.5 * (1.0 + sb.erf(x / root)))),
        (kind.GELU, lambda x: (0.5 * x) * (1.0 + sb.erf(x / root))),
        (kind.GELU_TANH, lambda x: 0.5 * (x * (1.0 + _tanh_argument(x, x * x * x)))),
        (kind.GELU_TANH, lambda x: x * (0.5 * (1.0 + _tanh_argument(x, x * x * x)))),
        (kind.GELU_TANH, lambda x: (0.5 * x) * (1.0 + _tanh_argument(x, x * x * x))),
    ]
    return tuple((name, _spell(body)) for name, body in spellings)
