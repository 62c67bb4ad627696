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
    """Slots of the pool block. GENERATION, DONE, GATE and the sleeper counts are 32-bit words."""

    GENERATION = 0
    """Number of jobs published; workers wait for the next. A futex word."""
    IDLE_SLEEPERS = 1 * _LINE
    """Workers asleep on GENERATION."""
    DONE = 2 * _LINE
    """Pieces of work done so far; only ever counts up, modulo 2**32. A futex word."""
    DONE_SLEEPERS = 3 * _LINE
    """Threads asleep on DONE."""
    GATE = 4 * _LINE
    """Minus the workers within the job, plus OPEN while others may join. A futex word."""
    GATE_SLEEPERS = 5 * _LINE
    """1 if thread 0 is asleep on GATE."""
    JOB = 6 * _LINE
    """Address of the published job; 0 tells the workers to leave."""
    BASE = JOB + 1
    """DONE as it was when the job was published."""
    SPIN = JOB + 2
    """How often to look at a word before going to sleep on it."""
    OS_CALL = JOB + 3
    """Address of the C library's ``syscall`` on Linux, of ``sched_yield`` elsewhere."""
    CLOCK = JOB + 4
    """Address of the C library's ``clock_gettime``."""
    SIZE = 7 * _LINE
    """Slots in the block."""


OPEN = 2**30
"""What an open gate adds to its word."""

PIECE_SHARE = 3
"""A piece is at most such a part of what is left of its range, so that pieces shrink towards the end: guided
self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers, 1987)."""


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
    """Address of the records of times (begin and end in ns, and units done; per launch and thread), or 0."""
    NEXT = 7
    """Address of the first unit that nobody has taken, of each launch of each thread: a row per thread."""
    FIRST = 8
    """Address of what NEXT is when the job begins."""
    SIZE = 10


class RecordSlot(IntEnum):
    """Slots of a launch record; from RANGES on there are (begin, end) for each thread."""

    KERNEL = 0
    ARGS = 1
    BARRIER = 2
    """0, or how many pieces of the job are done when threads may go on past this launch."""
    PIECE = 3
    """Units that a thread takes at a time at least, of its own range and then of others'; 0 if each does its own whole.

    It takes as many times that as fit into what is left divided by `PIECE_SHARE`.
    """
    RANGES = 4


def record_slots(threads: int) -> int:
    """Slots of one launch record for this many threads."""
    return RecordSlot.RANGES + 2 * threads
