"""Lowerings of `energy.sample` and what it observes: the kernel is chosen by what the model's graph looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.relax_bands import ColorKernel, LinesKernel
from neuc.backends.cpu.kernels.relax_grid import HALO, GridSweepsKernel
from neuc.backends.cpu.kernels.relax_packed import PackedSweepsKernel, chains_per_unit
from neuc.backends.cpu.kernels.relax_spins import SpinSweepsKernel
from neuc.backends.cpu.kernels.relax_tables import TableSweepsKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.relax import (
    Piece,
    constant_parameter,
    copy_piece,
    discrete_variables,
    joined,
    separated,
)
from neuc.backends.cpu.lowerings.relax_layout import Layout, layout
from neuc.backends.cpu.lowerings.relax_states import sample_states, sample_unsupported
from neuc.backends.cpu.lowerings.relax_tables import table_lists
from neuc.dialects import energy as e
from neuc.dialects.cpu_launch import LaunchArg
from neuc.dialects.dims import Dim
from neuc.dialects.energy_factors import FactorGraph
from neuc.dialects.energy_types import Observable, Rule, Space, var_type
from neuc.dialects.interp.energy_random import GROUP
from neuc.dialects.store import dims_of
from neuc.errors import Error

Array = np.ndarray
MOST_SHARED_CHAINS = 4
LEAST_SHARED_SITES = 1 << 18
"""Fewer sites are swept in less time than threads take to meet twice a sweep."""
BAND_SITES = 4096
"""Sites that a thread takes at least."""
_CONTINUOUS = (Rule.LANGEVIN, Rule.OU_EXACT)


@dataclass
class Observers:
    """The `energy.observe` operations of one trajectory."""

    of: dict[Observable, e.ObserveOp] = field(default_factory=dict[Observable, "e.ObserveOp"])

    @staticmethod
    def find(op: e.SampleOp) -> Observers:
        """Those that read the trajectory of `op`."""
        users = [use.operation for use in op.trajectory.uses]
        return Observers({u.what.data: u for u in users if isinstance(u, e.ObserveOp)})


def _unsupported(op: e.SampleOp) -> str | None:
    if op.rule.data in _CONTINUOUS:
        return sample_unsupported(op)
    if op.packed is not None and (
        op.rule.data is not Rule.GIBBS or op.trajectory.first_use or len(dims_of(op.beta)) > 1
    ):
        return "packed chains are swept by Gibbs at one ramp for all, and nothing is observed of them"
    if not isinstance(op.model.owner, e.ColorOp):
        return "its model has no blocks: run color-blocks"
    observers = [use.operation for use in op.trajectory.uses]
    kinds = [o.what.data for o in observers if isinstance(o, e.ObserveOp)]
    model = e.model_of(op.model)
    if op.exchange.value.data and (_has_tables(model) or op.packed is not None):
        return "exchanges of packed chains, and of models with tables or categories, have no CPU kernel"
    if op.exchange.value.data and any(isinstance(v.owner, e.VarOp) and v.owner.clamped for v in model.variables):
        return "exchanges of chains with clamped spins have no CPU kernel"
    if _has_tables(model):
        if set(kinds) - {Observable.SUM}:
            return "of models with tables or categories only sums are observed"
        return None if op.rule.data is Rule.GIBBS else "models with tables or categories are swept by Gibbs"
    if len(kinds) != len(set(kinds)):
        return "two observations of one kind of a trajectory have no CPU kernel"
    if len(model.variables) > 1 and set(kinds) - {Observable.ENERGY}:
        return "sums, pairs and histograms are of models of one variable"
    return None


def _has_tables(model: e.ModelOp) -> bool:
    """Whether the model is more than spins with fields and couplings."""
    categories = any(var_type(v).space is Space.CAT for v in model.variables)
    return categories or any(isinstance(term.owner, e.TableOp) for term in model.terms)


@lowers(e.SampleOp, supports=_unsupported)
def _sample(op: e.SampleOp, s: SegmentLowering) -> None:
    if op.rule.data in _CONTINUOUS:
        sample_states(op, s)
        return
    model, observers = e.model_of(op.model), Observers.find(op)
    graph = FactorGraph.of(model, lambda value: constant_parameter(s, value))
    coloring = op.model.owner
    assert isinstance(coloring, e.ColorOp)
    order = constant_parameter(s, coloring.order)
    graph.check_blocks(order, [int(v) for v in coloring.blocks.get_values()])
    if len(graph.stencils) > 1:
        raise Error("NEUC-E615", "a model has two stencils", hint="write one of them as energy.edges")
    last = s.temp(e.chains_of(op.state) * graph.sites)
    if _has_tables(model):
        _sweep_tables(op, s, graph, order, last)
        s.remember(op.last, separated(model, last))
        return
    grid = _uniform_grid(op, graph, order, observers)
    if op.packed is not None:
        _sweep_packed(op, s, graph, grid, last)
    elif grid is not None and grid[1] % (2 * GROUP) == 0 and not op.exchange.value.data:
        _sweep_grid(op, s, graph, grid, observers, last)
    else:
        _sweep_graph(op, s, graph, layout(graph, order), observers, last)
    s.remember(op.last, separated(model, last))


@lowers(e.ObserveOp)
def _observe(op: e.ObserveOp, s: SegmentLowering) -> None:
    """Done by the sampler's launch."""


