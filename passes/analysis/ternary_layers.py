"""The layers of a module that could be or are ternary: their names, why some must stay float, and the per-layer report.

A layer is a `dense.matmul`, `dense.conv` or `dense.lstm`, or what `quantize-to-ternary` and `tile-lut` made of one. Its
name is that of its first ONNX node, with `#2`, `#3` … where a node became several layers, and stays the same through
those passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, f32
from xdsl.ir import Block, Operation, SSAValue

from neuc.dialects.dense import ConvOp, LstmOp, MatMulOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.dims import product
from neuc.dialects.locations import node_names
from neuc.dialects.store import ConstantOp, constant_value, dims_of, element_of
from neuc.dialects.ternary import ConvOp as TernaryConvOp
from neuc.dialects.ternary import DequantizeOp, PackOp, QuantizeOp, WeightOp
from neuc.dialects.ternary import LinearOp as TernaryLinearOp
from neuc.dialects.ternary_encodings import planes_of
from neuc.dialects.ternary_types import EncodingAttr, TritsType
from neuc.dialects.ternary_weights import defining_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.choose_encoding import WHY

KEPT = "ternary.kept"
"""Attribute of a float layer that `recognize-ternary` or `quantize-to-ternary` passed over: why."""
ULP = "ternary.ulp"
"""Attribute of a `ternary.weight` that was recognised: how many units in the last place its weights are off at most."""
MIN_K = 16
"""Fewest columns of a weight matrix worth look-ups, unless the pass is told otherwise."""
MIN_GROUP_CHANNELS = 16
"""Fewest channels a group for which ternary convolutions in groups were measured to be faster than float ones."""
REPLAYED = "ternary.replayed"
"""Attribute of a `ternary.quantize` that does what the model itself does."""
FLOAT_LAYERS = (MatMulOp, ConvOp, LstmOp)
TERNARY_LAYERS = (TernaryLinearOp, TernaryConvOp, DequantizeOp)


@dataclass(frozen=True)
class QuantRecord:
    """One row of the per-layer report.

    Attributes:
        layer: the layer's name, as option `layers` of `quantize-to-ternary` takes it.
        nodes: ONNX nodes it stands for.
        kind: `matmul`, `conv` or `lstm`.
        n, k: size of the weight matrix; 0 where there is none.
        planes: ternary planes; 0 for a float layer.
        scale: `row`, `tensor`, `group<128>`; empty for a float layer.
        encoding: kernel layout, such as `tl2`; empty before one is chosen.
        bytes_before: weight bytes as float.
        bytes_after: weight bytes now; trits count two bits each until a layout is chosen.
        sqnr_db: signal to error power of the weights; None for a float layer, and where nothing is lost.
        kept_reason: why a float layer is one; empty otherwise.
        source: where ternary weights come from: `recognised` in the model, or `fitted`; `float` for a float layer.
        levels: the integers that the weights are, times scales; empty for a float layer.
        ulp: how far recognised weights are from the model's at most, in units in the last place; None for others.
        activations: who rounds the layer's activations: the `model`, or `neuc`; `float` if nobody does.
        why: why the encoding is what it is, where something chose it.
    """

    layer: str
    nodes: tuple[str, ...]
    kind: str
    n: int
    k: int
    planes: int
    scale: str
    encoding: str
    bytes_before: int
    bytes_after: int
    sqnr_db: float | None
    kept_reason: str
    source: str = "float"
    levels: tuple[int, ...] = ()
    ulp: int | None = None
    activations: str = "float"
    why: str = ""


def layers(module: ModuleOp, *others: type[Operation]) -> Iterator[tuple[str, Operation]]:
    """Every layer of the module with its name, in program order; operations of `others` are layers, too."""
    seen: dict[str, int] = {}
    for op in module.walk():
        if isinstance(op, (*FLOAT_LAYERS, *TERNARY_LAYERS, *others)):
            base = next(iter(node_names(op)), f"{layer_kind(op)}{len(seen)}")
            seen[base] = seen.get(base, 0) + 1
            yield (base if seen[base] == 1 else f"{base}#{seen[base]}"), op


def layer_kind(op: Operation) -> str:
    """`matmul`, `conv` or `lstm`, also of what a layer became."""
    match op:
        case ConvOp() | TernaryConvOp():
            return "conv"
        case LstmOp():
            return "lstm"
        case DequantizeOp() if len(dims_of(op.s)) < len(dims_of(op.acc)) - 2:
            return "conv"
        case _:
            return "matmul"


def weight_matrix(op: MatMulOp | ConvOp, store: WeightStore) -> np.ndarray:
    """The constant weights of a layer as f32 [N, K], `alpha` of a matmul multiplied in; a batch is more rows."""
    found = weight_operand(op)
    assert found is not None
    value, rows_first = found
    array = constant_value(value, store)
    assert array is not None
    if isinstance(op, ConvOp):
        return array.reshape(array.shape[0], -1)
    matrix = array if rows_first else array.swapaxes(-1, -2)
    matrix = matrix.reshape(-1, matrix.shape[-1])
    alpha = op.alpha.value.data
    return np.ascontiguousarray(matrix if alpha == 1.0 else matrix * np.float32(alpha))


def weight_operand(op: Operation) -> tuple[SSAValue, bool] | None:
    """The constant weights of a matmul, on either side, or convolution, and whether they are [N, K] and not [K, N]."""
    match op:
        case ConvOp() if isinstance(op.w.owner, ConstantOp):
            return op.w, True
        case MatMulOp() if isinstance(op.b.owner, ConstantOp):
            return op.b, op.transpose_b is not None
        case MatMulOp() if isinstance(op.a.owner, ConstantOp):
            return op.a, op.transpose_a is None
        case _:
            return None


def weight_entry(op: MatMulOp | ConvOp, name: str) -> str:
    """What to name the ternary weights of a layer after: its constant, else the layer."""
    constant = (op.b if isinstance(op, MatMulOp) else op.w).owner
    return constant.entry.data if isinstance(constant, ConstantOp) and constant.entry is not None else name


def reason_to_keep(
    op: Operation, store: WeightStore, min_k: int, *, grouped: bool = False, form: str = "ternary"
) -> str:
    """Why a float layer cannot be ternary, or int8; empty if it can.

    Args:
        op: a `dense` layer.
        store: its weights.
        min_k: fewest columns a weight matrix must have.
        grouped: convolutions of few channels a group may be ternary, too, although float kernels are faster.
        form: what is asked for, `ternary` or `int8`.
    """
    match op:
        case MatMulOp():
            return _matmul_reason(op, store, min_k)
        case ConvOp():
            return _conv_reason(op, store, min_k, grouped)
        case _:
            return f"recurrent weights have no {form} form"


def _matmul_reason(op: MatMulOp, store: WeightStore, min_k: int) -> str:
    if not isinstance(op.b.owner, ConstantOp):
        left = isinstance(op.a.owner, ConstantOp)
        return "its weight is the left operand" if left else "both operands are activations"
    dims = dims_of(op.b)
    if len(dims) != 2:
        return f"its weight has rank {len(dims)}, not 2"
    if op.transpose_a is not None:
        return "its activations are transposed"
    n = dims[0 if op.transpose_b is not None else 1].value
    if op.bias is not None and op.activation != NO_ACTIVATION and not per_column(op.bias, n):
        return "its bias is not one value per output column"
    return _weight_reason(op.b, dims[1 if op.transpose_b is not None else 0].value, store, min_k)


def _conv_reason(op: ConvOp, store: WeightStore, min_k: int, grouped: bool) -> str:
    group = op.group.value.data
    if not isinstance(op.w.owner, ConstantOp):
        return "both operands are activations"
    channels = dims_of(op.w)[1].value
    if group > 1 and channels < MIN_GROUP_CHANNELS and not grouped:
        if channels == 1:
            return f"depthwise convolution (group = {group})"
        return f"grouped convolution (group = {group}) of {channels} channels each, fewer than {MIN_GROUP_CHANNELS}"
    return _weight_reason(op.w, product(dims_of(op.w)[1:]).value, store, min_k)


def _weight_reason(weight: SSAValue, k: int, store: WeightStore, min_k: int) -> str:
    if element_of(weight) != f32:
        return f"its weight is {element_of(weight)}, not f32"
    if k < min_k:
        return f"K = {k} is below {min_k}"
    array = constant_value(weight, store)
    assert array is not None
    if array.size == 0:
        return "its weight is empty"
    return "" if np.isfinite(array).all() else "its weight holds NaN or infinity"


def per_column(bias: SSAValue, n: int) -> bool:
    """Whether a matmul's bias is one value per output column: [N] or [1, …, N]."""
    dims = dims_of(bias)
    return dims != () and dims[-1] == n and all(dim == 1 for dim in dims[:-1])


