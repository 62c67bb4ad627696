"""What a conversion did, as data: for people in text, for programs as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from neuc.compiler.snn.calibrate import Calibration
from neuc.compiler.snn.layer_errors import SpikeError, limiting
from neuc.compiler.snn.recipes import Recipe
from neuc.compiler.snn.support import EXACT, Verdict

_SHOWN = 12


@dataclass
class ConversionReport:
    """What happened.

    Attributes:
        model: what was converted.
        recipe: how.
        steps: T.
        start: the first step that the read-out counts.
        verdicts: what became of each operation.
        calibration: thresholds, and what is odd about the data.
        errors: of each layer, on calibration data.
        carried: products whose inputs are numbers and no spikes, and why; the first layer's is the analog input.
        chosen: what `auto` tried, in order; empty for a recipe that was given.
        seconds: of the whole conversion.
    """

    model: str
    recipe: Recipe
    steps: int
    start: int
    verdicts: list[Verdict]
    calibration: Calibration
    errors: list[SpikeError] = field(default_factory=list[SpikeError])
    carried: list[str] = field(default_factory=list[str])
    chosen: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def __repr__(self) -> str:
        """One line; `as_json` has everything."""
        return f"<ConversionReport {self.model}: {', '.join(self.facts())}>"

    def facts(self) -> list[str]:
        """The most important figures in a few words each."""
        sites, warnings, most = len(self.calibration.sites), len(self.warnings), limiting(self.errors)
        facts = [f"recipe {self.recipe.name}", f"T = {self.steps}"]
        facts += [f"read out from step {self.start}"] if self.start else []
        facts += [f"{sites} layer{'' if sites == 1 else 's'} of neurons"]
        facts += [] if most is None else [f"most is lost in {most.name}: {most.own:.2%} of its outputs' size"]
        facts += [f"{warnings} warning{'' if warnings == 1 else 's'}"] if warnings else []
        return facts

    @property
    def warnings(self) -> list[str]:
        """What is odd, in sentences."""
        return self.calibration.warnings

    def as_json(self) -> dict[str, Any]:
        """Everything, for `json.dumps`."""
        errors = [{**dataclasses.asdict(e), "own": e.own, "worst": e.worst} for e in self.errors]
        most = limiting(self.errors)
        return {
            "model": self.model,
            "recipe": {**dataclasses.asdict(self.recipe), "steps": self.steps, "start": self.start},
            "support": [dataclasses.asdict(v) for v in self.verdicts],
            "calibration": dataclasses.asdict(dataclasses.replace(self.calibration, original={})),  # no IR
            "layer_errors": errors,
            "limiting_layer": None if most is None else {"name": most.name, "cause": most.worst, "error": most.own},
            "refitted": self.calibration.refitted,
            "numbers_not_spikes": self.carried,
            "tried": self.chosen,
            "warnings": self.warnings,
            "seconds": self.seconds,
        }

    def support_text(self) -> str:
        """The support check: counts, and everything that is not exact."""
        counts: dict[tuple[str, str, str], list[Verdict]] = {}
        for verdict in self.verdicts:
            counts.setdefault((verdict.verdict, verdict.role, verdict.reason), []).append(verdict)
        lines: list[str] = []
        for (word, role, reason), found in counts.items():
            kinds = ", ".join(sorted({v.op for v in found}))
            names = [next(iter(v.nodes), v.op) for v in found]
            shown = ", ".join(names[: _SHOWN if word != EXACT else 3])
            more = f" and {len(names) - 3} more" if word == EXACT and len(names) > 3 else ""
            lines.append(f"  {word:<11}  {role:<9} {len(found):>3} {kinds}: {reason} ({shown}{more})")
        return "\n".join(lines)

    def errors_text(self) -> str:
        """The errors of layers as a table, and the layer that limits."""
        lines = ["  layer                 incoming  clipping  quantised    uneven     total"]
        for e in self.errors:
            row = (e.incoming, e.clipping, e.quantisation, e.unevenness, e.total)
            lines.append(f"  {e.name[:20]:<20}" + "".join(f"{100 * v:>9.2f}%" for v in row))
        most = limiting(self.errors)
        if most is not None:
            lines.append(f"  most is lost in {most.name}, by {most.worst}: {100 * most.own:.2f} % of its outputs' size")
        return "\n".join(lines)
