"""Lowering of `energy.rollout`: agents and worlds in one launch."""

from __future__ import annotations

import numpy as np

from neuc.backends.cpu.kernels.relax_beliefs import EPSILON, BeliefTable, MeanFieldKernel
from neuc.backends.cpu.kernels.relax_rollout import RolloutKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.relax import constant_parameter
from neuc.backends.cpu.lowerings.relax_beliefs import MOST_PRODUCTS, Weighing
from neuc.dialects import energy as e
from neuc.dialects.dims import Dim
from neuc.dialects.energy_rollout import Arrays
from neuc.dialects.interp.energy_random import choice_thresholds
from neuc.errors import Error

Array = np.ndarray


@lowers(e.RolloutOp)
def _rollout(op: e.RolloutOp, s: SegmentLowering) -> None:
    def arrays(of: Arrays) -> tuple[list[Array], list[Array], list[Array]]:
        a, b, d = ([constant_parameter(s, v) for v in group] for group in (of.a, of.b, of.d))
        return a, b, d

    (a, b, d), world = arrays(op.agent), arrays(op.world)
    c = [constant_parameter(s, v) for v in op.preferences]
    policies, (a_factors, b_factors) = constant_parameter(s, op.policies), op.dependencies()
    weighing = Weighing.of(s, (a, b, c), policies, (a_factors, b_factors))
    sizes = tuple(len(x) for x in d)
    # Axes of a table ascend in the kernel; ln A is turned to fit.
    orders = [sorted(range(len(deps)), key=lambda k, deps=deps: deps[k]) for deps in a_factors]
    tables = [
        BeliefTable(((m, len(x)),), (), tuple(deps[k] for k in order))
        for m, (x, deps, order) in enumerate(zip(a, a_factors, orders))
    ]
    priors = [BeliefTable((), (), (f,)) for f in range(len(d))]
    mean = MeanFieldKernel(sizes, tuple(0 for _ in a), (*tables, *priors), op.iterations.value.data)
    if mean.products() > MOST_PRODUCTS:
        raise Error("NEUC-E615", "this agent's arrays are too large for a kernel", hint="interpret it")
    kernel = RolloutKernel(
        mean,
        weighing.kernel,
        tuple(a_factors),
        tuple(len(x) for x in a),
        tuple(x.shape[-1] for x in b),
        len(policies),
        op.steps.value.data,
        op.gamma.value.data,
    )
    likelihoods = [_log(x).transpose(0, *(1 + k for k in order)) for x, order in zip(a, orders)]
    thresholds = [choice_thresholds(x) for group in world for x in group]
    args = [
        *(s.weight("relax.likelihood", np.ascontiguousarray(x, np.float32)) for x in likelihoods),
        *(s.weight("relax.prior", _log(x).astype(np.float32)) for x in d),
        *weighing.arrays,
        s.weight("relax.first_actions", np.ascontiguousarray(policies[:, 0], np.int32)),
        *(s.weight("relax.thresholds", _at_least_one(x)) for x in thresholds),
        s.buffer(op.seed),
        *(s.buffer(v) for v in (op.outcomes, op.states, op.actions, op.values, *op.beliefs)),
        Dim.of(weighing.nodes),
        Dim.of(weighing.policies),
    ]
    s.launch(kernel, args, work=Dim.of(op.agents.value.data), scratch=kernel.scratch_bytes(s.isa))


def _log(p: Array) -> Array:
    return np.log(np.maximum(p.astype(np.float64), EPSILON))


def _at_least_one(thresholds: Array) -> Array:
    """An array that has an address; a factor of one state has no thresholds."""
    return thresholds if thresholds.size else np.zeros(1, np.int64)
