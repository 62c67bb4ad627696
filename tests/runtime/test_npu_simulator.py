"""The NPU simulator: values equal the reference interpreter, verdicts equal an exhaustive token simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest

from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.dialects.interp.npu import run_graph
from neuc.errors import Error
from neuc.runtime.npu.deadlock import coupled_replays, diagnose_design
from neuc.runtime.npu.program import Design, Kernel, Link, Port, Transfer, pool_name
from neuc.runtime.npu.simulator import simulate, with_depths
from npu_designs import TOKEN, random_dataflow, replayed_broadcast, tiled_through_memory

MACHINE = find_machine("npu-xdna1")
GRAPHS = 500
AIE_EVENTS = {"INSTR_EVENT_0", "INSTR_EVENT_1", "INSTR_VECTOR", "LOCK_STALL"} | {
    f"PORT_RUNNING_{port}" for port in range(8)
}
AIE_EVENTS |= {
    f"DMA_{way}_{channel}_{what}"
    for way, stream in (("S2MM", "STREAM_STARVATION"), ("MM2S", "STREAM_BACKPRESSURE"))
    for channel in ("0", "1", "SEL0", "SEL1")
    for what in ("START_TASK", "FINISHED_BD", "FINISHED_TASK", "STALLED_LOCK", stream)
}
"""Names of aie2's trace events that a simulated run can have (core, memory and shim modules, memory tiles)."""


def _exhaustive_deadlock(design: Design, order: int) -> bool:
    """Whether tokens get stuck, told by firing whatever can fire, in an order of its own: counts, no time, no values.

    Bounded dataflow is deterministic, so one maximal order decides; two different ones are tried to be sure.
    """
    nodes = [*design.kernels, *design.links, *design.ports]
    links = {link.name for link in design.links}
    ports = {port.name: port for port in design.ports}
    written: dict[tuple[str, str], int] = {}
    freed: dict[tuple[str, str], int] = {}
    moved: dict[str, int] = {channel.name: 0 for channel in design.channels}
    goal = {
        port: sum(int(np.prod(s.sizes)) for s in design.sequence if isinstance(s, Transfer) and s.port == port) // TOKEN
        for port in ports
    }
    fired = {kernel.name: 0 for kernel in design.kernels}
    depth = {channel.name: channel.depth for channel in design.channels}
    depth |= {link.name: link.depth for link in design.links}

    def pool(channel: str, node: str) -> str:
        return node if node in links else pool_name(channel, node)

    def count(table: dict[tuple[str, str], int], name: str) -> int:
        return min((value for (p, _), value in table.items() if p == name), default=0)

    for channel in design.channels:
        for end in channel.consumers:
            if end not in ports:
                written[pool(channel.name, end), channel.name] = 0
        if channel.producer not in ports:
            freed[pool(channel.name, channel.producer), channel.name] = 0
    for kernel in design.kernels:
        for name in kernel.inputs:
            freed[pool_name(name, kernel.name), kernel.name] = 0
        for name in kernel.outputs:
            written[pool_name(name, kernel.name), kernel.name] = 0

    def size(name: str) -> int:
        return depth[name.partition("@")[0]]

    def move(channel: str) -> bool:
        c = design.channel(channel)
        if c.producer in ports:
            if moved[channel] >= goal[c.producer]:
                return False
        else:
            source = pool(channel, c.producer)
            if count(written, source) <= freed[source, channel]:
                return False
        for end in c.consumers:
            if end in ports:
                if moved[channel] >= goal[end]:
                    return False
            else:
                sink = pool(channel, end)
                if written[sink, channel] - count(freed, sink) >= size(sink):
                    return False
        moved[channel] += 1
        if c.producer not in ports:
            freed[pool(channel, c.producer), channel] += 1
        for end in c.consumers:
            if end not in ports:
                written[pool(channel, end), channel] += 1
        return True

    def fire(kernel: Kernel) -> bool:
        phase = fired[kernel.name] % kernel.phases
        for name, rates in zip(kernel.inputs, kernel.consume):
            place = pool_name(name, kernel.name)
            if count(written, place) - freed[place, kernel.name] < rates[phase]:
                return False
        for name, rates in zip(kernel.outputs, kernel.produce):
            place = pool_name(name, kernel.name)
            if written[place, kernel.name] + rates[phase] - count(freed, place) > depth[name]:
                return False
        for name, rates in zip(kernel.inputs, kernel.consume):
            freed[pool_name(name, kernel.name), kernel.name] += rates[phase]
        for name, rates in zip(kernel.outputs, kernel.produce):
            written[pool_name(name, kernel.name), kernel.name] += rates[phase]
        fired[kernel.name] += 1
        return True

    going = True
    while going:
        going = False
        for node in nodes[::order]:
            if isinstance(node, Kernel):
                going |= fire(node)
        for channel in design.channels[::order]:
            going |= move(channel.name)
    return any(moved[port.channel] < goal[name] for name, port in ports.items() if port.direction == "out")


