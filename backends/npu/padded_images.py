"""Which products write their codes into the padded image that the next convolution reads, and how that is written down.

In the function of such a product `dense.pad` stands behind its codes, in that of its reader `dense.slice` before its
windows: neither moves anything, as a shim's DMA writes lines at a stride, and another reads them so.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp, i8
from xdsl.ir import Operation, SSAValue

from neuc.backends.npu.array_products import Layer, codes_of
from neuc.backends.npu.left_behind import listed
from neuc.backends.npu.tiling import Choice
from neuc.backends.npu.window_choice import planes_of, windows_of
from neuc.dialects.dense_movement import PadOp, ReshapeOp, SliceOp
from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
from neuc.dialects.npu_products import RequantizeOp
from neuc.dialects.store import dims_of, tensor_type
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.gemm_plan import blocks
from neuc.runtime.npu.windows import Image, Padded


def write_padded(
    module: ModuleOp, shared: Sequence[list[Layer]], choice: Choice
) -> tuple[dict[int, list[Operation]], dict[int, list[Operation]]]:
    """Put images between products that can write and read them.

    Args:
        module: gets a note.
        shared: the layers of each product.
        choice: their plans.

    Returns:
        By number of a product: what stands behind its codes, and what stands before its windows, planes included.
    """
    behind: dict[int, list[Operation]] = {}
    before: dict[int, list[Operation]] = {}
    names: list[str] = []
    by_codes = {_codes(layers): number for number, layers in enumerate(shared)}
    for number in range(len(shared)):
        windows = windows_of(shared[number])
        planes = None if windows is None else planes_of(windows)
        source = None if planes is None else by_codes.get(planes[0].x)
        if windows is None or planes is None or source is None or source == number:
            continue
        if not _fit(choice, source, number) or any(len(list(op.result.uses)) != 1 for op in planes):
            continue
        codes = planes[0].x
        if len(list(codes.uses)) != 1 or not isinstance(codes.owner, Operation):
            continue
        made = _image(codes, choice, number)
        codes.owner.parent_block().insert_ops_after(made, codes.owner)  # pyright: ignore[reportOptionalMemberAccess]
        planes[0].operands[0] = made[-1].results[0]
        behind[source], before[number] = made[:2], [*made[2:], *planes]
        names += node_names(shared[source][0])[:1]
    if names:
        many = f"{len(names)} convolutions write" if len(names) > 1 else "1 convolution writes"
        add_notes(module, f"{many} int8 codes into the padded image that the next reads: {listed(names)}")
    return behind, before


def _codes(layers: Sequence[Layer]) -> SSAValue | None:
    """The codes of a product of one layer, if its cores make them."""
    finished = codes_of(layers[0]) if len(layers) == 1 else None
    if finished is None:
        return None
    while isinstance(after := next((use.operation for use in finished.result.uses), None), RequantizeOp):
        finished = after
    return finished.result


def _fit(choice: Choice, source: int, reader: int) -> bool:
    """Whether a product's tokens of C are rectangles of whole pixels in the image that another reads."""
    plan, made, read = choice.plans[source], choice.products[source], choice.products[reader]
    if made.window is None or read.window is None or not (choice.costs[source].cut and choice.costs[reader].cut):
        return False
    image, into = Image.of(made.window, made.shape, plan), _into(choice, reader)
    return (
        made.groups == read.groups == 1
        and blocks(plan, 1, 1, made.n)[2] == into.pixel == read.window.channels
        and image.out == read.shape[2:]
        and into.lines >= into.top + read.shape[2]
        and into.pixels >= into.left + read.shape[3]
        and into.takes(image, plan)
    )


def _into(choice: Choice, reader: int) -> Padded:
    """The images that a product reads."""
    product = choice.products[reader]
    assert product.window is not None
    lines, pixels = Image.of(product.window, product.shape, choice.plans[reader]).extent
    return Padded(lines, pixels, product.window.pixel, *product.window.pads[:2])


def _image(codes: SSAValue, choice: Choice, reader: int) -> list[Operation]:
    """Codes [N, P, C] as an image with pads, and as they were."""
    (height, width), into = choice.products[reader].shape[2:], _into(choice, reader)
    lines, pixels, top, left = into.lines, into.pixels, into.top, into.left
    batch, _, channels = dims_of(codes)
    plain = tensor_type(i8, [batch, Dim.of(height), Dim.of(width), channels])
    image = ReshapeOp(codes, plain)
    pads = (0, top, left, 0, 0, lines - top - height, pixels - left - width, 0)
    padded = PadOp(image.result, pads, tensor_type(i8, [batch, Dim.of(lines), Dim.of(pixels), channels]))
    inside = SliceOp(padded.result, (0, top, left, 0), (1, 1, 1, 1), plain)
    return [image, padded, inside, ReshapeOp(inside.result, codes.type)]
