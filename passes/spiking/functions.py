"""Affine operations that are no synapses, and functions of means: what a step does with currents.

In rate coding an affine operation runs on each step's currents, bias and all. In differential coding what changes goes
through its linear part, and the constant part is computed before the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import Block, Operation, Region, SSAValue

from neuc.dialects import spike
from neuc.dialects.dense import ConcatOp, ConvOp, MapOp, MatMulOp, PoolOp
from neuc.dialects.store import constant_value, dims_of
from neuc.passes.analysis.scalar_expressions import Argument, Expression, Product, Sum, expression_of
from neuc.passes.map_building import map_of
from neuc.passes.scalar_builder import Scalar
from neuc.passes.spiking.loop_builder import LoopBuilder, f32_like
from neuc.passes.spiking.values import Array, Value, apply


def affine(op: Operation, values: Sequence[Value], changing: Sequence[int], build: LoopBuilder) -> SSAValue:
    """The current inside the loop of an affine operation on currents."""
    if not build.differential:
        return build.inside(copied(op, [build.per_step(v, old) for v, old in zip(values, op.operands)]))
    if isinstance(op, MapOp):
        return _linear_map(op, values, changing, build)
    operands: list[SSAValue | None] = []
    for i, (value, old) in enumerate(zip(values, op.operands)):
        if i in changing:
            operands.append(build.current(value))
        elif isinstance(op, ConcatOp):
            operands.append(build.zeros(f32_like(old)))  # What does not change has no share in changes.
        else:
            operands.append(build.static(value, old))
    if isinstance(op, MatMulOp | ConvOp):
        operands = operands[:2]  # A bias belongs to the static part.
    return build.inside(copied(op, [v for v in operands if v is not None]))


def static_part(op: Operation, values: Sequence[Value], build: LoopBuilder) -> SSAValue | Array | None:
    """What an operation makes of the static parts of its operands; an array where no input is in it."""
    arrays = [_array(value, build) for value in values]
    if all(array is not None for array in arrays):
        made = apply(op, [array for array in arrays if array is not None], build.env)
        if made is not None:
            return made if made.any() else None
    return build.before(copied(op, [build.static(v, old) for v, old in zip(values, op.operands)]))


def _array(value: Value, build: LoopBuilder) -> Array | None:
    if value.static is None:
        return np.zeros((), np.float32)
    return constant_value(value.static, build.store) if isinstance(value.static, SSAValue) else value.static


def function(op: Operation, values: Sequence[Value], changing: Sequence[int], build: LoopBuilder) -> SSAValue:
    """The changes of a function of means, inside the loop."""
    inputs: list[SSAValue] = []
    scales: list[SSAValue | None] = []
    for i in changing:
        value = values[i]
        keep = value.spikes and value.static is None and value.inner is not None
        inner = value.inner if keep else build.current(value)
        assert inner is not None
        scaled = keep and value.scale is not None
        scales.append(build.constant(value.scale, "scale") if scaled and value.scale is not None else None)
        inputs.append(inner)
    types = [f32_like(op.operands[i]) for i in changing]
    block = Block(arg_types=types)
    mapping: dict[SSAValue, SSAValue] = {}
    for number, (i, scale) in enumerate(zip(changing, scales)):
        mean: SSAValue = block.args[number]
        if scale is not None:
            scaling = map_of([mean, scale], lambda m, s: m * s, dims_of(mean))
            block.add_op(scaling)
            mean = scaling.result
        mapping[op.operands[i]] = mean
    operands = [mapping.get(v) or build.static(value, v) for v, value in zip(op.operands, values)]
    inner_op = copied(op, operands)
    block.add_op(inner_op)
    block.add_op(spike.YieldOp([inner_op.results[0]]))
    if build.differential:
        starts = [build.static(values[i], op.operands[i]) for i in changing]
        last = build.before(copied(op, [build.static(v, old) for v, old in zip(values, op.operands)]))
    else:
        starts, last = [build.zeros(t) for t in types], build.zeros(f32_like(op.results[0]))
    totals, last_state = [build.state(start) for start in starts], build.state(last)
    form = "differential" if build.differential else "rate"
    expectation = spike.ExpectationOp(inputs, totals, last_state, build.step, form=form, body=Region(block))
    result = build.inside(expectation)
    for state, after in zip(totals, expectation.next_totals):
        build.set_next(state, after)
    build.set_next(last_state, expectation.next_last)
    return result


def max_pool(op: PoolOp, value: Value, build: LoopBuilder) -> SSAValue | None:
    """Max-pooling of a current in rate coding; None where `spike.max_pool` has no such window."""
    if build.differential or any(d != 1 for d in op.dilations.get_values()):
        return None
    x = build.per_step(value, op.x)
    kernel, strides, pads = (list(v.get_values()) for v in (op.kernel, op.strides, op.pads))
    total = build.state(build.zeros(f32_like(op.x)))
    pooled = spike.MaxPoolOp(x, total, kernel=kernel, strides=strides, pads=pads)
    if dims_of(pooled.current) != dims_of(op.result):
        raise AssertionError("the support check lets no such window through")
    build.set_next(total, pooled.next_total)
    return build.inside(pooled)


def has_plain_window(op: PoolOp) -> bool:
    """Whether `spike.max_pool` has the window: no dilation, and none that hangs over the end."""
    n, x, result = len(op.kernel.get_values()), dims_of(op.x), dims_of(op.result)
    kernel, strides, pads = op.kernel.get_values(), op.strides.get_values(), op.pads.get_values()
    fits = all(result[2 + i] == (x[2 + i] + pads[i] + pads[i + n] - kernel[i]) // strides[i] + 1 for i in range(n))
    return fits and all(d == 1 for d in op.dilations.get_values())


def copied(op: Operation, operands: Sequence[SSAValue]) -> Operation:
    """A copy of a `dense` operation on other operands, without what was written on it."""
    if len(operands) != len(op.operands):
        assert isinstance(op, MatMulOp | ConvOp)
        copy: Operation = type(op).create(
            operands=operands, result_types=[op.results[0].type], properties=dict(op.properties)
        )
    else:
        copy = op.clone()
        copy.operands = operands
    copy.attributes.clear()
    copy.location = op.location
    return copy


def _linear_map(op: MapOp, values: Sequence[Value], changing: Sequence[int], build: LoopBuilder) -> SSAValue:
    """The terms of an affine body that hold what changes."""
    expression = expression_of(op.body.block)
    assert expression is not None
    terms = expression.terms if isinstance(expression, Sum) else ((expression, 1.0),)
    kept = [(term, factor) for term, factor in terms if any(_reads(term, i) for i in changing)]
    operands = [build.current(v) if i in changing else build.static(v, op.inputs[i]) for i, v in enumerate(values)]
    used = [i for i in range(len(values)) if any(_reads(term, i) for term, _ in kept)]

    def body(*scalars: Scalar) -> Scalar:
        named = dict(zip(used, scalars))
        parts = [_emit(term, named) * factor if factor != 1.0 else _emit(term, named) for term, factor in kept]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    inputs = [v for i in used if (v := operands[i]) is not None]
    return build.inside(map_of(inputs, body, dims_of(op.result)))


def _reads(e: Expression, index: int) -> bool:
    match e:
        case Argument():
            return e.index == index
        case Product(factors):
            return any(_reads(f, index) for f, _ in factors)
        case Sum(_, terms):
            return any(_reads(t, index) for t, _ in terms)
        case _:
            return False


def _emit(e: Expression, scalars: dict[int, Scalar]) -> Scalar:
    match e:
        case Argument(index):
            return scalars[index]
        case Product(factors):
            result: Scalar | None = None
            for factor, exponent in factors:
                scalar = _emit(factor, scalars)
                for _ in range(abs(exponent)):
                    if result is None:
                        result = scalar if exponent > 0 else 1.0 / scalar
                    else:
                        result = result * scalar if exponent > 0 else result / scalar
            assert result is not None
            return result
        case Sum(constant, terms):
            total: Scalar | None = None
            for term, factor in terms:
                part = _emit(term, scalars) * factor if factor != 1.0 else _emit(term, scalars)
                total = part if total is None else total + part
            assert total is not None
            return total + constant if constant else total
        case _:
            raise AssertionError("an affine body has no calls")
