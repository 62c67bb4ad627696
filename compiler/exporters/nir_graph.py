"""A NIR graph of a module with one `spike.loop`: which operation becomes which node, and what has none.

Sums are edges that meet. What is computed once before the loop is computed in every step in NIR, as its Input stays
the same. A state that carries events is an edge back. Neurons' numbers are the business of `nir_neurons.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.ir import BlockArgument, Operation, SSAValue

from neuc.compiler.exporters.nir_delays import misread, unread_delays
from neuc.compiler.exporters.nir_neurons import Inexpressible, Neuron, NirNode, node_of, subgraph_of
from neuc.compiler.exporters.nir_nodes import NO_NODE, Array, Late, Translation, port
from neuc.dialects import spike
from neuc.dialects.dense import MapOp
from neuc.dialects.onnx import NAME, decode_name
from neuc.dialects.store import dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    import nir


@dataclass
class Exported:
    """A NIR graph.

    Attributes:
        graph: it, as the package `nir` has it.
        notes: what somebody who reads it should know.
        spikes: the events of each node that spikes.
        scanned: inputs of @main that have a time axis.
    """

    graph: nir.NIRGraph
    notes: list[str]
    spikes: dict[str, SSAValue]
    scanned: frozenset[str]


def export_nir(
    module: ModuleOp, store: WeightStore, *, dt: float = 1e-4, soft_reset: str = "metadata", entry: str = "main"
) -> Exported:
    """The NIR graph of `module`.

    Args:
        module: one function with one `spike.loop`.
        store: its weights.
        dt: seconds in a step, which stand in the graph's metadata.
        soft_reset: ``metadata``: IF and LIF nodes with {"reset": "subtract"}, which most readers do not know;
            ``subgraph``: an integrator, a threshold and weights back, which mean the same to everybody.
        entry: name of the function.

    Raises:
        Error: NEUC-E507, everything NIR cannot say, at once; NEUC-E508, the package nir is missing.
    """
    try:
        import nir
    except ImportError as error:
        raise Error("NEUC-E508", "writing NIR needs nir and h5py", hint="pip install 'neuc[snn]'") from error
    walk = _Walk(store, dt, module=module, soft_reset=soft_reset, entry=entry)
    walk.run()
    if walk.problems:
        raise Error(
            "NEUC-E507",
            f"{len(walk.problems)} operation{'s'[: len(walk.problems) > 1]} without a form in NIR",
            hint=_way_out(module),
            nodes=walk.problems,
            exit_code=Exit.UNSUPPORTED,
        )
    made = {name: getattr(nir, node.kind)(**node.fields, metadata=node.metadata) for name, node in walk.nodes.items()}
    graph = nir.NIRGraph(nodes=made, edges=walk.edges, metadata={"dt": dt, "written_by": "neuc"}, type_check=False)
    return Exported(graph, walk.notes, walk.spikes, frozenset(walk.scanned))


def _way_out(module: ModuleOp) -> str:
    """What to do about a network that NIR cannot say."""
    expand = "neuc opt -p expand-graded-spikes"
    if any(isinstance(op, spike.DifferentialOp) for op in module.walk()):
        return f"spikes carry changes: convert with --recipe a, or with --coding rate first and then {expand}"
    return f"recipe a makes networks NIR can say; {expand} makes graded spikes binary"


@dataclass
class _Walk(Translation):
    """One export: what comes in and goes out, and everything with a state."""

    module: ModuleOp = field(default_factory=lambda: ModuleOp([]))
    soft_reset: str = "metadata"
    entry: str = "main"
    edges: list[tuple[str, str]] = field(default_factory=list["tuple[str, str]"])
    scanned: set[str] = field(default_factory=set[str])
    feedback: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict["tuple[str, str]", "tuple[int, ...]"])

    def run(self) -> None:
        function = next(
            (op for op in self.module.ops if isinstance(op, func.FuncOp) and op.sym_name.data == self.entry), None
        )
        loops = [op for op in function.body.block.ops if isinstance(op, spike.LoopOp)] if function else []
        if function is None or len(loops) != 1:
            what = f"it has {len(loops)} time loops" if function else f"it has no function {self.entry}"
            raise Error("NEUC-E507", f"not one spiking network: {what}", hint="convert it with --to snn first")
        (self.loop,) = loops
        self.block = function.body.block
        self._inputs(function)
        for op in self.block.ops:
            if op is self.loop:
                break
            self.visit(op)
        for value, whole in zip(self.loop.slices, self.loop.scanned, strict=True):
            self.refs[value] = self.refs.get(whole, ())
        for i, value in enumerate(self.loop.states):
            self.refs[value] = (Late(i),)
        for op in self.loop.body.block.ops:
            self.visit(op)
        self._outputs(function)
        self._connect()
        self._prune()

    # Ends

    def _inputs(self, function: func.FuncOp) -> None:
        for argument, name in zip(self.block.args, _names(function.arg_attrs, "input", len(self.block.args))):
            scanned = argument in self.loop.scanned
            shape = self.shape(argument, 2 if scanned else 1)
            self.refs[argument] = (self.add(name, NirNode("Input", {"input_type": port("input", shape)}), ()),)
            if scanned:
                self.scanned.add(name)
            else:
                self.notes.append(f"{name}: the same input in every step")

    def _outputs(self, function: func.FuncOp) -> None:
        end = self.block.last_op
        assert isinstance(end, func.ReturnOp)
        for value, name in zip(end.operands, _names(function.res_attrs, "output", len(end.operands))):
            reached = set(self._reached(value))
            for result, inner in zip(self.loop.results, self.loop.terminator.operands, strict=True):
                if result not in reached or self._is_clock(inner):
                    continue
                node = NirNode("Output", {"output_type": port("output", self.shape(inner, 1))})
                self.add(self.free_name(name), node, self.refs.get(inner, ()))
                if inner not in self.refs:
                    self.problem(self.loop, f"output {name} is inside of a neuron, and NIR shows spikes only")
            behind = {_told(op) for op in self.block.ops if op is not end and self.loop.is_before_in_block(op)}
            if value.owner is not self.loop:
                what = f"what is computed of it after the last step ({', '.join(sorted(behind))}) is not in the graph"
                self.notes.append(f"{name}: {what}; the Output has the loop's own values (docs/nir.md, Writing)")

    def _reached(self, value: SSAValue) -> list[SSAValue]:
        if isinstance(value, BlockArgument) or value.owner is self.loop:
            return [value]
        assert isinstance(value.owner, Operation)
        return [found for operand in value.owner.operands for found in self._reached(operand)]

    def _is_clock(self, value: SSAValue) -> bool:
        """Whether a value depends on the number of the step alone: what read-outs divide by."""
        if isinstance(value, BlockArgument):
            return value is self.loop.step
        assert isinstance(value.owner, Operation)
        return all(self._is_clock(operand) for operand in value.owner.operands)

    def _connect(self) -> None:
        late = dict(self.feedback)
        for source, target in self.pending:
            if isinstance(source, str):
                self._edge(source, target)
                continue
            state, after = self.loop.states[source.index], self.loop.terminator.states[source.index]
            found = self.refs.get(after, ())
            if not found or any(isinstance(ref, Late) for ref in found):
                self.problem(self.loop, f"state {source.index}, which {target} reads, is made by no node")
            for ref in found:
                if isinstance(ref, str):
                    self._edge(ref, target)
                    late[ref, target] = self.shape(state, 1)
        if not self.problems:
            self._write_delays(late)

    def _write_delays(self, late: Mapping[tuple[str, str], tuple[int, ...]]) -> None:
        """Write out the delays of edges that a reader would not take for the ones that close cycles.

        First those that a reader would miss; where that leads it to close cycles elsewhere, all but those of soft
        resets, and then all.
        """
        nodes, edges = dict(self.nodes), list(self.edges)
        choices = (unread_delays(nodes, edges, late), [edge for edge in late if edge not in self.feedback], list(late))
        for written in choices:
            self.nodes, self.edges = dict(nodes), list(edges)
            for a, b in written:
                delay = NirNode("Delay", {"delay": np.full(late[a, b], self.dt)})
                name = self.add(self.free_name(f"{a}_late"), delay, ())
                at = self.edges.index((a, b))
                self.edges[at : at + 1] = [(a, name), (name, b)]
            if not misread(self.nodes, self.edges, late.keys() - set(written)):
                return
        self.problem(self.loop, "which of its edges a step passes on cannot be told from NIR's edges")

    def _edge(self, source: str, target: str) -> None:
        if (source, target) in self.edges:
            self.problem(self.loop, f"{target} adds {source} to itself, and NIR has no edge twice")
        self.edges.append((source, target))

    def _prune(self) -> None:
        """Drop nodes that lead to no output."""
        wanted = {name for name, node in self.nodes.items() if node.kind in ("Input", "Output")}
        while more := {a for a, b in self.edges if b in wanted} - wanted:
            wanted |= more
        self.nodes = {name: node for name, node in self.nodes.items() if name in wanted}
        self.edges = [(a, b) for a, b in self.edges if a in wanted and b in wanted]
        self.spikes = {name: value for name, value in self.spikes.items() if name in wanted}

    # What has a state

    def translate(self, op: Operation) -> None:
        match op:
            case spike.DelayOp():
                if self._initial(op.ring, op).any():
                    raise Inexpressible("NIR's delays begin empty")
                late = np.full(self.shape(op.x, 1), dims_of(op.ring)[0].value * self.dt)
                self.link(op, NirNode("Delay", {"delay": late}), op.x)
            case spike.AccumulateOp():
                if op.start.value.data:
                    begin = op.start.value.data
                    self.notes.append(f"{self.name(op)}: adds up from step {begin} on; in NIR from the first")
                self._membrane(op, op.x, "integrator", (op.total,), {})
            case spike.MembraneOp():
                self._neuron(op)
            case _:
                super().translate(op)

    def _neuron(self, op: spike.MembraneOp) -> None:
        kind = op.name.removeprefix("spike.")
        if kind not in ("if", "lif", "cuba_lif", "li", "cuba_li", "integrator"):
            raise Inexpressible(NO_NODE.get(op.name, "NIR has no such neuron"))
        if isinstance(op, (spike.CubaLifOp, spike.CubaLiOp)) and op.reads.data is spike.Reads.OLD:
            raise Inexpressible("its membrane reads the synaptic current of the step before")
        numbers = {name: self.array(value) for name, value in zip((*op.PARAMETERS, "reset_value"), op.parameters)}
        whole = any(array.dtype.kind == "i" for array in numbers.values())
        if whole and kind != "if":
            raise Inexpressible("integer decays cut what NIR keeps")
        self._membrane(op, op.current_value, kind, op.states, numbers)

    def _membrane(
        self, op: Operation, x: SSAValue, kind: str, states: Sequence[SSAValue], numbers: Mapping[str, Array]
    ) -> None:
        shape = self.shape(x, 1)

        def spread(array: Array) -> Array:
            return np.broadcast_to(array, shape).astype(np.float64)

        gain, offset = self.folded.get(x, (np.ones(shape), np.zeros(shape)))
        start = [spread(self._initial(state, op)) for state in states]
        if any(s.any() for s in start[:-1]):
            raise Inexpressible("its synapse does not begin with 0")
        soft = isinstance(op, spike.NeuronOp) and op.is_soft
        at = isinstance(op, spike.NeuronOp) and op.fire.data is spike.Fire.GE
        parameters = {name: spread(array) for name, array in numbers.items()}
        neuron = Neuron(kind, shape, parameters, gain, offset, start[-1], soft, at)
        if soft and self.soft_reset == "subgraph":
            name = self._soft_subgraph(op, x, neuron)
        else:
            name = self.add(self.name(op), node_of(neuron, self.dt), self.of(x))
        spikes = isinstance(op, spike.NeuronOp)
        shown = op.results[0] if spikes else op.results[-1]
        self.refs[shown] = (name,)
        if spikes:
            self.spikes[name] = shown

    def _soft_subgraph(self, op: Operation, x: SSAValue, neuron: Neuron) -> str:
        parts = subgraph_of(neuron, self.dt)
        base = self.name(op)
        membrane = self.add(f"{base}_membrane", parts.membrane, self.of(x))
        fired = self.add(base, NirNode("Threshold", {"threshold": parts.threshold}), (membrane,))
        one_axis = len(neuron.shape) == 1
        back = (
            NirNode("Linear", {"weight": np.diag(parts.feedback)})
            if one_axis
            else NirNode("Scale", {"scale": parts.feedback})
        )
        feedback = self.add(f"{base}_reset", back, (fired,))
        self.pending.append((feedback, membrane))
        self.feedback[feedback, membrane] = neuron.shape
        return fired

    def _initial(self, state: SSAValue, op: Operation) -> Array:
        if state not in self.loop.states:
            raise Inexpressible("its state is no state of the loop")
        index = self.loop.states.index(state)
        if self.loop.terminator.states[index] not in op.results:
            raise Inexpressible("its next state is changed on the way")
        value = self.loop.initial[index]
        if isinstance(value.owner, spike.SilenceOp):
            return np.zeros(())
        if isinstance(value, BlockArgument):
            raise Inexpressible("its state comes in from outside; NIR's begin by themselves")
        return self.array(value)


def _told(op: Operation) -> str:
    """An operation by name, a map by what it computes and its constants."""
    if not isinstance(op, MapOp):
        return op.name
    inner = list(op.body.block.ops)[:-1]
    return " ".join(f"{o.name} {o.value}" if isinstance(o, arith.ConstantOp) else o.name for o in inner)


def _names(attrs: ArrayAttr[DictionaryAttr] | None, what: str, count: int) -> list[str]:
    found = [item.data.get(NAME) for item in attrs.data] if attrs is not None else [None] * count
    texts = [decode_name(n.data) if isinstance(n, StringAttr) else f"{what}{i}" for i, n in enumerate(found)]
    return [text.replace("/", "_").replace(".", "_") for text in texts]
