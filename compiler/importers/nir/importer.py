"""From a NIR graph to a `spike` module: `main(inputs [T, B, …]) -> (outputs [T, B, …])`.

With `keep_state`, states are arguments and results, too, so that a program goes on where the last call ended. There is
nothing of ONNX in it: passes of the graph level find nothing to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.traits import Pure

from neuc.compiler.importers.nir.build import Plan, State, StepBuilder
from neuc.compiler.importers.nir.graph import NEURONS, Graph, Node, graph_from_dict
from neuc.compiler.importers.nir.inline import flatten
from neuc.compiler.importers.nir.neurons import delay_steps
from neuc.compiler.importers.nir.options import DEFAULT_DT, NirOptions
from neuc.compiler.importers.nir.order import order_of
from neuc.compiler.importers.nir.repair import fix_flattens, recognize_soft_resets
from neuc.compiler.importers.nir.shapes import Shape, shapes_of
from neuc.dialects import dense, spike
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx import NAME, encode_name
from neuc.dialects.spike_types import BINARY
from neuc.dialects.store import make_constant, tensor_type
from neuc.errors import Error
from neuc.passes.module_facts import add_notes


def import_nir(model: object, ctx: NeucContext, options: NirOptions | None = None, *, name: str = "") -> ModuleOp:
    """The module of a NIR graph.

    Args:
        model: the path of an HDF5 file, or an `nir.NIRGraph`.
        ctx: its weight store receives the parameters.
        options: how to read it.
        name: what to call it in locations.

    Raises:
        Error: NEUC-E500 … E505, E508: the file or the graph is wrong, or holds what neuc does not have.
    """
    options = options or NirOptions()
    if isinstance(model, Path):
        from neuc.compiler.importers.nir.hdf5 import read_tree

        tree, name = read_tree(model), name or model.name
    else:
        try:
            tree, name = cast("Mapping[str, object]", getattr(model, "to_dict")()), name or "graph"  # noqa: B009
        except RecursionError as error:
            raise Error("NEUC-E501", "the graph holds itself", hint="nested graphs are other graphs") from error
    return build_module(graph_from_dict(tree), ctx, options, name)


def build_module(graph: Graph, ctx: NeucContext, options: NirOptions, name: str) -> ModuleOp:
    """The module of a graph that was read already."""
    notes: list[str] = []
    dt = _step_length(graph, options, notes)
    flat, edges = flatten(graph)
    fixed = fix_flattens(flat, edges, notes)
    nodes, edges = recognize_soft_resets(fixed, edges, dt)
    if len(nodes) < len(fixed):
        notes.append(f"soft resets written as subgraphs: {(len(fixed) - len(nodes)) // 2} found, read as IF neurons")
    late = [n for n, node in nodes.items() if node.kind == "Delay" and (delay_steps(node, dt, []) >= 1).all()]
    order = order_of(nodes, edges, late)
    shapes = shapes_of(nodes, order)
    steps, batch = _leading_dims({n: shapes[n] for n in nodes if nodes[n].kind == "Input"}, options)
    plan = Plan(nodes, order, shapes, dt, options.reset, name, steps, batch)
    _tell_resets(nodes.values(), options, notes)
    module = _Module(plan, ctx, options.keep_state).build(notes)
    add_notes(module, *notes)
    return module


def _step_length(graph: Graph, options: NirOptions, notes: list[str]) -> float:
    if options.dt is not None:
        return options.dt
    stored = graph.metadata.get("dt")
    if stored is not None:
        try:
            value = np.asarray(stored, np.float64).item()
        except (TypeError, ValueError):  # text, or not one number
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise Error("NEUC-E502", f"the graph's metadata have dt = {stored}", hint="give --dt")
        return value
    notes.append(f"a step is {DEFAULT_DT:g} s, as most tools have it: the file does not say; --dt does")
    return DEFAULT_DT


def _leading_dims(inputs: Mapping[str, Shape], options: NirOptions) -> tuple[int | str, int | str]:
    """Steps and samples of the inputs: what was asked for, else symbols."""
    dims: set[tuple[int | str, int | str]] = set()
    for name, wanted in options.shapes.items():
        if name not in inputs or len(wanted) != 2 + len(inputs[name]) or tuple(wanted[2:]) != inputs[name]:
            known = ", ".join(f"{key}=TxBx{'x'.join(map(str, shape))}" for key, shape in inputs.items())
            given = f"{name}={'x'.join(map(str, wanted))}"
            why = f"does not fit {name}" if name in inputs else f"the graph has no input {name}"
            raise Error("NEUC-E506", f"--shape {given}: {why}", hint=f"steps, samples, one sample: {known}")
        dims.add((wanted[0], wanted[1]))
    if len(dims) > 1:
        raise Error("NEUC-E506", "--shape: inputs have different steps or samples", hint="give them the same")
    return dims.pop() if dims else ("T", "B")


def _tell_resets(nodes: Sequence[Node] | object, options: NirOptions, notes: list[str]) -> None:
    silent = [n for n in cast("Sequence[Node]", nodes) if n.kind in NEURONS and "reset" not in n.metadata]
    zero = [n for n in silent if "v_reset" not in n.fields or not n.numbers("v_reset").any()]
    if zero and options.reset == "file":
        notes.append(
            f"neurons of {len(zero)} node(s) reset to 0, as NIR has it; snnTorch writes the same for reset_mechanism "
            "'subtract', which NIR cannot say: --reset snntorch reads them so"
        )
    elif zero:
        notes.append(
            f"neurons of {len(zero)} node(s) say v_reset = 0 and are read as soft resets (--reset {options.reset})"
        )


class _Module:
    """The function around the loop."""

    def __init__(self, plan: Plan, ctx: NeucContext, keep_state: bool) -> None:
        self.plan, self.store, self.keep = plan, ctx.weights, keep_state
        kinds = ("Input", "Output")
        self.inputs, self.outputs = ([n for n in plan.nodes if plan.nodes[n].kind == kind] for kind in kinds)
        types = [tensor_type(f32, [plan.steps, plan.batch, *plan.shapes[n]]) for n in self.inputs]
        self.block = Block(arg_types=types)
        self.outside = Builder(InsertPoint.at_end(self.block))
        slices = [tensor_type(f32, [plan.batch, *plan.shapes[n]]) for n in self.inputs]
        self.step = Block(arg_types=[spike.STEP_TYPE, *slices])
        self.states: list[State] = []
        self.initial: list[SSAValue] = []

    def build(self, notes: list[str]) -> ModuleOp:
        inside = Builder(InsertPoint.at_end(self.step))
        steps = StepBuilder(self.plan, self.store, self.outside, inside, self._state, notes)
        steps.run(dict(zip(self.inputs, self.step.args[1:])))
        values = [steps.values[name] for name in self.outputs]
        after = [state.after if state.after is not None else state.inside for state in self.states]
        inside.insert(spike.YieldOp(values, after))
        scanned = list(self.block.args[: len(self.inputs)])
        _drop_unused(self.step)
        loop = spike.LoopOp(scanned, self.initial, self.plan.steps, [v.type for v in values], Region(self.step))
        self.outside.insert(loop)
        results = [*loop.outputs, *(loop.final if self.keep else ())]
        self.outside.insert(func.ReturnOp(*results))
        states = [f"state.{state.name}" for state in self.states] if self.keep else []
        inputs, outputs = [*self.inputs, *states], [*self.outputs, *(f"{name}.next" for name in states)]
        _drop_unused(self.block)
        types = FunctionType.from_lists([a.type for a in self.block.args], [r.type for r in results])
        function = func.FuncOp("main", types, Region(self.block))
        function.arg_attrs, function.res_attrs = _named(inputs), _named(outputs)
        module = ModuleOp([function], sym_name=StringAttr(encode_name(self.plan.file)))
        module.verify()
        return module

    def _state(self, name: str, shape: Shape, start: np.ndarray | None, ring: int | None) -> State:
        dims: list[int | str] = [*([] if ring is None else [ring]), self.plan.batch, *shape]
        type_ = tensor_type(BINARY if start is None else f32, dims)
        if self.keep:
            value: SSAValue = self.block.insert_arg(type_, len(self.block.args))
        elif start is None:
            value = self.outside.insert(spike.SilenceOp(type_)).events
        else:
            constant = self.outside.insert(make_constant(f"{name}.start", start.astype(np.float32), self.store))
            value = self.outside.insert(dense.BroadcastOp(constant.result, type_)).result
        self.initial.append(value)
        state = State(name, self.step.insert_arg(type_, len(self.step.args)))
        self.states.append(state)
        return state


def _drop_unused(block: Block) -> None:
    """Drop what was emitted for a reader that then read another step's value."""
    for op in reversed(list(block.ops)):
        if op.has_trait(Pure) and op.results and not any(result.uses for result in op.results):
            op.detach()
            op.erase()


def _named(names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    texts: list[Attribute] = [StringAttr(encode_name(name)) for name in names]
    return ArrayAttr([DictionaryAttr({NAME: text}) for text in texts])
