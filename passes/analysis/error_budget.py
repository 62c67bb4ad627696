"""How many ternary planes each layer needs so that a measured error stays in a budget.

The error of a whole model is measured, never modelled; what makes it affordable is a bounded number of measurements:

1. Every layer with the same planes: 2, then fewer or more, until U planes keep the budget and U - 1 do not.
2. The layers in at most `GROUPS` groups of neighbours: with U - 1 planes everywhere but in one group, by how much does
   the error fall, per weight? That orders the layers by what a plane more is worth.
3. Bisection over that order: the fewest layers that need U planes, the others keep U - 1.

If not even `max_planes` keep the budget, 2. and 3. decide which layers become float instead. Every assignment that is
returned as meeting the budget was measured to. Deterministic, and blind to what `evaluate` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isnan

from neuc.errors import Error
from neuc.passes.analysis.ternary_fit import MAX_PLANES

FLOAT = 0
GROUPS = 8
START = 2

Evaluate = Callable[[Mapping[str, int]], float]
"""The error of the model with these planes per layer; 0 means float."""


@dataclass(frozen=True)
class Layer:
    """A layer that can be ternary.

    Attributes:
        name: as option `layers` of `quantize-to-ternary` takes it.
        weights: how many weights it has.
    """

    name: str
    weights: int


@dataclass(frozen=True)
class Assignment:
    """Planes per layer.

    Attributes:
        planes: 1 to 4 for each layer; 0 for one that becomes float.
        error: what was measured with them.
        evaluations: how many assignments were measured to find this one.
        met: whether `error` is within the budget; if not, this is every layer as float.
    """

    planes: dict[str, int]
    error: float
    evaluations: int
    met: bool


def choose_planes(
    layers: Sequence[Layer], evaluate: Evaluate, budget: float, *, max_planes: int = MAX_PLANES
) -> Assignment:
    """Give each layer as few planes as keep the error within `budget`.

    Args:
        layers: the layers that can be ternary, in program order.
        evaluate: measures the error of an assignment; called at most `max_planes + GROUPS + log2(layers) + 3` times.
        budget: the largest error allowed.
        max_planes: the most planes a layer may have.

    Raises:
        Error: NEUC-E220, `max_planes` or `budget` is out of range.
    """
    if not 1 <= max_planes <= MAX_PLANES:
        raise Error("NEUC-E220", f"planes = {max_planes} is out of range", hint=f"choose 1 to {MAX_PLANES} planes")
    if not budget >= 0:
        raise Error("NEUC-E220", f"max-error = {budget} is no error budget", hint="give a number that is not negative")
    return _Search(list(layers), evaluate, budget, max_planes).run()


@dataclass
class _Search:
    layers: list[Layer]
    evaluate: Evaluate
    budget: float
    max_planes: int
    measured: dict[tuple[int, ...], float] = field(default_factory=dict)

    def run(self) -> Assignment:
        if not self.layers:
            return self._assignment(())
        uniform = self._fewest_uniform()
        if uniform is None:
            low, high = self.max_planes, FLOAT
        elif uniform == 1:
            return self._assignment(self._all(uniform))
        else:
            low, high = uniform - 1, uniform
        order = self._by_worth(low, high)
        few, many = 0, len(order)  # raising the first `few` does not do; raising the first `many` does, or nothing does
        while many - few > 1:
            middle = (few + many) // 2
            if self._error(self._raised(order[:middle], low, high)) <= self.budget:
                many = middle
            else:
                few = middle
        return self._assignment(self._raised(order[:many], low, high))

    def _fewest_uniform(self) -> int | None:
        """The fewest planes that keep the budget when every layer has them."""
        start = min(START, self.max_planes)
        for planes in range(start, self.max_planes + 1):
            if self._error(self._all(planes)) <= self.budget:
                break
        else:
            return None
        if planes > start or planes == 1:
            return planes
        return 1 if self._error(self._all(1)) <= self.budget else planes

    def _by_worth(self, low: int, high: int) -> list[int]:
        """Layers by how much raising them from `low` to `high` lowers the error for each weight, most first."""
        base = self._error(self._all(low))
        size = ceil(len(self.layers) / GROUPS)
        groups = [list(range(i, min(i + size, len(self.layers)))) for i in range(0, len(self.layers), size)]
        worth = {
            index: (base - self._error(self._raised(group, low, high))) / sum(self.layers[i].weights for i in group)
            for index, group in enumerate(groups)
        }
        ordered = sorted(worth, key=lambda index: -worth[index])
        return [i for index in ordered for i in groups[index]]

    def _all(self, planes: int) -> tuple[int, ...]:
        return (planes,) * len(self.layers)

    def _raised(self, chosen: Sequence[int], low: int, high: int) -> tuple[int, ...]:
        return tuple(high if i in set(chosen) else low for i in range(len(self.layers)))

    def _error(self, planes: tuple[int, ...]) -> float:
        if planes not in self.measured:
            error = self.evaluate(self._named(planes))
            self.measured[planes] = float("inf") if isnan(error) else error
        return self.measured[planes]

    def _named(self, planes: tuple[int, ...]) -> dict[str, int]:
        return {layer.name: p for layer, p in zip(self.layers, planes, strict=True)}

    def _assignment(self, planes: tuple[int, ...]) -> Assignment:
        error = self._error(planes)
        return Assignment(self._named(planes), error, len(self.measured), error <= self.budget)
