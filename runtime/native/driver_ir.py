"""The SPMD driver as LLVM IR text: how threads run a list of launches, meet at barriers and wait for the next job.

Entry points: ``neuc_run(pool, job)`` publishes a job, takes part as thread 0 and returns when all threads are done;
``neuc_worker(pool, thread)`` takes part in jobs published from then on; ``neuc_leave(pool)`` ends all workers.

Kernels run with subnormal floats taken and written as 0: a matrix product over them is a hundred times slower, and
what they add is below 1e-37. The caller's mode is put back after each job.

A launch is cut into pieces, which threads take: of their own range first, then of others'. Barriers count pieces, not
threads, and workers join a job when they come, so that nobody waits for a thread that has lost its CPU unless it has
begun a piece.

How a thread waits for a word, and wakes others, is in `waiting_ir.py`.
"""

from __future__ import annotations

from string import Template

from neuc.runtime.native.layout import OPEN, PIECE_SHARE, JobSlot, PoolSlot, RecordSlot
from neuc.runtime.native.waiting_ir import offsets, waiting_ir

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


def driver_ir(system: str, architecture: str, clock_id: int) -> str:
    """The driver's module for an operating system (as in ``sys.platform``) and architecture."""
    declare_flush, flush, restore = _FLUSH.get(architecture, ("", "", ""))
    values = {
        "waiting": waiting_ir(system, architecture),
        "declare_flush": declare_flush,
        "flush": flush,
        "restore": restore,
        "clock_id": clock_id,
        "open": OPEN,
        "half_open": OPEN // 2,
        "piece_share": PIECE_SHARE,
        **offsets("pool", PoolSlot),
        **offsets("job", JobSlot),
        **offsets("record", RecordSlot),
    }
    return Template(_MODULE).substitute(values)