@pytest.mark.parametrize("graphs", [GRAPHS // 5, pytest.param(GRAPHS, marks=pytest.mark.slow)])
def test_random_graphs_equal_the_reference_and_an_exhaustive_token_simulation(graphs: int):
    hung = 0
    for seed in range(graphs):
        design = checked(random_dataflow(seed))
        x = np.random.default_rng(seed).integers(-1000, 1000, design.buffer("x").shape, dtype=np.int32)
        run = simulate(design, MACHINE, {"x": x})
        verdict = _exhaustive_deadlock(design, 1)
        assert verdict == _exhaustive_deadlock(design, -1), seed
        assert (run.deadlock is not None) == verdict, (seed, str(run.deadlock))
        if verdict:
            hung += 1
            continue
        np.testing.assert_array_equal(
            run.outputs["out"], run_graph(graph_of(design), {"x": x})["out"], err_msg=str(seed)
        )
    assert graphs // 25 < hung < graphs * 4 // 5, "both verdicts are tried"


def _runs(design: Design, depths: Mapping[str, int]) -> bool:
    return simulate(with_depths(design, depths), MACHINE, {}, values=False).deadlock is None


def _smaller(design: Design, cure: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """All depths that add one buffer less than this cure (more depth never hangs: fewer need not be tried)."""
    old = {part.name: part.depth for part in (*design.channels, *design.links)}
    added = sum(cure.values()) - sum(old[name] for name in cure)
    for names in combinations_with_replacement(old, added - 1):
        yield {name: old[name] + number for name, number in Counter(names).items()}


def test_deadlocks_name_the_circle_and_the_least_cure():
    several = 0
    for seed in range(60):
        design = random_dataflow(seed)
        verdict = diagnose_design(design, MACHINE)
        if verdict.deadlock is None:
            continue
        assert verdict.deadlock.cycle, seed
        names = {node.name for node in design.nodes} | {c.name for c in design.channels} | {"host"}
        assert {who for who, _, _ in verdict.deadlock.cycle} <= names
        assert verdict.cure is not None, (seed, str(verdict))
        assert simulate(with_depths(design, verdict.cure), MACHINE, {}, values=False).deadlock is None
        assert verdict.smallest
        assert not any(_runs(design, depths) for depths in _smaller(design, verdict.cure)), "fewer buffers would do"
        several += len(verdict.cure) > 1
    assert several > 2, "cures of more than one channel are tried"


@pytest.mark.parametrize(
    ("halves", "fan_out", "trips", "depth", "hangs"),
    [
        pytest.param(2, 4, 2, 4, True, id="3257-skeleton"),
        pytest.param(2, 4, 2, 8, False, id="3257-skeleton-depth-8"),
        pytest.param(1, 4, 2, 4, False, id="3257-half"),
        pytest.param(1, 8, 1, 4, False, id="3257-single-trip"),
        pytest.param(1, 1, 8, 4, False, id="3257-no-fan-out"),
        pytest.param(2, 4, 8, 4, True, id="3257-full"),
    ],
)
def test_published_hangs(halves: int, fan_out: int, trips: int, depth: int, hangs: bool):
    verdict = diagnose_design(checked(replayed_broadcast(halves, fan_out, trips, depth)), find_machine("npu-xdna2"))
    assert verdict.hangs == hangs, str(verdict)
    if hangs:
        assert verdict.cure is not None
        assert set(verdict.cure.values()) == {halves * fan_out * trips // 2}, "demand <= twice the depth, and no more"


@pytest.mark.parametrize(("k_l2", "cure"), [(64, None), (128, 8), (256, 16), (512, None)])
def test_settings_of_mlir_air_1822(k_l2: int, cure: int | None):
    """64 and 512 run, 128 and 256 hang: as published. A depth one smaller than the cure hangs still."""
    design = checked(tiled_through_memory(k_l2))
    assert bool(coupled_replays(design)) == (cure is not None), "told without a run"
    verdict = diagnose_design(design, find_machine("npu-xdna2"))
    assert verdict.deadlock is None, "its tokens alone would pass"
    assert verdict.hangs == (cure is not None), str(verdict)
    if cure is not None:
        assert verdict.cure is not None
        assert verdict.cure == {"bcast": cure}
        assert not diagnose_design(with_depths(design, verdict.cure), find_machine("npu-xdna2")).hangs
        assert diagnose_design(with_depths(design, {"bcast": cure - 1}), find_machine("npu-xdna2")).hangs


def _pixels(stride: int) -> tuple[Design, np.ndarray]:
    from npu_designs import kernel

    base = random_dataflow(1)
    k = kernel("k", {"a": (1,)}, {"b": (1,)})
    channels = tuple(
        replace(base.channel("x0"), name=n, producer=p, consumers=(c,))
        for n, p, c in (("a", "pin", "k"), ("b", "k", "pout"))
    )
    steps = (Transfer("pin", "x", 0, (8, 4), (stride, 1)), *base.sequence[1:])
    design = replace(
        base, kernels=(k,), channels=channels, links=(), ports=(Port("pin", "a", "in"), Port("pout", "b", "out"))
    )
    buffers = tuple(replace(b, shape=(32,)) for b in design.buffers)
    drain = Transfer("pout", "out", 0, (32,), (1,))
    return replace(design, buffers=buffers, sequence=(steps[0], drain, steps[-1])), np.arange(32, dtype=np.int32)


def test_a_corrupted_stride_gives_wrong_pixels():
    right, x = _pixels(4)
    wrong, _ = _pixels(2)
    good = simulate(right, MACHINE, {"x": x}).outputs["out"]
    bad = simulate(wrong, MACHINE, {"x": x}).outputs["out"]
    np.testing.assert_array_equal(good, 2 * x)
    assert not np.array_equal(good, bad)


def test_a_removed_release_is_a_named_deadlock():
    """A link whose buffers one reader never frees: here a kernel that never comes to take them."""
    design, x = _pixels(4)
    channels = [*design.channels]
    channels[0] = replace(channels[0], consumers=("k", "lost"))
    from npu_designs import kernel

    lost = kernel("lost", {"a": (1,), "never": (1,)}, {})
    never = replace(channels[0], name="never", producer="source", consumers=("lost",))
    stuck = replace(
        design,
        kernels=(
            *design.kernels,
            replace(lost, outputs=(), produce=()),
            kernel("source", {"no": (1,)}, {"never": (1,)}),
        ),
        channels=(*channels, never, replace(never, name="no", producer="pno", consumers=("source",))),
        ports=(*design.ports, Port("pno", "no", "in")),
    )
    run = simulate(stuck, MACHINE, {"x": x})
    assert run.deadlock is not None
    assert "lost" in str(run.deadlock)


def test_inputs_and_tokens_are_checked():
    design, x = _pixels(4)
    with pytest.raises(Error, match="buffer x is i32"):
        simulate(design, MACHINE, {"x": x.astype(np.int64)})
    bad = replace(design, kernels=tuple(replace(k, function="copyy") for k in design.kernels))
    with pytest.raises(Error, match="no function 'copyy'"):
        simulate(bad, MACHINE, {"x": x})
    with pytest.raises(Error, match="reaches outside"):
        simulate(
            replace(design, sequence=(Transfer("pin", "x", 4, (8, 4), (4, 1)), *design.sequence[1:])), MACHINE, {"x": x}
        )


def test_stalls_of_a_trace_are_what_was_waited_for():
    """A kernel of 1000 cycles: what feeds it waits for room, what it feeds for tokens, and it never stalls long."""
    design, x = _pixels(4)
    slow = replace(design, kernels=tuple(replace(k, cycles=(1000,)) for k in design.kernels))
    trace = simulate(slow, MACHINE, {"x": x}, trace=True).trace
    assert trace is not None
    spent: dict[str, float] = {}
    for begin, end, _, _, event in trace.events:
        spent[event] = spent.get(event, 0.0) + end - begin
    assert spent["DMA_S2MM_0_STALLED_LOCK"] > 3000, "two of eight tokens go at once, the rest wait a firing each"
    assert spent["DMA_MM2S_0_STALLED_LOCK"] > 5000
    assert spent["INSTR_VECTOR"] > 8000 > 2000 > spent["LOCK_STALL"]


def test_traces_have_mlir_aies_rows():
    design, x = _pixels(4)
    trace = simulate(design, MACHINE, {"x": x}, trace=True).trace
    assert trace is not None
    events = trace.to_json()
    rows = {e["args"]["name"] for e in events if e["name"] == "process_name"}  # type: ignore[index]
    assert rows == {f"{module}_trace for tile0,0" for module in ("core", "mem", "shim")}, "row, then column"
    names = {e["args"]["name"] for e in events if e["name"] == "thread_name"}  # type: ignore[index]
    assert names <= AIE_EVENTS, "of aie2's trace event enumerations"
    assert {"INSTR_EVENT_0", "INSTR_EVENT_1", "INSTR_VECTOR", "LOCK_STALL", "DMA_S2MM_0_STREAM_STARVATION"} <= names
    begins = [e for e in events if e["ph"] == "B"]
    assert len(begins) == len([e for e in events if e["ph"] == "E"]) > 0
    assert all(isinstance(e["ts"], int) for e in begins)


def test_links_forward_split_and_join_bytes():
    design, x = _pixels(4)
    whole = replace(design.channels[0], name="w", producer="pin", consumers=("cut",), shape=(4,))
    halves = [replace(whole, name=f"h{i}", producer="cut", consumers=("glue",), shape=(2,)) for i in range(2)]
    out = replace(whole, name="y", producer="glue", consumers=("pout",))
    links = (Link("cut", "split", ("w",), ("h0", "h1"), (8, 0)), Link("glue", "join", ("h0", "h1"), ("y",), (0, 8)))
    swapped = replace(
        design,
        kernels=(),
        channels=(whole, *halves, out),
        links=links,
        ports=(Port("pin", "w", "in"), Port("pout", "y", "out")),
    )
    got = simulate(checked(swapped), MACHINE, {"x": x}).outputs["out"]
    np.testing.assert_array_equal(got, x.reshape(-1, 2, 2)[:, ::-1].reshape(-1))
    np.testing.assert_array_equal(got, run_graph(graph_of(swapped), {"x": x})["out"])
