"""Tokens per second of a ternary decoder: neuc and the C++ engines in one run, in turns.

    python benchmarks/decoder.py engines.toml [--table native|avx512|avx2] [--threads 1,2] [--rounds 10]
        [--work decode,pp128,pp512] [--energy] [--history results.jsonl] [--page docs/performance.md]

Every round runs every engine once on every kind of work, in an order that changes from round to round, and the limits
(`limits.py`) between them. Loading and the first round are outside the figures. A figure is the median of rounds with
the 10th and the 90th percentile; a ratio is taken within each round, so what disturbs both does not show in it.
`decode` is 32 tokens, one at a time, after a context of 128; `pp128` and `pp512` are so many tokens at once, the last
one's logits included. For prompts the operations of the ternary layers, in the time of the whole prompt, stand beside
the peaks of this machine's dot products, of registers and of AMX tiles; that takes models in the shape of 2B-4T. A peer
whose own system information lacks an instruction set that neuc uses in the table is refused. `peers.md` says how peers
are installed and what the TOML file looks like.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from decoder_models import SHAPES
from energy import EnergyCounter, energy_lines
from engines import TABLES, Engine, EngineSpec, Table, native_table, read_specs, refusal
from limits import AMX, READ_STREAMS, DotProductPeak, ReadBandwidth, Spread
from page_marks import fill_for

from neuc.runtime.cpu_features import host_cpu_name

SHAPE = "2b-4t"
"""Of all models in a run."""
CONTEXT = 128
WORK: dict[str, dict[str, Any]] = {
    "pp512": {"op": "prefill", "tokens": 512},
    "pp128": {"op": "prefill", "tokens": 128},
    "decode": {"op": "decode", "context": CONTEXT, "tokens": 32},
}
"""In the order of a round: after pp128 the caches hold decode's context already."""

