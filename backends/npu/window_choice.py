"""Which convolutions' windows the array's DMAs cut out of the image, and why the CPU cuts the others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from neuc.backends.npu.array_products import Layer
from neuc.backends.npu.left_behind import listed, size
from neuc.backends.npu.tiling import Choice, Cost, Product
from neuc.dialects.dense_movement import ReshapeOp, TransposeOp
from neuc.dialects.locations import node_names
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp
from neuc.dialects.npu_windows import WindowsOp
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import Im2ColOp
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.windows import Window

PIXELS = "none: single pixels"
Windows: TypeAlias = Im2ColOp | WindowsOp
"""Windows of codes, channel after channel, or of floats, place after place."""


def window_of(op: Windows, parts: int = 1) -> Window:
    """The window of a 1-D or 2-D convolution whose products each read one of so many parts of the channels."""
    lists = [tuple(a.get_values()) for a in (op.kernel, op.strides, op.dilations)]
    kernel, strides, dilations = ((1, *given) if len(given) == 1 else given for given in lists)
    pads = tuple(op.pads.get_values())
    top, left, bottom, right = (0, pads[0], 0, pads[1]) if len(pads) == 2 else pads
    (source,) = op.operands
    return Window(
        dims_of(source)[1].value,
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (top, left, bottom, right),
        (dilations[0], dilations[1]),
        parts,
        "bf16" if isinstance(op, WindowsOp) else "i8",
    )


def planes_of(windows: Windows) -> tuple[TransposeOp, ReshapeOp] | None:
    """What makes planes [N, C, …] of the pixels [N, P, C] that a convolution reads."""
    reshape = windows.operands[0].owner
    if not isinstance(reshape, ReshapeOp) or not isinstance(reshape.x.owner, TransposeOp):
        return None
    transpose = reshape.x.owner
    if list(transpose.perm.get_values()) != [0, 2, 1] or dims_of(transpose.result)[:2] != dims_of(reshape.result)[:2]:
        return None
    return transpose, reshape


def pixel_moves(windows: Windows) -> list[Operation]:
    """What makes planes of pixels, for these windows alone; [] if they read no pixels that a product wrote.

    A function that takes these operations in reads the pixels as they are. Planes that others read, too, are made a
    second time, on paper.
    """
    found = planes_of(windows)
    if found is None:
        return []
    transpose, reshape = found
    if len(list(reshape.result.uses)) == len(list(transpose.result.uses)) == 1:
        return [transpose, reshape]
    block = windows.parent_block()
    assert block is not None
    turned = transpose.clone()
    planes = reshape.clone(value_mapper={transpose.result: turned.result})
    block.insert_ops_before([turned, planes], windows)
    windows.operands[0] = planes.result
    return [turned, planes]


def windows_of(layers: Sequence[Layer]) -> Windows | None:
    """Where the rows of products come from, if they are windows."""
    first = layers[0]
    source = first.a.owner if isinstance(first, MatmulOp) else first.q.owner
    return source if isinstance(source, Im2ColOp | WindowsOp) else None


def with_images(layers: Sequence[Layer], product: Product, free: int) -> Product:
    """The product with the images its rows are windows of, if DMAs may cut them."""
    windows = windows_of(layers)
    if windows is None or obstacle(layers, product):
        return product
    batch, channels, *axes = dims_of(windows.operands[0])
    lines = [1] if len(axes) == 1 else []
    shape = (size([batch], free), channels.value, *lines, *(dim.value for dim in axes))
    by_pixel = planes_of(windows) is not None
    return replace(product, window=window_of(windows, product.groups), shape=shape, by_pixel=by_pixel)


def obstacle(layers: Sequence[Layer], product: Product) -> str:
    """Why no DMA can cut the windows that these products read; "" if it can, or there are none."""
    windows = windows_of(layers)
    if windows is None:
        return ""
    dims = dims_of(windows.operands[0])
    if len(dims) not in (3, 4):
        return "it has more than two axes"
    if any(dim.symbols for dim in dims[1:]):
        return "its sizes are open (--shape fixes them)"
    if any(use.operation not in layers for use in windows.result.uses):
        return "several readers share its windows"
    if product.groups > 1 and not isinstance(layers[0], GroupedAccumulateOp | MatmulOp):
        return "its rows have several scales"
    return ""


def cut_where(layers: Sequence[Layer], product: Product, cost: Cost) -> str:
    """Who cuts a product's windows, for a table; "" if there are none."""
    if windows_of(layers) is None:
        return ""
    if not cost.cut and product.window is not None and product.window.is_pixel:
        return PIXELS
    longer = "filling up its rectangles and lines would take longer than writing the matrix of its windows"
    return "by DMA" if cost.cut else f"on the CPU: {obstacle(layers, product) or longer}"


def note_windows(module: ModuleOp, shared: Sequence[Sequence[Layer]], choice: Choice) -> None:
    """Notes: whose windows DMAs cut, and, by reason, whose the CPU does."""
    by_place: dict[str, list[str]] = {}
    for layers, product, cost in zip(shared, choice.products, choice.costs):
        names = [(node_names(layer) or (layer.name,))[0] for layer in layers]
        by_place.setdefault(cut_where(layers, product, cost), []).extend(names)
    for place, names in by_place.items():
        many = f"windows of {len(names)} convolutions are" if len(names) > 1 else "the windows of 1 convolution are"
        if place == PIXELS:
            add_notes(module, f"{many} single pixels, rows of a product as they are: {listed(names)}")
        elif place == "by DMA":
            add_notes(module, f"{many} cut out of images in host memory by the array's DMAs: {listed(names)}")
        elif place:
            add_notes(module, f"{many} cut {place.replace(':', ', because', 1)}: {listed(names)}")
