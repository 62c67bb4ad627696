"""Prepared runs: checked once, called often; outputs in the place of inputs, and memory that may not be shared."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import runtime_programs
from neuc.errors import Error, Exit
from neuc.runtime.program import (
    ArenaBuffer,
    BufferArg,
    F32Arg,
    HostSegment,
    InputBuffer,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OutputBuffer,
    Program,
    ScheduleStep,
)
from neuc.runtime.session import Session

N = 40


def counter(over: bool = True) -> Program:
    """state_out = state + x, in place if `over`; y = state_out reversed, times 2."""
    n = "B"
    buffers = (
        InputBuffer(0),
        InputBuffer(1),
        OutputBuffer(0),
        OutputBuffer(1, 1 if over else None),
        ArenaBuffer(0, "4*B"),
    )
    launches = (
        Launch("k_add", (BufferArg(1), BufferArg(0), BufferArg(3), IntArg(n)), n),
        Launch("k_reverse", (BufferArg(3), BufferArg(4), IntArg(n)), n),
        Launch("k_scale", (BufferArg(4), BufferArg(2), F32Arg(2.0)), n),
    )
    vector = IoSpec("float32", (n,))
    segment = NativeSegment((n,), "4*B", 0, (vector, vector), (vector, vector), buffers, launches)
    names = ("x", "state"), ("y", "state_out")
    inputs, outputs = (tuple(replace(vector, name=name) for name in part) for part in names)
    program = Program(inputs, outputs, {"s": segment}, (ScheduleStep("s", *names),))
    assert Program.from_bytes(program.to_bytes()) == program
    return program


def session(threads: int = 2, program: Program | None = None) -> Session:
    return Session.from_parts(program or counter(), runtime_programs.kernels(), {}, threads=threads)


def vector(value: float = 0.0, size: int = N) -> np.ndarray:
    return np.full(size, value, np.float32) + np.arange(size, dtype=np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_state_in_place(threads: int) -> None:
    with session(threads) as s:
        x, state = vector(), np.zeros(N, np.float32)
        binding = s.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_cpu_input("state", state)
        binding.bind_cpu_output("state_out", state)
        run = s.prepare(binding)
        assert run.outputs["state_out"] is state
        y = run.outputs["y"]
        for step in range(1, 6):
            run()
            np.testing.assert_array_equal(state, step * vector())
            np.testing.assert_array_equal(y, 2 * step * vector()[::-1])
        x[:] = 1.0  # what is in the arrays at the time of the call counts
        run()
        np.testing.assert_array_equal(state, 5 * vector() + 1)


def test_two_prepared_runs_and_ordinary_ones_side_by_side() -> None:
    with session() as s:
        runs = []
        for size in (N, 3):
            binding = s.io_binding()
            binding.bind_cpu_input("x", vector(size=size))
            binding.bind_cpu_input("state", vector(size, size))
            runs.append((size, s.prepare(binding)))
        for _ in range(3):
            for size, run in runs:
                run()
                np.testing.assert_array_equal(run.outputs["state_out"], vector(size, size) + vector(size=size))
                x = vector(1.0, size)
                (y, _state) = s.run(None, {"x": x, "state": x})
                np.testing.assert_array_equal(y, 4 * x[::-1])


def test_one_prepared_run_from_many_threads() -> None:
    with session() as s:
        binding = s.io_binding()
        binding.bind_cpu_input("x", vector())
        binding.bind_cpu_input("state", vector())
        run = s.prepare(binding)
        callers = [threading.Thread(target=lambda: [run() for _ in range(50)]) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        np.testing.assert_array_equal(run.outputs["y"], 4 * vector()[::-1])


def test_memory_that_overlaps_is_refused() -> None:
    memory = np.zeros(3 * N, np.float32)
    state, shifted = memory[:N], memory[1 : N + 1]
    bad = {
        "another program": (session(program=counter(over=False)), vector(), state, state, vector()),
        "an input not to be overwritten": (session(), state, vector(), state, vector()),
        "not the very array": (session(), vector(), state, shifted, vector()),
        "two outputs": (session(), vector(), state, memory[N : 2 * N], memory[N : 2 * N]),
        "an output inside an input": (session(), memory[:N], vector(), vector(), memory[N - 1 : 2 * N - 1]),
        "the state, but also an input": (session(), state, state, state, vector()),
    }
    for case, (s, x, before, after, y) in bad.items():
        binding = s.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_cpu_input("state", before)
        binding.bind_cpu_output("state_out", after)
        binding.bind_cpu_output("y", y)
        for run in (s.prepare, s.run_with_iobinding):
            with pytest.raises(Error, match="overlaps") as caught:
                run(binding)
            assert caught.value.code == "NEUC-E312", case


def test_binding_in_place_works_unprepared_too() -> None:
    with session() as s:
        state = vector()
        binding = s.io_binding()
        binding.bind_cpu_input("x", vector())
        binding.bind_cpu_input("state", state)
        binding.bind_cpu_output("state_out", state)
        s.run_with_iobinding(binding)
        np.testing.assert_array_equal(state, 2 * vector())


def test_sizes_are_checked_when_preparing() -> None:
    with session() as s:
        binding = s.io_binding()
        binding.bind_cpu_input("x", vector())
        with pytest.raises(Error, match="missing input"):
            s.prepare(binding)
        binding.bind_cpu_input("state", vector(size=N + 1))
        with pytest.raises(Error, match="state"):
            s.prepare(binding)
        binding.bind_cpu_input("state", vector())
        binding.bind_cpu_output("y", vector(size=N + 1))
        with pytest.raises(Error, match="bound to an output"):
            s.prepare(binding)


def test_a_closed_session_runs_no_more() -> None:
    s = session()
    binding = s.io_binding()
    binding.bind_cpu_input("x", vector())
    binding.bind_cpu_input("state", vector())
    run = s.prepare(binding)
    run()
    s.close()
    with pytest.raises(Error) as caught:
        run()
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E318", Exit.USAGE)


def test_an_output_over_no_input_is_refused() -> None:
    data = counter().to_json()
    segments = data["segments"]
    assert isinstance(segments, dict)
    segments["s"]["buffers"][3]["over"] = 2
    with pytest.raises(Error, match="input 2 does not exist"):
        Program.from_json(data)


def test_an_input_another_step_reads_stays() -> None:
    """The state is fed to a second step: overwriting it in the first would change what that one sees."""
    program = counter()
    twice = replace(
        program,
        schedule=(*program.schedule, ScheduleStep("s", ("x", "state"), ("y2", "again"))),
        outputs=(*program.outputs, IoSpec("float32", ("B",), "again")),
    )
    with session(program=twice) as s:
        state = vector()
        binding = s.io_binding()
        binding.bind_cpu_input("x", vector())
        binding.bind_cpu_input("state", state)
        binding.bind_cpu_output("state_out", state)
        with pytest.raises(Error, match="overlaps"):
            s.prepare(binding)


def test_host_segments_cannot_be_prepared() -> None:
    class Host:
        def __init__(self, *_: object) -> None: ...

        def run(self, *_: object) -> list[np.ndarray]:
            return []

    program = replace(counter(), segments={"s": HostSegment("h", ("x", "state"), ("y", "state_out"))})
    import neuc.runtime.session as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "executor_factory", lambda _: Host)
        with Session.from_parts(program, {}, {}, {"h": b""}) as s:
            binding = s.io_binding()
            binding.bind_cpu_input("x", vector())
            binding.bind_cpu_input("state", vector())
            with pytest.raises(Error, match="cannot be prepared"):
                s.prepare(binding)