def quantization_report(module: ModuleOp, store: WeightStore) -> list[QuantRecord]:
    """The layers of `module` as they are now, in program order."""
    return [_record(name, op, store) for name, op in layers(module)]


def _record(name: str, op: Operation, store: WeightStore) -> QuantRecord:
    nodes, kind = node_names(op), layer_kind(op)
    if isinstance(op, TERNARY_LAYERS):
        weight = defining_weight(op.weight)
        type_, encoding = weight.result.type, _encoding(weight)
        assert isinstance(type_, TritsType)
        sqnr = None if weight.sqnr is None else weight.sqnr.value.data
        planes, n, k = type_.plane_count, type_.rows, type_.columns
        layout = "" if encoding is None else encoding.kind.data
        after = ternary_bytes(type_, encoding)
        ulp = ulp_of(weight)
        source = "fitted" if ulp is None else "recognised"
        rounded = "neuc" if is_own_rounding(op.s.owner) else "model"
        size, levels = 4 * n * k, type_.level_set
        return QuantRecord(
            name,
            nodes,
            kind,
            n,
            k,
            planes,
            str(type_.scale),
            layout,
            size,
            after,
            sqnr,
            "",
            source,
            levels,
            ulp,
            rounded,
            _why(weight),
        )
    kept = op.attributes.get(KEPT)
    reason = kept.data if isinstance(kept, StringAttr) else ""
    n, k, size = _float_size(op)
    return QuantRecord(name, nodes, kind, n, k, 0, "", "", size, size, None, reason)


