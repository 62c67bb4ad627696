"""Loops of a segment for concrete sizes: the launches of each step, in order. How they run is `plan.py`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import numpy as np

from neuc.runtime.executors.plan import Ints, SegmentCode
from neuc.runtime.program import Launch, Repeat
from neuc.runtime.shapes import bad_size, size_of

MAX_LAUNCHES = 2**20
"""Of a segment with its loops run out."""


def run_out(code: SegmentCode, symbols: Mapping[str, int]) -> SegmentCode:
    """The segment for these sizes without loops: nothing but the step's number differs between a loop's steps.

    Raises:
        Error: NEUC-E314, a number of steps is negative, or there are too many launches.
    """
    launches = code.segment.launches
    counts = {
        launch.repeat.symbol: size_of("a number of steps", launch.repeat.count, symbols)
        for launch in launches
        if launch.repeat is not None
    }
    if not counts:
        return code
    origin, steps = _order(code, launches, counts, symbols)
    sizes = np.diff(np.append(code.firsts, len(code.constants)))[origin]
    firsts = np.cumsum(sizes) - sizes
    slots = np.arange(int(sizes.sum())) - np.repeat(firsts - code.firsts[origin], sizes)
    values, stepped = _values(code, counts, symbols)
    own = np.full(len(code.constants), -1)
    own[code.value_slots] = code.value_numbers
    numbers = _at(own[slots], np.repeat(steps, sizes), stepped)
    works, efforts = (_at(what[origin], steps, stepped) for what in (code.works, code.efforts))
    return code.run_out(origin, slots, works, efforts, numbers, values)


def _order(
    code: SegmentCode, launches: tuple[Launch, ...], counts: Mapping[str, int], symbols: Mapping[str, int]
) -> tuple[Ints, Ints]:
    """Which launch comes when, and in which step of its loop."""
    origin: list[Ints] = []
    steps: list[Ints] = []
    total = 0

    def loop(numbered: tuple[int, Launch]) -> Repeat | None:
        return numbered[1].repeat

    for repeat, group in groupby(enumerate(launches), loop):
        body = np.array([number for number, _ in group], np.int64)
        count = 1 if repeat is None else counts[repeat.symbol]
        total += count * len(body)
        if total > MAX_LAUNCHES:
            raise bad_size(f"segment '{code.name}' has a loop of {count:,} steps, which are too many", symbols)
        origin.append(np.tile(body, count))
        steps.append(np.repeat(np.arange(count), len(body)))
    return np.concatenate(origin), np.concatenate(steps)


def _values(code: SegmentCode, counts: Mapping[str, int], symbols: Mapping[str, int]) -> tuple[Ints, Ints]:
    """Values of all expressions, those of a loop for each step behind the rest, and where: -1 for the rest's."""
    values: list[int] = []
    stepped = np.full(len(code.exprs) + 1, -1)  # the last is for slots that have no expression
    later: list[int] = []
    for number, expr in enumerate(code.exprs):
        symbol = next((name for name in expr.names if name in counts), None)
        if symbol is None:
            values.append(expr.evaluate(symbols))
            continue
        values.append(0)
        stepped[number] = len(code.exprs) + len(later)
        later += [expr.evaluate({**symbols, symbol: step}) for step in range(counts[symbol])]
    return np.array(values + later, np.int64), stepped


def _at(numbers: Ints, steps: Ints, stepped: Ints) -> Ints:
    """Numbers of expressions in these steps."""
    first = stepped[numbers]
    return np.where(first < 0, numbers, first + steps)
