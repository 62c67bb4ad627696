"""Writes docs/npu.md: the NPU models beside published silicon, placements with bounds, hangs, examples, whole models.

    python benchmarks/npu_page.py [--models FOLDER [--only-models]] [--only-silicon] [--patience N] [--page docs/npu.md]

Every figure on the page is computed here. `--models` names a folder with the ONNX files of examples/models.py; without
it the section on whole models stays as it is. Pictures go into the folder beside the page that has its name.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date
from pathlib import Path
from typing import cast

import numpy as np

import neuc
from neuc.backends.npu.fastest_depths import fastest_depths
from neuc.backends.npu.known_machines import find_machine, machine_names
from neuc.backends.npu.place.placer import place_design
from neuc.backends.npu.predictions import Decoder, dimc_network, northpole_pipeline
from neuc.passes.module_facts import facts_of
from neuc.runtime.npu.deadlock import diagnose_design
from neuc.runtime.npu.simulator import with_depths

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests" / "_support"), str(ROOT / "examples" / "npu")]

import npu_models  # noqa: E402
import npu_silicon  # noqa: E402
from riallto import applications  # noqa: E402

from npu_designs import random_kernels, replayed_broadcast, tiled_through_memory  # noqa: E402

COLUMN = "npu-xdna1-1col"
SILICON, MODELS = "## Beside published silicon", "## Whole models"
TOKENS_A_SECOND = 28_356  # published: a 3B model on 16 NorthPole cards
HANGS = (
    ("#3257, skeleton: two halves of 4 cores, 2 trips, depth 4", (2, 4, 2, 4), True),
    ("#3257, skeleton with depth 8", (2, 4, 2, 8), False),
    ("#3257, one half only", (1, 4, 2, 4), False),
    ("#3257, single trip to 8 cores", (1, 8, 1, 4), False),
    ("#3257, 8 trips without fan-out", (1, 1, 8, 4), False),
    ("#3257, two halves of 4 cores, 8 trips", (2, 4, 8, 4), True),
)


def machines() -> list[str]:
    """The machines, and how much of each is assumed."""
    lines = [
        "| machine | what it is | cores | figures with provenance spec, measured, inferred, fitted, assumed |",
        "|---|---|---|---|",
    ]
    for name in machine_names():
        machine = find_machine(name)
        marks = [mark for mark, _ in machine.provenance.values()]
        counts = ", ".join(str(marks.count(mark)) for mark in ("spec", "measured", "inferred", "fitted", "assumed"))
        lines.append(f"| `{name}` | {machine.summary} | {len(machine.tiles('core'))} | {counts} |")
    return lines


def placements(patience: float) -> list[str]:
    """Random graphs: the four figures with their bounds, and the baselines'; limits are `patience` times as long."""
    lines = [
        "| graph | interval | congestion | bytes x hops | row-major | first-free | seconds, of CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for count, name, limit in ((12, "npu-xdna1", 5.0), (16, "npu-xdna1", 5.0), (24, "npu-xdna2", 20.0)):
        for seed in range(2):
            began, worked = time.monotonic(), time.process_time()
            placed = place_design(random_kernels(count, seed, name), find_machine(name), seconds=patience * limit)
            took = f"{time.monotonic() - began:.1f}, {time.process_time() - worked:.1f}"
            figures = [
                f"{had:g}" + (" (proven)" if had == least else f" (≥ {least:g}, gap {gap:.1%})")
                for had, least, gap in zip(placed.score[:3], placed.bounds, placed.gaps)
            ]
            others = [
                ", ".join(f"{n:g}" for n in s[:3]) if s else "none" for s in (placed.row_major, placed.first_free)
            ]
            tiles = len(find_machine(name).tiles("core"))
            cells = (f"{count} kernels on {tiles} cores, seed {seed}", *figures, *others, took)
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def hangs() -> list[str]:
    """The published hang cases, as classified."""
    lines = ["| case | published | ours | cure |", "|---|---|---|---|"]
    cases = [(name, replayed_broadcast(*sizes), published) for name, sizes, published in HANGS]
    for k_l2, published in ((64, False), (128, True), (256, True), (512, False)):
        cases.append((f"mlir-air #1822, K tile in the memory tile {k_l2}", tiled_through_memory(k_l2), published))
    for name, design, published in cases:
        verdict = diagnose_design(design, find_machine("npu-xdna2"))
        cure = "" if not verdict.cure else ", ".join(f"{channel}: depth {n}" for channel, n in verdict.cure.items())
        said = "hangs" if verdict.hangs else "runs"
        lines.append(f"| {name} | {'hangs' if published else 'runs'} | {said} | {cure} |")
    return lines


def examples(pictures: Path) -> list[str]:
    """Riallto's applications on one column, with a picture each."""
    lines = [
        "| application | cycles | time at 1 GHz | equal to the reference | depths for speed | placement | picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (app, image) in applications(48, 64).items():
        compiled = app.compile({"x": image}, {"y": ("u8", image.shape)}, COLUMN)
        run = compiled.run({"x": image})
        same = np.array_equal(run.outputs["y"], compiled.reference({"x": image})["y"])
        fast = fastest_depths(compiled.design, find_machine(COLUMN))
        before, after = (
            sum(part.depth for part in (*d.channels, *d.links))
            for d in (compiled.design, with_depths(compiled.design, fast.depths))
        )
        (pictures / f"{name}.svg").write_text(compiled.export("svg"), encoding="utf-8")
        picture = f"[{name}]({pictures.name}/{name}.svg)"
        cells = (
            name,
            f"{run.cycles:.0f}",
            f"{run.seconds * 1e6:.1f} µs",
            "yes" if same else "NO",
            f"{fast.after:.0f} cycles, {before} → {after} buffers",
            compiled.built.placement.summary(),
        )
        lines.append("| " + " | ".join((*cells, picture)) + " |")
    return lines


def northpole() -> str:
    """The NorthPole model's own prediction beside the published figure."""
    model = Decoder(layers=14, hidden=4096, feed_forward=14336, kv=1024, vocabulary=49152)
    sizes = {"bits": 4, "output_cards": 2, "users": 28, "context": 2048}
    machine = find_machine("npu-northpole")
    token = northpole_pipeline(machine, model, **sizes)
    wide = 1 / northpole_pipeline(machine, model, **sizes, logit_bytes=2).seconds
    rate = 1 / token.seconds
    return (
        f"NorthPole: from specifications {rate:.0f} tokens a second for the 3B model on 16 cards; published are "
        f"{TOKENS_A_SECOND}: {rate / TOKENS_A_SECOND - 1:+.0%}. The mapping is the published one, a layer on each of "
        "14 cards and the output layer on two, with 28 users and a context of 2048, whose caches just fit; sizes are "
        f"those of Granite-8B-Code, whose layers it has. The limit is {token.limiter}: a byte a logit is assumed, two "
        f"would give {wide:.0f} ({wide / TOKENS_A_SECOND - 1:+.0%}). Assumed are {', '.join(token.assumed)}. The "
        "latency between cards is what the same group published since for an 8B model, 2.8 ms a token over 96 cards "
        "(arXiv 2511.15950), less reading and sending: 23 us. We had assumed 10, one hop through a switch, which "
        "gives +34%. Its servers are linked by Ethernet, the 3B model's cards by PCIe alone, so 23 is rather too long."
    )


def in_memory() -> list[str]:
    """The digits classifier of the examples on the parametric in-memory machine, by the layers it compiles to."""
    machine = find_machine("npu-dimc")
    lines = [
        "| example | products k x n | tiles of 64 | one image | images a second, in a pipeline | energy an image |",
        "|---|---|---|---|---|---|",
    ]
    assumed: tuple[str, ...] = ()
    for file, title in (
        ("hf_unpacked.onnx", "digits, ternary"),
        ("mixed.onnx", "digits, one ternary layer, int8 rest"),
    ):
        compiled = neuc.compile(str(ROOT / "examples" / "digits" / "models" / file), "npu-xdna1", quantize="int8")
        facts = cast("list[dict[str, int]]", cast("dict[str, object]", facts_of(compiled.module)["npu"])["layers"])
        layers = [(1, layer["k"], layer["n"]) for layer in facts]
        found = dimc_network(machine, layers)
        assumed = found.assumed
        sizes = ", ".join(f"{k}x{n}" for _, k, n in layers)
        cells = (title, sizes, found.tiles, f"{found.latency * 1e9:.0f} ns", f"{1 / found.interval:.3g}")
        lines.append("| " + " | ".join(map(str, (*cells, f"{found.joules * 1e9:.2f} nJ"))) + " |")
    lines += [f"Every figure is assumed ({', '.join(assumed)}); norms, scales and rounding are not counted."]
    return lines


def page(pictures: Path, models: Path | None, patience: float) -> str:
    """The whole page."""
    times = "" if patience == 1 else f", here {patience:g} times as long, as the machine was busy: look at CPU time"
    parts = [
        "# NPU dataflow",
        f"Written by `python benchmarks/npu_page.py` on {date.today().isoformat()}. "
        "How it is built: [design/npu.md](design/npu.md).",
        "## Machines",
        *machines(),
        "Machine files are TOML in `backends/npu/machines`; copy one, change it, and compile with "
        "`--target 'npu-xdna1{machine=mine.toml}'`. Placer, router, checker, simulator and pictures read nothing else. "
        "The first three have closed forms of time alone, and are no targets of `neuc compile`.",
        SILICON,
        *npu_silicon.section(),
        northpole(),
        "## In-memory tiles",
        *in_memory(),
        "## Placement",
        *placements(patience),
        "Placement minimises the initiation interval (cycles an iteration), then congestion (circuits on the fullest "
        "way between two tiles, by dimension order), then bytes x hops of an iteration, then tiles; a bound holds for "
        f"placements as good in all figures before it. The limit is 5 s up to 16 cores and 20 s above{times}. "
        "Graphs are random and acyclic (`tests/_support/npu_designs.py`).",
        "## Hangs",
        *hangs(),
        "Deadlocks by full buffers are found by running tokens; replayed broadcasts statically, by the rule published "
        "for #3257: consumers x trips <= 2 x depth. mlir-air #1822 is public by its four settings only. We read them "
        "as the same rule: a memory tile is filled 512 / K times, each filling broadcast to 4 cores in K / 32 trips, "
        "depth 4; 512, 4 and 4 are assumed, 32 is the examples' default. Then only what is between a single filling "
        "and few trips hangs, as published; other readings may do the same.",
        "## Riallto's applications",
        *examples(pictures),
        MODELS,
        *(npu_models.section(models, pictures) if models else [_kept(pictures.with_suffix(".md"))]),
    ]
    return _joined(parts)


def _kept(page: Path) -> str:
    """The section on whole models as it stands on the page: it takes models that come from elsewhere."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return text.partition(MODELS)[2].strip() or "Not measured in this run (`--models`)."


def _joined(parts: list[str]) -> str:
    """Paragraphs with a blank line between them, but for the rows of a table."""
    text: list[str] = []
    for part, following in zip(parts, [*parts[1:], ""]):
        text.append(part)
        if not (part.startswith("|") and following.startswith("|")):
            text.append("")
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--only-models", action="store_true", help="leave the rest of the page as it is")
    parser.add_argument("--only-silicon", action="store_true", help="the comparison with published rows alone")
    parser.add_argument("--patience", type=float, default=1, help="limits of placement are so many times as long")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "npu.md")
    arguments = parser.parse_args()
    pictures = arguments.page.with_suffix("")
    pictures.mkdir(exist_ok=True)
    npu_silicon.write_errors()
    if arguments.only_silicon:
        before, _, after = arguments.page.read_text(encoding="utf-8").partition(SILICON)
        kept = after[after.index("\nNorthPole") :]
        text = before + _joined([SILICON, *npu_silicon.section()]) + kept
    elif arguments.only_models:
        if arguments.models is None:
            parser.error("--only-models needs --models")
        made = _joined([MODELS, *npu_models.section(arguments.models, pictures)])
        text = arguments.page.read_text(encoding="utf-8").split(MODELS)[0] + made  # as it is now, not when this began
    else:
        text = page(pictures, arguments.models, arguments.patience)
    arguments.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
