"""The options of a compilation, as the command line, the Python API and the cache share them.

Light: importing this loads no compiler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuc.errors import Error, Exit

QUANTIZE = ("none", "ternary", "int8", "auto")
FALLBACK = ("host", "error")
HEADS = ("int8", "int4", "int8-row")
KV_TYPES = ("f16", "f32", "int8")
SCALES = ("row", "group", "tensor")
DEFAULT_MAX_ERROR = 0.05
"""Error budget of ``quantize="auto"`` when none is given."""

MAX_PLANES = 4


@dataclass(frozen=True)
class CompileOptions:
    """What a compilation is asked for.

    Attributes:
        target: a target's name, with options in braces: ``cpu-tl2{bm=64}``.
        quantize: ``none``, ``ternary`` (every layer that can be, with `planes` planes), ``int8`` (the same layers, with
            weights of eight bits), ``auto`` (as few planes as keep the measured error within `max_error`), or None for
            the target's default.
        planes: planes per ternary weight for ``ternary``; None is 2. For ``auto``, the most it may use; None is 4.
        scale: which ternary weights share a scale: ``row``, ``group`` (128 columns) or ``tensor``.
        max_error: error budget of ``auto``, limit for ``ternary``:
            mean cosine error for outputs that are normalised embeddings, relative L2 otherwise.
        calib: ``.npz`` with input arrays to measure errors on; made-up inputs without it. Targets with an option
            ``scales`` (NPUs) fix the scales of int8 activations by them.
        shapes: sizes for symbolic input dims: input name -> shape.
        fallback: what happens to operators the target cannot run: ``host`` runs them in onnxruntime, ``error`` refuses.
        isa: instruction set: ``host``, ``avx512``, ``avx2``, ``portable``.
        keep_ir: put the IR of every level into the artifact.
        recognize: layers that the model quantised itself, weights with few levels and 8-bit activations, become ternary
            for every target and whatever `quantize` says: nothing is lost.
        head: of decoders: what embedding and head are rounded to, ``int8``, ``int4`` (groups of 32) or ``int8-row``;
            None leaves blocks of 8 and 4 bits as they are, and is int8 for others.
        kv: of decoders: element type of the key and value caches, ``f16``, ``f32``, or ``int8`` with a scale for
            each token and head.
        read_as: of GGUF files: layouts they have where an id means several things (`formats/sources.py`).
        dt: of NIR graphs: seconds in a step; None takes what the file says.
        reset: of NIR graphs: ``file``, or ``subtract`` or ``snntorch`` for resets to 0 that are meant as soft ones.
        keep_state: of NIR graphs: make states inputs and outputs of the program.
        tune: measure on this machine which encoding each ternary linear layer is fastest in, where the target leaves a
            choice.
    """

    target: str = "cpu"
    quantize: str | None = None
    planes: int | None = None
    scale: str = "row"
    max_error: float | None = None
    calib: Path | None = None
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict[str, "tuple[int | str, ...]"])
    fallback: str = "host"
    isa: str = "host"
    keep_ir: bool = False
    recognize: bool = True
    head: str | None = None
    kv: str = "f16"
    read_as: tuple[str, ...] = ()
    tune: bool = False
    dt: float | None = None
    reset: str = "file"
    keep_state: bool = False

    def __post_init__(self) -> None:
        if self.quantize is not None and self.quantize not in QUANTIZE:
            raise _bad("quantize", self.quantize, f"choose {', '.join(QUANTIZE)}")
        if self.fallback not in FALLBACK:
            raise _bad("fallback", self.fallback, f"choose {', '.join(FALLBACK)}")
        if self.head is not None and self.head not in HEADS:
            raise _bad("head", self.head, f"choose {', '.join(HEADS)}")
        if self.kv not in KV_TYPES:
            raise _bad("kv", self.kv, f"choose {', '.join(KV_TYPES)}")
        if self.planes is not None and not 1 <= self.planes <= MAX_PLANES:
            raise _bad("planes", self.planes, f"choose 1 to {MAX_PLANES}")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise _bad("max-error", self.max_error, "choose a number between 0 and 1")
        if self.scale not in SCALES:
            raise _bad("scale", self.scale, f"choose {', '.join(SCALES)}")
        if self.max_error is not None and self.quantize == "none":
            hint = "use --quantize auto, which measures errors and chooses planes"
            raise _bad("max-error", f"{self.max_error} with --quantize none", hint)
        if self.planes is not None and self.quantize in ("none", "int8"):
            raise _bad("planes", f"{self.planes} with --quantize {self.quantize}", "leave one of them out")

    @property
    def measured_on(self) -> str:
        """What the inputs that errors are measured on are called."""
        return "made-up inputs" if self.calib is None else self.calib.name

    def to_json(self) -> dict[str, object]:
        """The options as plain data; the calibration file counts by content elsewhere."""
        plain = dataclasses.asdict(self)
        plain["calib"] = None if self.calib is None else self.calib.name
        return plain


def parse_shape(text: str) -> tuple[str, tuple[int | str, ...]]:
    """``x=1x3xHxW`` as a name and a shape.

    Raises:
        Error: NEUC-E002.
    """
    name, equals, sizes = text.rpartition("=")
    parts = sizes.split("x")
    if not equals or not name or not all(part.isalnum() for part in parts):
        raise _bad("shape", text, "write NAME=1x3x224x224; a name in place of a number keeps the dim symbolic")
    shape = tuple(int(part) if part.isdigit() else part for part in parts)
    if any(size == 0 for size in shape):
        raise _bad("shape", text, "sizes are at least 1")
    return name, shape


def _bad(option: str, value: object, hint: str) -> Error:
    return Error("NEUC-E002", f"--{option} {value} makes no sense", hint=hint, exit_code=Exit.USAGE)
