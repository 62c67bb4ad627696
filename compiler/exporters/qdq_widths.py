"""Which activations of an int8 model have to be in 16 bits: those that lose most in 8, as few as an error allows.

Residual sums, norms and what follows a GELU in transformers have a few values a hundred times the others; 8 bits then
either clip those or round the rest to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from neuc.compiler.accuracy import compare
from neuc.compiler.exporters.qdq_int8 import Form, Plan, QdqLayer, rewrite
from neuc.compiler.exporters.qdq_scales import Values, by_loss, observe, scales_of
from neuc.compiler.inputs import Arrays
from neuc.compiler.verification import reference_session

LARGE_ERROR = 0.1
"""Relative L2 error above which something is wrong with the form or the data, or 8 bits are too few."""
WANTED_ERROR = 0.05
"""What activations in 16 bits are to bring it down to, on calibration rows."""
_ROWS = 4
"""Calibration rows that errors are measured on while widths are chosen."""
_SHOWN = 4


@dataclass(frozen=True)
class Calibrated:
    """A float model, what its tensors held on calibration rows, and what it computes on some of them."""

    model: ModelProto
    form: Form
    plan: Plan
    values: Mapping[str, Values]
    feeds: Sequence[Arrays]
    expected: list[list[np.ndarray]]

    @staticmethod
    def of(model: ModelProto, form: Form, feeds: Sequence[Arrays]) -> Calibrated:
        """Run the float model.

        Raises:
            Error: NEUC-E260, onnxruntime cannot; NEUC-E699, a tensor is not finite.
        """
        plan = Plan(model.graph, form)
        few = list(feeds[:_ROWS])
        return Calibrated(model, form, plan, observe(model, plan.tensors, feeds), few, outputs_of(model, few))

    def write(self, wide: Collection[str]) -> tuple[ModelProto, list[QdqLayer]]:
        """The model in QDQ form, the activations in `wide` in 16 bits."""
        quantized = ModelProto()
        quantized.CopyFrom(self.model)
        scales = scales_of(self.values, self.plan.same, power_of_two=self.form.power_of_two, wide=wide)
        layers = rewrite(quantized, self.plan, scales, self.form, wide)
        quantized.producer_name = "neuc"
        return quantized, layers

    def error(self, quantized: ModelProto) -> float:
        """Relative L2 error of a quantised form on the calibration rows; infinite if it is not finite."""
        error = compare(self.expected, outputs_of(quantized, self.feeds)).relative_l2
        return error if np.isfinite(error) else float("inf")

    def least_wide(self) -> tuple[str, ...]:
        """The tensors that lose most in 8 bits, as few as bring the error down to what is wanted, all if none do.

        More of them are taken not to be worse, so that a few measurements find the number.
        """
        ranked = self._ranked()
        low, high = 0, len(ranked)
        while low < high:
            middle = (low + high) // 2
            wide = [name for _, names in ranked[:middle] for name in names]
            if self.error(self.write(wide)[0]) <= WANTED_ERROR:
                high = middle
            else:
                low = middle + 1
        return tuple(name for _, names in ranked[:low] for name in names)

    def reason(self, wide: Collection[str], narrow: float) -> str:
        """Which activations are in 16 bits, and why."""
        worst = [(db, names[0]) for db, names in self._ranked() if names[0] in wide][:_SHOWN]
        shown = ", ".join(
            f"{name} ({db:.0f} dB in 8 bits, its largest value {self.values[name].spread:.0f} times the typical one)"
            for db, name in worst
        )
        more = " and others" if len(wide) > len(worst) else ""
        return (
            f"{len(wide)} of {len(self.values)} activations are in 16 bits, as 8 alone give a relative L2 error of "
            f"{narrow:.2g} on calibration rows: {shown}{more}"
        )

    def _ranked(self) -> list[tuple[float, tuple[str, ...]]]:
        scales = scales_of(self.values, self.plan.same, power_of_two=self.form.power_of_two)
        return by_loss(self.values, self.plan.same, scales)


def outputs_of(model: ModelProto, feeds: Sequence[Arrays]) -> list[list[np.ndarray]]:
    """What onnxruntime computes of a model on each of `feeds`."""
    session = reference_session(model.SerializeToString())
    return [[np.asarray(a) for a in session.run(None, dict(feed))] for feed in feeds]
