"""What busy neighbours and too many threads do to a decoder: tokens per second, the slowest step against the median.

    python benchmarks/decoder_models.py 700m 700m.gguf && neuc compile 700m.gguf -o 700m.neuc
    python benchmarks/under_load.py 700m.neuc

Cases are measured in turns. A fair scheduler gives a process with as many threads as there are CPUs half of them when
as many busy loops run beside it: a ratio of 0.5 is all there is to have there.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from neuc.runtime.cpu_features import available_cpus
from neuc.runtime.generation import Decoder, load_decoder

_PROMPT = 32
_LOOP = "while True: pass"


@dataclass
class Case:
    """Decoding with so many threads beside so many busy loops; seconds of each step."""

    threads: int
    loops: int
    steps: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return len(self.steps) / sum(self.steps)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--seconds", default=1.5, show_default=True, help="Of each case in each round.")
@click.option("--rounds", default=4, show_default=True)
@click.option("--threads", "counts", default="", help="Thread counts; 1, all CPUs and twice as many by default.")
def main(model: Path, seconds: float, rounds: int, counts: str) -> None:
    """Measure MODEL, a decoder's artifact, alone and beside as many busy loops as there are CPUs."""
    cpus = available_cpus()
    threads = [int(count) for count in counts.split(",") if count] or sorted({1, cpus, 2 * cpus})
    decoders = {count: load_decoder(model, threads=count) for count in threads}
    cases = [Case(count, loops) for loops in (0, cpus) for count in threads]
    for _ in range(rounds):
        for case in cases:
            with busy_loops(case.loops):
                case.steps += decode(decoders[case.threads], seconds)
    quiet = {case.threads: case.rate for case in cases if case.loops == 0}
    print(f"{'threads':>7} {'loops':>6} {'tokens/s':>9} {'of quiet':>9} {'median ms':>10} {'max/median':>11}")
    for case in cases:
        median, most = float(np.median(case.steps)), max(case.steps)
        ratio = case.rate / quiet[min(case.threads, max(c for c in threads if c <= cpus))]
        row = (
            f"{case.threads:7} {case.loops:6} {case.rate:9.1f} {ratio:9.2f} {median * 1e3:10.2f} {most / median:11.1f}"
        )
        print(row)


def decode(decoder: Decoder, seconds: float) -> list[float]:
    """Seconds of each step; the sequence starts over when the caches are full."""
    steps: list[float] = []
    decoder.reset()
    decoder.prefill(range(1, _PROMPT + 1))
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        if decoder.position == decoder.capacity:
            decoder.truncate(_PROMPT)
        decoder.decode(1)
        steps.append(time.perf_counter() - start)
    return steps


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", _LOOP]) for _ in range(count)]
    time.sleep(0.1 * bool(count))
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    main()
