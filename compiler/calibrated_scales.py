"""A float model with int8 activations whose scales calibration data fix, for machines that finish integers themselves.

The model becomes its int8 QDQ form in memory (`exporters/qdq_*.py`), which is imported again: what follows are the
passes of any model that is int8 already. Which targets want it is told in `pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.driver import Driver
from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.exporters.qdq_file import MOST_ROWS, OPSET, is_integer
from neuc.compiler.exporters.qdq_int8 import Form
from neuc.compiler.exporters.qdq_scales import feeds_of, zero_inputs
from neuc.compiler.exporters.qdq_widths import Calibrated
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.inputs import load_npz
from neuc.compiler.options import CompileOptions
from neuc.compiler.report import LayerRow
from neuc.errors import Error, Exit


@dataclass(frozen=True)
class FixedScales:
    """The graph-level module with fixed scales, and notes on where they come from and what is doubtful in them.

    ``sqnr_db`` is what rounding left of each layer's weights, by node: signal to noise, None where nothing was lost.
    """

    module: ModuleOp
    notes: tuple[str, ...]
    sqnr_db: Mapping[str, float | None]

    def told(self, row: LayerRow) -> LayerRow:
        """A layer's row for the report: the passes took the weights that were rounded here for the model's own."""
        if row.node not in self.sqnr_db:
            return row
        return replace(row, sqnr_db=self.sqnr_db[row.node], source="fitted", note="", ulp=None, activations="neuc")


def with_fixed_scales(driver: Driver, options: CompileOptions, *, ternary: bool) -> FixedScales | str:
    """The driver's graph-level module, which stays as it is, in int8; or why it has no such form.

    Args:
        driver: holds the float model.
        options: names the calibration data.
        ternary: make weights -1, 0 and 1 times a scale a row where there are columns enough; int8 otherwise.

    Raises:
        Error: NEUC-E002, more than one plane is asked for; NEUC-E006, the data lack an input; NEUC-E311 and NEUC-E699,
            they do not fit it or a tensor is not finite on them; NEUC-E260, onnxruntime cannot run the model.
    """
    assert options.calib is not None
    if ternary and (options.planes or 1) > 1:
        hint = "give --planes 1, --quantize int8, or scales=run-time"
        what = f"--planes {options.planes} with fixed scales: sums of several planes cannot be rounded as one on a core"
        raise Error("NEUC-E002", what, hint=hint, exit_code=Exit.USAGE)
    model = export_onnx(driver.module, driver.context.weights, newest=OPSET)
    if is_integer(model):
        return "it has integer activations already"
    feeds = feeds_of(load_npz(options.calib), model.graph, MOST_ROWS)
    found = Calibrated.of(model, Form(eight_bits=True, tables=True, ternary=ternary), feeds)
    if not found.values:
        return "no layer of it can be int8"
    quantized, layers = found.write(())
    rows = f"{len(feeds)} rows" if len(feeds) > 1 else "1 row"
    note = (
        f"{len(found.values)} activations are int8 with one fixed scale each, calibrated on {rows} of "
        f"{options.calib.name} (scales=run-time finds scales from every input, and the CPU finishes all sums)"
    )
    sqnr_db = {layer.node: layer.sqnr_db for layer in layers if not layer.kept}
    return FixedScales(import_onnx(quantized, driver.context), (note, *zero_inputs(feeds)), sqnr_db)