def _common_args(op: e.SampleOp, s: SegmentLowering, last: SSAValue) -> list[LaunchArg]:
    """What the kernels that sweep whole chains take first: β, its stride by chain, seed, the state before and after."""
    own = len(dims_of(op.beta)) == 2
    return [s.buffer(op.beta), e.chains_of(op.state) if own else 0, s.buffer(op.seed), joined(s, op.state), last]


def _sweep_graph(
    op: e.SampleOp, s: SegmentLowering, graph: FactorGraph, plan: Layout, observers: Observers, last: SSAValue
) -> None:
    """One launch over chains, for any graph of spins."""
    seen = observers.of
    if Observable.ENERGY in seen and not graph.free.all():
        raise Error("NEUC-E615", "energies of models with clamped spins are not observed", hint="evaluate them after")
    kernel = SpinSweepsKernel(
        metropolis=op.rule.data is Rule.METROPOLIS,
        weighted=len(graph.edges) > 0,
        grid=plan.grid,
        sums=Observable.SUM in seen,
        pairs=Observable.PAIRS in seen,
        histogram=Observable.HISTOGRAM in seen,
        energies=Observable.ENERGY in seen,
        exchange=op.exchange.value.data > 0,
    )
    chains, beta = e.chains_of(op.state), dims_of(op.beta)
    args: list[LaunchArg] = [
        *_common_args(op, s, last),
        *(s.weight(f"relax.{name}", getattr(plan, name)) for name in ("order", "fields", "degrees")),
        *(s.weight(f"relax.{name}", some(getattr(plan, name))) for name in ("neighbours", "weights")),
        *(beta[0], graph.sites, plan.positions, plan.places),
    ]
    if plan.grid:
        args += [plan.coupling, s.weight("relax.near", plan.near)]
    args += observer_args(op, s, seen, plan.place)
    if kernel.exchange:
        args += [chains, op.exchange.value.data]
    work = Dim.of(1) if kernel.exchange else chains
    s.launch(kernel, args, work=work, scratch=kernel.scratch_bytes(plan.places, chains), op=op)


def _uniform_grid(op: e.SampleOp, graph: FactorGraph, order: Array, observers: Observers) -> tuple[int, int] | None:
    """H and W of a periodic grid of one coupling and one field, in the usual checkerboard order without gaps."""
    if len(graph.stencils) != 1 or len(graph.edges) or not graph.free.all():
        return None
    stencil, seen = graph.stencils[0], set(observers.of)
    nearest = {tuple(abs(d) for d in step) for step in stencil.steps} == {(0, 1), (1, 0)}
    if not nearest or len(stencil.steps) != 2 or not stencil.periodic or graph.sites != len(stencil.neighbours):
        return None
    rows, columns = stencil.shape
    if rows % 2 or columns % 2 or seen - {Observable.SUM, Observable.ENERGY}:
        return None
    if np.ptp(graph.field) or (op.rule.data is Rule.METROPOLIS and graph.field.any()):
        return None
    parity = np.indices(stencil.shape).sum(0).reshape(-1) % 2
    usual = np.concatenate([np.flatnonzero(parity == color) for color in range(2)])
    return (rows, columns) if np.array_equal(order, usual) else None


def _sweep_grid(
    op: e.SampleOp,
    s: SegmentLowering,
    graph: FactorGraph,
    shape: tuple[int, int],
    observers: Observers,
    last: SSAValue,
) -> None:
    """One launch over chains, for a periodic grid of one coupling."""
    seen = observers.of
    if not seen and _in_bands(op, shape):
        _sweep_bands(op, s, graph, shape, last)
        return
    kernel = GridSweepsKernel(
        *shape,
        metropolis=op.rule.data is Rule.METROPOLIS,
        sums=Observable.SUM in seen,
        energies=Observable.ENERGY in seen,
    )
    chains, beta = e.chains_of(op.state), dims_of(op.beta)
    args: list[LaunchArg] = [
        *_common_args(op, s, last),
        float(graph.stencils[0].coupling),
        float(graph.field[0]),
        beta[0],
        *observer_args(op, s, seen, np.empty(0, np.int32)),
    ]
    s.launch(kernel, args, work=chains, scratch=kernel.scratch_bytes, op=op)


def _in_bands(op: e.SampleOp, shape: tuple[int, int]) -> bool:
    """Whether threads share the rows of each chain: chains are few and large, and at one β."""
    chains = e.chains_of(op.state)
    few = chains.is_static and chains.value <= MOST_SHARED_CHAINS
    return few and shape[0] * shape[1] >= LEAST_SHARED_SITES and len(dims_of(op.beta)) == 1


