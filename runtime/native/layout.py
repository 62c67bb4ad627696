"""Memory layout shared by Python and the generated driver: which 64-bit slot of which block holds what.

A pool block is shared by the threads of a pool; a job block describes one run; a launch record one kernel call.
Words that different threads write lie on cache lines of their own.
"""

from __future__ import annotations

from enum import IntEnum

SLOT = 8
"""Bytes per slot."""

_LINE = 16  # slots; 128 bytes, because processors fetch lines in pairs


class PoolSlot(IntEnum):
    """Slots of the pool block. GENERATION, ARRIVED and the two sleeper counts are 32-bit words."""

    GENERATION = 0
    """Number of jobs published; workers wait for the next. A futex word."""
    IDLE_SLEEPERS = 1 * _LINE
    """Workers asleep on GENERATION."""
    ARRIVED = 2 * _LINE
    """Barrier arrivals so far; only ever counts up, modulo 2**32. A futex word."""
    BARRIER_SLEEPERS = 3 * _LINE
    """Threads asleep on ARRIVED."""
    JOB = 4 * _LINE
    """Address of the published job; 0 tells the workers to leave."""
    BASE = JOB + 1
    """ARRIVED as it was when the job was published."""
    SPIN = JOB + 2
    """How often to look at a word before going to sleep on it."""
    OS_CALL = JOB + 3
    """Address of the C library's ``syscall`` on Linux, of ``sched_yield`` elsewhere."""
    CLOCK = JOB + 4
    """Address of the C library's ``clock_gettime``."""
    SIZE = 5 * _LINE
    """Slots in the block."""


class JobSlot(IntEnum):
    """Slots of the job block."""

    RECORDS = 0
    """Address of the first launch record."""
    COUNT = 1
    """Number of launch records."""
    STRIDE = 2
    """Bytes from one launch record to the next."""
    THREADS = 3
    """Threads that take part."""
    SCRATCH = 4
    """Address of thread 0's scratch memory."""
    SCRATCH_STRIDE = 5
    """Bytes from one thread's scratch memory to the next."""
    TRACE = 6
    """Address of the time stamps (begin and end in ns, per launch and thread), or 0."""
    SIZE = 8


class RecordSlot(IntEnum):
    """Slots of a launch record; from RANGES on there are (begin, end) for each thread."""

    KERNEL = 0
    ARGS = 1
    BARRIER = 2
    """1 if all threads meet after this launch."""
    RANGES = 3


def record_slots(threads: int) -> int:
    """Slots of one launch record for this many threads."""
    return RecordSlot.RANGES + 2 * threads
