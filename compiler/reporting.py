"""Filling the compile report from modules and programs.

What a layer is, why a node is on the host and what a kernel is called is told by the parts that decide it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr

from neuc.backends.cpu.target import isa_text
from neuc.compiler.importers.onnx_file import FIXED_INPUTS
from neuc.compiler.inputs import symbol_sizes
from neuc.compiler.layer_errors import Measured
from neuc.compiler.machine_layers import on_tiles, with_synapses
from neuc.compiler.program import BuiltProgram
from neuc.compiler.report import HostRow, LayerRow, Report
from neuc.compiler.signature import signature_of
from neuc.dialects.context import NeucContext
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.onnx import decode_name
from neuc.dialects.store import ConstantOp, dims_of
from neuc.passes.analysis.level_sets import BOUNDS
from neuc.passes.analysis.multiply_adds import multiply_adds
from neuc.passes.analysis.ternary_layers import QuantRecord, layers, quantization_report
from neuc.passes.partition import host_nodes, is_host
from neuc.runtime.program import NativeSegment

_SHOWN_INPUTS = 4


def describe_inputs(module: ModuleOp, report: Report) -> None:
    """Note the inputs of an imported model that cannot be fed any more."""
    names = module.attributes.get(FIXED_INPUTS)
    if not isinstance(names, ArrayAttr) or not names.data:
        return
    fixed = [decode_name(name.data) for name in names if isinstance(name, StringAttr)]
    shown = ", ".join(fixed[:_SHOWN_INPUTS]) + (" …" if len(fixed) > _SHOWN_INPUTS else "")
    many = f"{len(fixed)} inputs with default values are constants of these" if len(fixed) > 1 else ""
    one = "an input with a default value is a constant of it"
    report.hints.append(f"{many or one} and cannot be fed: {shown}")


def describe_hosts(module: ModuleOp, report: Report) -> None:
    """Note the nodes of a partitioned module that run on the host, and how much of the work does not."""
    sizes = symbol_sizes(signature_of(module)[0])
    native = host = 0
    report.hosts = []
    for function in module.ops:
        if not isinstance(function, func.FuncOp):
            continue
        report.hosts += [HostRow(node.name, node.op_type, node.reason) for node in host_nodes(function)]
        for op in function.walk():
            count = multiply_adds(op, sizes)
            host, native = (host + count, native) if is_host(op) else (host, native + count)
    report.native_share = native / (native + host) if native + host else None


def describe_layers(module: ModuleOp, context: NeucContext, report: Report) -> None:
    """Note the layers of a tiled module: what they are now, their sizes and errors.

    Those that are no layers any more, as a machine took them with what makes codes of their sums, stay as noted before.
    """
    found = [
        LayerRow(
            node=record.layer,
            op=f"{'ternary' if record.planes else 'dense'}.{record.kind}",
            shape=(record.n, record.k),
            ternary=record.planes > 0 and not _is_int8(record),
            encoding=record.encoding or "f32",
            planes=record.planes,
            scale=record.scale,
            bytes_before=record.bytes_before,
            bytes_after=record.bytes_after,
            sqnr_db=record.sqnr_db,
            note=_note(record),
            source=record.source,
            levels=record.levels,
            ulp=record.ulp,
            activations=record.activations,
            why=record.why,
            int8=_is_int8(record),
        )
        for record in quantization_report(module, context.weights)
        if record.bytes_before
    ]
    found = with_synapses(module, found)
    now = {row.node: row for row in found}
    before = {row.node for row in report.layers}
    report.layers = [now.get(row.node, row) for row in report.layers] + [row for row in found if row.node not in before]
    report.layers = on_tiles(module, report.layers)


def _is_int8(record: QuantRecord) -> bool:
    """Whether a layer's weights are int8: one plane of more levels than are taken for few."""
    return record.planes == 1 and max(map(abs, record.levels), default=0) > BOUNDS[-1]


def _note(record: QuantRecord) -> str:
    """Why a layer is float; of a recognised one, what was lost where."""
    if record.ulp is None:
        return record.kept_reason
    levels = f"recognised, {len(record.levels)} levels, "
    exact = "exact" if record.ulp == 0 else f"exact to {record.ulp} ULP"
    return levels + exact + ("; activations rounded by neuc" if record.activations == "neuc" else "")


def describe_errors(measured: Measured, report: Report) -> None:
    """Note what was measured of the layers of a report."""
    if report.layers:
        report.layer_errors = measured.basis
    report.layers = [_with_error(row, measured.errors.get(row.node)) for row in report.layers]


def describe_rounded(module: ModuleOp, measured: Measured, report: Report) -> None:
    """Note the layers of a module whose floats were rounded to bf16, before it is placed, and what was measured."""
    rounded = {name: op for name, op in layers(module, MatmulOp) if isinstance(op, MatmulOp)}
    report.layers = [row for row in report.layers if row.node not in rounded]
    for name, op in rounded.items():
        if isinstance(op.b.owner, ConstantOp):
            n, k = (dim.value for dim in (dims_of(op.b)[-2:] if op.transpose_b else dims_of(op.b)[:-3:-1]))
            n *= max(1, op.group_count)
            before, after = 4 * n * k, 2 * n * k
            report.layers.append(LayerRow(name, op.name, (n, k), False, "bf16", 0, "", before, after, None))
    describe_errors(measured, report)


def _with_error(row: LayerRow, error: float | None) -> LayerRow:
    if error is None:
        return row
    if not math.isfinite(error):
        return replace(row, note=", ".join(filter(None, (row.note, "its error is not finite"))))
    return replace(row, error=error)


def describe_program(built: BuiltProgram, report: Report) -> None:
    """Note segments, kernels and the instruction set of a program."""
    program = built.emitted.program
    report.isa = isa_text(built.emitted.isa)
    report.features = sorted(built.emitted.isa.features)
    report.segments = dict(Counter(segment.kind for segment in program.segments.values()))
    native = [segment for segment in program.segments.values() if isinstance(segment, NativeSegment)]
    launches = [launch for segment in native for launch in segment.launches]
    report.launches, report.barriers = len(launches), sum(launch.barrier for launch in launches)
    report.kernels = dict(Counter(launch.kernel for launch in launches).most_common())
    if "npu" in built.facts:
        report.array = _array(built)


def _array(built: BuiltProgram) -> dict[str, object]:
    """What the array should take."""
    from neuc.compiler.npu.figures import array_figures
    from neuc.compiler.npu.products import PlacedParts, free_sizes, placed_products

    weights = cast("Mapping[str, np.ndarray]", built.emitted.weights)  # tables are whole arrays
    placed = PlacedParts(built.facts, built.emitted.program, weights)
    return array_figures(placed_products(placed), free_sizes(placed))
