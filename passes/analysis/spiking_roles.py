"""What each operation of a marked network does in its spiking form: once, in each step, on means, or at the end.

A network is marked by `mark-neurons`. The support check reads these roles out, `convert-ann-to-snn` builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from xdsl.dialects import func
from xdsl.ir import Block, Operation, SSAValue

from neuc.dialects.dense import ArgReduceOp, ConvOp, GatherOp, LstmOp, MatMulOp, PoolOp
from neuc.dialects.dense_attrs import DenseOp, PoolKind
from neuc.dialects.store import ConstantOp, element_of
from neuc.passes.analysis.affine import is_affine
from neuc.passes.analysis.neuron_sites import is_site


class Role(Enum):
    """What becomes of an operation."""

    CONSTANT = "constant"
    """Depends on no input."""
    ANALOG = "analog"
    """Depends on inputs alone: computed once, before the first step."""
    NEURON = "neuron"
    SYNAPSE = "synapse"
    """A product with constant weights, in each step."""
    LINEAR = "linear"
    """Any other affine operation, in each step."""
    MAX_POOL = "max_pool"
    """Max-pooling of summed currents, as a difference in time."""
    FUNCTION = "function"
    """Not affine: a function of the mean so far, sent as what its answer changes by."""
    READ_OUT = "read_out"
    """Behind all neurons and not affine: computed once, on the estimates of the last step."""
    UNSUPPORTED = "unsupported"


Roles = Mapping[Operation, Role]


def roles(block: Block) -> Roles:
    """The role of every operation of a function body but its return."""
    ops = [op for op in block.ops if not isinstance(op, func.ReturnOp)]
    changing, inputs = set[SSAValue](), set[SSAValue](block.args)
    for op in ops:
        if is_site(op) or any(v in changing for v in op.operands):
            changing.update(op.results)
        if any(v in inputs for v in op.operands):
            inputs.update(op.results)
    before_neuron = _before_neurons(ops)
    found: dict[Operation, Role] = {}
    read_out = set[SSAValue]()
    for op in ops:
        indices = [i for i, v in enumerate(op.operands) if v in changing]
        role = _role(op, indices, inputs, op in before_neuron, any(v in read_out for v in op.operands))
        if role is Role.READ_OUT:
            read_out.update(op.results)
        found[op] = role
    return found


def _role(op: Operation, changing: list[int], inputs: set[SSAValue], before_neuron: bool, after: bool) -> Role:
    if is_site(op):
        return Role.NEURON
    if not any(v in inputs for v in op.operands):
        return Role.CONSTANT
    if not isinstance(op, DenseOp):
        return Role.UNSUPPORTED
    if not changing:
        return Role.ANALOG
    if after:
        return Role.READ_OUT
    if is_affine(op, changing):
        return Role.SYNAPSE if _is_product(op) else Role.LINEAR
    if not before_neuron:
        return Role.READ_OUT
    if isinstance(op, PoolOp) and op.kind.data is PoolKind.MAX:
        return Role.MAX_POOL
    whole = isinstance(op, ArgReduceOp | LstmOp) or (isinstance(op, GatherOp) and 1 in changing)
    plain = all(str(element_of(v)) == "f32" for v in (*op.operands, *op.results))
    return Role.FUNCTION if plain and not whole and len(op.results) == 1 else Role.UNSUPPORTED


def _is_product(op: Operation) -> bool:
    """Whether an affine product has constant weights: then it is a synapse."""
    if isinstance(op, ConvOp):
        return isinstance(op.w.owner, ConstantOp)
    return isinstance(op, MatMulOp) and any(isinstance(v.owner, ConstantOp) for v in (op.a, op.b))


def _before_neurons(ops: list[Operation]) -> set[Operation]:
    """Operations whose results reach a neuron."""
    reaching, found = set[SSAValue](), set[Operation]()
    for op in reversed(ops):
        if is_site(op) or any(v in reaching for v in op.results):
            found.add(op)
            reaching.update(op.operands)
    return found
