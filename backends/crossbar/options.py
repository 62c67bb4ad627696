"""Options of crossbar targets: texts in braces become a chip and passes. What the passes do is theirs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.passes import ModulePass

from neuc.backends.crossbar.draw_converters import DrawConverters
from neuc.backends.crossbar.remap import RemapStuck
from neuc.backends.crossbar.schedule import ScheduleTiles
from neuc.backends.paradigm_target import option_error
from neuc.errors import Error, Exit
from neuc.passes.calibrate_inputs import CalibrateInputs
from neuc.passes.insert_converters import InsertConverters
from neuc.passes.map_to_crossbar import MapToCrossbar
from neuc.passes.unroll_lstm import MAX_STEPS, MOST_STEPS, UnrollLstm
from neuc.passes.unroll_relaxation import UnrollRelaxation
from neuc.runtime.analog.device_table import read_table
from neuc.runtime.analog.devices import DeviceModel
from neuc.runtime.analog.models import make_model, model_class
from neuc.runtime.analog.photonic import PhotonicChip
from neuc.runtime.analog.tiles import Chip

OPTIONS: dict[str, str] = {
    "tile": "lines of an array, inputs x outputs, such as 256x256",
    "device": "device model: ideal, pcm, hermes1, hermes2, joshi, reram, reram-cmo, sonos, or a .csv table",
    "g_min": "lowest conductance, µS",
    "g_max": "highest conductance, µS",
    "prog_noise": "factor on programming noise",
    "read_noise": "factor on the device model's read noise",
    "drift": "factor on drift",
    "temperature": "degrees Celsius while time passes",
    "dac_bits": "bits of input converters; none for ideal ones",
    "adc_bits": "bits of output converters; none for ideal ones",
    "adc_bound": "range of output converters",
    "adc": "kind of output converter: uniform (ideal steps), sar, ramp",
    "adc_mismatch": "relative mismatch of a converter's elements: capacitors of sar, steps of ramp",
    "mode": "how inputs are applied: one-pass, pos-neg, bit-serial, pwm",
    "range": "what inputs are scaled by: absmax (each sample's largest), a number, or an .npz file to calibrate with",
    "out_noise": "standard deviation at output converters",
    "cycle_noise": "noise of each product, relative to sqrt(Σ|w|v²)",
    "doublings": "conversions repeated at half the input when an output is out of range",
    "wires": "none, closed (aihwkit's closed form) or exact (nodal analysis)",
    "r_wire": "ohms of a wire segment",
    "curvature": "nonlinearity of devices: I ~ sinh(curvature V)",
    "scaling": "largest weight is 1 in each column, or in each tile",
    "compensation": "correction for drift: none, global, column",
    "slices": "digits that weights are cut into",
    "slice_bits": "bits of a digit",
    "verify": "rounds of program-and-verify",
    "tolerance": "µS within which a device is not programmed again",
    "stuck_low": "share of devices stuck at g_min",
    "stuck_high": "share of devices stuck at g_max",
    "chip": "which chip, for stuck devices and converters",
    "remap": "negate columns where stuck devices make that better: yes, no",
    "cores": "arrays of the chip; 0 for as many as it takes",
    "share": "several tiles on one array: yes, no",
    "steps": "most steps of a recurrent layer compiled one by one; more, or an unknown number, are a loop",
}


@dataclass(frozen=True)
class Reader:
    """The options given for a target, read with names in messages.

    Attributes:
        target: the target's name.
        given: texts by option.
        defaults: what the target has where nothing is given.
    """

    target: str
    given: Mapping[str, str]
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])

    def text(self, name: str, default: str = "") -> str:
        """An option's text."""
        return self.given.get(name, self.defaults.get(name, default))

    def number(self, name: str, default: float) -> float:
        """A finite number.

        Raises:
            Error: NEUC-E002, it is none.
        """
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise option_error(self.target, name, text, f"give a number: {OPTIONS[name]}")
        return value

    def count(self, name: str, default: int) -> int:
        """A whole number, 0 or more; ``none`` is 0.

        Raises:
            Error: NEUC-E002, it is none.
        """
        text = self.text(name)
        if not text:
            return default
        if not text.isdecimal() or len(text) > 12:
            raise option_error(self.target, name, text, f"give a whole number: {OPTIONS[name]}")
        return int(text)

    def bits(self, name: str) -> int:
        """Bits of a converter; 0 for ``none``.

        Raises:
            Error: NEUC-E002, it is no number; NEUC-E652, no converter has so many.
        """
        if self.text(name) == "none":
            return 0
        bits = self.count(name, 8)
        if not bits:
            hint = "converters have 2 to 16 bits; 'none' is an ideal one"
            raise Error("NEUC-E652", f"{name} = 0 makes no sense", hint=hint, exit_code=Exit.USAGE)
        return bits

    def truth(self, name: str, default: bool) -> bool:
        """Yes or no.

        Raises:
            Error: NEUC-E002, it is neither.
        """
        text = self.text(name) or ("yes" if default else "no")
        if text not in ("yes", "no"):
            raise option_error(self.target, name, text, "write yes or no")
        return text == "yes"

    def tile(self) -> tuple[int, int]:
        """Lines of an array.

        Raises:
            Error: NEUC-E651, they make no sense.
        """
        text = self.text("tile", "256x256")
        rows, _, columns = text.partition("x")
        if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
            hint = "write inputs x outputs, such as 256x256; both at least 1"
            raise Error("NEUC-E651", f"a tile of {text} makes no sense", hint=hint, exit_code=Exit.USAGE)
        return int(rows), int(columns)


