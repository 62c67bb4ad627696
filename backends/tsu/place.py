"""The pass `place-tsu`: samplers are given the cells and the two-coloured sweeps of a sampling chip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, SSAValue
from xdsl.passes import ModulePass

from neuc.backends.tsu.chains import MOST_COUPLINGS, MOST_SPINS, find_chains
from neuc.backends.tsu.embedding import embed
from neuc.backends.tsu.machines import MACHINES, Machine
from neuc.backends.tsu.stand_in import Physical, stand_in
from neuc.dialects.context import store_of
from neuc.dialects.energy import (
    ColorOp,
    ObserveOp,
    SampleOp,
    StateOp,
    StencilOp,
    chains_of,
    model_of,
    state_model,
    var_type,
)
from neuc.dialects.energy_factors import FactorGraph
from neuc.dialects.energy_types import Rule, Space
from neuc.dialects.onnx import function_names
from neuc.dialects.store import make_constant
from neuc.errors import Error
from neuc.passes.color_blocks import known, partition
from neuc.passes.module_facts import add_notes, set_fact

Array = np.ndarray


@dataclass(frozen=True)
class PlaceTsu(ModulePass):
    """Check that each sampled model is one that a sampling chip holds, and sweep it as the chip does.

    1. A model is spins with fields and couplings of two; what else is in it is named (NEUC-E638).
    2. Every spin takes a cell such that each coupling is a wire; spins that fit nowhere are named (NEUC-E637).
    3. Where that fails and the model is small, chains of cells stand for its spins, coupled with the strength `chain`
       (0: chosen); reads are majorities, and the result ``chain_breaks`` is the energy of chain couplings that are
       broken in the end.
    4. Blocks are the two colours of the chip's checkerboard.
    5. The fact ``tsu`` counts what is written, sampled and read, with prices; `neuc run` makes the ledger of it.
    """

    machine: str = "z1"
    rows: int = 0
    columns: int = 0
    chain: float = 0.0

    name = "place-tsu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Place the models of all samplers."""
        known_machine = MACHINES[self.machine]
        machine = replace(
            known_machine, rows=self.rows or known_machine.rows, columns=self.columns or known_machine.columns
        )
        store, samplers = store_of(ctx), [s for s in op.walk() if isinstance(s, SampleOp)]
        if not samplers:
            raise Error("NEUC-E638", "the program samples nothing", hint="target tsu-sim takes energy.sample")
        facts, notes = list[dict[str, object]](), list[str]()
        placed: dict[SSAValue, Array] = {}
        for sample in samplers:
            model = model_of(sample.model)
            _check_kind(sample)
            graph = FactorGraph.of(model, lambda value: known(value, store))
            edges, start = _edges(graph)
            start = placed.get(model.result, start)
            try:
                cells = embed(graph.sites, edges, machine, lambda site, s=sample: site_name(s, site), start)
            except Error as error:
                physical = _chains_of_cells(graph, edges, machine, self.chain)
                if physical is not None:
                    stand_in(model, physical, store)
                    notes.append(_chain_note(graph, physical))
                    model = model_of(sample.model)
                    graph = FactorGraph.of(model, lambda value: known(value, store))
                    edges, cells = _edges(graph)[0], physical.cells
                    placed[model.result] = cells
                elif not any(
                    isinstance(term.owner, StencilOp) and term.owner.periodic is not None for term in model.terms
                ):
                    raise
                else:
                    what = f"the model is a periodic grid, whose couplings around it have no wires; {error.message}"
                    hint = "leave the borders open: model.grid(…, periodic=False), or use target cpu-relax"
                    raise Error(error.code, what, hint=hint) from error
            colors = (cells.sum(1) % 2).astype(np.int64)
            # Where all free spins are of one colour, the other's sweep is empty: blocks are numbered as they come.
            colors[graph.free] = np.unique(colors[graph.free], return_inverse=True)[1]
            order, blocks = partition(graph, colors)
            constant = make_constant("order", order, store)
            colored = ColorOp(model.result, constant.result, blocks)
            block = model.parent_block()
            assert block is not None
            block.insert_ops_after([constant, colored], model)
            sample.operands[0] = colored.result
            facts.append(_facts(sample, graph, edges, cells, machine))
        set_fact(op, "tsu", facts)
        for note in notes:
            add_notes(op, note)
        for fact in facts:
            add_notes(
                op,
                f"tsu-sim: {fact['spins']} spins and {fact['couplings']} couplings on {fact['rows']} x "
                f"{fact['columns']} cells of {machine.name} ({machine.source}); {fact['prices_source']}",
            )


