"""One small product for each encoding and instruction set, with its check: what `neuc doctor` tries on a machine."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.emit import emit_check
from neuc.backends.cpu.encodings import CPU_ENCODINGS, Matrix
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.direct_linear import DirectLinearKernel, linear_layout, panel_products
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.ternary_products import launch_product, pack
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.lut import TABLE_BYTES
from neuc.backends.cpu.self_check import add_linear_check, checked_rows
from neuc.backends.cpu.target import host_isa
from neuc.dialects.cpu import CheckOp
from neuc.dialects.dims import Dim
from neuc.dialects.ternary_encodings import ENCODINGS, LEVELS
from neuc.dialects.weight_store import WeightStore
from neuc.runtime.cpu_features import host_architecture, host_features
from neuc.runtime.program import NativeSegment, Program

_ROWS, _COLUMNS = 40, 203
"""No multiple of what kernels take at a time."""
_BLOCK_ROWS = 32


@dataclass(frozen=True)
class Sample:
    """A program that is nothing but one check.

    Attributes:
        program: the program.
        kernels: object code by name.
        weights: arrays by key.
    """

    program: Program
    kernels: Mapping[str, bytes]
    weights: Mapping[str, np.ndarray]


def host_isas() -> list[Isa]:
    """Every instruction set that this CPU, as narrowed by ``NEUC_CPU_FEATURES``, can run; widest first."""
    known = [host_isa(), Isa.avx512(), Isa.avx2(), Isa.sse4(), Isa.neon(), Isa.portable(), Isa.scalar()]
    fitting = [isa for isa in known if isa.arch == host_architecture() and host_features() >= set(isa.features)]
    return list(dict.fromkeys(fitting))


def sample(isa: Isa, kind: str) -> Sample:
    """A ternary product of made-up weights in this encoding; of direct ones the fused layer, too, with its panels."""
    encoding, rule = CPU_ENCODINGS[kind], ENCODINGS[kind]
    g = rule.largest_group(LEVELS, None)
    layout = encoding.layout(isa, Matrix(LEVELS, g, _ROWS, _COLUMNS, _COLUMNS, _BLOCK_ROWS, _COLUMNS))
    weights = np.random.default_rng(zlib.crc32(kind.encode())).integers(-1, 2, (_ROWS, _COLUMNS)).astype(np.int8)
    s = SegmentLowering(isa, WeightStore(), {})
    packed = pack(s, kind, weights, kind, layout)
    count, tokens = 0, Dim.of(1)
    source = s.temp(_COLUMNS)
    if encoding.tables is not None:
        tables = encoding.tables(isa, layout)
        count, build = tables.per_token, tables.build(tables.per_token)
        source = s.temp(count * TABLE_BYTES)
        s.launch(build, [s.temp(_COLUMNS), source, tokens], work=build.units_per_token, scratch=build.scratch)
    launch_product(s, source, tokens, packed, s.temp(4 * _ROWS), count)
    if isinstance(layout, DirectLayout):
        _add_fused(s, kind, linear_layout(layout), weights)
    checks = tuple(emit_check(op) for op in s.block.ops if isinstance(op, CheckOp))
    segment = NativeSegment((), 0, 0, (), (), (), (), (), checks)
    program = Program((), (), {"seg0": segment}, ())
    objects = {name: compile_object(op, isa) for name, op in s.kernels.items()}
    return Sample(program, objects, {key: s.store.get(key) for key in program.weight_keys()})


def _add_fused(s: SegmentLowering, kind: str, layout: DirectLayout, weights: np.ndarray) -> None:
    """The fused layer of the same weights, with its checks."""
    packed = pack(s, f"{kind}.fused", weights, kind, layout)
    kernel = DirectLinearKernel(layout, Epilogue(_ROWS, 1, 1, bias=False), panels=panel_products(s.isa) is not None)
    s.kernels[kernel.name] = kernel.build(s.isa)
    add_linear_check(s, kernel, packed.weights, weights[None, : checked_rows(layout)], None)
