"""The independent checker: it accepts what we emit, and each of a corpus of seeded faults breaks the rule it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from neuc.backends.npu.check.checker import check, violations
from neuc.backends.npu.known_machines import find_machine
from neuc.errors import Error
from neuc.runtime.npu.program import Connection, Design, DmaEnd, Pool, Route, SetParam, Transfer, Wait
from npu_designs import routed_example

MACHINE = find_machine("npu-xdna1")
EXAMPLE = routed_example(MACHINE)
Fault: TypeAlias = Callable[[Design], Design]
FAULTS: list[tuple[str, Fault]] = []


def fault(rule: str) -> Callable[[Fault], Fault]:
    def register(change: Fault) -> Fault:
        FAULTS.append((rule, change))
        return change

    return register


def _kernels(design: Design, name: str, **fields: object) -> Design:
    return replace(design, kernels=tuple(replace(k, **fields) if k.name == name else k for k in design.kernels))  # type: ignore[arg-type]


def _links(design: Design, name: str, **fields: object) -> Design:
    return replace(design, links=tuple(replace(k, **fields) if k.name == name else k for k in design.links))  # type: ignore[arg-type]


def _ports(design: Design, name: str, **fields: object) -> Design:
    return replace(design, ports=tuple(replace(k, **fields) if k.name == name else k for k in design.ports))  # type: ignore[arg-type]


def _channels(design: Design, name: str, **fields: object) -> Design:
    return replace(design, channels=tuple(replace(c, **fields) if c.name == name else c for c in design.channels))  # type: ignore[arg-type]


def _pool(design: Design, name: str, **fields: object) -> Design:
    return replace(design, pools=tuple(replace(p, **fields) if p.name == name else p for p in design.pools))  # type: ignore[arg-type]


def _dma(design: Design, channel: str, node: str, **fields: object) -> Design:
    ends = (replace(e, **fields) if (e.channel, e.node) == (channel, node) else e for e in design.dmas)  # type: ignore[arg-type]
    return replace(design, dmas=tuple(ends))


def _step(design: Design, **fields: object) -> Design:
    first = design.sequence[0]
    assert isinstance(first, Transfer)
    return replace(design, sequence=(replace(first, **fields), *design.sequence[1:]))  # type: ignore[arg-type]


def _pool_of(name: str) -> Pool:
    return next(p for p in EXAMPLE.pools if p.name == name)


def _end(channel: str, node: str) -> DmaEnd:
    return next(e for e in EXAMPLE.dmas if (e.channel, e.node) == (channel, node))


def _route(channel: str) -> Route:
    return next(r for r in EXAMPLE.routes if r.channel == channel)


def _rewired(
    design: Design, channel: str, change: Callable[[tuple[Connection, ...]], tuple[Connection, ...]]
) -> Design:
    routes = (Route(r.channel, change(r.connections)) if r.channel == channel else r for r in design.routes)
    return replace(design, routes=tuple(routes))


def _tile(node: str) -> tuple[int, int]:
    tile = EXAMPLE.node(node).tile
    assert tile is not None
    return tile


FAULTS += [
    ("has-tile", lambda d: _kernels(d, "first", tile=None)),
    ("tile-in-array", lambda d: _kernels(d, "first", tile=(9, 2))),
    ("core-tile", lambda d: _kernels(d, "first", tile=(0, 1))),
    ("mem-tile", lambda d: _links(d, "cut", tile=(0, 3))),
    ("shim-tile", lambda d: _ports(d, "pin", tile=(0, 1))),
    ("one-kernel", lambda d: _kernels(d, "first", tile=_tile("other"))),
    ("program-memory", lambda d: _kernels(d, "first", program_bytes=16385)),
    ("shared-channel", lambda d: replace(d, shared={**d.shared, "nothing": (0, 2)})),
    ("shared-ends", lambda d: replace(d, shared={**d.shared, "x": (0, 2)})),
    ("shared-layout", lambda d: _channels(d, "mid", layout=((4, 1),))),
    ("shared-visible", lambda d: replace(d, shared={"mid": (3, 5) if _tile("first")[0] < 2 else (0, 5)})),
    ("pool-missing", lambda d: replace(d, pools=d.pools[1:])),
    ("pool-unknown", lambda d: replace(d, pools=(*d.pools, replace(d.pools[0], name="ghost@first")))),
    ("pool-twice", lambda d: replace(d, pools=(*d.pools, d.pools[0]))),
    ("pool-tile", lambda d: _pool(d, "cut", tile=(3, 1) if _tile("cut") != (3, 1) else (2, 1))),
    ("pool-bytes", lambda d: _pool(d, "cut", nbytes=28)),
    ("pool-depth", lambda d: _pool(d, "cut", addresses=_pool_of("cut").addresses[:1])),
    ("lock-count", lambda d: _pool(d, "cut", locks=_pool_of("cut").locks[:2])),
    ("lock-value", lambda d: _links(_pool(d, "cut", addresses=tuple(range(0, 64 * 64, 64))), "cut", depth=64)),
    ("address-negative", lambda d: _pool(d, "s1@other", addresses=(-32, *_pool_of("s1@other").addresses[1:]))),
    ("address-stack", lambda d: _pool(d, "s1@other", addresses=(992, *_pool_of("s1@other").addresses[1:]))),
    ("address-end", lambda d: _pool(d, "s1@other", addresses=(65536 - 8, 4096))),
    ("address-aligned", lambda d: _pool(d, "s1@other", addresses=(_pool_of("s1@other").addresses[0] + 4, 32768))),
    ("address-overlap", lambda d: _pool(d, "s1@other", addresses=(_pool_of("s1@other").addresses[0],) * 2)),
    ("bank", lambda d: _pool(_sized(d, 64), "s1@other", nbytes=64, addresses=(16384 - 32, 32768))),
    ("lock-number", lambda d: _pool(d, "s1@other", locks=(0, 16))),
    ("lock-twice", lambda d: _pool(d, "s1@other", locks=(1, 1))),
    ("dma-missing", lambda d: replace(d, dmas=d.dmas[1:])),
    ("dma-shared", lambda d: replace(d, dmas=(*d.dmas, replace(d.dmas[0], channel="mid", node="first")))),
    ("dma-unknown", lambda d: replace(d, dmas=(*d.dmas, replace(d.dmas[0], node="other")))),
    ("dma-twice", lambda d: replace(d, dmas=(*d.dmas, d.dmas[0]))),
    ("dma-direction", lambda d: _dma(d, "s1", "other", direction="mm2s")),
    ("dma-tile", lambda d: _dma(d, "s1", "other", tile=(3, 5) if _tile("other") != (3, 5) else (2, 5))),
    ("dma-none", lambda d: _dma(d, "s1", "other", tile=(9, 9))),
    ("dma-channel", lambda d: _dma(d, "s1", "other", index=2)),
    ("dma-channel-twice", lambda d: _dma(d, "s0", "cut", index=_end("s1", "cut").index)),
    ("bd-number", lambda d: _dma(d, "s1", "other", bds=(0, 16))),
    ("bd-parity", lambda d: _dma(d, "x", "cut", bds=(40, 41) if _end("x", "cut").index % 2 == 0 else (2, 3))),
    ("bd-twice", lambda d: _dma(d, "s0", "cut", bds=_end("x", "cut").bds)),
    ("bd-count", lambda d: _dma(d, "s1", "other", bds=(0,))),
    ("bd-count", lambda d: _dma(d, "x", "pin", bds=())),
    ("token-words", lambda d: _channels(d, "s1", dtype="u8", shape=(15,))),
    ("bd-length", lambda d: _channels(d, "s1", shape=(16384,))),
    ("offset-words", lambda d: _links(d, "cut", offsets=(0, 18))),
    ("bd-repeat", lambda d: _links(d, "glue", repeat=257)),
    ("layout-dims", lambda d: _channels(d, "s0", layout=((1, 1), (1, 1), (1, 1), (2, 2), (2, 1)))),
    ("layout-wrap", lambda d: _channels(d, "s0", shape=(2048,), layout=((2, 1024), (1024, 1)))),
    ("layout-stride", lambda d: _channels(d, "s0", layout=((2, 200000), (2, 1)))),
    ("layout-size", lambda d: _channels(d, "s0", layout=((2, 1), (1, 1)))),
    ("layout-reach", lambda d: _channels(d, "s0", layout=((2, 3), (2, 1)))),
    ("layout-run", lambda d: _channels(d, "s0", dtype="u8", shape=(16,), layout=((8, 1), (2, 8)))),
    ("route-shared", lambda d: replace(d, routes=(*d.routes, Route("mid", ())))),
    ("route-missing", lambda d: replace(d, routes=d.routes[1:])),
    ("route-unknown", lambda d: replace(d, routes=(*d.routes, Route("ghost", ())))),
    ("route-twice", lambda d: replace(d, routes=(*d.routes, d.routes[0]))),
    ("switch-tile", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((9, 9), ("South", 0), ("North", 0))))),
    ("switch-bundle", lambda d: _rewired(d, "s1", lambda c: (*c, Connection(_tile("cut"), ("South", 3), ("East", 0))))),
    ("switch-master", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((0, 3), ("South", 3), ("North", 6))))),
    ("switch-slave", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((0, 3), ("West", 4), ("North", 5))))),
    ("switch-edge", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((0, 3), ("South", 3), ("West", 0))))),
    ("switch-neighbour", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((0, 0), ("DMA", 0), ("North", 7))))),
    ("turn-straight", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((3, 1), ("South", 3), ("North", 2))))),
    ("turn-back", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((3, 1), ("South", 3), ("South", 3))))),
    ("turn-dma", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((3, 1), ("DMA", 3), ("DMA", 4))))),
    ("turn-bundle", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((1, 3), ("West", 3), ("West", 2))))),
    ("slave-twice", lambda d: replace(d, routes=(*d.routes, Route("j1", _route("s1").connections[:1])))),
    ("master-twice", lambda d: _rewired(d, "s1", lambda c: (*c, c[0]))),
    ("route-source", lambda d: _rewired(d, "s1", lambda c: tuple(x for x in c if x.source[0] != "DMA"))),
    ("route-sink", lambda d: _rewired(d, "s1", lambda c: tuple(x for x in c if x.target[0] != "DMA"))),
    (
        "route-stray",
        lambda d: _rewired(
            d, "s1", lambda c: (*c, replace(c[-1], tile=_tile("other"), source=_last("s1").source, target=("DMA", 1)))
        ),
    ),
    ("route-apart", lambda d: _rewired(d, "s1", lambda c: (*c, Connection((3, 3), ("South", 3), ("North", 3))))),
    ("transfer-names", lambda d: _step(d, buffer="ghost")),
    ("transfer-role", lambda d: _step(d, buffer="b")),
    ("transfer-reach", lambda d: _step(d, offset=8)),
    ("transfer-tokens", lambda d: _step(d, sizes=(7, 9), strides=(4, 1))),
    ("transfer-offset", lambda d: _step(_bytes(d), offset=2, sizes=(32,), strides=(1,))),
    ("transfer-dims", lambda d: _step(d, sizes=(1, 1, 1, 8, 8), strides=(0, 0, 0, 8, 1))),
    ("transfer-repeat", lambda d: _step(d, sizes=(65, 1, 1, 8), strides=(0, 0, 8, 1))),
    ("transfer-wrap", lambda d: _step(d, sizes=(1024, 8), strides=(0, 1))),
    ("transfer-run", lambda d: _step(d, sizes=(2, 1024), strides=(0, 1))),
    ("transfer-stride", lambda d: _step(d, sizes=(2, 8), strides=(2**21, 1))),
    ("transfer-words", lambda d: _step(_bytes(d), sizes=(16, 2), strides=(2, 1))),
    ("transfer-awaited", lambda d: replace(d, sequence=d.sequence[:-1])),
]


def _last(channel: str) -> Connection:
    return next(c for c in _route(channel).connections if c.target[0] == "DMA")


def _sized(design: Design, nbytes: int) -> Design:
    return _channels(design, "s1", shape=(nbytes // 4,))


def _bytes(design: Design) -> Design:
    return replace(design, buffers=tuple(replace(b, dtype="u8") for b in design.buffers))


def test_what_we_emit_is_accepted():
    assert violations(EXAMPLE, MACHINE) == []
    assert EXAMPLE.shared, "the example tries shared memory, too"
    assert any(isinstance(step, Wait) for step in EXAMPLE.sequence)
    assert not any(isinstance(step, SetParam) for step in EXAMPLE.sequence)


def test_the_corpus_has_a_fault_for_every_rule():
    from neuc.backends.npu.check import dma_rules, host_rules, memory_rules, placement_rules, route_rules

    names: set[str] = set()
    for module in (placement_rules, memory_rules, dma_rules, route_rules, host_rules):
        source = Path(module.__file__ or "").read_text(encoding="utf-8")
        names |= {part.split('"')[1] for part in source.split("Violation(")[1:] if part.lstrip().startswith('"')}
    names |= {"core-tile", "mem-tile", "shim-tile", "switch-master", "switch-slave"}
    assert names - {rule for rule, _ in FAULTS} == set()
    assert len(FAULTS) >= 50


@pytest.mark.parametrize(("rule", "change"), FAULTS, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(FAULTS)])
def test_each_fault_breaks_its_rule(rule: str, change: Fault):
    found = {violation.rule for violation in violations(change(EXAMPLE), MACHINE)}
    assert rule in found, f"found {sorted(found)}"


def test_refusals_are_errors_with_the_rules():
    with pytest.raises(Error, match="has-tile: first has no tile") as caught:
        check(_kernels(EXAMPLE, "first", tile=None), MACHINE)
    assert caught.value.code == "NEUC-E678"
