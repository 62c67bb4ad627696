"""The executor of segments of kind ``npu``: products on the simulated array, from tokens alone.

A segment holds the machine, the placed and routed program of one block, and the layer's weights in tiles; sizes of a
call fill the sequence in. What the array would have taken is added up in `NpuExecutor.usage` (`usage.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, InternalError
from neuc.runtime.checked_json import Node
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.npu.float_ends import OpenStages, float_finish_from, resident_tables
from neuc.runtime.npu.float_finish import FloatFinish
from neuc.runtime.npu.functions import from_bf16, to_bf16
from neuc.runtime.npu.gemm import residual_shape, with_sizes, with_tables
from neuc.runtime.npu.gemm_plan import (
    OPERANDS,
    SPREADS,
    AnyFinish,
    GemmPlan,
    blocks,
    finished_float_weights,
    result_type,
    tiled_weights,
    weight_shape,
)
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.machine_file import machine_of
from neuc.runtime.npu.program import DTYPES, Design
from neuc.runtime.npu.program_json import CODE, CURE, design_from_json
from neuc.runtime.npu.requantize import MOST as MOST_FINISH
from neuc.runtime.npu.requantize import Finish
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.usage import Usage, record
from neuc.runtime.npu.windows import Image, Padded, Window
from neuc.runtime.program import OtherSegment, Segment

MOST = 1 << 24
"""Rows, columns and depth of a product, at most."""
MOST_PARTS = 64
"""Weights that read the same activations, at most."""


class NpuExecutor:
    """Runs a placed product.

    Of codes: ``q`` int8 [..., K] to ``acc`` int32 [..., G, R] for each of the weights that read it, or to int8 codes
    [..., R] where the cores finish it (``codes``: in how many stages, with how many corrections and tables; with a
    residual, after adding codes [..., R], which are input number ``other``). Of floats in bf16: ``a`` f32 [..., K] to
    f32 [..., N] for each of them, or ``a`` [..., M, K] and ``b`` [..., K, N] to [..., M, N], finished as ``floats``
    says, with ``tables`` of the program's and ``room`` for so many words. With ``window``, q or a is images [B, C, …],
    cut by transfers, with ``pixels`` (their lines and pixels of a line) [B, P, C], or, ``laid_out``, [B, lines, pixels,
    C] with pads, into which products write their codes (``into``). With ``planes`` the groups are those of a grouped
    convolution, whose columns lie side by side.
    """

    def __init__(self, name: str, segment: Segment, setting: Setting) -> None:
        if not isinstance(segment, OtherSegment):
            raise InternalError(f"segment {name} is no segment of an NPU")
        node = Node(segment.data, f"segment {name}", CODE, CURE)
        node.only(
            [
                "machine",
                "program",
                "tile",
                "spread",
                "operands",
                "finishing",
                "codes",
                "floats",
                "tables",
                "room",
                "planes",
                "other",
                "window",
                "pixels",
                "laid_out",
                "into",
                "columns",
                "outputs",
                "group",
                "switch",
                "transposed",
            ]
        )
        self.machine: Machine = machine_of(node.get("machine").value, f"segment {name}: machine")
        self._graph: Design = design_from_json(node.get("program").value, f"segment {name}: program")
        tile = node.get("tile").list_of(lambda n: n.integer(4, 4096), 3)
        if len(tile) != 3 or tile[2] % 4:
            raise node.get("tile").refuse("expected m, k and n, the last a multiple of 4")
        operands, spread = _name(node.get("operands"), OPERANDS), _name(node.get("spread"), SPREADS)
        finishing = node.get("finishing").boolean()
        tables, room = resident_tables(node, setting.weights, name), node.get("room").integer(0, MOST)
        self._tables = tables.tolist()
        self._plan = GemmPlan.on(
            self.machine, (tile[0], tile[1], tile[2]), operands, spread, finishing, room, bool(len(tables))
        )
        self._finish: AnyFinish | None = finish_from(node.get("codes")) or float_finish_from(node.get("floats"))
        if self._finish is not None and (operands == "bf16") != isinstance(self._finish, FloatFinish):
            raise node.get("operands").refuse("products of floats make no codes, those of integers no floats")
        self._other = node.get("other").integer(0, len(segment.inputs) - 1)
        self._planes = node.get("planes").integer(0, MOST_PARTS)
        self._window = window_from(node.get("window"), self._plan.kind.a)
        self._pixels = node.get("pixels").list_of(lambda n: n.integer(1, MOST), 2)
        self._laid_out = node.get("laid_out").boolean()
        self._into = into_from(node.get("into"))
        if self._finish is not None and not finishing:
            raise node.get("codes").refuse("the program makes no codes")
        self._columns, self._group = (node.get(key).integer(0, MOST) for key in ("columns", "group"))
        self._outputs = node.get("outputs").list_of(lambda n: n.integer(1, MOST), MOST_PARTS)
        self._transposed = node.get("transposed").boolean()
        self._switch = node.get("switch").boolean()
        self._weights = self._checked(setting.weights[f"{name}.b"], name) if self._outputs else None
        floats = isinstance(self._finish, FloatFinish) and self._weights is None
        self._open = OpenStages.of(node, setting.weights, name) if floats else None
        self.usage = Usage()
        self._name, self._profile = name, setting.profile

    def _checked(self, weight: Array, name: str) -> Array:
        """Constant weights, if they have the shape and type the segment says."""
        if not self._columns or not self._group:
            raise Error(CODE, f"segment {name}: weights without columns", hint=CURE)
        _, k, n = blocks(self._plan, 1, self._group, sum(self._outputs))
        shape = (-(-self._columns // self._group), *weight_shape(self._plan, k, n, self._finish))
        dtype = DTYPES[self._plan.kind.b]
        if weight.shape != shape or weight.dtype != dtype:
            got = f"{weight.dtype} {list(weight.shape)}"
            raise Error(CODE, f"segment {name}: weights are {got}, not {dtype} {list(shape)}", hint=CURE)
        return weight

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Simulate the product for these activations."""
        before, began = replace(self.usage), time.monotonic_ns()
        other = inputs[self._other] if isinstance(self._finish, Finish) and self._finish.residual else None
        if self._window is not None:
            made = self._windowed(inputs[0], self._window, other)
        else:
            made = self._stacked(inputs) if self._weights is None else self._weighted(inputs[0], other)
        if self._profile is not None:
            record(self._profile, self._name, self.machine, (before, self.usage), began)
        results: list[Array] = []
        for part, given in zip(made, outputs):
            if given is None:
                results.append(np.ascontiguousarray(part))
            else:
                given[...] = part
                results.append(given)
        return results

    def _weighted(self, x: Array, other: Array | None) -> list[Array]:
        """One result for each of the constant weights."""
        rows, groups, width = prod(x.shape[:-1]), -(-self._columns // self._group), sum(self._outputs)
        floats = self._plan.operands == "bf16"
        flat = to_bf16(x.reshape(rows, self._columns)) if floats else x.reshape(rows, self._columns)
        kind = "f32" if floats else result_type(self._plan.operands, self._finish)
        whole = np.zeros((rows, groups, width), DTYPES[kind])
        if rows:
            a = np.zeros((rows, groups * self._group), flat.dtype)
            a[:, : self._columns] = flat
            assert self._weights is not None
            work = rows * self._columns * width
            added = None if other is None else self._beside(other, (rows, groups, width)).transpose(1, 0, 2)
            sums = self._product(a.reshape(rows, groups, self._group), self._weights, width, work, added)
            whole[...] = sums.transpose(1, 0, 2)
        return self._parts(whole, x.shape[:-1], groups)

    def _windowed(self, x: Array, window: Window, other: Array | None) -> list[Array]:
        """Windows of images [B, C, …], or of their pixels [B, P, C], cut by transfers, times the constant weights."""
        shape = (len(x), window.channels, *self._pixels) if self._pixels else x.shape
        shape = shape if len(shape) == 4 else (*shape[:2], 1, shape[2])
        if shape[1] != window.channels:
            raise InternalError(f"segment {self._name}: {shape[1]} channels, not {window.channels}")
        image, width, plan = Image.of(window, shape, self._plan), sum(self._outputs), self._plan
        floats, pixels = plan.operands == "bf16", prod(image.out)
        dtype = DTYPES["f32" if floats else result_type(plan.operands, self._finish)]
        whole = np.zeros((image.batch, pixels, window.parts, width), dtype)
        if pixels * image.batch:
            assert self._weights is not None
            m, k, n = blocks(plan, image.rows, image.columns(plan.k), width)
            design = with_sizes(
                self._graph, plan, self.machine, (m, k, n), window.parts, self._finish, image, self._into
            )
            design = with_tables(design, self._tables)
            work = image.batch * pixels * window.channels * prod(window.kernel) * width
            values = to_bf16(x) if floats else np.asarray(x, np.int8)
            if not self._laid_out:
                if self._pixels:
                    values = values.reshape(shape[0], *shape[2:], shape[1]).transpose(0, 3, 1, 2)
                values = image.laid_out(values.reshape(shape))
            a = np.concatenate([values.reshape(-1), np.zeros(window.run(plan.k), values.dtype)])  # what steps may read
            arrays = {"a": a, "b": self._weights}
            if other is not None:
                filled = residual_shape(plan, m, n, window.parts, image)
                by_part = self._beside(other, (image.batch, pixels, window.parts, width))
                arrays["r"] = np.stack([image.filled(by_part[:, :, i], filled[2]) for i in range(window.parts)])
            made = self._simulated(design, arrays, work, window.parts * m * k * n)
            if self._into is not None:
                return [made.reshape(image.batch, self._into.lines, self._into.pixels, self._into.pixel)]
            for part in range(window.parts):
                whole[:, :, part] = image.pixels(made[part, :, :width])
        elif self._into is not None:
            return [np.zeros((image.batch, self._into.lines, self._into.pixels, self._into.pixel), np.int8)]
        return self._parts(whole, whole.shape[:2], 1)

    def _beside(self, other: Array, shape: tuple[int, ...]) -> NDArray[np.int8]:
        """The codes to add, one for each of the results."""
        if other.dtype != np.int8 or other.size != prod(shape):
            got = f"{other.dtype} {list(other.shape)}"
            raise Error(CODE, f"segment {self._name}: codes to add are {got}, not {prod(shape)} int8", hint=CURE)
        return np.asarray(other, np.int8).reshape(shape)

    def _parts(self, whole: Array, leading: tuple[int, ...], groups: int) -> list[Array]:
        """Columns of all groups [..., groups, columns] as each of the weights' results, or side by side."""
        no_sums = self._plan.operands == "bf16" or self._finish is not None
        if self._planes:
            one = [] if no_sums else [1]
            return [self._side_by_side(whole.reshape(-1, *whole.shape[-2:])).reshape(*leading, *one, -1)]
        ends = np.cumsum(self._outputs)
        parts = [whole[..., end - size : end] for size, end in zip(self._outputs, ends)]
        inner = () if no_sums else (groups,)
        return [part.reshape(*leading, *inner, part.shape[-1]) for part in parts]

    def _side_by_side(self, whole: Array) -> Array:
        """Columns of all groups [rows, groups, planes x columns] next to each other, plane after plane."""
        rows, groups, width = whole.shape
        return whole.reshape(rows, groups, self._planes, width // self._planes).transpose(0, 2, 1, 3).reshape(rows, -1)

    def _stacked(self, inputs: Sequence[Array]) -> list[Array]:
        """Products of two activations, one for each place of their leading axes."""
        a, b = inputs[:2]
        right = b if self._transposed else b.swapaxes(-1, -2)
        (m, k), n = a.shape[-2:], right.shape[-2]
        count = prod(a.shape[:-2])
        if not count * m * n * k:
            return [np.zeros((*a.shape[:-1], n), np.float32)]
        left = to_bf16(a).reshape(count, m, k).transpose(1, 0, 2)
        rows = to_bf16(right).reshape(-1, n, k)
        tiles = [tiled_weights(self._plan, rows[g % len(rows)]) for g in range(count)]
        if self._open is not None and isinstance(self._finish, FloatFinish):
            behind = self._open.of_groups(inputs, a.shape[:-2], n)
            tiles = [
                finished_float_weights(self._plan, own, stages, self._finish) for own, stages in zip(tiles, behind)
            ]
        return [self._product(left, np.stack(tiles), n, count * m * n * k).reshape(*a.shape[:-1], n)]

    def _product(self, x: Array, weights: Array, outputs: int, work: int, other: Array | None = None) -> Array:
        """Sums [groups, rows, outputs] of x [rows, groups, K] and tiled weights, in one dispatch of `work` products.

        Or codes of them, to which those of `other` [groups, rows, outputs] may be added.
        """
        rows, groups, columns = x.shape
        m, k, n = blocks(self._plan, rows, columns, outputs)
        design = with_sizes(self._graph, self._plan, self.machine, (m, k, n), groups, self._finish)
        design = with_tables(design, self._tables)
        a = np.zeros((m, groups, k), x.dtype)
        a[:rows, :, :columns] = x
        arrays = {"a": a.reshape(m, -1), "b": weights}
        if other is not None:
            arrays["r"] = np.zeros(residual_shape(self._plan, m, n, groups, None), np.int8)
            arrays["r"][:, :rows, :outputs] = other
        return self._simulated(design, arrays, work, groups * m * k * n)[:, :rows, :outputs]

    def _simulated(self, design: Design, arrays: Mapping[str, Array], work: int, padded: int) -> Array:
        """C of one dispatch, which is added to the usage: `work` multiply-adds, `padded` with padding."""
        run = simulate(design, self.machine, arrays)
        if run.deadlock is not None:
            raise Error("NEUC-E679", f"{design.name} deadlocks: {run.deadlock}", hint="please report this program")
        self.usage.add(run, self.machine, self._plan.kind.a, (work, padded), self._switch, self._plan.kind.rate)
        c = np.asarray(run.outputs["c"])
        return from_bf16(c) if result_type(self._plan.operands, self._finish) == "bf16" else c


def finish_from(node: Node) -> Finish | None:
    """What a segment's field ``codes`` says; None if it is empty, as of products that leave as sums."""
    names = [field.name for field in fields(Finish)]
    node.only(names)
    return Finish(*(node.get(name).integer(0, getattr(MOST_FINISH, name)) for name in names)) if node.value else None


def window_from(node: Node, dtype: str = "i8") -> Window | None:
    """What a segment's field ``window`` says of values of `dtype`; None if it is empty, as of products of rows."""
    node.only(["channels", "kernel", "strides", "pads", "dilations", "parts"])
    if not node.value:
        return None
    pairs = [node.get(key).list_of(lambda n: n.integer(1, MOST), 2) for key in ("kernel", "strides", "dilations")]
    pads = node.get("pads").list_of(lambda n: n.integer(0, MOST), 4)
    if [len(pair) for pair in pairs] != [2, 2, 2] or len(pads) != 4:
        raise node.refuse("expected two sizes, two strides, two dilations and four pads")
    kernel, strides, dilations = ((pair[0], pair[1]) for pair in pairs)
    channels, parts = (node.get(key).integer(1, MOST) for key in ("channels", "parts"))
    if channels % parts:
        raise node.get("parts").refuse("expected equal parts of the channels")
    return Window(channels, kernel, strides, (pads[0], pads[1], pads[2], pads[3]), dilations, parts, dtype)


def into_from(node: Node) -> Padded | None:
    """What a segment's field ``into`` says; None if it is empty."""
    node.only(["lines", "pixels", "pixel", "top", "left"])
    if not node.value:
        return None
    sizes = [node.get(key).integer(1, MOST) for key in ("lines", "pixels", "pixel")]
    return Padded(sizes[0], sizes[1], sizes[2], node.get("top").integer(0, MOST), node.get("left").integer(0, MOST))


def _name(node: Node, known: Mapping[str, object]) -> str:
    """A string that is a key of `known`."""
    name = node.string()
    if name not in known:
        raise node.refuse(f"{name!r} is none of {', '.join(known)}")
    return name
