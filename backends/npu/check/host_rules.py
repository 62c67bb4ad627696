"""Rules of the host's sequence: what a shim descriptor can describe, and that nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from neuc.backends.npu.check.facts import Facts, Violation
from neuc.runtime.npu.machine import Dma
from neuc.runtime.npu.program import DTYPES, Transfer, Wait

_WORD = 4


def transfers(facts: Facts) -> Iterator[Violation]:
    """Each transfer is within its buffer, whole tokens, and within a shim descriptor's limits."""
    for step in facts.design.sequence:
        if not isinstance(step, Transfer):
            continue
        port = facts.ports.get(step.port)
        buffer = next((b for b in facts.design.buffers if b.name == step.buffer), None)
        if port is None or buffer is None:
            yield Violation("transfer-names", f"a transfer names {step.port} and {step.buffer}")
            continue
        if (port.direction == "out") != (buffer.role == "output"):
            yield Violation(
                "transfer-role", f"port {port.name} ({port.direction}) and buffer {buffer.name} ({buffer.role})"
            )
        width = DTYPES[buffer.dtype].itemsize
        reach = [(n - 1) * s for n, s in zip(step.sizes, step.strides)]
        low, high = step.offset + sum(min(r, 0) for r in reach), step.offset + sum(max(r, 0) for r in reach)
        if low < 0 or high >= prod(buffer.shape):
            yield Violation("transfer-reach", f"{step.port} reaches {low} to {high} of {prod(buffer.shape)} elements")
        if prod(step.sizes) * width % facts.channels[port.channel].nbytes:
            yield Violation("transfer-tokens", f"{step.port} moves {prod(step.sizes) * width} bytes, no whole tokens")
        if step.offset * width % _WORD:
            yield Violation("transfer-offset", f"{step.port} begins at byte {step.offset * width}, no whole word")
        tile = facts.tile(port.name)
        dma = None if tile is None else facts.machine.tile_class(tile).dma
        if dma is not None:
            yield from _limits(step, dma, width)


def _limits(step: Transfer, dma: Dma, width: int) -> Iterator[Violation]:
    """Sizes are (repeat, dimension 2, 1, 0): the shim has three dimensions and an iteration."""
    sizes, strides = list(step.sizes), list(step.strides)
    if not 1 <= len(sizes) <= dma.dims + 1:
        yield Violation(
            "transfer-dims", f"{step.port}: {len(sizes)} dimensions, at most {dma.dims + 1} and one at least"
        )
        return
    if len(sizes) == dma.dims + 1 and sizes[0] > dma.max_repeat:
        yield Violation("transfer-repeat", f"{step.port} repeats {sizes[0]} times, at most {dma.max_repeat}")
    for size, stride in list(zip(sizes, strides))[-2:]:
        linear = stride == 1 and len(sizes) == 1
        if size * width // _WORD > dma.max_wrap and stride != 1 and not linear:
            yield Violation("transfer-wrap", f"{step.port}: wraps after {size}, at most {dma.max_wrap}")
    if len(sizes) > 1 and strides[-1] == 1 and sizes[-1] * width // _WORD > dma.max_wrap:
        yield Violation(
            "transfer-run", f"{step.port}: rows of {sizes[-1] * width // _WORD} words, at most {dma.max_wrap}"
        )
    for size, stride in zip(sizes, strides):
        if size > 1 and abs(stride) * width // _WORD > dma.max_stride:
            yield Violation("transfer-stride", f"{step.port}: stride {stride}, at most {dma.max_stride} words")
    if (
        sizes[-1] * width % _WORD
        or (strides[-1] != 1 and width < _WORD)
        or any(s * width % _WORD for s in strides[:-1])
    ):
        yield Violation(
            "transfer-words", f"{step.port}: runs of {sizes[-1]} and strides {list(strides)} are no whole words"
        )


def awaited(facts: Facts) -> Iterator[Violation]:
    """What the host takes out of the array, it waits for."""
    waited: set[str] = set()
    for step in reversed(facts.design.sequence):
        if isinstance(step, Wait):
            waited.add(step.port)
        elif isinstance(step, Transfer):
            port = facts.ports.get(step.port)
            if port is not None and port.direction == "out" and step.port not in waited:
                yield Violation("transfer-awaited", f"nothing waits for {step.port} after its last transfer")
                waited.add(step.port)


RULES = (transfers, awaited)
