"""How threads wait, as LLVM IR text: ``@await(pool, word, sleepers, target)`` and ``@wake(pool, word, sleepers)``.

Waiting means looking at the word a bounded number of times, then sleeping on it in the kernel (futex). Nothing only
spins: with more threads than CPUs the thread that all wait for may not be running. What is waited for is the business
of `driver_ir.py`.
"""

from __future__ import annotations

from enum import IntEnum
from string import Template

from neuc.runtime.native.layout import SLOT, PoolSlot

_FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98}

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

_FUTEX = "call i64 (i64, ...) %os(i64 {number}, ptr %word, i64 {operation}, i32 {value}, ptr null, ptr null, i32 0)"
_WAIT_PRIVATE = 128
_WAKE_PRIVATE = 129


def has_futex(system: str, architecture: str) -> bool:
    """Whether waiting threads sleep in the kernel here; otherwise they give up their time slice."""
    return system == "linux" and architecture in _FUTEX_NUMBER


def offsets(prefix: str, slots: type[IntEnum]) -> dict[str, object]:
    """``pool_job`` … → byte offset."""
    return {f"{prefix}_{name.lower()}": slots[name] * SLOT for name in slots.__members__}


def waiting_ir(system: str, architecture: str) -> str:
    """Both functions, for an operating system (as in ``sys.platform``) and architecture."""
    declare_pause, pause = _PAUSE.get(architecture, ("", ""))
    if has_futex(system, architecture):
        number = _FUTEX_NUMBER[architecture]
        sleep = _FUTEX.format(number=number, operation=_WAIT_PRIVATE, value="%seen")
        wake = _FUTEX.format(number=number, operation=_WAKE_PRIVATE, value=2**31 - 1)
    else:
        sleep, wake = "call i32 %os()", "add i64 0, 0"
    values = {"declare_pause": declare_pause, "pause": pause, "sleep": sleep, "wake": wake}
    return Template(_FUNCTIONS).substitute({**values, **offsets("pool", PoolSlot)})


_FUNCTIONS = """
$declare_pause

; Return once the counter %word has reached %target, modulo 2**32.
define internal void @await(ptr %pool, ptr %word, ptr %sleepers, i32 %target) {
entry:
  %spin.at = getelementptr i8, ptr %pool, i64 $pool_spin
  %spin = load i64, ptr %spin.at
  %os.at = getelementptr i8, ptr %pool, i64 $pool_os_call
  %os = load ptr, ptr %os.at
  br label %look

look:
  %round = phi i64 [ 0, %entry ], [ %round.next, %again ]
  %glimpse = load atomic i32, ptr %word acquire, align 8
  %glimpse.ahead = sub i32 %glimpse, %target
  %glimpse.reached = icmp sge i32 %glimpse.ahead, 0
  br i1 %glimpse.reached, label %done, label %again

again:
  $pause
  %round.next = add i64 %round, 1
  %patient = icmp ult i64 %round.next, %spin
  br i1 %patient, label %look, label %announce

; Announce first, look again after: whoever counts up next either is seen here or sees a sleeper and wakes it.
announce:
  %sleepers.before = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %check

check:
  %seen = load atomic i32, ptr %word seq_cst, align 8
  %seen.ahead = sub i32 %seen, %target
  %seen.reached = icmp sge i32 %seen.ahead, 0
  br i1 %seen.reached, label %leave, label %sleep

sleep:
  %slept = $sleep
  br label %check

leave:
  %sleepers.after = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done

done:
  ret void
}

; Wake whoever sleeps on %word, which has just been counted up.
define internal void @wake(ptr %pool, ptr %word, ptr %sleepers) {
entry:
  %count = load atomic i32, ptr %sleepers seq_cst, align 8
  %any = icmp ne i32 %count, 0
  br i1 %any, label %call, label %done

call:
  %os.at = getelementptr i8, ptr %pool, i64 $pool_os_call
  %os = load ptr, ptr %os.at
  %woken = $wake
  br label %done

done:
  ret void
}
"""