_MODULE = """
$declare_flush

$waiting
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

; Run pieces of every launch of a job until none is left.
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
  %scratch.at = getelementptr i8, ptr %job, i64 $job_scratch
  %scratch.base = load ptr, ptr %scratch.at
  %scratch.stride.at = getelementptr i8, ptr %job, i64 $job_scratch_stride
  %scratch.stride = load i64, ptr %scratch.stride.at
  %scratch.offset = mul i64 %thread, %scratch.stride
  %scratch = getelementptr i8, ptr %scratch.base, i64 %scratch.offset
  %trace.at = getelementptr i8, ptr %job, i64 $job_trace
  %trace = load ptr, ptr %trace.at
  %tracing = icmp ne ptr %trace, null
  %next.at = getelementptr i8, ptr %job, i64 $job_next
  %nexts = load ptr, ptr %next.at
  %done = getelementptr i8, ptr %pool, i64 $pool_done
  %sleepers = getelementptr i8, ptr %pool, i64 $pool_done_sleepers
  %worker = icmp ne i64 %thread, 0
  %nothing = icmp eq i64 %count, 0
  br i1 %nothing, label %end, label %launch

launch:
  %index = phi i64 [ 0, %entry ], [ %index.next, %next ]
  %record = phi ptr [ %records, %entry ], [ %record.next, %next ]
  %mine = phi i32 [ 0, %entry ], [ %mine.next, %next ]
  %index.next = add i64 %index, 1
  %kernel.at = getelementptr i8, ptr %record, i64 $record_kernel
  %kernel = load ptr, ptr %kernel.at
  %args.at = getelementptr i8, ptr %record, i64 $record_args
  %args = load ptr, ptr %args.at
  %barrier.at = getelementptr i8, ptr %record, i64 $record_barrier
  %barrier = load i64, ptr %barrier.at
  %piece.at = getelementptr i8, ptr %record, i64 $record_piece
  %piece = load i64, ptr %piece.at
  %row = mul i64 %index, %threads
  %cell = add i64 %row, %thread
  %cell.offset = mul i64 %cell, 24
  %from.at = getelementptr i8, ptr %trace, i64 %cell.offset
  %to.at = getelementptr i8, ptr %from.at, i64 8
  %units.at = getelementptr i8, ptr %from.at, i64 16
  br label %owner

; Whose range to take from: this thread's own first.
owner:
  %turn = phi i64 [ 0, %launch ], [ %turn.next, %following ]
  %mine.owner = phi i32 [ %mine, %launch ], [ %mine.left, %following ]
  %turn.next = add i64 %turn, 1
  %sum = add i64 %thread, %turn
  %past = icmp uge i64 %sum, %threads
  %wrapped = sub i64 %sum, %threads
  %who = select i1 %past, i64 %wrapped, i64 %sum
  %pair = mul i64 %who, 16
  %range.offset = add i64 %pair, $record_ranges
  %begin.at = getelementptr i8, ptr %record, i64 %range.offset
  %begin = load i64, ptr %begin.at
  %stop.at = getelementptr i8, ptr %begin.at, i64 8
  %stop = load i64, ptr %stop.at
  %word.row = mul i64 %who, %count
  %word.index = add i64 %word.row, %index
  %word = getelementptr i64, ptr %nexts, i64 %word.index
  %whole = icmp eq i64 %piece, 0
  br i1 %whole, label %own, label %glance

own:
  %idle = icmp sge i64 %begin, %stop
  br i1 %idle, label %after, label %work

; Looking costs less than taking where nothing is left.
glance:
  %mine.left = phi i32 [ %mine.owner, %owner ], [ %mine.glance, %again ], [ %mine.left, %take ]
  %taken = load atomic i64, ptr %word monotonic, align 8
  %remaining = sub i64 %stop, %taken
  %some = icmp sgt i64 %remaining, 0
  br i1 %some, label %take, label %following

; As many least pieces as fit into a part of what remains: where a range is cut depends on nothing else.
take:
  %part = mul i64 %piece, $piece_share
  %fit = udiv i64 %remaining, %part
  %none = icmp eq i64 %fit, 0
  %times = select i1 %none, i64 1, i64 %fit
  %taking = mul i64 %times, %piece
  %taken.end = add i64 %taken, %taking
  %attempt = cmpxchg ptr %word, i64 %taken, i64 %taken.end monotonic monotonic
  %got = extractvalue { i64, i1 } %attempt, 1
  br i1 %got, label %piece.of, label %glance

piece.of:
  %cut = icmp sgt i64 %taken.end, %stop
  %taken.stop = select i1 %cut, i64 %stop, i64 %taken.end
  br label %work

work:
  %work.begin = phi i64 [ %begin, %own ], [ %taken, %piece.of ]
  %work.stop = phi i64 [ %stop, %own ], [ %taken.stop, %piece.of ]
  %mine.work = phi i32 [ %mine.owner, %own ], [ %mine.left, %piece.of ]
  %mine.glance = add i32 %mine.work, 1
  br i1 %tracing, label %traced, label %plain

plain:
  call void %kernel(ptr %args, i64 %work.begin, i64 %work.stop, ptr %scratch)
  br label %again

traced:
  %stamped = load i64, ptr %from.at
  %first = icmp eq i64 %stamped, 0
  br i1 %first, label %begun, label %timed

begun:
  call void @stamp(ptr %pool, ptr %from.at)
  br label %timed

timed:
  call void %kernel(ptr %args, i64 %work.begin, i64 %work.stop, ptr %scratch)
  call void @stamp(ptr %pool, ptr %to.at)
  %units.before = load i64, ptr %units.at
  %units.more = sub i64 %work.stop, %work.begin
  %units = add i64 %units.before, %units.more
  store i64 %units, ptr %units.at
  br label %again

again:
  br i1 %whole, label %after, label %glance

following:
  %others = icmp ult i64 %turn.next, %threads
  br i1 %others, label %owner, label %after

after:
  %mine.after = phi i32 [ %mine.owner, %own ], [ %mine.glance, %again ], [ %mine.left, %following ]
  %meets = icmp ne i64 %barrier, 0
  br i1 %meets, label %account, label %next

; A thread that has done nothing since the last barrier has nothing to say, and nobody waits for it.
account:
  %goal.in.job = trunc i64 %barrier to i32
  %goal = add i32 %base, %goal.in.job
  %worked = icmp ne i32 %mine.after, 0
  br i1 %worked, label %arrive, label %stay

arrive:
  %before = atomicrmw add ptr %done, i32 %mine.after seq_cst
  %now = add i32 %before, %mine.after
  %last = icmp eq i32 %now, %goal
  br i1 %last, label %release, label %stay

release:
  call void @wake(ptr %pool, ptr %done, ptr %sleepers)
  br label %next

stay:
  %ending = icmp eq i64 %index.next, %count
  %go = and i1 %ending, %worker
  br i1 %go, label %next, label %wait

wait:
  call void @await(ptr %pool, ptr %done, ptr %sleepers, i32 %goal)
  br label %next

next:
  %mine.next = phi i32 [ %mine.after, %after ], [ 0, %release ], [ 0, %stay ], [ 0, %wait ]
  %record.next = getelementptr i8, ptr %record, i64 %stride
  %more = icmp ult i64 %index.next, %count
  br i1 %more, label %launch, label %end

end:
  $restore
  ret void
}

; No worker is within a job when this is called.
define void @neuc_run(ptr %pool, ptr %job) {
entry:
  %threads.at = getelementptr i8, ptr %job, i64 $job_threads
  %threads = load i64, ptr %threads.at
  %company = icmp ugt i64 %threads, 1
  br i1 %company, label %reset, label %alone

alone:
  call void @participate(ptr %pool, ptr %job, i64 0, i32 0)
  ret void

reset:
  %count.at = getelementptr i8, ptr %job, i64 $job_count
  %count = load i64, ptr %count.at
  %words = mul i64 %count, %threads
  %next.at = getelementptr i8, ptr %job, i64 $job_next
  %nexts = load ptr, ptr %next.at
  %first.at = getelementptr i8, ptr %job, i64 $job_first
  %firsts = load ptr, ptr %first.at
  br label %copy

copy:
  %i = phi i64 [ 0, %reset ], [ %i.next, %copied ]
  %left = icmp ult i64 %i, %words
  br i1 %left, label %copied, label %publish

copied:
  %source = getelementptr i64, ptr %firsts, i64 %i
  %value = load i64, ptr %source
  %target = getelementptr i64, ptr %nexts, i64 %i
  store i64 %value, ptr %target
  %i.next = add i64 %i, 1
  br label %copy

publish:
  %done = getelementptr i8, ptr %pool, i64 $pool_done
  %base = load atomic i32, ptr %done seq_cst, align 8
  %base.at = getelementptr i8, ptr %pool, i64 $pool_base
  store i32 %base, ptr %base.at
  %job.at = getelementptr i8, ptr %pool, i64 $pool_job
  store atomic ptr %job, ptr %job.at seq_cst, align 8
  %gate = getelementptr i8, ptr %pool, i64 $pool_gate
  store atomic i32 $open, ptr %gate seq_cst, align 8
  call void @advance(ptr %pool)
  call void @participate(ptr %pool, ptr %job, i64 0, i32 %base)
  %before = atomicrmw sub ptr %gate, i32 $open seq_cst
  %empty = icmp eq i32 %before, $open
  br i1 %empty, label %finished, label %wait

; Workers within the job may still look at it, though they find nothing to do.
wait:
  %sleepers = getelementptr i8, ptr %pool, i64 $pool_gate_sleepers
  call void @await(ptr %pool, ptr %gate, ptr %sleepers, i32 0)
  br label %finished

finished:
  ret void
}

define internal void @advance(ptr %pool) {
  %generation = getelementptr i8, ptr %pool, i64 $pool_generation
  %sleepers = getelementptr i8, ptr %pool, i64 $pool_idle_sleepers
  %before = atomicrmw add ptr %generation, i32 1 seq_cst
  call void @wake(ptr %pool, ptr %generation, ptr %sleepers)
  ret void
}

; A worker that comes when a job is over already does not join it.
define void @neuc_worker(ptr %pool, i64 %thread) {
entry:
  %generation = getelementptr i8, ptr %pool, i64 $pool_generation
  %idle.sleepers = getelementptr i8, ptr %pool, i64 $pool_idle_sleepers
  %gate = getelementptr i8, ptr %pool, i64 $pool_gate
  %gate.sleepers = getelementptr i8, ptr %pool, i64 $pool_gate_sleepers
  %job.at = getelementptr i8, ptr %pool, i64 $pool_job
  %base.at = getelementptr i8, ptr %pool, i64 $pool_base
  br label %wait

wait:
  %awaited = phi i32 [ 1, %entry ], [ %later, %look ], [ %later, %leave ], [ %later, %wake.up ]
  call void @await(ptr %pool, ptr %generation, ptr %idle.sleepers, i32 %awaited)
  %now = load atomic i32, ptr %generation seq_cst, align 8
  %later = add i32 %now, 1
  %published = load atomic ptr, ptr %job.at seq_cst, align 8
  %over = icmp eq ptr %published, null
  br i1 %over, label %end, label %look

look:
  %state = load atomic i32, ptr %gate seq_cst, align 8
  %open = icmp sgt i32 %state, $half_open
  br i1 %open, label %join, label %wait

join:
  %joined.state = sub i32 %state, 1
  %swap = cmpxchg ptr %gate, i32 %state, i32 %joined.state seq_cst seq_cst
  %joined = extractvalue { i32, i1 } %swap, 1
  br i1 %joined, label %work, label %look

work:
  %job = load atomic ptr, ptr %job.at seq_cst, align 8
  %base = load i32, ptr %base.at
  call void @participate(ptr %pool, ptr %job, i64 %thread, i32 %base)
  br label %leave

leave:
  %before = atomicrmw add ptr %gate, i32 1 seq_cst
  %last = icmp eq i32 %before, -1
  br i1 %last, label %wake.up, label %wait

wake.up:
  call void @wake(ptr %pool, ptr %gate, ptr %gate.sleepers)
  br label %wait

end:
  ret void
}

define void @neuc_leave(ptr %pool) {
  %job.at = getelementptr i8, ptr %pool, i64 $pool_job
  store ptr null, ptr %job.at
  call void @advance(ptr %pool)
  ret void
}
"""
