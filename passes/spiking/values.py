"""What a tensor of the float network is in the spiking one, and arrays that stand for a tensor of any batch.

Building operations is `loop_builder.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.ir import Operation, SSAValue

from neuc.dialects.interp.core import Env, run_op
from neuc.dialects.spike import event_of
from neuc.dialects.store import dims_of

Array = np.ndarray


@dataclass(frozen=True)
class Value:
    """A tensor of the float network as the spiking one has it.

    Rate coding: the mean over the steps of `inner`·`scale`, or `static` in each step.
    Differential coding: `static` + Σ `inner`·`scale`/t over the steps t = 1, 2, …

    Attributes:
        static: what does not change from step to step: a value outside the loop, or an array that broadcasts to the
            tensor whatever its symbolic sizes are; None for 0.
        inner: events or currents inside the loop; None where nothing changes.
        scale: an array that broadcasts to the tensor; None for 1.
        after: the tensor behind the loop, of what is computed there.
    """

    static: SSAValue | Array | None = None
    inner: SSAValue | None = None
    scale: Array | None = None
    after: SSAValue | None = None

    @property
    def spikes(self) -> bool:
        """Whether `inner` holds events."""
        return self.inner is not None and event_of(self.inner) is not None


def compact(array: Array) -> Array:
    """`array` with axes of size 1 where it is the same all along."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and bool((array == first).all()):
            array = first
    return np.array(array, order="C")


def sizes_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor whose symbols are all 1."""
    dims = dims_of(value)
    return tuple(d.evaluate(dict.fromkeys(d.symbols, 1)) for d in dims)


def apply(op: Operation, arrays: Sequence[Array], env: Env) -> Array | None:
    """What `op` makes of arrays that broadcast to its operands, all symbols being 1; None where that makes no sense."""
    symbols = {s for v in (*op.operands, *op.results) for d in dims_of(v) for s in d.symbols}
    if any(0 in sizes_of(v) for v in (*op.operands, *op.results)):
        return None
    full = [np.broadcast_to(a, sizes_of(v)).astype(a.dtype) for a, v in zip(arrays, op.operands)]
    (result,) = run_op(op, full, Env(env.module, env.store, dict.fromkeys(symbols, 1)))
    return compact(result)


def channel_vector(scale: Array, rank: int, axis: int, channels: int) -> Array | None:
    """A scale that changes along one axis alone, as [channels]; None for one that changes along others, too."""
    shape = (1,) * (rank - scale.ndim) + scale.shape
    if any(size != 1 for i, size in enumerate(shape) if i != axis):
        return None
    return np.broadcast_to(scale.reshape(-1), (channels,)).astype(np.float32)