def chip_of(reader: Reader) -> Chip:
    """The chip that options describe.

    Raises:
        Error: something about it makes no sense.
    """
    wires = reader.text("wires", "none")
    if wires not in ("none", "closed", "exact"):
        raise option_error(reader.target, "wires", wires, OPTIONS["wires"])
    ohms = reader.number("r_wire", 1.0) if wires == "exact" else 0.0
    if ohms < 0:
        raise option_error(reader.target, "r_wire", f"{ohms:g}", "resistances are 0 or more ohms")
    return Chip(
        _device(reader),
        stuck_low=reader.number("stuck_low", 0.0),
        stuck_high=reader.number("stuck_high", 0.0),
        chip=reader.count("chip", 0),
        verify_rounds=reader.count("verify", 0),
        verify_tolerance=reader.number("tolerance", 0.0),
        r_word=ohms,
        r_bit=ohms,
        temperature=reader.number("temperature", 25.0),
    )


def _device(reader: Reader) -> DeviceModel:
    name = reader.text("device", "ideal")
    given = {key: reader.number(key, 0.0) for key in _DEVICE_OPTIONS if reader.text(key)}
    if name.endswith(".csv"):
        return make_model("table", {**read_table(Path(name)), **given})
    fields = {f.name for f in dataclasses.fields(model_class(name))}
    return make_model(name, {key: value for key, value in given.items() if key in fields})


_MISMATCH = 0.02
"""Of the unit elements of sar and ramp converters: assumed."""
_SHARED = (
    *("dac_bits", "adc_bits", "adc_bound", "adc", "adc_mismatch", "mode", "range"),
    *("out_noise", "cycle_noise", "doublings", "compensation", "cores", "steps"),
)
"""Options that say the same for meshes."""
_DEVICE_OPTIONS = ("g_min", "g_max", "prog_noise", "read_noise", "drift")


MESH_OPTIONS: dict[str, str] = {
    "tile": "modes of the meshes, inputs x outputs, such as 64x64",
    "layout": "clements (depth N) or reck (depth 2N - 3)",
    "phase_error": "standard deviation of every phase, radians",
    "imbalance": "standard deviation of splitters from 50:50, radians",
    "loss_db": "loss of an interferometer, dB",
    "crosstalk": "share of neighbours' phases that reaches a phase shifter",
    "phase_bits": "bits of phase converters; none for ideal ones",
    **{name: OPTIONS[name] for name in _SHARED},
}


