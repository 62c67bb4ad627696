"""The products an array may take: which operations they are, which of them are one product, and how large it is.

Who runs what is decided in `place_products.py`; what follows sums on the cores in `finish_products.py`.
"""

from __future__ import annotations

from typing import TypeAlias

from xdsl.dialects import func
from xdsl.ir import Operation

from neuc.backends.npu.finish_constants import ends_of, finish_of, likeness
from neuc.backends.npu.left_behind import size
from neuc.backends.npu.requantize_constants import requantization, residual_behind, residual_of, stages_of
from neuc.backends.npu.tiling import Product, merged
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp, RequantizeOp
from neuc.dialects.store import ConstantOp, dims_of
from neuc.dialects.ternary import AccumulateOp, PackOp
from neuc.dialects.weight_store import WeightStore
from neuc.runtime.npu.requantize import in_turn

FREE = 16
"""What a size left free is taken to be when plans are chosen, unless the target says otherwise."""

Integers: TypeAlias = AccumulateOp | GroupedAccumulateOp
"""A product of int8 activations and constant weights."""
Layer: TypeAlias = Integers | MatmulOp
"""A product that the array takes."""


def codes_of(product: Layer) -> RequantizeOp | None:
    """What finishes a product on its cores."""
    user = next((use.operation for use in product.results[0].uses), None)
    return user if isinstance(user, RequantizeOp) else None


def is_open(product: Layer) -> bool:
    """Whether a CPU could run the product as well: nothing in it is for arrays alone."""
    return isinstance(product, AccumulateOp) and codes_of(product) is None


def by_operand(main: func.FuncOp) -> list[list[Layer]]:
    """Products in order, those of the same codes or floats and groups of columns together.

    Finished ones only if they share what tables they have, are finished in one stage, or, of floats, alike, and nothing
    is added to them.
    """
    found: dict[tuple[object, ...], list[Layer]] = {}
    for op in main.body.block.ops:
        match op:
            case AccumulateOp() if isinstance(op.packed.owner, PackOp):
                codes = codes_of(op)
                stages = [] if codes is None else stages_of(codes)
                own = len(stages) > 1 or (codes is not None and residual_behind(codes) is not None)
                alike = (op,) if own else (op.q, *(stage.table for stage in stages))
                found.setdefault((*alike, op.packed.owner.packed.group_size, codes is None), []).append(op)
            case GroupedAccumulateOp():
                found[(op,)] = [op]
            case MatmulOp():
                # Weights that are activations may be made later than the first product is.
                constant = isinstance(op.b.owner, ConstantOp) and len(dims_of(op.b)) == 2 and not op.group_count
                found.setdefault((op.a, *likeness(op)) if constant else (op,), []).append(op)
            case _:
                pass
    return list(found.values())


def pack_of(product: Integers) -> PackOp:
    """Where the product's weights come from."""
    assert isinstance(product.packed.owner, PackOp)
    return product.packed.owner


def parts_of(layer: Layer) -> list[Operation]:
    """The operations of a product, its codes and what is added to them included."""
    if isinstance(layer, MatmulOp):
        return [layer, *ends_of(layer)]
    codes = codes_of(layer)
    added = None if codes is None else residual_behind(codes)
    stages = [] if codes is None else stages_of(codes)
    return [pack_of(layer), layer, *stages, *([] if added is None else [added])]


def merged_groups(product: GroupedAccumulateOp) -> int:
    """How many groups become one product."""
    packed, groups = pack_of(product).packed, product.group_count
    return merged(groups, packed.plane_count * packed.rows // groups)


def product_of(layers: list[Layer], free: int, store: WeightStore) -> Product:
    """What the array has to compute for products of the same operand."""
    first = layers[0]
    if isinstance(first, MatmulOp):
        return _float_product([layer for layer in layers if isinstance(layer, MatmulOp)], free)
    integers = [layer for layer in layers if not isinstance(layer, MatmulOp)]
    packed = [pack_of(layer).packed for layer in integers]
    finishes = [codes for layer in layers if (codes := codes_of(layer)) is not None]
    added = residual_behind(finishes[0]) if finishes else None
    residual = None if added is None else residual_of(added, store)
    finish = in_turn(requantization(finishes, store), residual) if finishes else None
    operands = "ternary" if all(set(p.level_set) <= {-1, 0, 1} for p in packed) else "int8"
    m, outputs = size(dims_of(first.q)[:-1], free), sum(p.plane_count * p.rows for p in packed)
    if isinstance(first, GroupedAccumulateOp):
        together = merged_groups(first)
        groups = first.group_count // together
        return Product(m, together * packed[0].columns, outputs // groups, groups, operands, finish)
    groups = -(-packed[0].columns // packed[0].group_size)
    return Product(m, min(packed[0].group_size, packed[0].columns), outputs, groups, operands, finish)


def _float_product(layers: list[MatmulOp], free: int) -> Product:
    """With a matrix all of a's leading axes are rows; else each of them, or each group, is a product of its own."""
    a, b = dims_of(layers[0].a), dims_of(layers[0].b)
    columns = sum(size(dims_of(layer.result)[-1:], free) for layer in layers)
    k, finish = size(a[-1:], free), finish_of(layers[0])
    if groups := layers[0].group_count:
        return Product(size(a[:-1], free), k // groups, columns // groups, groups, "bf16", finish)
    if len(b) == 2:
        return Product(size(a[:-1], free), k, columns, 1, "bf16", finish)
    return Product(size(a[-2:-1], free), k, columns, size(a[:-2], free), "bf16", finish)


def work_of(product: Product) -> int:
    """Its multiply-adds."""
    return product.m * product.k * product.n * product.groups