def ulp_of(weight: WeightOp) -> int | None:
    """How far recognised weights are off; None for fitted ones."""
    found = weight.attributes.get(ULP)
    return found.value.data if isinstance(found, IntegerAttr) else None


def is_own_rounding(op: Operation | Block) -> TypeGuard[QuantizeOp]:
    """Whether `op` rounds activations that the model does not round."""
    return isinstance(op, QuantizeOp) and REPLAYED not in op.attributes


def _encoding(weight: WeightOp) -> EncodingAttr | None:
    packs = _packs(weight)
    return packs[0].packed.encoding if packs else None


def _why(weight: WeightOp) -> str:
    reasons = [pack.attributes.get(WHY) for pack in _packs(weight)]
    return next((reason.data for reason in reasons if isinstance(reason, StringAttr)), "")


def _packs(weight: WeightOp) -> list[PackOp]:
    return [use.operation for use in weight.result.uses if isinstance(use.operation, PackOp)]


def ternary_bytes(type_: TritsType, encoding: EncodingAttr | None = None) -> int:
    """Bytes of trits and scales, without a layout's padding."""
    rows, columns, levels = type_.plane_count * type_.rows, type_.columns, type_.level_set
    if encoding is None:
        bits = columns * planes_of(levels)
    else:
        g = 5 if encoding.kind.data == "t5" else encoding.g.data
        bits = round(-(-columns // g) * g * encoding.rule.bits(levels, encoding.g.data))
    return -(-rows * bits // 8) + 4 * rows * type_.groups


def _float_size(op: Operation) -> tuple[int, int, int]:
    """N, K and bytes of a float layer's constant weights."""
    match op:
        case LstmOp():
            directions, gates, inputs = (d.value for d in dims_of(op.w))
            return gates, inputs, 4 * directions * gates * (inputs + gates // 4)
        case _:
            found = weight_operand(op)
            if found is None:
                return 0, 0, 0
            value, rows_first = found
            dims = [dim.value for dim in dims_of(value)]
            if isinstance(op, ConvOp):
                n, k = dims[0], int(np.prod(dims[1:]))
            else:
                n, k = dims[-2:] if rows_first else dims[:-3:-1]
            return n, k, 4 * int(np.prod(dims))