def _sweep_bands(
    op: e.SampleOp, s: SegmentLowering, graph: FactorGraph, shape: tuple[int, int], last: SSAValue
) -> None:
    """A loop of launches, one a colour, over rows."""
    rows, half = shape[0], shape[1] // 2
    metropolis = op.rule.data is Rule.METROPOLIS
    chains = e.chains_of(op.state)
    lines = s.temp(chains * (2 * rows * (half + 2 * HALO)))
    grain = -(-BAND_SITES // half)
    s.launch(LinesKernel(rows, half), [joined(s, op.state), lines], work=chains * (2 * rows), grain=grain, op=op)
    values = [s.buffer(op.beta), s.buffer(op.seed), lines]
    numbers = [float(graph.stencils[0].coupling), float(graph.field[0])]
    with s.repeated(dims_of(op.beta)[0]) as t:
        for color in range(2):
            kernel = ColorKernel(rows, half, color, metropolis)
            s.launch(kernel, [*values, *numbers, t], work=chains * rows, grain=grain, op=op)
    s.launch(LinesKernel(rows, half, back=True), [last, lines], work=chains * (2 * rows), grain=grain, op=op)


def _sweep_packed(
    op: e.SampleOp, s: SegmentLowering, graph: FactorGraph, shape: tuple[int, int] | None, last: SSAValue
) -> None:
    """One launch over words of chains."""
    if shape is None:
        raise Error(
            "NEUC-E615",
            "packed chains are of periodic grids of one coupling and one field alone",
            hint="leave packed out; H and W are even, and H·W is a multiple of 32",
        )
    kernel, chains = PackedSweepsKernel(*shape, op.shared is not None), e.chains_of(op.state)
    values = [s.buffer(op.beta), s.buffer(op.seed), joined(s, op.state), last]
    numbers = [float(graph.stencils[0].coupling), float(graph.field[0]), dims_of(op.beta)[0], chains]
    work = chains.ceildiv(chains_per_unit(s.isa))
    s.launch(kernel, [*values, *numbers], work=work, scratch=kernel.scratch_bytes(s.isa), op=op)


def _sweep_tables(op: e.SampleOp, s: SegmentLowering, graph: FactorGraph, order: Array, last: SSAValue) -> None:
    """One launch over chains, for factors of any order; then each variable's counts on their own."""
    if graph.stencils:
        raise Error("NEUC-E615", "a model has a stencil and tables", hint="write the stencil as energy.edges")
    lists, chains, beta = table_lists(graph), e.chains_of(op.state), dims_of(op.beta)
    observers = [use.operation for use in op.trajectory.uses]
    kernel = TableSweepsKernel(sums=bool(observers))
    arrays = {"order": order, "levels": graph.levels, "fields": graph.field}
    names = ("edges", "near", "weights", "starts", "uses", "readers", "values")
    arrays |= {name: some(getattr(lists, name)) for name in names}
    args: list[LaunchArg] = [
        *_common_args(op, s, last),
        *(s.weight(f"relax.{name}", array) for name, array in arrays.items()),
        *(beta[0], graph.sites, len(order)),
    ]
    counts = s.temp(chains * (4 * lists.total)) if observers else None
    if counts is not None:
        kept = [Dim.of(op.warmup.value.data), Dim.of(op.thin.value.data)]
        args += [*kept, counts, s.weight("relax.firsts", lists.firsts), lists.total]
    s.launch(kernel, args, work=chains, scratch=kernel.scratch_bytes(graph.sites), op=op)
    for observer in observers:
        assert isinstance(observer, e.ObserveOp)
        assert counts is not None
        variable = e.variable_of(observer.args[1])
        first, type_ = graph.offsets[variable], var_type(variable)
        width = type_.sites * max(type_.levels, 1)
        target = Piece(s.buffer(observer.result), 0, width, 4)
        copy_piece(s, Piece(counts, int(lists.firsts[first]), lists.total, 4), target, chains, width)


def observer_args(
    op: e.SampleOp, s: SegmentLowering, seen: dict[Observable, e.ObserveOp], place: Array
) -> Sequence[LaunchArg]:
    """The slots that follow when something is observed."""
    if not seen:
        return []
    args: list[LaunchArg] = [Dim.of(op.warmup.value.data), Dim.of(op.thin.value.data)]
    if (found := seen.get(Observable.SUM)) is not None:
        args.append(s.buffer(found.result))
    if (found := seen.get(Observable.PAIRS)) is not None:
        ends = np.stack([constant_parameter(s, found.args[2]), constant_parameter(s, found.args[3])], 1)
        args += [s.buffer(found.result), s.weight("relax.ends", place[ends].astype(np.int32)), len(ends)]
    if (found := seen.get(Observable.HISTOGRAM)) is not None:
        (variable,) = discrete_variables(e.model_of(op.model))
        args += [s.buffer(found.result), var_type(variable).sites]
    if (found := seen.get(Observable.ENERGY)) is not None:
        args += [s.buffer(found.result), e.chains_of(op.state)]
    return args


def some(array: Array) -> Array:
    """The array, with one element where it has none: buffers are not empty."""
    return array if array.size else np.zeros(1, array.dtype)
