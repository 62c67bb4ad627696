"""Threads: many callers, more threads than CPUs, forks, interrupts, and leaving cleanly."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime_programs
from neuc.errors import Error
from neuc.runtime.cpu_features import available_cpus, host_architecture
from neuc.runtime.native import pool as pool_module
from neuc.runtime.native.driver import driver
from neuc.runtime.native.driver_ir import driver_ir
from neuc.runtime.native.pool import MAX_THREADS, resolve_threads, shared_pool
from neuc.runtime.program import (
    BufferArg,
    F32Arg,
    InputBuffer,
    IoSpec,
    Launch,
    NativeSegment,
    OutputBuffer,
    Program,
    ScheduleStep,
)
from neuc.runtime.session import Session

SUPPORT = Path(runtime_programs.__file__).parent
HANG_SECONDS = 60  # only to end a test that hangs; nothing is measured against it


def session(threads: int, rounds: int = 3) -> Session:
    return Session.from_parts(
        runtime_programs.chain(rounds), runtime_programs.kernels(), runtime_programs.chain_weights(), threads=threads
    )


def run_checked(s: Session, seed: int, rounds: int = 3) -> None:
    x = np.random.default_rng(seed).standard_normal((1 + seed % 40, runtime_programs.WIDTH)).astype(np.float32)
    np.testing.assert_array_equal(s.run(None, {"x": x})[0], runtime_programs.chain_expected(x, rounds))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_callers_of_one_session(threads: int) -> None:
    with session(threads) as s, ThreadPoolExecutor(8) as callers:
        for result in [callers.submit(run_checked, s, seed) for seed in range(160)]:
            result.result(HANG_SECONDS)


def test_many_sessions_at_once() -> None:
    sessions = [session(threads) for threads in (1, 2, 2, 3, 4)]
    with ThreadPoolExecutor(len(sessions)) as callers:
        for result in [callers.submit(run_checked, sessions[i % len(sessions)], i) for i in range(100)]:
            result.result(HANG_SECONDS)


def test_more_threads_than_cpus() -> None:
    """Each of these barriers would cost a time slice or more if threads only spun."""
    with session(2 * available_cpus(), rounds=50) as s:
        for seed in range(20):
            run_checked(s, seed, rounds=50)


def test_long_chains_of_barriers() -> None:
    with session(2, rounds=100) as s:  # an even number of reversals and exact doublings up to 2^100
        for seed in range(30):
            run_checked(s, seed, rounds=100)


def test_workers_that_fell_asleep_wake_up() -> None:
    with session(2) as s:
        for seed in range(5):
            run_checked(s, seed)
            time.sleep(0.02)  # a hundred times longer than workers spin


def test_nobody_waits_for_workers_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker has not begun, others do; one that comes in the end takes part from then on."""
    come, work = threading.Event(), pool_module._work

    def late(*where: Any) -> None:
        come.wait()
        work(*where)

    monkeypatch.setattr(pool_module, "_work", late)
    with session(6) as s:
        for seed in range(10):
            run_checked(s, seed)
        come.set()
        for seed in range(30):
            run_checked(s, seed)


def test_pools_are_shared_and_end_with_their_last_session() -> None:
    before = set(threading.enumerate())
    first, second = session(5), session(5)
    run_checked(first, 1)
    run_checked(second, 1)
    assert shared_pool(5) is shared_pool(5)
    own = set(threading.enumerate()) - before
    assert len(own) == 4
    first.close()
    run_checked(second, 2)
    second.close()
    del first, second
    gc.collect()
    assert not own & set(threading.enumerate())


def test_an_error_in_a_run_leaves_the_session_usable() -> None:
    with session(2) as s:
        for seed in range(10):
            with pytest.raises(Error):
                s.run(None, {"x": np.zeros((2, 4), np.float32)})
            run_checked(s, seed)


def test_thread_counts() -> None:
    assert resolve_threads(None) == available_cpus()
    assert resolve_threads(2 * available_cpus()) == 2 * available_cpus()
    for wrong in (0, -1, MAX_THREADS + 1, "2", 1.5):
        with pytest.raises(Error) as caught:
            resolve_threads(wrong)  # type: ignore[arg-type]
        assert caught.value.code == "NEUC-E405"


