"""What a conversion makes: which neurons, how their spikes carry numbers, how their thresholds are found.

Names and defaults only; what recipes do is in the passes, and in `calibrate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from neuc.compiler.universe import nearest
from neuc.dialects.spike_types import BINARY, EventType, graded
from neuc.errors import Error, Exit
from neuc.passes.mark_neurons import GROUP_HINT, MAX_GROUP

Coding = Literal["rate", "differential"]
MAX_STEPS = 4096
"""Most time steps: sums of events then stay exact in f32 and in 32-bit integers."""


@dataclass(frozen=True)
class Recipe:
    """How a network is converted.

    Attributes:
        name: a, b or c.
        levels: how many powers of two a spike can be; 0 for binary spikes.
        coding: `rate`: the mean of spikes is the number; `differential`: spikes are its changes, weighted 1/t.
        about: one sentence for reports.
        group: how many neurons carry one number together (binary spikes).
    """

    name: str
    levels: int
    coding: Coding
    about: str
    group: int = 1

    @property
    def binary(self) -> bool:
        """Whether spikes are 0 or 1."""
        return self.levels == 0

    @property
    def events(self) -> EventType:
        """The type of its spikes."""
        return BINARY if self.binary else graded(self.levels)


RECIPES = {
    "a": Recipe("a", 0, "rate", "binary spikes of integrate-and-fire neurons with soft reset"),
    "b": Recipe("b", 4, "differential", "signed power-of-two spikes that carry changes"),
    "c": Recipe("c", 4, "rate", "signed power-of-two spikes, functions exact in expectation"),
}
DEEP, DEEP_LEVELS = 24, 7
"""Spikes of changes get so many levels where a network has more layers of neurons than the first number."""
THRESHOLDS = ("search", "max", "quantile", "ltb", "gaussian", "mse")
"""Ways to find thresholds; `search` simulates the network layer by layer."""


def recipe_of(name: str, levels: int | None = None, coding: str | None = None, group: int = 1) -> Recipe:
    """The recipe `name`, with other levels, another coding or groups of neurons if asked for.

    Raises:
        Error: NEUC-E527.
    """
    if name not in RECIPES:
        hint = nearest(name, [*RECIPES, "auto"])
        raise Error("NEUC-E527", f"there is no recipe {name!r}", hint=hint, exit_code=Exit.USAGE)
    found = RECIPES[name]
    if levels is not None:
        if found.binary or not 1 <= levels <= 7:
            hint = "recipe a has binary spikes" if found.binary else "1 to 7: an int8 holds ±64"
            raise Error("NEUC-E527", f"recipe {name} with {levels} levels", hint=hint, exit_code=Exit.USAGE)
        found = replace(found, levels=levels)
    if coding is not None:
        if coding not in ("rate", "differential") or (found.binary and coding != "rate"):
            raise Error(
                "NEUC-E527",
                f"recipe {name} with {coding} coding",
                hint="rate or differential; binary spikes carry rates alone",
                exit_code=Exit.USAGE,
            )
        if coding != found.coding:
            carried = "rates" if coding == "rate" else "changes"
            about = f"signed power-of-two spikes that carry {carried}"
            found = replace(found, coding="rate" if coding == "rate" else "differential", about=about)
    if group != 1:
        if not found.binary or not 1 <= group <= MAX_GROUP:
            raise Error("NEUC-E527", f"recipe {name} with groups of {group}", hint=GROUP_HINT, exit_code=Exit.USAGE)
        found = replace(found, group=group, about=f"{found.about}, {group} neurons for each number")
    return found


def for_depth(recipe: Recipe, layers: int) -> Recipe:
    """The recipe with levels that suit a network of so many layers of neurons, where nobody asked for others.

    What a layer rounds in one step the layers behind it get late, so that errors of deep networks fade only if each
    step can move a mean far and still finely.
    """
    if recipe.coding != "differential" or layers <= DEEP:
        return recipe
    about = f"{recipe.about}, of {DEEP_LEVELS} levels since {layers} layers of neurons are many"
    return replace(recipe, levels=DEEP_LEVELS, about=about)


def check_steps(steps: int) -> None:
    """Refuse numbers of time steps that make no sense.

    Raises:
        Error: NEUC-E523.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise Error("NEUC-E523", f"{steps} time steps", hint=f"choose 1 to {MAX_STEPS}", exit_code=Exit.USAGE)
