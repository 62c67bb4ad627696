"""Lowerings of active inference: `energy.relax {method = mean_field}` of one-site beliefs, and `energy.efe`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.relax_beliefs import EPSILON, BeliefTable, EfeKernel, MeanFieldKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.relax import Piece, Pieces, constant_parameter, pieces
from neuc.dialects import energy as e
from neuc.dialects.dims import Dim
from neuc.dialects.energy_types import Space, var_type
from neuc.dialects.store import dims_of
from neuc.errors import Error

Array = np.ndarray
MOST_PRODUCTS = 20000
"""Multiplications that a kernel may have written out; LLVM takes seconds for more."""


def mean_field_unsupported(op: e.RelaxOp) -> str | None:
    """Why a mean field has no CPU kernel."""
    model = e.model_of(op.model)
    if any(var_type(v).sites != 1 for v in model.variables):
        return "beliefs of several sites have no CPU kernel"
    if any(not isinstance(term.owner, e.TableOp) for term in model.terms):
        return "mean field of other terms than tables has no CPU kernel"
    return None


def mean_field(op: e.RelaxOp, s: SegmentLowering) -> bool:
    """One launch over agents, everything written out; False where that would be too much."""
    model, known = e.model_of(op.model), pieces(s, op.state)
    free = [v for v in model.variables if isinstance(v.owner, e.VarOp) and not v.owner.clamped]
    given = [v for v in model.variables if v not in free]
    tables, values = list[BeliefTable](), list[SSAValue]()
    for term in model.terms:
        assert isinstance(term.owner, e.TableOp)
        table, array = _table(term.owner, constant_parameter(s, term.owner.table), free, given)
        tables.append(table)
        values.append(s.weight("relax.table", array))
    kernel = MeanFieldKernel(
        tuple(var_type(v).levels for v in free),
        tuple(var_type(v).levels if var_type(v).space is Space.SIMPLEX else 0 for v in given),
        tuple(tables),
        op.steps.value.data,
    )
    if kernel.products() > MOST_PRODUCTS:
        return False
    chains = e.chains_of(op.state)
    ends = {v: s.temp(chains * (4 * var_type(v).levels)) for v in free}
    beliefs = [buffer for v in free for buffer in (known.of[v].buffer, ends[v])]
    s.launch(kernel, [*beliefs, *(known.of[v].buffer for v in given), *values], work=chains)
    last = {v: Piece(end, 0, var_type(v).levels, 4) for v, end in ends.items()}
    s.remember(op.result, Pieces({**known.of, **last}))
    return True


def _table(op: e.TableOp, array: Array, free: list[SSAValue], given: list[SSAValue]) -> tuple[BeliefTable, Array]:
    """A table with its axes in the kernel's order."""
    if len(set(op.variables)) < len(op.variables):
        raise Error("NEUC-E615", "a table reads one belief twice", hint="interpret it")
    axes = list(op.variables)

    def rank(v: SSAValue) -> tuple[int, int]:
        if v in free:
            return 2, free.index(v)
        return int(var_type(v).space is Space.SIMPLEX), given.index(v)

    order = sorted(range(len(axes)), key=lambda k: rank(axes[k]))
    kinds = [(given.index(axes[k]), var_type(axes[k]).levels, rank(axes[k])[0]) for k in order if axes[k] in given]
    table = BeliefTable(
        tuple((v, k) for v, k, kind in kinds if kind == 0),
        tuple((v, k) for v, k, kind in kinds if kind == 1),
        tuple(free.index(axes[k]) for k in order if axes[k] in free),
    )
    return table, np.ascontiguousarray(array[0].transpose(order), np.float32)


@lowers(e.EfeOp)
def _efe(op: e.EfeOp, s: SegmentLowering) -> None:
    beliefs, likelihoods, transitions, preferences, policies = op.parts()
    a, b, c = ([constant_parameter(s, v) for v in group] for group in (likelihoods, transitions, preferences))
    weighing = Weighing.of(
        s,
        (a, b, c),
        constant_parameter(s, policies),
        op.dependencies(),
        gain=op.no_gain is None,
        utility=op.no_utility is None,
    )
    kernel = weighing.kernel
    args = [
        *(s.buffer(q) for q in beliefs),
        *weighing.arrays,
        s.buffer(op.result),
        Dim.of(weighing.nodes),
        Dim.of(weighing.policies),
    ]
    s.launch(kernel, args, work=dims_of(beliefs[0])[0], scratch=kernel.scratch_bytes(s.isa))