@pytest.mark.parametrize(
    ("system", "architecture", "has", "has_not"),
    [
        ("linux", "x86_64", "i64 202", "hint"),
        ("linux", "aarch64", "i64 98", "sse2"),
        ("linux", "riscv64", "call i32 %os()", "i64 202"),
        ("darwin", "aarch64", "call i32 %os()", "i64 98"),
    ],
)
def test_driver_for_each_system_is_valid_ir(system: str, architecture: str, has: str, has_not: str) -> None:
    import llvmlite.binding as binding

    text = driver_ir(system, architecture, 1)
    binding.parse_assembly(text).verify()
    assert has in text
    assert has_not not in text


@pytest.mark.skipif(host_architecture() not in ("x86_64", "aarch64"), reason="no such mode here")
@pytest.mark.parametrize("threads", [1, 2])
def test_subnormals_count_as_zero_inside_and_only_there(threads: int) -> None:
    tiny = np.full((64, runtime_programs.WIDTH), np.finfo(np.float32).smallest_subnormal)
    io = IoSpec("float32", ("B", runtime_programs.WIDTH))
    launch = Launch("k_scale", (BufferArg(0), BufferArg(1), F32Arg(2.0**126)), "B*5")
    segment = NativeSegment(("B",), 0, 0, (io,), (io,), (InputBuffer(0), OutputBuffer(0)), (launch,))
    named = (replace(io, name="x"),), (replace(io, name="y"),)
    program = Program(*named, {"s": segment}, (ScheduleStep("s", ("x",), ("y",)),))
    with Session.from_parts(program, runtime_programs.kernels(), {}, threads=threads) as s:
        assert not s.run(None, {"x": tiny})[0].any()
    assert (tiny * np.float32(2.0**126)).all()


def test_systems_without_the_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_MONOTONIC")
    with pytest.raises(Error) as caught:
        driver.__wrapped__()
    assert caught.value.code == "NEUC-E406"


PREAMBLE = f"""
import sys, os, threading, time
sys.path.insert(0, {str(SUPPORT)!r})
import numpy as np
import runtime_programs
from neuc.runtime.session import Session
def session(threads):
    return Session.from_parts(
        runtime_programs.chain(), runtime_programs.kernels(), runtime_programs.chain_weights(), threads=threads
    )
def check(s, rows=9):
    x = np.ones((rows, 5), np.float32)
    assert (s.run(None, {{"x": x}})[0] == runtime_programs.chain_expected(x)).all()
"""


def script(body: str) -> str:
    """Run a script in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREAMBLE + body],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_fork() -> None:
    """The child has none of the parent's workers, and both go on; also with another thread in the middle of a run."""
    body = """
s, alone = session(2), session(1)
check(s); check(alone)
stop = threading.Event()
def busy():
    while not stop.is_set():
        check(s)
thread = threading.Thread(target=busy)
thread.start()
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        check(s); check(alone); check(session(2)); check(session(3))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    check(s)
stop.set()
thread.join()
print("fine")
"""
    assert script(body) == "fine"


def test_exit_of_a_forked_child_and_of_the_parent() -> None:
    body = """
s = session(2)
check(s)
pid = os.fork()
check(s)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("fine")
"""
    assert script(body) == "fine"


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "s.close()",
        "threading.Thread(target=lambda: [check(s) for _ in range(10**9)], daemon=True).start(); time.sleep(0.1)",
        "keep = [session(3)]; check(keep[0]); keep.append(keep)",
    ],
)
def test_the_interpreter_ends(ending: str) -> None:
    assert script(f"s = session(2)\ncheck(s)\nprint('fine', flush=True)\n{ending}\n") == "fine"


def test_ctrl_c_ends_a_loop_of_runs() -> None:
    body = """
import signal
s = session(2)
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        check(s)
except KeyboardInterrupt:
    check(s)
    print("interrupted")
"""
    assert script(body) == "interrupted"
