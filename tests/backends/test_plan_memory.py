"""The memory plan never overlaps buffers that live at the same time, for any symbol values, and does reuse space."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xdsl.ir import Block, Region

from neuc.backends.cpu.plan_memory import plan_program
from neuc.dialects.cpu import ProgramOp
from neuc.dialects.cpu_launch import BufferOp, LaunchOp
from neuc.dialects.dims import Dim

SIZES = ("64", "4*B", "4*B*S", "100*S + 7", "max(B, S)*8", "12")


def program(sizes: list[str], launches: list[list[int]]) -> tuple[ProgramOp, list[BufferOp]]:
    buffers = [BufferOp("arena", size) for size in sizes]
    ops = [LaunchOp("k", [buffers[i].result for i in sorted(set(used))], work=1) for used in launches]
    made = ProgramOp("seg0", [], [], Region(Block([*buffers, *ops])))
    made.verify()
    return made, buffers


@given(
    st.lists(st.sampled_from(SIZES), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3), min_size=1, max_size=10),
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_live_buffers_never_overlap(sizes: list[str], launches: list[list[int]], b: int, s: int) -> None:
    used = [[i % len(sizes) for i in launch] for launch in launches]
    made, buffers = program(sizes, used)
    plan_program(made)
    values = {"B": b, "S": s}
    assert made.arena is not None
    total = Dim.parse(made.arena.data).evaluate(values)
    spans: list[tuple[int, int, int, int]] = []
    for i, buffer in enumerate(buffers):
        times = [t for t, launch in enumerate(used) if i in launch]
        if not times:
            continue
        assert buffer.offset is not None
        start = Dim.parse(buffer.offset.data).evaluate(values)
        stop = start + Dim.parse(buffer.nbytes.data).evaluate(values)
        assert start % 64 == 0
        assert stop <= total
        spans.append((start, stop, times[0], times[-1]))
    for i, (start, stop, first, last) in enumerate(spans):
        for other_start, other_stop, other_first, other_last in spans[:i]:
            if first <= other_last and other_first <= last:
                assert stop <= other_start or other_stop <= start


def test_a_chain_needs_two_slots() -> None:
    made, _ = program(["4*B*S"] * 9, [[i, i + 1] for i in range(8)])
    plan_program(made)
    assert made.arena is not None
    assert Dim.parse(made.arena.data) == Dim.parse("((4*B*S + 63)//64)*128")
