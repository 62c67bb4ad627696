"""From a float ONNX file to one in int8 QDQ form: calibration, the file, and how far it is from the float model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto

from neuc.compiler.accuracy import Agreement, compare
from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.exporters.qdq_int8 import Form, QdqLayer
from neuc.compiler.exporters.qdq_scales import feeds_of, zero_inputs
from neuc.compiler.exporters.qdq_widths import LARGE_ERROR, Calibrated, outputs_of
from neuc.compiler.files import check_writable, replacing
from neuc.compiler.importers import import_model
from neuc.compiler.inputs import Arrays, load_npz
from neuc.dialects.context import NeucContext
from neuc.errors import Error
from neuc.passes.fold_batch_norm import FoldBatchNorm

OPSET = 20
"""Newest opset that is written: what int8 tools of 2026 take."""
MOST_ROWS = 512
"""Calibration rows that are used at most."""
WIDE_OPSET = 21
"""The first with activations in 16 bits."""
_INTEGERS = frozenset(
    ["QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"]
)
"""Operators of models whose activations are integers already."""
_HELD_OUT = 4
"""One row in so many is kept from calibration, to measure on, if there are so many."""


@dataclass(frozen=True)
class Quantized:
    """What was written: layers, tensors in int8, rows used, and the agreement with the float model on other rows.

    ``held_out`` is 0 if there were too few rows, and the agreement then on those that calibrated it. ``notes`` say what
    makes the result doubtful; ``wide`` are the tensors that are in 16 bits, ``why_wide`` says why.
    """

    layers: tuple[QdqLayer, ...]
    tensors: int
    calibrated_on: int
    held_out: int
    agreement: Agreement
    notes: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    why_wide: str = ""


def quantize_onnx(source: Path, target: Path, calib: Path, form: Form) -> Quantized:
    """Write `source` to `target` in int8 QDQ form, calibrated on the rows of `calib`.

    Raises:
        Error: what importing raises; NEUC-E006, they cannot be read or lack an input; NEUC-E260, onnxruntime fails;
            NEUC-E311 and NEUC-E699, the data do not fit it; NEUC-E699, it is int8 already or nothing in it can be;
            NEUC-E005.
    """
    check_writable(target)
    context = NeucContext()
    module = import_model(source, context)
    FoldBatchNorm().apply(context, module)
    model = export_onnx(module, context.weights, newest=OPSET)
    _refuse_integers(source, model)
    feeds = feeds_of(load_npz(calib), model.graph, MOST_ROWS)
    tested = feeds[-(len(feeds) // _HELD_OUT) :] if len(feeds) >= _HELD_OUT else []
    used = feeds[: len(feeds) - len(tested)]
    calibrated = Calibrated.of(model, form, used)
    if not calibrated.values:
        raise Error(
            "NEUC-E699",
            f"{source.name}: nothing in it can be int8",
            hint="convolutions, Gemm and MatMul of float32 can; see the operators with `neuc inspect`",
        )
    quantized, layers = calibrated.write(())
    wide: tuple[str, ...] = ()
    why_wide = ""
    if not (form.eight_bits or form.power_of_two):
        narrow = calibrated.error(quantized)
        if narrow > LARGE_ERROR:
            calibrated = Calibrated.of(export_onnx(module, context.weights, newest=WIDE_OPSET), form, used)
            wide = calibrated.least_wide()
            quantized, layers = calibrated.write(wide)
            why_wide = calibrated.reason(wide, narrow)
    onnx.checker.check_model(quantized, full_check=True)
    agreement = compare(outputs_of(model, tested or used), outputs_of(quantized, tested or used))
    with replacing(target) as temporary:
        onnx.save_model(quantized, temporary)
    notes = _notes(feeds, agreement, form)
    count = len(calibrated.values)
    return Quantized(tuple(layers), count, len(used), len(tested), agreement, notes, wide, why_wide)


def is_integer(model: ModelProto) -> bool:
    """Whether activations of a model are integers already."""
    return _integer_node(model) is not None


def _integer_node(model: ModelProto) -> NodeProto | None:
    return next((node for node in model.graph.node if node.op_type in _INTEGERS), None)


def _refuse_integers(source: Path, model: ModelProto) -> None:
    found = _integer_node(model)
    if found is not None:
        what = f"{found.op_type} {found.name}".rstrip()
        raise Error(
            "NEUC-E699", f"{source.name} is int8 already ({what})", hint="give the float model it was made from"
        )


def _notes(feeds: list[Arrays], agreement: Agreement, form: Form) -> tuple[str, ...]:
    """What makes the result doubtful, and what may help."""
    notes = zero_inputs(feeds)
    if agreement.relative_l2 > LARGE_ERROR:
        cure = "real or more --calib rows may" if form.layers_only else "--layers-only, or real --calib rows, may"
        notes.append(f"relative L2 error {agreement.relative_l2:.2g} is large: {cure} help")
    return tuple(notes)
