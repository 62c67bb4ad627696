"""Measuring what encoding a ternary layer runs fastest in on this machine, for `neuc compile --tune`.

The kernels are those that lowerings launch, on made-up weights. What is chosen from the figures, and where they are
kept, is the business of `tuning.py`.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xdsl.utils.exceptions import VerifyException

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.encodings import CPU_ENCODINGS, Matrix
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct_linear import DirectLinearKernel, linear_layout, pack_scales, panel_products
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue, TernaryDequantizeKernel
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.lut import TABLE_BYTES
from neuc.dialects.dims import Dim
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_types import EncodingAttr, TritsType
from neuc.passes.analysis.tile_cost import choose_tile, largest_group
from neuc.runtime.loader import load_kernels
from neuc.runtime.native.pool import aligned_bytes

REPEATS = 9
"""Rounds in which each candidate runs once; the best third counts."""
_READ_PAST = 64
_SHORTEST = 200e-6
"""Seconds that one sample takes at least."""
_FALLBACK_CACHE = 32 << 20
_MOST_COPIES = 512 << 20
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@dataclass(frozen=True)
class Shape:
    """What is measured.

    Attributes:
        trits: the weight.
        tokens: rows of activations.
        cached: whether weights stay in cache between runs; if not, runs go over copies larger than the last cache.
    """

    trits: TritsType
    tokens: int
    cached: bool


class _Launch:
    """A kernel in this process, with the weights it goes over in turn."""

    def __init__(
        self, kernel: KernelSpec, isa: Isa, slots: Sequence[np.ndarray | int], work: int, scratch: int
    ) -> None:
        function = kernel.build(isa)
        name = function.sym_name.data
        self._code = load_kernels({name: compile_object(function, isa)}, [name], features=isa.features)
        self._call = _ENTRY(self._code.addresses[name])
        self._keep = slots
        plain = [slot.ctypes.data if isinstance(slot, np.ndarray) else slot for slot in slots]
        self._slots = (ctypes.c_int64 * len(plain))(*plain)
        self._scratch = aligned_bytes(max(scratch, 64))
        self._work = work

    def __call__(self, weights: int = 0) -> None:
        """Run once, on the weights at an address if there are several copies."""
        if weights:
            self._slots[1] = weights
        self._call(ctypes.addressof(self._slots), 0, self._work, self._scratch.ctypes.data)


class Candidate:
    """A layer in one encoding, ready to run.

    Attributes:
        encoding: its name.
        y: what a run computes, f32 [tokens, N].

    Args:
        shape: what to run.
        encoding: its name.
        isa: the instruction set.

    Raises:
        VerifyException: the encoding does not hold the weights, or kernels do not read them.
    """

    def __init__(self, shape: Shape, encoding: str, isa: Isa) -> None:
        trits, tokens = shape.trits, shape.tokens
        self.encoding = encoding
        rule, cpu = ENCODINGS[encoding], CPU_ENCODINGS[encoding]
        g = largest_group(trits, encoding) if rule.lookup else 1
        if reason := rule.reason_against(trits.level_set, g):
            raise VerifyException(reason)
        tile = choose_tile(trits, EncodingAttr.of(encoding, g))
        rows = trits.plane_count * trits.rows
        matrix = Matrix(trits.level_set, g, rows, trits.columns, trits.group_size, tile.bm, tile.bk)
        if reason := cpu.reason_against(matrix):
            raise VerifyException(reason)
        random = np.random.default_rng(0)
        self._q = random.integers(-127, 128, tokens * trits.columns + _READ_PAST).astype(np.int8)
        self._s = np.ones(tokens, np.float32)
        self.y = np.zeros((tokens, trits.rows), np.float32)
        weights = random.choice(np.array(trits.level_set, np.int8), (rows, trits.columns))
        scales = np.full((trits.plane_count, trits.rows, trits.groups), 0.5, np.float32)
        layout = cpu.layout(isa, matrix)
        run = self._direct if isinstance(layout, DirectLayout) else self._look_up
        packed, self._steps = run(shape, isa, matrix, weights, scales)
        self._copies = _copies(packed, 1 if shape.cached else max(1, 2 * last_cache() // packed.nbytes))
        self._next = 0

    def _direct(
        self, shape: Shape, isa: Isa, matrix: Matrix, weights: np.ndarray, scales: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[_Launch, bool]]]:
        """One launch."""
        trits, tokens, cpu = shape.trits, shape.tokens, CPU_ENCODINGS[self.encoding]
        whole = cpu.layout(isa, Matrix(**{**vars(matrix), "rows": trits.rows}))
        assert isinstance(whole, DirectLayout)
        layout = linear_layout(whole)
        packed = np.concatenate([cpu.pack(plane, layout)[0] for plane in np.split(weights, trits.plane_count)])
        by_chunk = pack_scales(scales, layout)
        epilogue = Epilogue(trits.rows, trits.plane_count, trits.groups, bias=False)
        panels = panel_products(isa) is not None and trits.plane_count * trits.groups == 1
        kernel = DirectLinearKernel(layout, epilogue, by_chunk.dtype == np.float16, None, panels)
        slots = [self._q, packed, self.y, tokens, self._s, by_chunk, 0, 1]
        return packed, [(_Launch(kernel, isa, slots, kernel.units(tokens), kernel.scratch_bytes(isa)), True)]

    def _look_up(
        self, shape: Shape, isa: Isa, matrix: Matrix, weights: np.ndarray, scales: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[_Launch, bool]]]:
        """Tables, sums, then values."""
        trits, tokens, cpu = shape.trits, shape.tokens, CPU_ENCODINGS[self.encoding]
        layout = cpu.layout(isa, matrix)
        packed, start = cpu.pack(weights, layout)
        if cpu.tables is None:
            raise VerifyException(f"{self.encoding} is not measured on {isa.name}")
        tables = cpu.tables(isa, layout)
        builder = tables.build(tables.per_token)
        made = aligned_bytes(tokens * tables.per_token * TABLE_BYTES)
        sums = np.zeros((tokens, trits.groups, matrix.rows), np.int32)
        build = _Launch(builder, isa, [self._q, made, tokens], tokens * builder.units_per_token, builder.scratch)
        product = cpu.product(isa, layout)
        starts = 0 if start is None else start
        slots = [made, packed, sums, tokens, starts, tables.per_token]
        multiply = _Launch(product.kernel, isa, slots, product.units(Dim.of(tokens)).value, product.scratch)
        dequantize = TernaryDequantizeKernel(Epilogue(trits.rows, trits.plane_count, trits.groups, bias=False))
        by_output = np.ascontiguousarray(scales.swapaxes(-1, -2))
        slots = [sums, self._s, by_output, 0, self.y, 1]
        end = _Launch(dequantize, isa, slots, tokens * dequantize.units_per_token, 0)
        return packed, [(build, False), (multiply, True), (end, False)]

    def __call__(self) -> None:
        """Run once, on the next copy of the weights."""
        address = self._copies[self._next].ctypes.data
        self._next = (self._next + 1) % len(self._copies)
        for launch, weighted in self._steps:
            launch(address if weighted else 0)


def last_cache() -> int:
    """Bytes of the last cache that one core sees; 32 MB where the system does not say."""
    sizes: list[int] = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = index.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=_FALLBACK_CACHE)


def measure(
    shape: Shape, encodings: Sequence[str], isa: Isa, tick: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Seconds that a layer takes in each encoding that holds it, on one core; candidates take turns.

    Args:
        shape: the layer.
        encodings: the candidates.
        isa: the instruction set to compile for.
        tick: called now and then.
    """
    candidates: list[Candidate] = []
    for encoding in encodings:
        try:
            candidates.append(Candidate(shape, encoding, isa))
        except VerifyException:
            continue
        tick()
    samples: dict[str, list[float]] = {candidate.encoding: [] for candidate in candidates}
    counts = {candidate.encoding: _count(candidate) for candidate in candidates}
    for _ in range(REPEATS):
        for candidate in candidates:
            samples[candidate.encoding].append(_seconds(candidate, counts[candidate.encoding]))
        tick()
    return {encoding: sorted(found)[REPEATS // 3] for encoding, found in samples.items()}


def _seconds(candidate: Candidate, count: int) -> float:
    start = time.thread_time()
    for _ in range(count):
        candidate()
    return (time.thread_time() - start) / count


def _count(candidate: Candidate) -> int:
    """Runs that make a sample long enough, found by warming up."""
    candidate()
    return max(1, round(_SHORTEST / max(_seconds(candidate, 1), 1e-9)))


def _copies(packed: np.ndarray, count: int) -> list[np.ndarray]:
    """So many copies that start at whole cache lines, as far as half a gigabyte reaches."""
    stride = -(-packed.nbytes // 64) * 64
    count = max(1, min(count, _MOST_COPIES // stride))
    memory = aligned_bytes(count * stride)
    found = [memory[at * stride : at * stride + packed.nbytes] for at in range(count)]
    for copy in found:
        copy[:] = packed.reshape(-1).view(np.uint8)
    return found