@dataclass(frozen=True)
class Weighing:
    """The kernel of −G, with its arrays of transitions, columns and the tree.

    Attributes:
        arrays: in the order of its slots.
        nodes: of the tree.
        policies: how many.
    """

    kernel: EfeKernel
    arrays: list[SSAValue]
    nodes: int
    policies: int

    @staticmethod
    def of(
        s: SegmentLowering,
        arrays: tuple[list[Array], list[Array], list[Array]],
        policies: Array,
        dependencies: tuple[list[tuple[int, ...]], list[tuple[int, ...]]],
        *,
        gain: bool = True,
        utility: bool = True,
    ) -> Weighing:
        """What A, B, C and policies need.

        Raises:
            Error: NEUC-E615, they are too large to be written out.
        """
        (a, b, c), (a_factors, b_factors) = arrays, dependencies
        tree, depth = policy_tree(policies)
        groups = sorted(set(a_factors))
        outcomes = sum(len(x) for x in a)
        kernel = EfeKernel(tuple(x.shape[0] for x in b), tuple(b_factors), tuple(groups), outcomes, gain, depth)
        if sum(x.size for x in (*a, *b)) > MOST_PRODUCTS:
            raise Error("NEUC-E615", "this agent's arrays are too large for a kernel", hint="interpret it")
        columns = _columns(kernel, a, c, a_factors, utility, s.isa)
        made = [
            *(s.weight("relax.moves", _moves(kernel, f, x, s.isa)) for f, x in enumerate(b)),
            *(s.weight("relax.columns", columns[group]) for group in groups),
            s.weight("relax.policies", tree),
        ]
        return Weighing(kernel, made, len(tree), len(policies))


def _moves(kernel: EfeKernel, factor: int, b: Array, isa: Isa) -> Array:
    """B [S', S…, U] as [U, joint, padded S']."""
    size, controls = b.shape[0], b.shape[-1]
    moved = np.zeros((controls, math.prod(b.shape[1:-1]), kernel.padded(size, isa)), np.float32)
    moved[:, :, :size] = b.reshape(size, -1, controls).transpose(2, 1, 0)
    return moved


def _columns(
    kernel: EfeKernel, a: list[Array], c: list[Array], deps: list[tuple[int, ...]], utility: bool, isa: Isa
) -> dict[tuple[int, ...], Array]:
    """For each group, outcomes of all modalities side by side, and Σ A·C − H[A] of each joint state after them."""
    width = kernel.padded(kernel.outcomes + 1, isa)
    found = {g: np.zeros((math.prod(kernel.sizes[f] for f in g), width)) for g in kernel.groups}
    first = 0
    for likelihood, preference, group in zip(a, c, deps):
        flat = likelihood.reshape(len(likelihood), -1).astype(np.float64)
        found[group][:, first : first + len(flat)] = flat.T
        if utility:
            found[group][:, kernel.outcomes] += preference @ flat
        if kernel.gain:
            found[group][:, kernel.outcomes] += (flat * np.log(np.maximum(flat, EPSILON))).sum(0)
        first += len(flat)
    return {group: array.astype(np.float32) for group, array in found.items()}


def policy_tree(policies: Array) -> tuple[Array, int]:
    """Nodes i32 [*, 2 + factors] (depth, policy or -1, actions), parents first; and the depth.

    Steps that policies have in common are one node, if the policies follow each other.
    """
    steps, rows = policies.shape[1], list[list[int]]()
    before: Array | None = None
    for number, policy in enumerate(policies):
        same = 0 if before is None else next((t for t in range(steps) if (policy[t] != before[t]).any()), steps - 1)
        for t in range(same, steps):
            rows.append([t, number if t == steps - 1 else -1, *policy[t].tolist()])
        before = policy
    return np.array(rows, np.int32), steps
