"""Measures every encoding on every instruction set of this CPU and writes the table of docs/performance.md.

    python benchmarks/performance_page.py [--seconds 1.0] [--levels ternary,binary] [--json kernels.json]
        [--page docs/performance.md]

The table goes between the two marks of the page; what is said around it is written by people, from the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from kernels_ternary import LEVEL_SETS, Case, Variant, here_isas, measured
from page_marks import fill_for

from neuc.backends.cpu.encodings import CPU_ENCODINGS
from neuc.runtime.cpu_features import host_cpu_name

ROWS, COLUMNS = 2560, 2560
BATCHES = (1, 4, 16, 128)
TARGET_GOPS = 1.5 * 130
"""What issue and page promise of tl2 at batch 1: one and a half times bitnet.cpp's TL2 on a machine like this."""


@dataclass(frozen=True)
class Row:
    """One encoding on one instruction set.

    Attributes:
        levels: which weights.
        encoding, isa: what multiplies them.
        bits: bits a weight takes.
        gops: by batch, table building included.
    """

    levels: str
    encoding: str
    isa: str
    bits: float
    gops: dict[int, float]


def measure(seconds: float, level_sets: list[str]) -> list[Row]:
    """All rows of these weights; encodings and instruction sets of one batch take turns."""
    rows: dict[tuple[str, str, str], Row] = {}
    for levels, tokens in ((name, batch) for name in level_sets for batch in BATCHES):
        random = np.random.default_rng(0)
        q = random.integers(-128, 128, (tokens, COLUMNS)).astype(np.int8)
        case = Case(q, random.choice(np.array(LEVEL_SETS[levels], np.int8), (ROWS, COLUMNS)), LEVEL_SETS[levels])
        made: dict[tuple[str, str, str], Variant] = {}
        for isa_name, isa in here_isas().items():
            for encoding in CPU_ENCODINGS if isa_name != "avx512 no gfni" else ():
                variant = case.variant(encoding, isa, isa_name)
                if variant is not None:
                    made[levels, encoding, isa_name] = variant
        for key, (run, build) in zip(made, measured(list(made.values()), seconds), strict=True):
            row = rows.setdefault(key, Row(*key, case.bits(key[1]), {}))
            row.gops[tokens] = 2e-9 * ROWS * COLUMNS * tokens / (run + build)
        print(f"{levels}, batch {tokens}: {len(made)} kernels", file=sys.stderr)
    return list(rows.values())


def table(rows: list[Row]) -> str:
    """Markdown."""
    head = ["weights", "instruction set", "encoding", "bits", *(f"batch {batch}" for batch in BATCHES)]
    lines = [" | ".join(head), " | ".join(["---"] * 3 + ["---:"] * (len(head) - 3))]
    best = {
        (row.levels, row.isa, batch): max(r.gops[batch] for r in rows if (r.levels, r.isa) == (row.levels, row.isa))
        for row in rows
        for batch in BATCHES
    }
    for row in sorted(rows, key=lambda r: (list(LEVEL_SETS).index(r.levels), list(here_isas()).index(r.isa), r.bits)):
        cells = [
            f"**{row.gops[batch]:.0f}**"
            if row.gops[batch] == best[row.levels, row.isa, batch]
            else f"{row.gops[batch]:.0f}"
            for batch in BATCHES
        ]
        lines.append(" | ".join([row.levels, row.isa, f"`{row.encoding}`", f"{row.bits:.2f}", *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> int:
    """Measure, write, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=1.0, help="per kernel and batch")
    parser.add_argument("--levels", default=",".join(LEVEL_SETS), help="which weights")
    parser.add_argument("--page", type=Path, default=Path(__file__).parent.parent / "docs" / "performance.md")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.seconds, options.levels.split(","))
    load = os.getloadavg()[1]
    where = (
        f"{date.today()}, {host_cpu_name()}, {platform.machine()}, one core, load average {load:.1f}; {ROWS}x{COLUMNS} "
        "weights in cache; GOPS (two operations a multiply-add), building of look-up tables included; in bold the best "
        "of each instruction set and batch."
    )
    fill_for(options.page, "kernels", host_cpu_name(), f"{where}\n\n{table(rows)}")
    if options.json:
        options.json.write_text(json.dumps({"where": where, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    tl2 = next((row.gops[1] for row in rows if (row.levels, row.encoding) == ("ternary", "tl2")), 0.0)
    print(f"tl2, batch 1: {tl2:.0f} GOPS, promised {TARGET_GOPS:.0f}")
    return 0 if tl2 >= TARGET_GOPS else 1


if __name__ == "__main__":
    raise SystemExit(main())
