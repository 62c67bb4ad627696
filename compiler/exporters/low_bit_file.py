"""From one ONNX file to another whose few-level weights are in a low-bit form."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto

from neuc.compiler.exporters.low_bit_weights import FORMS, Change, write_low_bit_weights
from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.files import check_writable, replacing
from neuc.compiler.importers import import_model
from neuc.compiler.importers.library_steps import TARGET_OPSET
from neuc.dialects.context import NeucContext
from neuc.errors import Error

_IR_VERSIONS = {"int2-qdq": 13, "int4-qdq": 10}
"""ONNX IR versions that know the element type."""


def convert_onnx(source: Path, target: Path, form: str) -> list[Change]:
    """Write `source` to `target` with the weights that hold few levels in the form `form`, one of `FORMS`.

    Returns:
        One record for each layer with constant weights, those left alone among them.

    Raises:
        Error: what importing raises; NEUC-E114 if no weight could be written so; NEUC-E005.
    """
    assert form in FORMS
    check_writable(target)
    context = NeucContext()
    model = export_onnx(import_model(source, context), context.weights, newest=TARGET_OPSET)
    changes = write_low_bit_weights(model, form)
    if all(change.kept for change in changes):
        why = "; ".join(sorted({change.kept for change in changes})) or "it has no layers with constant weights"
        raise Error(
            "NEUC-E114",
            f"{source.name}: no weight can be written as {form}: {why}",
            hint="weights must hold few levels already; `neuc compile --quantize` makes ternary ones",
        )
    model.ir_version = max(model.ir_version, _IR_VERSIONS.get(form, 0))
    _check(model)
    with replacing(target) as temporary:
        onnx.save_model(model, temporary)
    return changes


def _check(model: ModelProto) -> None:
    """What is written must be a model; that it is not would be a bug here."""
    if any(opset.domain not in ("", "ai.onnx") for opset in model.opset_import):
        return
    # Outputs behind operators that only others know had no shape until these operators went.
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    for output, known in zip(model.graph.output, inferred, strict=True):
        output.CopyFrom(known)
    tensors = [output.type.tensor_type for output in model.graph.output if output.type.HasField("tensor_type")]
    bare = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in bare:  # the checker wants a shape where onnxruntime does not
        tensor.shape.SetInParent()
    onnx.checker.check_model(model)
    for tensor in bare:
        tensor.ClearField("shape")
