"""Launches overlap only where that cannot be told from running them in order, and memory is planned accordingly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32
from xdsl.ir import Block, Region

import runtime_programs
from neuc.backends.cpu.emit import native_segment
from neuc.backends.cpu.place_barriers import place_barriers
from neuc.backends.cpu.plan_memory import plan_program
from neuc.dialects.cpu import ProgramOp
from neuc.dialects.cpu_launch import BufferOp, LaunchArg, LaunchOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import tensor_type
from neuc.runtime.program import IoSpec, Launch, NativeSegment, Program, ScheduleStep
from neuc.runtime.session import Session

N = 64
TRIES = 200


@dataclass(frozen=True)
class Step:
    """One launch: ``target = kernel(left, right)`` on whole buffers."""

    kernel: str
    left: int
    right: int
    target: int

    def reads(self) -> set[int]:
        return {self.left, self.right} if self.kernel == "k_add" else {self.left}

    def launch(self, buffers: list[BufferOp]) -> LaunchOp:
        left, right, target = (buffers[i].result for i in (self.left, self.right, self.target))
        args: list[LaunchArg] = {
            "k_add": [left, right, target, "B"],
            "k_reverse": [left, target, "B"],
        }.get(self.kernel, [left, target, 0.5])
        return LaunchOp(self.kernel, args, work="B", writes=[2 if self.kernel == "k_add" else 1])

    def run(self, memory: list[np.ndarray]) -> np.ndarray:
        left = memory[self.left]
        match self.kernel:
            case "k_add":
                return left + memory[self.right]
            case "k_reverse":
                return left[::-1].copy()
            case _:
                return left * np.float32(0.5)


# Buffers: 0 is the input, 1 and 2 are outputs, the rest are in the arena.
BUFFERS = 7
OUTPUTS = (1, 2)
steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["k_add", "k_reverse", "k_scale", "k_late"]),
        st.integers(0, BUFFERS - 1),
        st.integers(0, BUFFERS - 1),
        st.integers(1, BUFFERS - 1),
    ),
    min_size=1,
    max_size=12,
)


def sound(drawn: list[Step]) -> list[Step]:
    """The steps such that each reads what has been written, none writes what it reads, and all outputs are written."""
    written, kept = [0], list[Step]()
    for step in [*drawn, *(Step("k_scale", 0, 0, output) for output in OUTPUTS)]:
        left, right = written[step.left % len(written)], written[step.right % len(written)]
        fixed = replace(step, left=left, right=right)
        if step.target in fixed.reads():
            continue
        kept.append(fixed)
        written.append(step.target)
    return kept


def program_of(chosen: list[Step]) -> tuple[ProgramOp, list[BufferOp]]:
    buffers = [
        BufferOp("input", "4*B", index=0),
        *(BufferOp("output", "4*B", index=i) for i in range(len(OUTPUTS))),
        *(BufferOp("arena", "4*B") for _ in range(BUFFERS - 1 - len(OUTPUTS))),
    ]
    vector = tensor_type(f32, ["B"])
    launches = [step.launch(buffers) for step in chosen]
    used = [buffer for buffer in buffers if buffer.kind.data != "arena" or buffer.result.first_use is not None]
    body = Region(Block([*used, *launches]))
    made = ProgramOp("seg0", [vector], [vector] * len(OUTPUTS), body)
    place_barriers(made)
    plan_program(made)
    made.verify()
    return made, buffers


def session_of(segment: NativeSegment, threads: int) -> Session:
    x, *ys = (IoSpec("float32", ("B",), name) for name in ("x", "y1", "y2"))
    program = Program((x,), tuple(ys), {"s": segment}, (ScheduleStep("s", ("x",), ("y1", "y2")),))
    read_again = Program.from_bytes(program.to_bytes())
    assert read_again == program
    return Session.from_parts(read_again, runtime_programs.kernels(), {}, threads=threads)


@given(steps)
@settings(max_examples=30, deadline=None)
def test_random_launches_give_numpys_results(drawn: list[Step]) -> None:
    chosen = sound(drawn)
    made, _ = program_of(chosen)
    segment = native_segment(made)
    x = np.arange(1, N + 1, dtype=np.float32)
    memory = [x, *(np.zeros(N, np.float32) for _ in range(BUFFERS - 1))]
    for step in chosen:
        memory[step.target] = step.run(memory)
    for threads in (1, 2, 3, 4):
        with session_of(segment, threads) as s:
            for _ in range(2):
                for got, output in zip(s.run(None, {"x": x}), OUTPUTS, strict=True):
                    np.testing.assert_array_equal(got, memory[output])


@given(steps)
@settings(deadline=None)
def test_what_overlaps_is_independent_and_shares_no_memory(drawn: list[Step]) -> None:
    chosen = sound(drawn)
    made, buffers = program_of(chosen)
    groups: list[list[Step]] = []
    for step, op in zip(chosen, (op for op in made.body.block.ops if isinstance(op, LaunchOp)), strict=True):
        if op.concurrent is None:
            groups.append([])
        groups[-1].append(step)
    for previous, group in zip([[], *groups], groups):
        for i, step in enumerate(group):
            for other in group[:i]:
                assert step.target not in other.reads() | {other.target}
                assert other.target not in step.reads()
        # The first of a group has a reason to wait.
        touched = {buffer for step in previous for buffer in (*step.reads(), step.target)}
        written = {step.target for step in previous}
        assert not previous or written & group[0].reads() or group[0].target in touched
    lives = {
        b: [g for g, group in enumerate(groups) if any(b in (*s.reads(), s.target) for s in group)] for b in range(7)
    }
    for b, times in lives.items():
        for c, others in lives.items():
            if 3 <= c < b and times and others and times[0] <= others[-1] and others[0] <= times[-1]:
                assert buffers[b].offset != buffers[c].offset


@pytest.mark.parametrize("threads", [2, 3])
def test_a_missing_barrier_shows(threads: int) -> None:
    """Thread 0 writes late what the others read reversed: right with the barrier, sooner or later wrong without."""
    chosen = [Step("k_late", 0, 0, 3), Step("k_reverse", 3, 0, 1), Step("k_late", 0, 0, 2)]
    segment = native_segment(program_of(chosen)[0])
    assert [launch.barrier for launch in segment.launches] == [True, True, False]
    x = np.arange(1, N + 1, dtype=np.float32)
    wanted = x[::-1] * np.float32(0.5)

    def always_right(launches: tuple[Launch, ...]) -> bool:
        with session_of(replace(segment, launches=launches), threads) as s:
            return all((s.run(["y1"], {"x": x + i})[0] == wanted + 0.5 * i).all() for i in range(TRIES))

    assert always_right(segment.launches)
    assert not always_right(tuple(replace(launch, barrier=False) for launch in segment.launches))


def test_unknown_writes_are_all_buffers_but_weights() -> None:
    a, b, w = BufferOp("arena", 64), BufferOp("arena", 64), BufferOp("weight", 64, entry="w")
    launches = [LaunchOp("k", [w.result, x.result], work=1) for x in (a, b, a)]
    program = ProgramOp("seg0", [], [], Region(Block([a, b, w, *launches])))
    place_barriers(program)
    assert [launch.concurrent is None for launch in launches] == [True, False, True]
    plan_program(program)
    assert program.arena is not None
    assert Dim.parse(program.arena.data).value == 128


def test_launches_of_no_work_pass_their_barrier_on() -> None:
    """The barrier before a launch that does nothing for these sizes also stands before the concurrent one after it."""
    chosen = [Step("k_late", 0, 0, 3), Step("k_scale", 3, 0, 2), Step("k_reverse", 3, 0, 1)]
    segment = native_segment(program_of(chosen)[0])
    first, second, third = segment.launches
    assert (second.barrier, third.barrier) == (True, False)
    emptied = replace(segment, launches=(first, replace(second, work=0), third))
    x = np.arange(1, N + 1, dtype=np.float32)
    with session_of(emptied, 2) as s:
        for _ in range(20):
            np.testing.assert_array_equal(s.run(["y1"], {"x": x})[0], x[::-1] * np.float32(0.5))