READ, PEAK = "limit: read", "limit: dot products"
Samples = dict[tuple[str, str, int], list[float]]
"""By engine (or limit), work, threads: a figure of each round."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="tokens per second of a ternary decoder, neuc and its peers in turns")
    parser.add_argument("engines", type=Path, help="TOML file, see benchmarks/peers.md")
    parser.add_argument("--table", choices=("native", *TABLES), default="native", help="instruction sets")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of a decode (default 32)")
    parser.add_argument("--work", default="decode,pp128,pp512")
    parser.add_argument("--only", default="", help="engines whose names have one of these words, with commas between")
    parser.add_argument("--energy", action="store_true", help="joules per token, where the machine has a counter")
    parser.add_argument("--history", type=Path, help="append everything measured to this file, a JSON object per run")
    parser.add_argument("--page", type=Path, help="write the tables into this page, between the table's marks")
    options = parser.parse_args()
    table = TABLES[options.table] if options.table in TABLES else native_table()
    threads = [int(part) for part in options.threads.split(",")]
    WORK["decode"]["tokens"] = options.tokens
    works = [name for name in WORK if name in options.work.split(",")]
    words = [word for word in options.only.split(",") if word]
    specs = [spec for spec in read_specs(options.engines) if options.table in spec.tables]
    specs = [spec for spec in specs if not words or any(word in spec.name for word in words)]
    load_before = os.getloadavg()[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # engines that wait are stopped: they must not stay
    with tempfile.TemporaryDirectory() as logs:
        engines: list[Engine] = []
        try:
            start(engines, specs, max(threads), table, Path(logs))
            run = Run(engines, table, threads, works, EnergyCounter() if options.energy else None)
            for number in range(options.rounds + 1):
                run.round(keep=number > 0)
        finally:
            for engine in engines:
                engine.close()
    load = f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; {options.rounds} rounds"
    lines = [load, *limit_lines(run.samples, threads)]
    for work in works:
        for count in threads:
            lines += table_lines(run.samples, engines, work, count)
    print("\n".join(lines))
    if run.energy is not None:
        print("\n".join(energy_lines(run.energy, run.joules, {e.spec.name: e.weight_bytes for e in engines})))
    if options.page is not None:
        systems = [f"- {engine.spec.name}: {engine.system.strip()}" for engine in engines]
        machine = host_cpu_name()
        where = f"{datetime.now().date()}, {machine}, {os.cpu_count()} CPUs, {SHAPE.upper()} shape; {lines[0]}"
        one = f" {threads[0]}" if len(threads) == 1 else ""
        content = "\n".join([where, "", *lines[1:], "", *systems])
        fill_for(options.page, f"decoder {options.table}{one}", machine, content)
    if options.history is not None:
        with options.history.open("a") as file:
            file.write(json.dumps(record(run, options, load_before)) + "\n")


def start(engines: list[Engine], specs: list[EngineSpec], threads: int, table: Table, logs: Path) -> None:
    """Load models, one engine after the other; what each is, is printed, and what may not take part ends the run."""
    for number, spec in enumerate(specs):
        engine = Engine(spec, threads, table, logs / f"{number}.log")
        engines.append(engine)
        print(f"{spec.name}: {engine.weight_bytes * 1e-6:.0f} MB, head {spec.head}\n    {engine.system}", flush=True)
        if reason := refusal(spec, engine.system, table):
            raise SystemExit(f"refused: {spec.name} is {reason}")


class Run:
    """Rounds of all engines and limits, and what they gave.

    Attributes:
        samples: tokens per second of engines, GB/s and GOPS of limits.
        joules: joules per token, where there is a counter.
    """

    def __init__(
        self, engines: list[Engine], table: Table, threads: list[int], works: list[str], energy: EnergyCounter | None
    ) -> None:
        self.engines = engines
        self.threads = threads
        self.works = works
        self.energy = energy
        self.samples: Samples = defaultdict(list)
        self.joules: Samples = defaultdict(list)
        self._random = random.Random(0)
        self._limits: list[tuple[tuple[str, str, int], Any]] = []
        for count in threads:
            pool = ReadBandwidth(count)
            self._limits += [((READ, str(n), count), partial(pool.burst, n)) for n in READ_STREAMS]
            self._limits += [((PEAK, isa, count), DotProductPeak(count, isa).burst) for isa in table.peaks]

    def round(self, *, keep: bool) -> None:
        """Every engine on every kind of work, and every limit, once."""
        order = self._random.sample(self.engines, len(self.engines))
        for work in self.works:
            for count in self.threads:
                for key, burst in self._limits:
                    if key[2] == count:
                        value = burst()
                        if keep:
                            self.samples[key].append(value)
                for engine in order:
                    self._measure(engine, work, count, keep=keep)

    def _measure(self, engine: Engine, work: str, threads: int, *, keep: bool) -> None:
        fields = WORK[work]
        if work == "decode":  # the context, if the last request left another one, is not to be timed or weighed
            engine.request(**{**fields, "tokens": 1}, threads=threads)
        before = self.energy.joules() if self.energy is not None else None
        seconds = float(engine.request(**fields, threads=threads)["seconds"])
        after = self.energy.joules() if self.energy is not None else None
        key = (engine.spec.name, work, threads)
        if keep:
            self.samples[key].append(fields["tokens"] / seconds)
            if before is not None and after is not None:
                self.joules[key].append((after - before) / fields["tokens"])


def read_limit(samples: Samples, threads: int) -> Spread:
    """GB/s with the better number of streams."""
    spreads = [Spread.of(values) for (name, _, count), values in samples.items() if (name, count) == (READ, threads)]
    return max(spreads, key=lambda spread: spread.median)


def peaks(samples: Samples, threads: int) -> dict[str, Spread]:
    """GOPS of dot products by key of `limits.DOT_PRODUCTS`."""
    return {isa: Spread.of(v) for (name, isa, count), v in samples.items() if (name, count) == (PEAK, threads)}


def limit_lines(samples: Samples, threads: list[int]) -> list[str]:
    """What memory and multipliers gave in the same rounds."""
    lines: list[str] = []
    for count in threads:
        found = [f"read {shown(read_limit(samples, count))} GB/s"]
        for isa, peak in peaks(samples, count).items():
            found.append(f"dot products of {'tiles' if isa == AMX else 'registers'} ({isa}) {shown(peak, 0)} GOPS")
        lines.append(f"- limits, {count} thread{'s' * (count > 1)}: {', '.join(found)}")
    return lines


def table_lines(samples: Samples, engines: list[Engine], work: str, threads: int) -> list[str]:
    """One kind of work: figures, shares of limits, and the ratio of each neuc engine to each peer."""
    neuc = [engine.spec.name for engine in engines if engine.spec.kind == "neuc"]
    title = f"{work}, {threads} thread{'s' * (threads > 1)}, tokens/s: median (p10..p90)"
    ratios = "".join(f" | {name} / it" for name in neuc)
    limits = peaks(samples, threads)
    shares = " | GB/s | of read limit"
    if work != "decode":
        title += "; GOPS: 2 operations for each ternary weight and token, in the time of the whole prompt"
        shares = " | ".join(["", "GOPS", *(f"of {isa}" for isa in limits)])
    lines = ["", title, "", f"| engine | head | tokens/s{shares}{ratios} |"]
    lines.append("|" + "---|" * (3 + shares.count("|") + len(neuc)))
    limit = read_limit(samples, threads).median
    for engine in sorted(engines, key=lambda e: -Spread.of(samples[e.spec.name, work, threads]).median):
        values = samples[engine.spec.name, work, threads]
        cells = [engine.spec.name, engine.spec.head, shown(Spread.of(values))]
        if work == "decode":
            rate = engine.weight_bytes * Spread.of(values).median * 1e-9
            cells += [f"{rate:.1f}", f"{100 * rate / limit:.0f} %"]
        else:
            rate = 2 * SHAPES[SHAPE].ternary_weights * Spread.of(values).median * 1e-9
            cells += [f"{rate:.0f}", *(f"{100 * rate / peak.median:.0f} %" for peak in limits.values())]
        for name in neuc:
            own = samples[name, work, threads]
            pairs = Spread.of([mine / its for mine, its in zip(own, values, strict=True)])
            cells.append("" if name == engine.spec.name else shown(pairs, 2))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def shown(spread: Spread, digits: int = 1) -> str:
    """Median (p10..p90)."""
    return f"{spread.median:.{digits}f} ({spread.p10:.{digits}f}..{spread.p90:.{digits}f})"


def record(run: Run, options: argparse.Namespace, load_before: float) -> dict[str, Any]:
    """All of a run, for its file of history."""
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpu": host_cpu_name(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}, Python {sys.version.split()[0]}",
        "load": [load_before, os.getloadavg()[0]],
        "uptime": time.monotonic(),
        "table": options.table,
        "engines": [
            {
                "name": engine.spec.name,
                "kind": engine.spec.kind,
                "head": engine.spec.head,
                "weight_bytes": engine.weight_bytes,
                "facts": engine.facts,
                "environment": engine.spec.environment,
                "options": engine.spec.options,
            }
            for engine in run.engines
        ],
        "samples": [{"name": n, "work": w, "threads": t, "values": v} for (n, w, t), v in run.samples.items()],
        "joules": [{"name": n, "work": w, "threads": t, "values": v} for (n, w, t), v in run.joules.items()],
    }


if __name__ == "__main__":
    main()
