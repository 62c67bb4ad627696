"""Rules of tile memory: pools are where, as large and as many as they should be, apart from each other, with locks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from neuc.backends.npu.check.facts import Facts, Violation
from neuc.runtime.npu.machine import Tile
from neuc.runtime.npu.program import Pool

_ALIGNMENT = 32


def pools_exist(facts: Facts) -> Iterator[Violation]:
    """Each end of a channel at a core, and each link, has one pool; there are no others."""
    found = Counter(pool.name for pool in facts.design.pools)
    wanted = facts.expected_pools()
    for name in wanted:
        if not found[name]:
            yield Violation("pool-missing", f"{name} has no buffers")
    for name, count in found.items():
        if name not in wanted:
            yield Violation("pool-unknown", f"{name} is no end of a channel and no link")
        if count > 1:
            yield Violation("pool-twice", f"{name} has {count} pools")


def pool_shape(facts: Facts) -> Iterator[Violation]:
    """A pool is on its node's tile, its buffers hold a token, and there are as many as the depth says."""
    wanted = facts.expected_pools()
    for pool in facts.design.pools:
        if pool.name not in wanted:
            continue
        node, nbytes, depth, parts = wanted[pool.name]
        tile = facts.design.shared.get(pool.name, facts.tile(node))
        if tile is not None and pool.tile != tile:
            yield Violation("pool-tile", f"{pool.name} is on {pool.tile}, not on {tile}")
        if pool.nbytes != nbytes:
            yield Violation("pool-bytes", f"buffers of {pool.name} have {pool.nbytes} bytes, tokens {nbytes}")
        if len(pool.addresses) != depth:
            yield Violation("pool-depth", f"{pool.name} has {len(pool.addresses)} buffers, depth is {depth}")
        if len(pool.locks) != 2 * parts:
            yield Violation("lock-count", f"{pool.name} has {len(pool.locks)} locks, not {2 * parts}")
        if depth > facts.machine.tile_class(pool.tile).lock_max if facts.machine.contains(pool.tile) else False:
            yield Violation("lock-value", f"{pool.name} has depth {depth}, more than a lock can count")


def _by_tile(facts: Facts) -> dict[Tile, list[Pool]]:
    found: dict[Tile, list[Pool]] = defaultdict(list)
    for pool in facts.design.pools:
        if facts.machine.contains(pool.tile):
            found[pool.tile].append(pool)
    return found


def addresses(facts: Facts) -> Iterator[Violation]:
    """Buffers lie in the tile's memory, behind the stack and the kernel's state, aligned, and apart from each other."""
    for tile, pools in _by_tile(facts).items():
        cls = facts.machine.tile_class(tile)
        state = sum(k.state_bytes for k in facts.kernels.values() if k.tile == tile)
        low = cls.reserved_bytes + state
        spans = sorted((address, address + pool.nbytes, pool.name) for pool in pools for address in pool.addresses)
        for begin, end, name in spans:
            if begin < 0:
                yield Violation("address-negative", f"{name} on {tile} begins at {begin}")
            elif begin < low:
                yield Violation("address-stack", f"{name} on {tile} begins at {begin}; stack and state end at {low}")
            if end > cls.memory_bytes:
                yield Violation(
                    "address-end", f"{name} on {tile} ends at {end}; the memory has {cls.memory_bytes} bytes"
                )
            if begin % _ALIGNMENT:
                yield Violation("address-aligned", f"{name} on {tile} begins at {begin}, no multiple of {_ALIGNMENT}")
        for (_, end, name), (begin, _, other) in pairwise(spans):
            if begin < end:
                yield Violation("address-overlap", f"{name} and {other} overlap on {tile} at {begin}")


def banks(facts: Facts) -> Iterator[Violation]:
    """No buffer spans two banks, where all could lie within banks (first fit, largest first)."""
    for tile, pools in _by_tile(facts).items():
        cls = facts.machine.tile_class(tile)
        if not cls.banks:
            continue
        bank = cls.memory_bytes // cls.banks
        spans = [
            pool.name
            for pool in pools
            for address in pool.addresses
            if address // bank != (address + pool.nbytes - 1) // bank
        ]
        state = sum(k.state_bytes for k in facts.kernels.values() if k.tile == tile)
        if spans and _packs(
            [p.nbytes for p in pools for _ in p.addresses], bank, cls.banks, cls.reserved_bytes + state
        ):
            yield Violation("bank", f"{', '.join(spans)} on {tile} span banks of {bank} bytes without need")


def _packs(sizes: list[int], bank: int, count: int, taken: int) -> bool:
    room = [bank - min(max(taken - index * bank, 0), bank) for index in range(count)]
    for size in sorted(sizes, reverse=True):
        padded = (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        index = next((i for i, free in enumerate(room) if free >= padded), None)
        if index is None:
            return False
        room[index] -= padded
    return True


def locks(facts: Facts) -> Iterator[Violation]:
    """Lock numbers exist, and each has one use on its tile."""
    for tile, pools in _by_tile(facts).items():
        used = Counter(lock for pool in pools for lock in pool.locks)
        limit = facts.machine.tile_class(tile).locks
        for lock, count in used.items():
            if not 0 <= lock < limit:
                yield Violation("lock-number", f"lock {lock} on {tile}, which has {limit}")
            if count > 1:
                yield Violation("lock-twice", f"lock {lock} on {tile} has {count} uses")


RULES = (pools_exist, pool_shape, addresses, banks, locks)
