"""An ONNX network of any shape as predictions: skip connections, pooling, convolutions that share their weights.

The model is lowered to `dense` operations and cut at its activations; what lies between is the region of one
`energy.prediction`. Networks that are chains of matrices are the business of `onnx_chain.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, Region, SSAValue

from neuc.compiler import universe
from neuc.compiler.driver import Driver
from neuc.compiler.energy.expressions import Tracer
from neuc.compiler.energy.model import Model
from neuc.compiler.energy.networks import Kind, Network, apply, box_of, network_error
from neuc.compiler.energy.terms import Variable
from neuc.compiler.source import read_model
from neuc.dialects import dense
from neuc.dialects import energy as e
from neuc.dialects.context import NeucContext
from neuc.dialects.energy_derivatives import is_affine as body_is_affine
from neuc.dialects.energy_prediction import CHAINS, REGION_OPS, PredictedOp, is_affine, moves
from neuc.dialects.interp.core import Env, interpret
from neuc.dialects.interp.scalar import run_body
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, dims_of

Array = np.ndarray
_PASSES = ("fold-batch-norm", "lower-onnx-to-dense")
_PROBES = np.linspace(-3.0, 3.0, 97, dtype=np.float32)
"""Where activations are told apart by their values."""
_SAME = 1e-5
"""Between two ways to write one activation in f32."""


@dataclass(frozen=True)
class GraphNetwork(Network):
    """A network whose layers are functions rather than matrices; ``layers`` is empty.

    Attributes:
        graph: the model as `dense` operations, for the forward pass that states start from.
        cuts: what its variables are the values of, in order; the answer last.
    """

    graph: ModuleOp = field(default_factory=lambda: ModuleOp([]))
    context: NeucContext = field(default_factory=universe.new_context)
    cuts: tuple[SSAValue, ...] = ()

    @property
    def inputs(self) -> int:
        """Numbers of one input."""
        return math.prod(d.value for d in dims_of(_main(self.graph).body.block.args[0])[1:])

    def forward(self, images: Array) -> Iterator[tuple[str, Array]]:
        """The input in its shape, and what each variable starts from."""
        argument = _main(self.graph).body.block.args[0]
        shaped = images.reshape(len(images), *(d.value for d in dims_of(argument)[1:]))
        yield "x", shaped
        seen: dict[SSAValue, Array] = {argument: shaped}
        interpret(self.graph, [shaped], self.context.weights, observe=lambda op, got: seen.update(zip(op.results, got)))
        for number, cut in enumerate(self.cuts, 1):
            yield f"layer{number}", np.zeros_like(seen[cut]) if self.kind == "ep" else seen[cut]


def graph_network(model: str | onnx.ModelProto, kind: Kind, steps: int, dt: float) -> GraphNetwork:
    """The network of a model.

    Raises:
        Error: NEUC-E635, operations that predictions are not differentiated through, or that mix samples.
    """
    module, context = _dense(model)
    block = _main(module).body.block
    last = block.last_op
    assert isinstance(last, ReturnOp)
    operations = [op for op in block.ops if any(moves(v) for v in op.operands) and not isinstance(op, ReturnOp)]
    _refuse(operations)
    activations: dict[SSAValue, Operation] = {op.results[0]: op for op in operations if _is_activation(op)}
    if kind == "ep":
        cuts = [*activations, last.operands[0]]
    else:
        cuts = [*(op.operands[0] for op in activations.values()), last.operands[0]]
    cuts = [cut for cut in dict.fromkeys(cuts) if cut is not block.args[0]]
    made, affine = Model(), list[bool]()
    variables: dict[SSAValue, Variable] = {block.args[0]: made.real(*_shape(block.args[0]), name="x", clamped=True)}
    for number, cut in enumerate(cuts, 1):
        activation = _activation_name(activations[cut], context) if kind == "ep" and cut in activations else "none"
        here = made.real(*_shape(cut), name=f"layer{number}", box=box_of(activation) if kind == "ep" else None)
        before = activations[cut].operands[0] if kind == "ep" and cut in activations else cut
        if kind == "ep":
            made.quad(here)
        affine.append(_predict(made, here, before, variables, context, product=kind == "ep"))
        variables[cut] = here
    # Block by block where each minimum is exact; downhill in small steps where a layer is no affine function of others.
    method = "block_min" if kind == "ep" and all(affine) else "flow"
    settled = made.state("batch").relax(method, steps, dt=dt)
    states = [settled[variables[cut]] for cut in cuts]
    results = {"answer": states[-1]} | {f"state{n}": state for n, state in enumerate(states[:-1], 1)}
    return GraphNetwork(kind, (), made.program(**results), module, context, tuple(cuts))


def _dense(model: str | onnx.ModelProto) -> tuple[ModuleOp, NeucContext]:
    """The model as `dense` operations, its batch called as the chains of predictions are."""
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    known = {tensor.name for tensor in proto.graph.initializer}
    value = next(value for value in proto.graph.input if value.name not in known)
    sizes = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
    if not sizes or min(sizes) < 1:
        raise network_error(f"the shape of {value.name} is not known", "a model with known sizes except for the batch")
    source = read_model(proto, {value.name: (CHAINS, *sizes)})
    driver = Driver(source.module, source.context)
    driver.run([universe.PASSES[name]()() for name in _PASSES])
    return driver.module, source.context


def _refuse(operations: list[Operation]) -> None:
    """Operations that no prediction may hold, by name."""
    for op in operations:
        name = " + ".join(node_names(op)) or op.name
        refuses = REGION_OPS.get(type(op))
        why = "predictions have no derivative of it" if refuses is None else refuses(op)
        if why is not None:
            raise network_error(
                f"{name} is {op.name}: {why}", f"predictions take {', '.join(o.name for o in REGION_OPS)}"
            )
        if not moves(op.results[0]):
            what = f"{name} gives {op.results[0].type}, which is not one row a sample"
            raise network_error(what, "a model whose batch can be of any size")


def _is_activation(op: Operation) -> bool:
    """Whether it is a function of each number of one tensor that is not affine."""
    if not isinstance(op, dense.MapOp):
        return False
    moving = [moves(value) for value in op.inputs]
    alone = sum(moving) == 1 and moving[0] and all(_size(v) == 1 for v in op.inputs[1:])
    return alone and not body_is_affine(op.body.block, moving)


def _activation_name(op: Operation, context: NeucContext) -> str:
    """Which of the activations of `Layer` a map is, by its values."""
    assert isinstance(op, dense.MapOp)
    constants = [constant_value(value, context.weights) for value in op.inputs[1:]]
    if any(constant is None for constant in constants):
        raise network_error(f"{' + '.join(node_names(op))} is computed with what is no constant", "an activation")
    arrays = [np.asarray(constant).reshape(-1) for constant in constants]
    found = run_body(op.body.block, [_PROBES, *arrays], Env(ModuleOp([]), context.weights))
    for name in ("relu", "clip", "tanh", "sigmoid"):
        if np.allclose(found, apply(name, _PROBES), atol=_SAME):
            return name
    what = f"{' + '.join(node_names(op))} is no activation that states of a Hopfield network have a range for"
    raise network_error(what, 'Relu, Tanh, Sigmoid, Clip to 0 … 1, or as_="pc"')


def _predict(
    made: Model,
    here: Variable,
    target: SSAValue,
    variables: dict[SSAValue, Variable],
    context: NeucContext,
    *,
    product: bool,
) -> bool:
    """A prediction of a variable: the operations between the variables before it and `target`; whether it is affine."""
    tracer = Tracer(made)
    values: dict[SSAValue, SSAValue] = {}

    def value_of(value: SSAValue) -> SSAValue:
        if value not in values:
            values[value] = copied(value)
        return values[value]

    def copied(value: SSAValue) -> SSAValue:
        if value in variables:
            return tracer.argument(variables[value].value).value
        constant = constant_value(value, context.weights)
        if constant is not None:
            return tracer.expression(constant).value
        assert isinstance(value.owner, Operation)
        operands = {operand: value_of(operand) for operand in value.owner.operands}
        clone = value.owner.clone(dict(operands))
        return tracer.add(clone).value

    tracer.block.add_op(PredictedOp(value_of(target)))
    op = e.PredictionOp(here.value, tracer.operands, Region(tracer.block), product=product)
    made.term(op)
    return is_affine(op)


def _size(value: SSAValue) -> int:
    return math.prod(d.value for d in dims_of(value))


def _shape(value: SSAValue) -> tuple[int, ...]:
    return tuple(d.value for d in dims_of(value)[1:])


def _main(module: ModuleOp) -> FuncOp:
    return next(op for op in module.ops if isinstance(op, FuncOp) and op.sym_name.data == "main")
