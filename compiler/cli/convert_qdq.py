"""`neuc convert --format qdq-int8`: a float ONNX model as an int8 one. What is written: `exporters/qdq_int8.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from neuc.compiler.cli import arguments, console
from neuc.errors import Exit

FORMAT = "qdq-int8"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def qdq_options(command: _Command) -> _Command:
    """The options of this conversion."""
    for option in (
        click.option("--power-of-two", is_flag=True, help="qdq-int8: scales are powers of two, one a tensor (XINT8)."),
        click.option("--layers-only", is_flag=True, help="qdq-int8: int8 products; all between them stays float."),
        click.option("--eight-bits", is_flag=True, help="qdq-int8: no activation in 16 bits, whatever that costs."),
    ):
        command = option(command)
    return command


def convert_qdq(source: Path, target: Path, options: Mapping[str, Any], as_json: bool) -> int:
    """Quantise and say what came of it."""
    from neuc.compiler.exporters.qdq_file import quantize_onnx
    from neuc.compiler.exporters.qdq_int8 import Form

    if options["calib"] is None:
        hint = "an .npz with some inputs of the model, by name, rows along the first axis"
        raise arguments.usage_error(f"--format {FORMAT} needs --calib", hint)
    if source.suffix != ".onnx":
        raise arguments.usage_error(f"--format {FORMAT} takes an ONNX model, not {source}", "give a .onnx file")
    arguments.require_file(source)
    arguments.require_file(options["calib"])
    power = options["power_of_two"]
    form = Form(
        power_of_two=power, per_channel=not power, layers_only=options["layers_only"], eight_bits=options["eight_bits"]
    )
    done = quantize_onnx(source, target, options["calib"], form)
    for text in done.notes:
        console.note(f"warning: {text}")
    if as_json:
        console.product_json(
            {
                "file": str(target),
                "format": FORMAT,
                "form": dataclasses.asdict(form),
                "layers": [dataclasses.asdict(layer) for layer in done.layers],
                "activations": done.tensors,
                "calibrated_on": done.calibrated_on,
                "held_out": done.held_out,
                "agreement": done.agreement.to_json(),
                "notes": list(done.notes),
                "in_16_bits": list(done.wide),
            }
        )
        return Exit.OK
    for layer in done.layers:
        sqnr = "" if layer.sqnr_db is None else f", weights {layer.sqnr_db:.1f} dB"
        console.note(f"  {layer.op_type} {layer.node}: {f'stays float: {layer.kept}' if layer.kept else 'int8' + sqnr}")
    rows = arguments.counted(done.calibrated_on, "row")
    if done.why_wide:
        console.note(done.why_wide)
    narrow = arguments.counted(done.tensors - len(done.wide), "activation")
    console.note(f"{narrow} in int8{f', {len(done.wide)} in int16' if done.wide else ''}, calibrated on {rows}")
    where = (
        f"{arguments.counted(done.held_out, 'row')} held out" if done.held_out else "the calibration rows themselves"
    )
    console.note(f"against the float model, both in onnxruntime, on {where}: {done.agreement.describe()}")
    console.note(f"wrote {target}")
    return Exit.OK
