"""`mark-neurons`: says which maps of a network become neurons, and puts neurons where products would see no spikes.

What neurons become is `convert_ann_to_snn`'s business, their thresholds are calibration's.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, PoolOp, ReduceOp
from neuc.dialects.locations import node_names
from neuc.dialects.store import dims_of
from neuc.errors import Error, Exit
from neuc.passes.analysis.affine import is_affine, moves
from neuc.passes.analysis.neuron_sites import CLIP, IDENTITY, RELU, is_site, mark
from neuc.passes.expand_activations import clip_bound, is_relu
from neuc.passes.map_building import map_of

RECIPES = ("a", "b", "c")
MAX_GROUP = 16
"""Most neurons that carry one number together."""
GROUP_HINT = f"groups of 1 to {MAX_GROUP} neurons, in recipe a; spikes of b and c have more levels instead"
NO_CHANNELS = -1
"""The channel axis of a site whose whole tensor has one threshold."""


@dataclass(frozen=True)
class MarkNeurons(ModulePass):
    """Mark the sites of neurons with `spike.neuron`.

    1. A map that is a ReLU, or a clip to [0, bound], is a site.
    2. Recipes b and c: an operand of a product that is no affine function of the inputs and no spikes (moved or pooled,
       at most), gets a site `identity` in between, whose neuron has spikes of both signs. So do both operands where two
       activations meet; these have one threshold per head (axis 1 of four), or one in all.

    Thresholds are per channel: axis 1 behind convolutions, the last axis behind matrix products.

    Options:
        recipe: a, b or c.
        after: the name of a model's node. What does not depend on it stays a network of numbers, which runs once in
            front of the spiking one: a hybrid network.
        group: of recipe a: how many neurons carry one number together (`spike.group`, see `group-neurons`).
    """

    name = "mark-neurons"
    recipe: str = "a"
    after: str = ""
    group: int = 1

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Mark the sites of every function."""
        if self.recipe not in RECIPES:
            raise Error("NEUC-E527", f"there is no recipe {self.recipe!r}", hint=f"recipes are {', '.join(RECIPES)}")
        if self.group != 1 and (self.recipe != "a" or not 1 <= self.group <= MAX_GROUP):
            raise Error("NEUC-E527", f"group = {self.group} in recipe {self.recipe}", hint=GROUP_HINT)
        for function in op.ops:
            if isinstance(function, func.FuncOp) and not function.is_declaration:
                _Marking(self.recipe != "a", self.group).run(function, self.after)


class _Marking:
    """The walk over one function."""

    def __init__(self, everywhere: bool, group: int) -> None:
        self.everywhere, self.group = everywhere, group
        self.changing = set[SSAValue]()
        """Values that are no affine function of the inputs."""
        self.spiking = set[SSAValue]()
        """Values that are spikes, or spikes moved or pooled."""
        self.inputs = set[SSAValue]()
        """Values that depend on an input of the model, or on the node that spiking begins behind."""
        self.names: dict[str, int] = {}
        self.inserted: dict[tuple[SSAValue, bool], SSAValue] = {}

    def run(self, function: func.FuncOp, after: str) -> None:
        begin = _last_named(function, after) if after else None
        self.inputs.update(function.body.block.args if begin is None else begin.results)
        for op in list(function.body.block.ops):
            if op is begin:
                continue
            if isinstance(op, MapOp) and len(op.inputs) == 1 and op.inputs[0] in self.inputs:
                bound = clip_bound(op)
                if is_relu(op) or bound is not None:
                    kind = RELU if bound is None else CLIP
                    mark(op, self._name(op), kind, channel_axis(op.inputs[0]), bound, self.group)
            if self.everywhere and isinstance(op, MatMulOp | ConvOp):
                self._feed_spikes(op)
            self._learn(op)

    def _learn(self, op: Operation) -> None:
        if not any(v in self.inputs for v in op.operands):
            return
        self.inputs.update(op.results)
        if is_site(op):
            self.spiking.update(op.results)
            self.changing.update(op.results)
            return
        changing = [i for i, v in enumerate(op.operands) if v in self.changing]
        if changing or not is_affine(op, [i for i, v in enumerate(op.operands) if v in self.inputs]):
            self.changing.update(op.results)
        pools = isinstance(op, PoolOp | ReduceOp) and is_affine(op, [0])
        if changing and (moves(op) or pools) and all(op.operands[i] in self.spiking for i in changing):
            self.spiking.update(op.results)

    def _feed_spikes(self, op: MatMulOp | ConvOp) -> None:
        meeting = isinstance(op, MatMulOp) and op.a in self.inputs and op.b in self.inputs
        for index in (0, 1):
            value = op.operands[index]
            needed = value in self.changing or (meeting and value in self.inputs)
            if needed and value not in self.spiking:
                key = (value, meeting)
                if key not in self.inserted:
                    self.inserted[key] = self._insert(op, value, meeting)
                op.operands[index] = self.inserted[key]

    def _insert(self, op: Operation, value: SSAValue, meeting: bool) -> SSAValue:
        site = map_of([value], lambda x: x)
        site.location = value.owner.location if isinstance(value.owner, Operation) else op.location
        rank = len(dims_of(value))
        axis = (1 if rank == 4 else NO_CHANNELS) if meeting else 1 if isinstance(op, ConvOp) else rank - 1
        mark(site, self._name(site), IDENTITY, axis)
        Rewriter.insert_op(site, InsertPoint.before(op))
        self._learn(site)
        return site.result

    def _name(self, op: Operation) -> str:
        base = next(reversed(node_names(op)), "neuron")
        count = self.names[base] = self.names.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"


def _last_named(function: func.FuncOp, name: str) -> Operation:
    """The last operation of a model's node.

    Raises:
        Error: NEUC-E527, there is none.
    """
    named = {known: op for op in function.body.block.ops for known in node_names(op)}
    if name not in named:
        hint = f"nodes are {', '.join(list(named)[:20])}"
        what = f"there is no node {name!r} for spiking to begin behind"
        raise Error("NEUC-E527", what, hint=hint, exit_code=Exit.USAGE)
    return named[name]


def channel_axis(value: SSAValue) -> int:
    """The channel axis of a value: 1 if it comes from a convolution or a pooling, else its last."""
    rank, seen = len(dims_of(value)), 0
    while isinstance(value.owner, Operation) and seen < 64:
        op = value.owner
        if isinstance(op, ConvOp | PoolOp) and rank > 2:
            return 1
        if not isinstance(op, MapOp) or not op.inputs:
            break
        value = next((v for v in op.inputs if len(dims_of(v)) == rank), op.inputs[0])
        seen += 1
    return 1 if rank == 4 else rank - 1
