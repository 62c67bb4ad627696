"""The crossbar program as data: what an artifact's manifest says of its tiles under ``crossbar``.

Weights are not in it: an artifact's weights hold, under the names here, what each tile was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuc.runtime.analog.models import make_model, parameters_of
from neuc.runtime.analog.photonic import PhotonicChip
from neuc.runtime.analog.tiles import Chip
from neuc.runtime.checked_json import Node

FORMAT = 1
MANIFEST_KEY = "crossbar"
STATE = "crossbar.state"
"""Weight with the seed and the number of the run, i64 [2]."""
_CODE = "NEUC-E645"
_MOST_TILES = 1_000_000
_CHIP_NUMBERS = ("stuck_low", "stuck_high", "verify_tolerance", "r_word", "r_bit", "temperature")
_CHIP_COUNTS = ("chip", "verify_rounds")
_MESH_NUMBERS = ("phase_error", "imbalance", "loss_db", "crosstalk")
_TILE_COUNTS = (
    *("number", "rows", "columns", "adc_levels", "dac_levels"),
    *("core", "step", "row", "column", "copies", "passes"),
)
_TILE_NUMBERS = ("adc_bound", "out_noise", "read_noise", "conversions")
_TILE_TEXTS = ("layer", "compensation", "adc_kind", "mode", "weights", "gains")


@dataclass(frozen=True)
class TileEntry:
    """One tile of a program.

    Attributes:
        number: tells tiles apart; random numbers depend on it.
        layer: name of the layer it computes a part of.
        rows: input lines.
        columns: output lines.
        weights: name of its weights, f32 [panels, rows, panel].
        gains: name of the digital factors of its outputs, f32, whole panels.
        compensation: correction for drift: ``none``, ``global`` or ``column``.
        dac_levels: steps of its input converters; 0 for none.
        adc_levels: steps of its output converters; 0 for none.
        adc_bound: range of its output converters; 0 for none.
        adc_kind: ``uniform``, ``sar`` or ``ramp``.
        mode: how inputs are applied: ``one-pass``, ``pos-neg``, ``bit-serial`` or ``pwm``.
        out_noise: noise of the output converters.
        read_noise: noise of a product relative to sqrt(Σ |w| v²).
        passes: conversions of one input vector (positive and negative parts, bits).
        conversions: input vectors in one inference of one sample.
        core: array it is on.
        step: when that array is used, counted in an inference's steps.
        row: its first input line on that array.
        column: its first output line there.
        copies: how often the layer is on the chip.
    """

    number: int
    layer: str
    rows: int
    columns: int
    weights: str
    gains: str
    compensation: str = "none"
    dac_levels: int = 0
    adc_levels: int = 0
    adc_bound: float = 0.0
    adc_kind: str = "uniform"
    mode: str = "one-pass"
    out_noise: float = 0.0
    read_noise: float = 0.0
    passes: int = 1
    conversions: float = 1.0
    core: int = 0
    step: int = 0
    row: int = 0
    column: int = 0
    copies: int = 1


@dataclass(frozen=True)
class CrossbarProgram:
    """All tiles of a program and what they have in common.

    Attributes:
        chip: device model, faults, wires and temperature of memory arrays, or the errors of photonic meshes.
        tiles: the tiles.
        tile_rows: input lines an array of the machine has.
        tile_columns: output lines an array of the machine has.
        cores: arrays in use.
    """

    chip: Chip | PhotonicChip
    tiles: tuple[TileEntry, ...]
    tile_rows: int
    tile_columns: int
    cores: int

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {
            "format": FORMAT,
            **_chip_to_json(self.chip),
            "tile": [self.tile_rows, self.tile_columns],
            "cores": self.cores,
            "tiles": [vars(tile) for tile in self.tiles],
        }

    @staticmethod
    def from_manifest(manifest: Mapping[str, object]) -> CrossbarProgram | None:
        """The program of an artifact; None if it has none.

        Raises:
            Error: NEUC-E645, it is no such program; or what is wrong with its device or chip.
        """
        if MANIFEST_KEY not in manifest:
            return None
        cure = "the artifact is damaged or of another version; compile the model again"
        node = Node(manifest[MANIFEST_KEY], "crossbar program", _CODE, cure)
        node.get("format").integer(FORMAT, FORMAT)
        sizes = node.get("tile").list_of(lambda size: size.integer(1, 65536), 2)
        if len(sizes) != 2:
            raise node.get("tile").refuse("expected two sizes")
        return CrossbarProgram(
            _chip(node),
            node.get("tiles").list_of(_tile, _MOST_TILES),
            *sizes,
            node.get("cores").integer(0, _MOST_TILES),
        )


def _chip_to_json(chip: Chip | PhotonicChip) -> dict[str, object]:
    if isinstance(chip, PhotonicChip):
        return {"mesh": chip.parameters()}
    return {
        "device": {"model": chip.device.name, "parameters": parameters_of(chip.device)},
        "chip": {name: getattr(chip, name) for name in (*_CHIP_NUMBERS, *_CHIP_COUNTS)},
    }


def _chip(node: Node) -> Chip | PhotonicChip:
    if node.has("mesh"):
        mesh = node.get("mesh")
        errors = {name: mesh.get(name).number() for name in _MESH_NUMBERS}
        return PhotonicChip(mesh.get("layout").string(100), phase_bits=mesh.get("phase_bits").integer(), **errors)
    device, chip = node.get("device"), node.get("chip")
    parameters = {name: value.value for name, value in device.get("parameters").fields(100)}
    numbers: dict[str, float] = {name: chip.get(name).number() for name in _CHIP_NUMBERS}
    counts: dict[str, int] = {name: chip.get(name).integer() for name in _CHIP_COUNTS}
    return Chip(make_model(device.get("model").string(200), parameters), **numbers, **counts)  # type: ignore[arg-type]


def _tile(node: Node) -> TileEntry:
    values: dict[str, object] = {name: node.get(name).integer() for name in _TILE_COUNTS}
    values |= {name: node.get(name).number() for name in _TILE_NUMBERS}
    values |= {name: node.get(name).string(10_000) for name in _TILE_TEXTS}
    return TileEntry(**values)  # type: ignore[arg-type]