def mesh_passes(given: Mapping[str, str]) -> list[ModulePass]:
    """From layers to scheduled photonic meshes.

    Raises:
        Error: an option makes no sense.
    """
    reader = Reader("xbar-mesh", given, {"tile": "64x64", "phase_bits": "none"})
    chip = PhotonicChip(
        reader.text("layout", "clements"),
        reader.number("phase_error", 0.01),
        reader.number("imbalance", 0.0),
        reader.number("loss_db", 0.0),
        reader.number("crosstalk", 0.0),
        reader.bits("phase_bits"),
    )
    rows, columns = reader.tile()
    # Singular values carry the scale of a mesh; scaling columns would change them for nothing.
    mapping = MapToCrossbar(
        rows=rows,
        columns=columns,
        device="mesh",
        scaling="tile",
        compensation=reader.text("compensation", "global"),
    )
    calibration, converters = _converters(reader, g_max=0.0)
    mapping.check()
    schedule = ScheduleTiles(rows, columns, reader.count("cores", 0), share=False).on(chip)
    return [_unrolled(reader), UnrollRelaxation(), mapping, *calibration, *converters, schedule]


def passes_of(reader: Reader) -> list[ModulePass]:
    """From layers to scheduled tiles.

    Raises:
        Error: an option makes no sense.
    """
    chip, (rows, columns) = chip_of(reader), reader.tile()
    mapping = MapToCrossbar(
        rows=rows,
        columns=columns,
        device=chip.device.name,
        cells=chip.device.cells,
        scaling=reader.text("scaling", "column"),
        compensation=reader.text("compensation", "global"),
        slices=reader.count("slices", 1),
        slice_bits=reader.count("slice_bits", 3),
        verify_rounds=chip.verify_rounds,
        verify_tolerance=chip.verify_tolerance,
    )
    calibration, converters = _converters(reader, chip.device.g_max)
    mapping.check()
    remap = [RemapStuck().on(chip)] if reader.truth("remap", True) else []
    schedule = ScheduleTiles(rows, columns, reader.count("cores", 0), reader.truth("share", True)).on(chip)
    return [_unrolled(reader), UnrollRelaxation(), mapping, *calibration, *remap, *converters, schedule]


def _unrolled(reader: Reader) -> UnrollLstm:
    unrolled = UnrollLstm(reader.count("steps", MAX_STEPS))
    if not 1 <= unrolled.steps <= MOST_STEPS:
        raise option_error(reader.target, "steps", str(unrolled.steps), f"use 1 to {MOST_STEPS}")
    return unrolled


def _converters(reader: Reader, g_max: float) -> tuple[list[ModulePass], list[ModulePass]]:
    """Passes that calibrate input ranges, and those that put converters in."""
    calibration, input_range = _range(reader)
    converters = InsertConverters(
        dac_bits=reader.bits("dac_bits"),
        adc_bits=reader.bits("adc_bits"),
        adc_bound=reader.number("adc_bound", 10.0),
        adc_kind=reader.text("adc", "uniform"),
        mode=reader.text("mode", "one-pass"),
        input_range=input_range,
        out_noise=reader.number("out_noise", 0.0),
        cycle_noise=reader.number("cycle_noise", 0.0),
        doublings=reader.count("doublings", 0),
        wire_drop=1.0 if reader.text("wires") == "closed" else 0.0,
        r_wire=reader.number("r_wire", 0.35),
        g_max=g_max,
        curvature=reader.number("curvature", 0.0),
    )
    converters.check()
    drawn = DrawConverters(reader.number("adc_mismatch", _MISMATCH), reader.count("chip", 0))
    drawn.check()
    return calibration, [converters, drawn]


def _range(reader: Reader) -> tuple[list[ModulePass], float]:
    text = reader.text("range", "absmax")
    if text == "absmax":
        return [], 0.0
    if text.endswith(".npz"):
        return [CalibrateInputs(text)], 0.0
    value = reader.number("range", 0.0)
    if value <= 0:
        raise option_error(reader.target, "range", text, OPTIONS["range"])
    return [], value


Defaults = Mapping[str, str]


def passes_with(target: str, defaults: Defaults) -> Callable[[Mapping[str, str]], list[ModulePass]]:
    """The function that a target's `place` names."""
    return lambda given: passes_of(Reader(target, given, defaults))
