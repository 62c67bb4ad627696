"""Rules of DMAs: channels, buffer descriptors, and what a descriptor can describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod

from neuc.backends.npu.check.facts import Facts, Violation
from neuc.runtime.npu.machine import Dma, Tile
from neuc.runtime.npu.program import DTYPES, Channel, DmaEnd

_WORD = 4


def _dma(facts: Facts, tile: Tile) -> Dma | None:
    return facts.machine.tile_class(tile).dma if facts.machine.contains(tile) else None


def ends_exist(facts: Facts) -> Iterator[Violation]:
    """Every end of a channel that is not shared has one DMA end, at its node's tile, in its direction."""
    found: Counter[tuple[str, str]] = Counter((end.channel, end.node) for end in facts.design.dmas)
    wanted: dict[tuple[str, str], str] = {}
    for channel in facts.channels.values():
        if channel.name not in facts.design.shared:
            wanted |= {(channel.name, node): direction for node, direction in facts.ends(channel)}
    for channel, node in wanted:
        if not found[channel, node]:
            yield Violation("dma-missing", f"{channel} has no DMA at {node}")
    for (channel, node), count in found.items():
        if channel in facts.design.shared:
            yield Violation("dma-shared", f"{channel} is in shared memory and has a DMA at {node}")
        elif (channel, node) not in wanted:
            yield Violation("dma-unknown", f"{channel} has a DMA at {node}, where it does not end")
        elif count > 1:
            yield Violation("dma-twice", f"{channel} has {count} DMAs at {node}")
    for end in facts.design.dmas:
        direction = wanted.get((end.channel, end.node))
        if direction is not None and end.direction != direction:
            yield Violation("dma-direction", f"{end.channel} at {end.node} is {end.direction}, not {direction}")
        if direction is not None and end.tile != facts.tile(end.node):
            yield Violation("dma-tile", f"{end.channel} at {end.node} has its DMA on {end.tile}")


def dma_channels(facts: Facts) -> Iterator[Violation]:
    """Channel numbers exist, and each serves one object FIFO."""
    used: Counter[tuple[Tile, str, int]] = Counter()
    for end in facts.design.dmas:
        dma = _dma(facts, end.tile)
        if dma is None:
            yield Violation("dma-none", f"{end.channel} has a DMA on {end.tile}, which has none")
            continue
        limit = dma.s2mm if end.direction == "s2mm" else dma.mm2s
        if not 0 <= end.index < limit:
            yield Violation(
                "dma-channel", f"{end.channel}: {end.direction} channel {end.index} on {end.tile}, which has {limit}"
            )
        used[end.tile, end.direction, end.index] += 1
    for (tile, direction, index), count in used.items():
        if count > 1:
            yield Violation("dma-channel-twice", f"{direction} channel {index} on {tile} serves {count} channels")


def descriptors(facts: Facts) -> Iterator[Violation]:
    """Descriptor numbers exist, belong to the channel's half where halves count, and each has one use."""
    used: Counter[tuple[Tile, int]] = Counter()
    for end in facts.design.dmas:
        dma = _dma(facts, end.tile)
        if dma is None:
            continue
        for bd in end.bds:
            used[end.tile, bd] += 1
            if not 0 <= bd < dma.bds:
                yield Violation("bd-number", f"{end.channel}: descriptor {bd} on {end.tile}, which has {dma.bds}")
            elif dma.parity_pools and (bd >= dma.bds // 2) != bool(end.index % 2):
                half = "odd" if end.index % 2 else "even"
                yield Violation("bd-parity", f"{end.channel}: descriptor {bd} on {end.tile} is not for {half} channels")
        yield from _count(facts, end)
    for (tile, bd), count in used.items():
        if count > 1:
            yield Violation("bd-twice", f"descriptor {bd} on {tile} has {count} uses")


def _count(facts: Facts, end: DmaEnd) -> Iterator[Violation]:
    if end.node in facts.ports:
        if not end.bds:
            yield Violation("bd-count", f"port {end.node} has no descriptor")
        return
    channel = facts.channels.get(end.channel)
    link = facts.links.get(end.node)
    depth = link.depth if link is not None else channel.depth if channel is not None else 0
    if len(end.bds) != depth:
        yield Violation("bd-count", f"{end.channel} at {end.node} has {len(end.bds)} descriptors for {depth} buffers")


def tokens(facts: Facts) -> Iterator[Violation]:
    """A token is whole words, no more than a descriptor counts; so are a link's parts."""
    for channel in facts.channels.values():
        if channel.name in facts.design.shared:
            continue
        if channel.nbytes % _WORD:
            yield Violation("token-words", f"tokens of {channel.name} have {channel.nbytes} bytes, no whole words")
        for end in facts.design.dmas:
            dma = _dma(facts, end.tile)
            if end.channel == channel.name and dma is not None and channel.nbytes // _WORD > dma.max_words:
                yield Violation(
                    "bd-length",
                    f"{channel.name}: {channel.nbytes // _WORD} words at {end.tile}, at most {dma.max_words}",
                )
    for link in facts.links.values():
        if any(offset % _WORD for offset in link.offsets):
            yield Violation("offset-words", f"link {link.name}: offsets {list(link.offsets)} are no whole words")
        tile = facts.tile(link.name)
        dma = None if tile is None else _dma(facts, tile)
        if dma is not None and link.repeat > dma.max_repeat:
            yield Violation("bd-repeat", f"link {link.name} repeats {link.repeat} times, at most {dma.max_repeat}")


def layouts(facts: Facts) -> Iterator[Violation]:
    """The order a producer's DMA sends elements in: as many dimensions, wraps and strides as its descriptors hold."""
    for channel in facts.channels.values():
        if not channel.layout or channel.name in facts.design.shared:
            continue
        tile = facts.tile(channel.producer)
        dma = None if tile is None else _dma(facts, tile)
        if dma is not None:
            yield from _layout(channel, dma)


def _layout(channel: Channel, dma: Dma) -> Iterator[Violation]:
    width = DTYPES[channel.dtype].itemsize
    count = prod(channel.shape)
    if len(channel.layout) > dma.dims:
        yield Violation("layout-dims", f"{channel.name}: {len(channel.layout)} dimensions, at most {dma.dims}")
    for size, _ in channel.layout[1:]:
        if size > dma.max_wrap:
            yield Violation("layout-wrap", f"{channel.name}: wraps after {size}, at most {dma.max_wrap}")
    for _, stride in channel.layout:
        if abs(stride) * width // _WORD > dma.max_stride:
            yield Violation("layout-stride", f"{channel.name}: stride {stride}, at most {dma.max_stride} words")
    if prod(size for size, _ in channel.layout) != count:
        yield Violation(
            "layout-size", f"{channel.name}: the layout sends {prod(s for s, _ in channel.layout)} of {count} elements"
        )
    elif sum((size - 1) * stride for size, stride in channel.layout) >= count or any(s < 0 for _, s in channel.layout):
        yield Violation("layout-reach", f"{channel.name}: the layout reaches outside the token")
    size, stride = channel.layout[-1]
    if (size * width % _WORD or stride != 1) and width < _WORD:
        yield Violation("layout-run", f"{channel.name}: the innermost run of {size} elements is no whole words")


RULES = (ends_exist, dma_channels, descriptors, tokens, layouts)
