"""The SPMD driver as LLVM IR text: how threads run a list of launches, meet at barriers and wait for the next job.

Entry points: ``neuc_run(pool, job)`` publishes a job, takes part as thread 0 and returns when all threads are done;
``neuc_worker(pool, thread)`` takes part in every job published from then on; ``neuc_leave(pool)`` ends all workers.

Kernels run with subnormal floats taken and written as 0: a matrix product over them is a hundred times slower, and
what they add is below 1e-37. The caller's mode is put back after each job.

Waiting means looking at the word a bounded number of times, then sleeping on it in the kernel (futex). Nothing only
spins: with more threads than CPUs the thread that all wait for may not be running.
"""

from __future__ import annotations

from enum import IntEnum
from string import Template

from neuc.runtime.native.layout import SLOT, JobSlot, PoolSlot, RecordSlot

_FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98}

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

# Declarations; how to switch subnormals off, keeping the old mode in %mode; how to put %mode back.
_FLUSH = {
    "x86_64": (
        "declare void @llvm.x86.sse.stmxcsr(ptr)\ndeclare void @llvm.x86.sse.ldmxcsr(ptr)",
        """%mode = alloca i32
  %fast = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  %mode.bits = load i32, ptr %mode
  %fast.bits = or i32 %mode.bits, 32832 ; bit 15: results, bit 6: operands
  store i32 %fast.bits, ptr %fast
  call void @llvm.x86.sse.ldmxcsr(ptr %fast)""",
        "call void @llvm.x86.sse.ldmxcsr(ptr %mode)",
    ),
    "aarch64": (
        "declare i64 @llvm.aarch64.get.fpcr()\ndeclare void @llvm.aarch64.set.fpcr(i64)",
        """%mode = call i64 @llvm.aarch64.get.fpcr()
  %fast = or i64 %mode, 16777216 ; bit 24: both
  call void @llvm.aarch64.set.fpcr(i64 %fast)""",
        "call void @llvm.aarch64.set.fpcr(i64 %mode)",
    ),
}

_FUTEX = "call i64 (i64, ...) %os(i64 {number}, ptr %word, i64 {operation}, i32 {value}, ptr null, ptr null, i32 0)"
_WAIT_PRIVATE = 128
_WAKE_PRIVATE = 129


def has_futex(system: str, architecture: str) -> bool:
    """Whether waiting threads sleep in the kernel here; otherwise they give up their time slice."""
    return system == "linux" and architecture in _FUTEX_NUMBER


def driver_ir(system: str, architecture: str, clock_id: int) -> str:
    """The driver's module for an operating system (as in ``sys.platform``) and architecture."""
    declare_pause, pause = _PAUSE.get(architecture, ("", ""))
    declare_flush, flush, restore = _FLUSH.get(architecture, ("", "", ""))
    if has_futex(system, architecture):
        number = _FUTEX_NUMBER[architecture]
        sleep = _FUTEX.format(number=number, operation=_WAIT_PRIVATE, value="%seen")
        wake = _FUTEX.format(number=number, operation=_WAKE_PRIVATE, value=2**31 - 1)
    else:
        sleep, wake = "call i32 %os()", "add i64 0, 0"
    values = {
        "declare_pause": declare_pause,
        "pause": pause,
        "declare_flush": declare_flush,
        "flush": flush,
        "restore": restore,
        "sleep": sleep,
        "wake": wake,
        "clock_id": clock_id,
        **_offsets("pool", PoolSlot),
        **_offsets("job", JobSlot),
        **_offsets("record", RecordSlot),
    }
    return Template(_MODULE).substitute(values)


def _offsets(prefix: str, slots: type[IntEnum]) -> dict[str, object]:
    """``pool_job`` … → byte offset."""
    return {f"{prefix}_{name.lower()}": slots[name] * SLOT for name in slots.__members__}


