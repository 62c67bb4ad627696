"""Threads of a benchmark, pinned, one to a processor, and the two clocks they are timed by. Nothing of what they do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


class Team:
    """Threads that start together, each on a processor of its own.

    Attributes:
        threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._processors = sorted(os.sched_getaffinity(0))[:threads]
        if len(self._processors) < threads:
            raise SystemExit(f"{threads} threads on {len(self._processors)} processors: there must be one each")

    def run(self, job: Callable[[int], object]) -> float:
        """Seconds from the first start to the last end of job(0), job(1) …"""
        times = self._times(job, time.perf_counter_ns)
        return (max(end for _, end in times) - min(start for start, _ in times)) * 1e-9

    def slowest(self, job: Callable[[int], object]) -> float:
        """Seconds on its processor of the one of job(0), job(1) … that took longest, all at the same time."""
        return max(end - start for start, end in self._times(job, time.thread_time_ns)) * 1e-9

    def _times(self, job: Callable[[int], object], clock: Callable[[], int]) -> list[tuple[int, int]]:
        barrier = threading.Barrier(len(self._processors))
        times: list[tuple[int, int]] = []

        def work(thread: int, processor: int) -> None:
            os.sched_setaffinity(0, {processor})
            barrier.wait()
            start = clock()
            job(thread)
            times.append((start, clock()))

        workers = [threading.Thread(target=work, args=pair) for pair in enumerate(self._processors)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return times
