"""Thread pools: Python threads that live in native code and run jobs together with the calling thread.

A pool belongs to a thread count and is shared by all sessions that use it. One job runs on it at a time: callers from
several Python threads take turns. Sessions with one thread need no pool and run side by side.

Workers are daemon threads. They are sent home when the last session that holds the pool goes, and at interpreter exit.
After a fork the child has no workers, so its pools hire new ones.
"""

from __future__ import annotations

import operator
import os
import threading
import weakref

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit
from neuc.runtime.cpu_features import available_cpus
from neuc.runtime.native.driver import Driver, driver
from neuc.runtime.native.layout import SLOT, PoolSlot

MAX_THREADS = 1024
SPIN = 2000
"""Looks at a word before sleeping: about 0.1 ms, the length of a few launches."""
SPIN_CROWDED = 20
"""The same when there are more threads than CPUs and the awaited thread may not be running at all."""

_JOIN_SECONDS = 1.0
_ALIGNMENT = 128


def aligned_bytes(nbytes: int, alignment: int = _ALIGNMENT, *, zeroed: bool = False) -> NDArray[np.uint8]:
    """Uninitialised or zeroed memory whose first byte is at a multiple of ``alignment``."""
    raw = (np.zeros if zeroed else np.empty)(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def resolve_threads(threads: int | None) -> int:
    """The thread count to use: as many as there are CPUs for this process, unless the caller says otherwise."""
    if threads is None:
        return available_cpus()
    try:
        count = operator.index(threads)
    except TypeError:
        count = 0
    if not 1 <= count <= MAX_THREADS:
        raise Error(
            "NEUC-E405",
            f"threads={threads!r} is no number between 1 and {MAX_THREADS}",
            hint=f"leave it out to use the {available_cpus()} CPUs of this process",
            exit_code=Exit.USAGE,
        )
    return count


class Pool:
    """``threads - 1`` workers, hired at the first job, and the block of memory through which they are led."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._driver = driver()
        self._lock = threading.Lock()
        self._crew: _Crew | None = None
        self._alone = _new_block(self._driver, 1)
        self._alone_address = self._alone.ctypes.data
        _pools.add(self)

    def run(self, job: int) -> None:
        """Run the job block at this address; wait for our turn if another Python thread is using the pool."""
        with self._lock:
            if self._crew is None:
                self._crew = _Crew(self._driver, self.threads)
                weakref.finalize(self, self._crew.dismiss)
            self._driver.run(self._crew.address, job)

    def run_alone(self, job: int) -> None:
        """Run a job block made for one thread on the calling thread, next to whatever the pool is doing."""
        self._driver.run(self._alone_address, job)

    def forked(self) -> None:
        """Make good after a fork: the child has none of the workers, and the lock may have been held."""
        self._lock = threading.Lock()
        self._crew = None


class _Crew:
    """The workers of one pool in one process."""

    def __init__(self, native: Driver, threads: int) -> None:
        self._driver = native
        self._block = _new_block(native, threads)
        self._process = os.getpid()
        self.address = self._block.ctypes.data
        self._workers = [
            threading.Thread(
                target=_work, args=(native, self._block, index), name=f"neuc-{index}/{threads}", daemon=True
            )
            for index in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()

    def dismiss(self) -> None:
        """Send the workers home; called when the pool is gone, or at interpreter exit."""
        if os.getpid() != self._process:
            return
        self._driver.leave(self.address)
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join(_JOIN_SECONDS)


def _new_block(native: Driver, threads: int) -> NDArray[np.uint8]:
    block = aligned_bytes(PoolSlot.SIZE * SLOT)
    block[:] = 0
    slots = block.view(np.int64)
    slots[PoolSlot.SPIN] = SPIN if threads <= available_cpus() else SPIN_CROWDED
    slots[PoolSlot.OS_CALL] = native.os_call
    slots[PoolSlot.CLOCK] = native.clock
    return block


def _work(native: Driver, block: NDArray[np.uint8], index: int) -> None:
    native.worker(block.ctypes.data, index)  # the argument keeps the block alive while the thread is in it


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class _Registry:
    """Living pools by thread count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_threads: weakref.WeakValueDictionary[int, Pool] = weakref.WeakValueDictionary()

    def get(self, threads: int) -> Pool:
        with self._lock:
            pool = self._by_threads.get(threads)
            if pool is None:
                pool = self._by_threads[threads] = Pool(threads)
            return pool

    def forked(self) -> None:
        self._lock = threading.Lock()
        for pool in list(_pools):
            pool.forked()


_registry = _Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.forked)


def shared_pool(threads: int) -> Pool:
    """The pool of this process for a thread count; it lives as long as somebody keeps it."""
    return _registry.get(threads)
