"""Meaning of the time loop of `spike` and of `spike.expectation`: a region is run once a step."""

from __future__ import annotations

import numpy as np

from neuc.dialects import spike
from neuc.dialects.interp.core import Env, implements, run_block
from neuc.dialects.store import element_of, numpy_dtype
from neuc.errors import Error

Array = np.ndarray


@implements(spike.LoopOp)
def _loop(op: spike.LoopOp, args: list[Array], env: Env) -> list[Array]:
    outside, count = env.visible, len(op.scanned)
    scanned, states = args[:count], args[count:]
    (steps,) = env.evaluate([op.step_count])
    if steps < 1:
        raise Error("NEUC-E509", f"spike.loop has {steps} steps", hint="give inputs [T, B, ...] with T of at least 1")
    stacked = [np.empty((steps, *env.shape_of(value)[1:]), numpy_dtype(element_of(value))) for value in op.outputs]
    for t in range(steps):
        given = [np.array(t, np.int64), *(x[t] for x in scanned), *states]
        found = run_block(op.body.block, given, env, outside)
        for whole, part in zip(stacked, found):
            whole[t] = part
        states = found[len(stacked) :]
    return [*stacked, *states]


@implements(spike.ExpectationOp)
def _expectation(op: spike.ExpectationOp, args: list[Array], env: Env) -> list[Array]:
    outside, count = env.visible, len(op.xs)
    xs, totals, last, step = args[:count], args[count : 2 * count], args[-2], int(args[-1])
    n = np.float32(step + 1)
    if op.form.data is spike.Form.RATE:
        after = [total + x.astype(np.float32) for x, total in zip(xs, totals)]
        (now,) = run_block(op.body.block, [total / n for total in after], env, outside)
        return [n * now - np.float32(step) * last, *after, now]
    after = [total + x.astype(np.float32) / n for x, total in zip(xs, totals)]
    (now,) = run_block(op.body.block, after, env, outside)
    return [n * (now - last), *after, now]
