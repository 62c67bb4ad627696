"""Which convolutions' windows the array's DMAs cut out of the image, and why the CPU cuts the others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xdsl.dialects.builtin import ModuleOp

from neuc.backends.npu.array_products import Layer
from neuc.backends.npu.left_behind import listed, size
from neuc.backends.npu.tiling import Choice, Cost, Product
from neuc.dialects.locations import node_names
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import Im2ColOp
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.windows import Window


def window_of(op: Im2ColOp) -> Window:
    """The window of a 2-D convolution."""
    kernel, strides, pads = (tuple(a.get_values()) for a in (op.kernel, op.strides, op.pads))
    return Window(
        dims_of(op.q)[1].value, (kernel[0], kernel[1]), (strides[0], strides[1]), (pads[0], pads[1], pads[2], pads[3])
    )


def windows_of(layers: Sequence[Layer]) -> Im2ColOp | None:
    """Where the rows of products come from, if they are windows."""
    first = layers[0]
    source = None if isinstance(first, MatmulOp) else first.q.owner
    return source if isinstance(source, Im2ColOp) else None


def with_images(layers: Sequence[Layer], product: Product, free: int) -> Product:
    """The product with the images its rows are windows of, if DMAs may cut them."""
    windows = windows_of(layers)
    if windows is None or obstacle(layers, product):
        return product
    batch, *rest = dims_of(windows.q)
    return replace(product, window=window_of(windows), shape=(size([batch], free), *(dim.value for dim in rest)))


def obstacle(layers: Sequence[Layer], product: Product) -> str:
    """Why no DMA can cut the windows that these products read; "" if it can, or there are none."""
    windows = windows_of(layers)
    if windows is None:
        return ""
    dims = dims_of(windows.q)
    if isinstance(layers[0], GroupedAccumulateOp) and product.groups > 1:
        return "its groups are several products, which take a part of each pixel"
    if len(dims) != 4 or any(d != 1 for d in windows.dilations.get_values()):
        return "it is not 2-D, or it is dilated"
    if any(dim.symbols for dim in dims[1:]):
        return "its sizes are open (--shape fixes them)"
    if product.groups > 1 or any(use.operation not in layers for use in windows.result.uses):
        return "several scales or several readers share its windows"
    return ""


def cut_where(layers: Sequence[Layer], product: Product, cost: Cost) -> str:
    """Who cuts a product's windows, for a table; "" if there are none."""
    if windows_of(layers) is None:
        return ""
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
        if place == "by DMA":
            add_notes(module, f"{many} cut out of images in host memory by the array's DMAs: {listed(names)}")
        elif place:
            add_notes(module, f"{many} cut {place.replace(':', ', because', 1)}: {listed(names)}")