_MODULE = """
$declare_pause
$declare_flush

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

; Store the time in ns at %to.
define internal void @stamp(ptr %pool, ptr %to) {
  %time = alloca { i64, i64 }
  %clock.at = getelementptr i8, ptr %pool, i64 $pool_clock
  %clock = load ptr, ptr %clock.at
  %status = call i32 %clock(i32 $clock_id, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i8, ptr %time, i64 8
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  store i64 %ns, ptr %to
  ret void
}

; Run this thread's part of every launch of a job.
define internal void @participate(ptr %pool, ptr %job, i64 %thread, i32 %base) {
entry:
  $flush
  %records.at = getelementptr i8, ptr %job, i64 $job_records
  %records = load ptr, ptr %records.at
  %count.at = getelementptr i8, ptr %job, i64 $job_count
  %count = load i64, ptr %count.at
  %stride.at = getelementptr i8, ptr %job, i64 $job_stride
  %stride = load i64, ptr %stride.at
  %threads.at = getelementptr i8, ptr %job, i64 $job_threads
  %threads = load i64, ptr %threads.at
  %threads.short = trunc i64 %threads to i32
  %scratch.at = getelementptr i8, ptr %job, i64 $job_scratch
  %scratch.base = load ptr, ptr %scratch.at
  %scratch.stride.at = getelementptr i8, ptr %job, i64 $job_scratch_stride
  %scratch.stride = load i64, ptr %scratch.stride.at
  %scratch.offset = mul i64 %thread, %scratch.stride
  %scratch = getelementptr i8, ptr %scratch.base, i64 %scratch.offset
  %trace.at = getelementptr i8, ptr %job, i64 $job_trace
  %trace = load ptr, ptr %trace.at
  %tracing = icmp ne ptr %trace, null
  %arrived = getelementptr i8, ptr %pool, i64 $pool_arrived
  %sleepers = getelementptr i8, ptr %pool, i64 $pool_barrier_sleepers
  %pair = mul i64 %thread, 16
  %range.offset = add i64 %pair, $record_ranges
  %worker = icmp ne i64 %thread, 0
  %nothing = icmp eq i64 %count, 0
  br i1 %nothing, label %done, label %launch

launch:
  %index = phi i64 [ 0, %entry ], [ %index.next, %next ]
  %record = phi ptr [ %records, %entry ], [ %record.next, %next ]
  %target = phi i32 [ %base, %entry ], [ %target.next, %next ]
  %index.next = add i64 %index, 1
  %barrier.at = getelementptr i8, ptr %record, i64 $record_barrier
  %barrier = load i64, ptr %barrier.at
  %begin.at = getelementptr i8, ptr %record, i64 %range.offset
  %begin = load i64, ptr %begin.at
  %end.at = getelementptr i8, ptr %begin.at, i64 8
  %end = load i64, ptr %end.at
  %idle = icmp sge i64 %begin, %end
  br i1 %idle, label %after, label %work

work:
  %kernel.at = getelementptr i8, ptr %record, i64 $record_kernel
  %kernel = load ptr, ptr %kernel.at
  %args.at = getelementptr i8, ptr %record, i64 $record_args
  %args = load ptr, ptr %args.at
  br i1 %tracing, label %traced, label %plain

plain:
  call void %kernel(ptr %args, i64 %begin, i64 %end, ptr %scratch)
  br label %after

traced:
  %row = mul i64 %index, %threads
  %cell = add i64 %row, %thread
  %cell.offset = mul i64 %cell, 16
  %from.at = getelementptr i8, ptr %trace, i64 %cell.offset
  %to.at = getelementptr i8, ptr %from.at, i64 8
  call void @stamp(ptr %pool, ptr %from.at)
  call void %kernel(ptr %args, i64 %begin, i64 %end, ptr %scratch)
  call void @stamp(ptr %pool, ptr %to.at)
  br label %after

after:
  %meets = icmp ne i64 %barrier, 0
  br i1 %meets, label %arrive, label %next

arrive:
  %goal = add i32 %target, %threads.short
  %others = atomicrmw add ptr %arrived, i32 1 seq_cst
  %now = add i32 %others, 1
  %last = icmp eq i32 %now, %goal
  br i1 %last, label %release, label %stay

release:
  call void @wake(ptr %pool, ptr %arrived, ptr %sleepers)
  br label %next

; Workers do not wait at the end: thread 0 does, and after it returns no worker may touch the job any more.
stay:
  %ending = icmp eq i64 %index.next, %count
  %go = and i1 %ending, %worker
  br i1 %go, label %next, label %wait

wait:
  call void @await(ptr %pool, ptr %arrived, ptr %sleepers, i32 %goal)
  br label %next

next:
  %target.next = phi i32 [ %target, %after ], [ %goal, %release ], [ %goal, %stay ], [ %goal, %wait ]
  %record.next = getelementptr i8, ptr %record, i64 %stride
  %more = icmp ult i64 %index.next, %count
  br i1 %more, label %launch, label %done

done:
  $restore
  ret void
}

define void @neuc_run(ptr %pool, ptr %job) {
entry:
  %threads.at = getelementptr i8, ptr %job, i64 $job_threads
  %threads = load i64, ptr %threads.at
  %company = icmp ugt i64 %threads, 1
  br i1 %company, label %publish, label %go

publish:
  %arrived = getelementptr i8, ptr %pool, i64 $pool_arrived
  %count = load atomic i32, ptr %arrived seq_cst, align 8
  %base.at = getelementptr i8, ptr %pool, i64 $pool_base
  store i32 %count, ptr %base.at
  %job.at = getelementptr i8, ptr %pool, i64 $pool_job
  store ptr %job, ptr %job.at
  call void @advance(ptr %pool)
  br label %go

go:
  %base = phi i32 [ 0, %entry ], [ %count, %publish ]
  call void @participate(ptr %pool, ptr %job, i64 0, i32 %base)
  ret void
}

define internal void @advance(ptr %pool) {
  %generation = getelementptr i8, ptr %pool, i64 $pool_generation
  %sleepers = getelementptr i8, ptr %pool, i64 $pool_idle_sleepers
  %before = atomicrmw add ptr %generation, i32 1 seq_cst
  call void @wake(ptr %pool, ptr %generation, ptr %sleepers)
  ret void
}

define void @neuc_worker(ptr %pool, i64 %thread) {
entry:
  %generation = getelementptr i8, ptr %pool, i64 $pool_generation
  %sleepers = getelementptr i8, ptr %pool, i64 $pool_idle_sleepers
  %job.at = getelementptr i8, ptr %pool, i64 $pool_job
  %base.at = getelementptr i8, ptr %pool, i64 $pool_base
  br label %wait

wait:
  %awaited = phi i32 [ 1, %entry ], [ %following, %work ]
  call void @await(ptr %pool, ptr %generation, ptr %sleepers, i32 %awaited)
  %job = load ptr, ptr %job.at
  %over = icmp eq ptr %job, null
  br i1 %over, label %done, label %work

work:
  %base = load i32, ptr %base.at
  call void @participate(ptr %pool, ptr %job, i64 %thread, i32 %base)
  %following = add i32 %awaited, 1
  br label %wait

done:
  ret void
}

define void @neuc_leave(ptr %pool) {
  %job.at = getelementptr i8, ptr %pool, i64 $pool_job
  store ptr null, ptr %job.at
  call void @advance(ptr %pool)
  ret void
}
"""
