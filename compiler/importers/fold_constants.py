"""Replaces what is known at compile time by constants: shape arithmetic, operators on constants, conditionals.

Own code rather than onnxscript's optimizer: importing that takes a second, it drops node names, and it knows nothing of
symbolic shapes. Operators are evaluated by ONNX's reference evaluator, one node at a time, sizes bounded beforehand.
"""

from __future__ import annotations

import numpy as np
import onnx
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Attribute, Block, Operation
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects.locations import node_names
from neuc.dialects.onnx import NoneOp, OnnxOp, YieldOp, opsets_of
from neuc.dialects.onnx_proto import node_to_proto
from neuc.dialects.onnx_types import NoneType
from neuc.dialects.store import ConstantOp, constant_array, make_constant, numpy_dtype
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.symbolic_facts import Facts

GROWTH_BYTES = 1 << 20
"""A folded result may be this large, or twice its operands: constants must not blow up a small model."""

# Exact, or correctly rounded element by element, and cheap in numpy. DequantizeLinear is not here: it would hide what a
# model says about its quantisation.
_FOLDABLE = frozenset(
    """
    Abs Add And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip Concat
    ConstantOfShape Cos CumSum Div Equal Exp Expand Flatten Floor Gather GatherElements GatherND Greater GreaterOrEqual
    IsInf IsNaN Less LessOrEqual Log MatMul Max Mean Min Mod Mul Neg Not OneHot Or Pad Pow Range Reciprocal ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size
    Slice Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where Xor
    """.split()
)


def fold_constants(module: ModuleOp, facts: Facts) -> bool:
    """Fold all that can be folded with the types the module has now, and drop what nothing uses.

    Args:
        module: changed in place.
        facts: what `infer_symbolic_shapes` found out about it.

    Returns:
        Whether inferring types again may find more.
    """
    more = False
    for op in list(module.walk()):
        if isinstance(op, OnnxOp) and op.parent is not None:
            more |= _fold(op, facts)
    drop_unused(module)
    return more


def drop_unused(module: ModuleOp) -> None:
    """Erase operations whose results nobody uses; nothing at graph level has effects."""
    for op in list(module.walk(reverse=True)):
        removable = isinstance(op, OnnxOp | ConstantOp | NoneOp) and op.parent is not None
        if removable and not any(result.first_use for result in op.results):
            op.detach()
            op.erase()


def _fold(op: OnnxOp, facts: Facts) -> bool:
    """Fold one operation; whether inference has something new to go on."""
    if op.op_type == "Identity" and not op.domain:
        op.results[0].replace_all_uses_with(op.operands[0])
        return False
    if op.op_type == "If" and not op.domain:
        return _fold_if(op, facts)
    arrays = _known_results(op, facts)
    new = arrays is None
    if arrays is None:
        arrays = _evaluated(op, facts.store)
    if arrays is None:
        return False
    name = (node_names(op) or (op.op_type,))[0]
    for result, array in zip(op.results, arrays):
        if array is None:
            continue
        constant = make_constant(f"{name}.folded", array, facts.store)
        constant.location = op.location
        Rewriter.insert_op(constant, InsertPoint.before(op))
        constant.result.name_hint = result.name_hint
        result.replace_all_uses_with(constant.result)
    return new and any(array is not None and array.dtype.kind in "iub" for array in arrays)


def _known_results(op: OnnxOp, facts: Facts) -> list[np.ndarray | None] | None:
    """Integer results whose elements are all plain numbers."""
    arrays: list[np.ndarray | None] = []
    for result in op.results:
        elements, shape, dtype = facts.ints(result), _static_shape(result.type), _dtype(result.type)
        if elements is None or shape is None or dtype is None or dtype.kind not in "iub":
            return None
        arrays.append(np.array(elements, np.int64).astype(dtype).reshape(shape))
    return arrays


def _evaluated(op: OnnxOp, store: WeightStore) -> list[np.ndarray | None] | None:
    """The results of an operator on constants, by ONNX's reference evaluator."""
    if op.op_type not in _FOLDABLE or op.domain or op.bodies:
        return None
    operands: list[np.ndarray | None] = []
    for value in op.operands:
        owner = value.owner
        if isinstance(value.type, NoneType):
            operands.append(None)
        elif isinstance(owner, ConstantOp):
            operands.append(constant_array(owner, store))
        else:
            return None
    sizes = [_nbytes(result.type) for result in op.results if not isinstance(result.type, NoneType)]
    given = sum(array.nbytes for array in operands if array is not None)
    if any(size is None for size in sizes) or sum(filter(None, sizes)) > max(GROWTH_BYTES, 2 * given):
        return None
    return _run(op, operands, store)


def _run(op: OnnxOp, operands: list[np.ndarray | None], store: WeightStore) -> list[np.ndarray | None] | None:
    from onnx.reference import ReferenceEvaluator

    inputs = ["" if array is None else f"i{n}" for n, array in enumerate(operands)]
    outputs = ["" if isinstance(t, NoneType) else f"o{n}" for n, t in enumerate(op.result_types)]
    node = node_to_proto(op, inputs, outputs, store)
    make = onnx.helper.make_value_info
    given, wanted = ([make(name, onnx.TypeProto()) for name in names if name] for names in (inputs, outputs))
    graph = onnx.helper.make_graph([node], "fold", given, wanted)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets_of(op).items()]
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(
                None, {name: array for name, array in zip(inputs, operands) if name}
            )
    except Exception:  # the evaluator raises anything; what it cannot do stays in the graph
        return None
    results: list[np.ndarray | None] = []
    remaining = iter(found)
    for type_ in op.result_types:
        if isinstance(type_, NoneType):
            results.append(None)
            continue
        array = np.asarray(next(remaining))
        if array.dtype != _dtype(type_) or array.shape != _static_shape(type_):
            return None
        results.append(array)
    return results


def _fold_if(op: OnnxOp, facts: Facts) -> bool:
    """Replace a conditional on a constant by the branch it takes."""
    condition = facts.ints(op.operands[0])
    if condition is None or len(condition) != 1:
        return False
    block: Block = op.graphs["then_branch" if condition[0] else "else_branch"].block
    last = block.last_op
    if not isinstance(last, YieldOp):
        return False
    values = list(last.operands)
    for inner in list(block.ops):
        inner.detach()
        if inner is not last:
            Rewriter.insert_op(inner, InsertPoint.before(op))
    last.erase()
    for result, value in zip(op.results, values):
        result.replace_all_uses_with(value)
    Operation.detach(op)
    op.erase()
    return True


def _static_shape(type_: Attribute) -> tuple[int, ...] | None:
    if not isinstance(type_, TensorType) or any(size < 0 for size in type_.get_shape()):
        return None
    return type_.get_shape()


def _dtype(type_: Attribute) -> np.dtype | None:
    return numpy_dtype(type_.element_type) if isinstance(type_, TensorType) else None


def _nbytes(type_: Attribute) -> int | None:
    shape, dtype = _static_shape(type_), _dtype(type_)
    if shape is None or dtype is None:
        return None
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count
