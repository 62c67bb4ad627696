"""The kernel layouts there are for ternary and other few-level weights: what each holds, and how it is read.

Layouts of bytes are backends' business; passes ask here what an encoding can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2

LEVELS = (-1, 0, 1)
SHUFFLE_ENTRIES = 16
"""Entries of a table that one byte shuffle reads."""
MAX_GROUP = 4
"""Most activations one table covers."""


@dataclass(frozen=True)
class EncodingRule:
    """One kernel layout.

    Attributes:
        name: as in ``#ternary.encoding<name>``.
        summary: one line for people.
        lookup: whether products are read out of tables of activation sums rather than multiplied.
        groups: the g it can have: weights a table index covers; 1 for direct encodings.
        trits_only: it holds -1, 0 and 1 (or some of them) and nothing else.
        most_levels: how many levels it holds, if they are an arithmetic progression; 0 stands for any levels.
    """

    name: str
    summary: str
    lookup: bool = False
    groups: tuple[int, ...] = (1,)
    trits_only: bool = False
    most_levels: int = 0

    def reason_against(self, levels: Sequence[int], g: int) -> str | None:
        """Why it cannot hold these levels with this g; None if it can."""
        shown = list(levels)
        if self.trits_only:
            return (
                None
                if set(levels) <= set(LEVELS)
                else f"encoding {self.name} holds the levels -1, 0 and 1, not {shown}"
            )
        if self.most_levels and (len(levels) > self.most_levels or progression(levels) is None):
            return f"encoding {self.name} holds up to {self.most_levels} evenly spaced levels, not {shown}"
        if self.name == "tl1" and len(levels) ** g > SHUFFLE_ENTRIES:
            return (
                f"a full table of g = {g} weights with {len(levels)} levels has {len(levels) ** g} entries, "
                f"a byte shuffle holds {SHUFFLE_ENTRIES}"
            )
        return None

    def largest_group(self, levels: Sequence[int], group_size: int | None) -> int:
        """The largest g for these levels that cuts no scale group of `group_size` columns (None: one per row)."""
        fits = [g for g in self.groups if self.reason_against(levels, g) is None]
        whole = [g for g in fits if group_size is None or group_size % (4 * g) == 0]
        return max(whole) if whole else min(fits, default=1)

    def bits(self, levels: Sequence[int], g: int) -> float:
        """Bits a weight takes."""
        match self.name:
            case "tl2":
                return 5 / g
            case "tl1":
                return 4 / g
            case "bitserial":
                return planes_of(levels)
            case "t5":
                return 1.6
            case _:
                return {"i2": 2.0, "i4": 4.0}.get(self.name, 8.0)

    def table_levels(self, levels: Sequence[int]) -> tuple[int, ...]:
        """What one place of a table index stands for: () for mirrored tables of -1, 0, 1."""
        return {"tl1": tuple(levels), "bitserial": (0, 1)}.get(self.name, ())


ENCODINGS: dict[str, EncodingRule] = {
    rule.name: rule
    for rule in (
        EncodingRule("tl2", "look-up: index and sign of 3 trits, 1.67 bits", True, (1, 2, 3), trits_only=True),
        EncodingRule("tl1", "look-up: full tables, of 2 trits or 4 binary weights", True, (1, 2, 3, 4), False, 16),
        EncodingRule("bitserial", "look-up: one-bit planes, 4 weights a table", True, (1, 2, 3, 4), False, 16),
        EncodingRule("t5", "direct: five trits a byte, 1.6 bits", trits_only=True),
        EncodingRule("i2", "direct: two bits a weight, up to 4 levels", most_levels=4),
        EncodingRule("i4", "direct: four bits a weight, up to 16 levels", most_levels=16),
        EncodingRule("i8", "direct: one byte a weight, any levels"),
    )
}


def progression(levels: Sequence[int]) -> tuple[int, int] | None:
    """(lowest, step) of evenly spaced ascending levels; None if they are not."""
    step = levels[1] - levels[0]
    return (levels[0], step) if all(b - a == step for a, b in pairwise(levels)) else None


def planes_of(levels: Sequence[int]) -> int:
    """One-bit planes that the codes of these levels take."""
    return max(1, int(log2(max(1, len(levels) - 1))) + 1)


def mirrored_entries(g: int) -> int:
    """Entries of a table of all signed sums of g activations when negated sums share one entry: (3^g + 1) / 2."""
    return (3**g + 1) // 2
