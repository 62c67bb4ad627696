"""What a compilation did, as data, as JSON and as text.

The figures are measured elsewhere; nothing here computes more than sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast


@dataclass(frozen=True)
class LayerRow:
    """One layer with weights.

    Attributes:
        node: the layer's name: its first ONNX node, with `#2` … where a node became several layers.
        op: what it became, such as ``ternary.linear``.
        shape: the weight matrix, (outputs, inputs).
        ternary: whether its weights are; of few levels, that is, and not int8.
        encoding: kernel layout of the weights: ``tl2``, ``i2``, ``i8`` or ``f32``.
        planes: ternary planes; 0 for a float layer.
        scale: ``row``, ``tensor`` or ``group<128>``.
        bytes_before: of the float weights.
        bytes_after: of the packed weights with their scales.
        sqnr_db: signal to noise of the weights; None for a float layer, and where nothing is lost.
        note: why it stayed float, or what is special.
        error: relative L2 error of its output against the float model's; None where `Report.layer_errors` says why it
            was not measured, or where it is not finite.
        source: ``recognised`` (the model's weights hold few levels), ``fitted``, or ``float``.
        levels: the integers that ternary weights are, times scales.
        ulp: how far recognised weights are from the model's at most, in units in the last place; None for others.
        activations: who rounds the layer's activations to 8 bits: ``model`` or ``neuc``; ``float`` if nobody does.
        why: why its encoding is what it is; empty where the target fixes it.
        int8: whether its weights are int8: one plane of more levels than are taken for few.
        tiles: on a crossbar, the devices, tiles and cells that hold its weights; empty for others.
    """

    node: str
    op: str
    shape: tuple[int, ...]
    ternary: bool
    encoding: str
    planes: int
    scale: str
    bytes_before: int
    bytes_after: int
    sqnr_db: float | None
    note: str = ""
    error: float | None = None
    source: str = "float"
    levels: tuple[int, ...] = ()
    ulp: int | None = None
    activations: str = "float"
    why: str = ""
    int8: bool = False
    tiles: str = ""


@dataclass(frozen=True)
class HostRow:
    """A node that runs in onnxruntime, and why."""

    node: str
    op: str
    reason: str


@dataclass
class Report:
    """What a compilation did.

    Attributes:
        model: the model's file name.
        target: the target's name.
        isa: instruction set compiled for.
        features: CPU features the code needs.
        quantize: ``none``, ``ternary``, ``int8`` or ``auto``.
        layers: layers with weights, in order.
        hosts: nodes left to onnxruntime.
        native_share: share of multiply-adds that run natively; None when there are none.
        segments: segments by kind.
        kernels: how many launches use each kernel.
        launches: how many launches there are.
        barriers: before how many of them all threads meet.
        budget: error budget, if there was one.
        layer_errors: on what the layers' errors were measured, or why they were not; empty if nothing is quantised.
        measured: agreement of the quantised with the float model, both interpreted.
        verified: agreement of the compiled program with onnxruntime.
        verify_inputs: on how many inputs `verified` was measured.
        steps: (name, seconds) of passes and stages.
        seconds: of the whole compilation, and of writing the artifact once that is done.
        artifact_bytes: size of the artifact; 0 if none was written.
        hints: further lines for the user.
        array: what an NPU array should take, as `compiler/npu/figures.py` says it; None for other targets.
        cached: whether this comes from the cache of an earlier compilation.
    """

    model: str
    target: str
    isa: str = ""
    features: list[str] = field(default_factory=list[str])
    quantize: str = "none"
    layers: list[LayerRow] = field(default_factory=list[LayerRow])
    hosts: list[HostRow] = field(default_factory=list[HostRow])
    native_share: float | None = None
    segments: dict[str, int] = field(default_factory=dict[str, int])
    kernels: dict[str, int] = field(default_factory=dict[str, int])
    launches: int = 0
    barriers: int = 0
    budget: float | None = None
    layer_errors: str = ""
    measured: dict[str, object] | None = None
    verified: dict[str, object] | None = None
    verify_inputs: int = 0
    steps: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    seconds: float = 0.0
    artifact_bytes: int = 0
    hints: list[str] = field(default_factory=list[str])
    array: dict[str, object] | None = None
    cached: bool = False

    def __repr__(self) -> str:
        """One line; `str` is the whole report as `neuc compile` prints it."""
        return f"<Report {self.model} for {self.target}: {', '.join(self.facts())}>"

    def __str__(self) -> str:
        from neuc.compiler.report_text import report_lines

        # Seen through the folder and through the package, this file has two classes of one name for pyright.
        return "\n".join(report_lines(self))  # pyright: ignore[reportArgumentType]

    def facts(self) -> list[str]:
        """The most important figures in a few words each: layers and their size, what is left to onnxruntime, error."""
        from neuc.compiler.report_text import human_bytes

        size = human_bytes(sum(row.bytes_after for row in self.layers))
        layers = f"{len(self.layers)} layer{'' if len(self.layers) == 1 else 's'} of {size}"
        facts = [layers if self.layers else "no layers with weights"]
        share = self.ternary_share
        facts += [f"{share:.0%} ternary"] if share else []
        facts += [f"{len(self.hosts)} node{'' if len(self.hosts) == 1 else 's'} in onnxruntime"] if self.hosts else []
        agreements = (("error against the float model", self.measured), ("against onnxruntime", self.verified))
        facts += [
            f"{name}: {found['measure']} {float(str(found['error'])):.2g}"
            for name, found in agreements
            if found is not None and found["error"] is not None
        ]
        return facts

    def to_json(self) -> dict[str, object]:
        """The report as plain data."""
        return dataclasses.asdict(self)

    def lasting(self) -> dict[str, object]:
        """What goes into the artifact: all but what another compilation of the same input would change."""
        passing = ("steps", "seconds", "artifact_bytes", "cached")
        return {key: value for key, value in self.to_json().items() if key not in passing}

    def count(self, step: str, seconds: float) -> None:
        """Add a step to the time it took."""
        self.steps.append((step, seconds))
        self.seconds += seconds

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Report:
        """A report as `to_json` wrote it."""
        plain = dict(data)
        layers = cast("Sequence[dict[str, object]]", plain.pop("layers"))
        hosts = cast("Sequence[dict[str, object]]", plain.pop("hosts"))
        report = Report(**plain)  # type: ignore[arg-type]
        report.layers = [_row(row) for row in layers]
        report.hosts = [HostRow(**row) for row in hosts]  # type: ignore[arg-type]
        report.steps = [(str(name), float(seconds)) for name, seconds in report.steps]
        return report

    @property
    def ternary_share(self) -> float | None:
        """Share of layer weights (by count) that are ternary; None without layers."""
        sizes = [(_size(row), row.ternary) for row in self.layers]
        total = sum(size for size, _ in sizes)
        return sum(size for size, ternary in sizes if ternary) / total if total else None

    @property
    def int8_share(self) -> float | None:
        """Share of layer weights (by count) that are int8; None without layers."""
        sizes = [(_size(row), row.int8) for row in self.layers]
        total = sum(size for size, _ in sizes)
        return sum(size for size, int8 in sizes if int8) / total if total else None


def _row(plain: Mapping[str, object]) -> LayerRow:
    tuples = {name: tuple(cast("list[int]", plain.get(name, ()))) for name in ("shape", "levels")}
    return LayerRow(**{**plain, **tuples})  # type: ignore[arg-type]


def _size(row: LayerRow) -> int:
    count = 1
    for size in row.shape:
        count *= size
    return count