def _chains_of_cells(graph: FactorGraph, edges: Array, machine: Machine, strength: float) -> Physical | None:
    """Chains for the spins of a small model without clamped ones; None where there are none."""
    if graph.sites > MOST_SPINS or len(edges) > MOST_COUPLINGS or not graph.free.all() or graph.tables:
        return None
    chains = find_chains(graph.sites, [(int(a), int(b)) for a, b in edges], machine)
    return None if chains is None else Physical.of(graph, chains, machine, strength)


def _chain_note(graph: FactorGraph, physical: Physical) -> str:
    longest = int(np.bincount(physical.member).max())
    return (
        f"tsu-sim: {graph.sites} spins stand as {len(physical.cells)} cells, in chains of up to {longest} coupled by "
        f"{physical.strength:.3g}; reads are majorities, and weaker chains bias what is sampled"
    )


def _check_kind(sample: SampleOp) -> None:
    """Refuse what no chip samples.

    Raises:
        Error: NEUC-E638.
    """
    model, hint = model_of(sample.model), "target cpu-relax takes it"
    if sample.rule.data is not Rule.GIBBS or sample.exchange.value.data or sample.packed is not None:
        rule = "exchange" if sample.exchange.value.data else "packed" if sample.packed is not None else sample.rule.data
        raise Error("NEUC-E638", f"a sampling chip makes Gibbs sweeps, not {rule}", hint=hint)
    for variable in model.variables:
        if var_type(variable).space is not Space.SPIN:
            what = f"variable {variable.name_hint or '?'} is {var_type(variable).space.value}"
            raise Error("NEUC-E638", f"{what}, and the chip's nodes are spins", hint=hint)


def _edges(graph: FactorGraph) -> tuple[Array, Array | None]:
    """Couplings as pairs of sites, and the cells that a grid suggests.

    Raises:
        Error: NEUC-E638, a factor of more than two spins.
    """
    wide = [t.spins.shape[1] for t in graph.tables if t.spins.shape[1] > 2]
    if wide:
        what = f"a factor of {max(wide)} spins has no wire"
        raise Error("NEUC-E638", what, hint="write it with pairs and helper spins, or use target cpu-relax")
    pairs = np.unique(np.sort(graph.conflicts(), 1), axis=0)
    start = None
    if graph.stencils and len(graph.stencils[0].shape) == 2 and graph.sites == prod(graph.stencils[0].shape):
        start = np.indices(graph.stencils[0].shape).reshape(2, -1).T
    return pairs, start


def site_name(sample: SampleOp, site: int) -> str:
    """``spins[3, 4]``: the variable, as the text calls it, and the place in it."""
    for number, variable in enumerate(model_of(sample.model).variables):
        type_ = var_type(variable)
        if site < type_.sites:
            place = ", ".join(str(int(i)) for i in np.unravel_index(site, type_.shape)) if type_.shape else "0"
            return f"{variable.name_hint or f'variable {number}'}[{place}]"
        site -= type_.sites
    return str(site)


def _facts(sample: SampleOp, graph: FactorGraph, edges: Array, cells: Array, machine: Machine) -> dict[str, object]:
    """What the ledger of a run needs, as plain data."""
    prices, low = machine.prices, cells.min(0)
    size = cells.max(0) - low + 1
    return {
        "machine": machine.name,
        "spins": graph.sites,
        "free": int(graph.free.sum()),
        "clamped": int((~graph.free).sum()),
        "couplings": len(edges),
        "rows": int(size[0]),
        "columns": int(size[1]),
        "chains": _chains(sample),
        "given_states": _states_given(sample),
        "beta": _input_name(sample.beta),
        "observed": any(isinstance(use.operation, ObserveOp) for use in sample.trajectory.uses),
        "warmup": sample.warmup.value.data,
        "thin": sample.thin.value.data,
        "prices": {"sample": prices.sample, "read": prices.read, "write": prices.write},
        "prices_source": prices.source,
    }


def _chains(sample: SampleOp) -> int | str:
    """How many chains, or the program's input whose first axis they are."""
    chains = chains_of(sample.state)
    if chains.is_static:
        return chains.value
    state = sample.state.owner
    values = state.args[1:] if isinstance(state, StateOp) else ()
    return next((name for name in map(_input_name, values) if name), "")


def _states_given(sample: SampleOp) -> bool:
    """Whether free spins start from values that are written, not at random."""
    state_model(sample.state)
    return isinstance(sample.state.owner, StateOp)


def _input_name(value: SSAValue) -> str:
    """The program's input that a value is; empty if it is none."""
    if not isinstance(value, BlockArgument):
        return ""
    main = value.block.parent_op()
    return function_names(main)[0][value.index] if isinstance(main, FuncOp) else ""
