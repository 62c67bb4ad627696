"""What larger decoders weigh, in files and in memory, beside what is claimed of their sizes.

For each model: a GGUF file of random weights is written (`decoder_models.py`, I2_S with an F16 head), compiled with
`neuc compile`, loaded twice, and run: a prompt of 16 tokens and 4 tokens after it, three times. Measured are

- the artifact, split into ternary layers (packed weights and their scales) and embedding and head,
- seconds and peak private memory (`RssAnon`, sampled every 20 ms) of `neuc compile`,
- seconds of the first load, which hashes the file, and of a second one, which knows that it was found good,
- peak private memory and peak file-backed memory (mapped pages of the artifact, which the system may take back) while
  running, in the second process; medians of the speeds.

GB are 10^9 bytes. What runs is stopped when less than 1.5 GB of the machine's memory is left. The 70B model needs 36 GB
of disk, and as much free memory as its artifact has bytes, or its speed is the disk's. `--layers` leaves layers away,
which the table says. Files go to FOLDER and are deleted as soon as they are not needed; a source that is already there
is used and stays.

    python benchmarks/decoder_sizes.py FOLDER [--models 7b:int8,7b:int4,70b:int4] [--page docs/performance.md]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from decoder_models import SHAPES, Shape, write_model
from page_marks import fill

from neuc.runtime.artifact import Artifact
from neuc.runtime.generation import load_decoder

LEAST_AVAILABLE = 1.5e9
"""Bytes of memory that must be left for the machine."""

PROMPT, NEW_TOKENS, ROUNDS = 16, 4, 3
_SAMPLE_SECONDS = 0.02
_SOURCE_HEAD = "f16"
_GB = 1e-9


@dataclass(frozen=True)
class Watched:
    """A child process that has ended: seconds, peaks of its private and file-backed memory in bytes, and its stdout."""

    seconds: float
    private: int
    mapped: int
    output: str


@dataclass(frozen=True)
class Sizes:
    """Bytes of an artifact: all of it, its ternary layers, and its embedding and head."""

    file: int
    layers: int
    head: int


@dataclass(frozen=True)
class Row:
    """All that was measured of one model.

    Attributes:
        title, shape, sizes: which model, and what its artifact weighs.
        compiling, running: the processes that compiled it, and that ran it the second time.
        runs: answers of the two processes that ran it.
        load: load average while it ran, its own threads included.
    """

    title: str
    shape: Shape
    sizes: Sizes
    compiling: Watched
    running: Watched
    runs: tuple[dict[str, Any], dict[str, Any]]
    load: float


def main() -> None:
    """Measure the models of the command line; print the table, and put it into a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where files go: on a disk, not in memory")
    parser.add_argument("--models", default="7b:int8,7b:int4,70b:int4", help="SHAPE:HEAD, separated by commas")
    parser.add_argument("--layers", type=int, help="no more than so many layers")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--machine", default="this machine", help="its name in the page")
    parser.add_argument("--page", type=Path, help="the page whose table is replaced")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options.folder)))
        return
    wanted = [model.split(":") for model in options.models.split(",")]
    rows: list[Row] = []
    made: set[Path] = set()
    try:
        for number, (name, head) in enumerate(wanted):
            whole = SHAPES[name]
            shape = replace(whole, layers=min(whole.layers, options.layers or whole.layers))
            title = name if shape == whole else f"{name} with {shape.layers} of its {whole.layers} layers"
            source = options.folder / f"{name}-{shape.layers}.gguf"
            if not source.exists():
                made.add(source)
                make(source, shape)
            rows.append(measured(source, f"{title}, {head}", shape, head, options.target))
            if source in made and all(name != later for later, _ in wanted[number + 1 :]):
                source.unlink()
    finally:
        for source in made:
            source.unlink(missing_ok=True)
    where = f"{date.today()}, {options.machine}, {os.cpu_count()} threads."
    lines = [where, "", *table(rows), "", *claims(rows)]
    print("\n".join(lines))
    if options.page is not None:
        fill(options.page, "decoder sizes", "\n".join(lines))


def make(source: Path, shape: Shape) -> None:
    """Write a source.

    Raises:
        SystemExit: it and its artifact do not fit on the disk.
    """
    layers, head = weights(shape)
    needed, free = 2 * (layers / 4 + 2 * head), shutil.disk_usage(source.parent).free
    if needed > free:
        raise SystemExit(
            f"{source.name} and its artifact need {needed * _GB:.0f} GB of disk, {free * _GB:.0f} are free"
        )
    start = time.perf_counter()
    size = write_model(source, shape, body="i2_s", head=_SOURCE_HEAD)
    print(f"{source.name}: {size * _GB:.2f} GB in {time.perf_counter() - start:.0f} s", flush=True)


def measured(source: Path, title: str, shape: Shape, head: str, target: str) -> Row:
    """Compile, weigh and run one model; its artifact is deleted."""
    artifact = source.with_suffix(".neuc")
    neuc = [sys.executable, "-m", "neuc", "-q", "compile", str(source), "-o", str(artifact), "--no-cache"]
    try:
        compiling = watch([*neuc, "--target", target, "--head", head])
        _forget_pages(source)
        again = [sys.executable, __file__, str(artifact), "--run"]
        first, second = watch(again), watch(again)
        load = os.getloadavg()[0]
        sizes = weigh(artifact)
    finally:
        artifact.unlink(missing_ok=True)
    row = Row(title, shape, sizes, compiling, second, (json.loads(first.output), json.loads(second.output)), load)
    print("\n".join(table([row])), flush=True)
    return row


def _forget_pages(path: Path) -> None:
    """A source that will not be read again gives its place in memory to what will be."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(artifact: Path) -> dict[str, Any]:
    """Load and run an artifact in this process: seconds of loading, of each prompt and of each token."""
    start = time.perf_counter()
    decoder = load_decoder(artifact, context=PROMPT + NEW_TOKENS)
    answer: dict[str, Any] = {"load": time.perf_counter() - start, "prompts": [], "steps": []}
    for _ in range(ROUNDS):
        decoder.reset()
        start = time.perf_counter()
        logits = decoder.prefill([number * 7919 % decoder.facts.vocab for number in range(PROMPT)])
        answer["prompts"].append(time.perf_counter() - start)
        for _ in range(NEW_TOKENS):
            start = time.perf_counter()
            logits = decoder.decode(int(logits.argmax()))
            answer["steps"].append(time.perf_counter() - start)
    return answer


def weigh(path: Path) -> Sizes:
    """Bytes of an artifact made of a GGUF file."""
    layers = head = 0
    for key, array in Artifact.open(path).weights.items():
        if key.startswith(("token_embd.", "output.")):
            head += array.nbytes
        elif key.startswith("blk.") and (".trits" in key or ".scales" in key):
            layers += array.nbytes
    return Sizes(path.stat().st_size, layers, head)


def watch(command: list[str]) -> Watched:
    """Run a command and follow its memory.

    Raises:
        SystemExit: it failed, or was stopped because the machine's memory came to an end.
    """
    start = time.perf_counter()
    private = mapped = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            usage = memory_of(f"/proc/{child.pid}/status")
            private = max(private, usage.get("RssAnon", 0))
            mapped = max(mapped, usage.get("RssFile", 0))
            if memory_of("/proc/meminfo")["MemAvailable"] < LEAST_AVAILABLE:
                child.kill()
                raise SystemExit(f"stopped: less than {LEAST_AVAILABLE * _GB} GB of memory were left")
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - start
        output = child.stdout.read() if child.stdout is not None else ""
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command[1:])} ended with {child.returncode}")
    return Watched(seconds, private, mapped, output)


def memory_of(path: str) -> dict[str, int]:
    """Bytes by name, of a file of /proc with lines such as `RssAnon: 12 kB`; empty for a process that has ended."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split() for line in lines)
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in fields if words[-1:] == ["kB"]}


def weights(shape: Shape) -> tuple[int, int]:
    """How many weights its ternary layers have, and its embedding and head."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * q + 2 * kv + 3 * shape.ffn)
    return shape.layers * layer, shape.vocab * shape.hidden * (1 if shape.tied else 2)


def table(rows: list[Row]) -> list[str]:
    """A Markdown table with a column for each model."""
    lines = ["| | " + " | ".join(row.title for row in rows) + " |", "| --- |" + " ---: |" * len(rows)]

    def line(name: str, *values: str) -> None:
        lines.append(f"| {name} | " + " | ".join(values) + " |")

    def gigabytes(values: list[int]) -> list[str]:
        return [f"{value * _GB:.2f} GB" for value in values]

    line("as FP16", *gigabytes([2 * sum(weights(row.shape)) for row in rows]))
    line("**artifact**", *gigabytes([row.sizes.file for row in rows]))
    line("ternary layers", *gigabytes([row.sizes.layers for row in rows]))
    line("… bits a weight", *(f"{8 * row.sizes.layers / weights(row.shape)[0]:.2f}" for row in rows))
    line("embedding and head", *gigabytes([row.sizes.head for row in rows]))
    line("… bits a weight", *(f"{8 * row.sizes.head / weights(row.shape)[1]:.2f}" for row in rows))
    line("`neuc compile`", *(f"{row.compiling.seconds:.0f} s" for row in rows))
    line("… private memory", *gigabytes([row.compiling.private for row in rows]))
    line("first load", *(f"{row.runs[0]['load']:.1f} s" for row in rows))
    line("later loads", *(f"{row.runs[1]['load']:.2f} s" for row in rows))
    line("running: private memory", *gigabytes([row.running.private for row in rows]))
    line("… file-backed memory", *gigabytes([row.running.mapped for row in rows]))
    line("prompt, tokens/s (best)", *(speeds(row, "prompts", PROMPT) for row in rows))
    line("**generating, tokens/s** (best)", *(speeds(row, "steps", 1) for row in rows))
    line("load average", *(f"{row.load:.1f}" for row in rows))
    return lines


def speeds(row: Row, what: str, tokens: int) -> str:
    """Tokens per second: the median, and the best, which is nearer to what an idle machine gives."""
    seconds = row.runs[1][what]
    return f"{tokens / statistics.median(seconds):.2f} ({tokens / min(seconds):.2f})"


def claims(rows: list[Row]) -> list[str]:
    """What is said of such models, beside what was measured of the whole ones."""
    lines: list[str] = []
    for row in rows:
        layers, head = weights(row.shape)
        if row.shape == SHAPES["7b"]:
            before = 2 * (layers + head)
            lines.append(
                f"- {row.title}: 13 GB → 0.81 GB is claimed, which is the ratio of FP32 to two bits, 16, applied to "
                f"the size in FP16. Measured: {before * _GB:.2f} GB → {row.sizes.file * _GB:.2f} GB, a ratio of "
                f"{before / row.sizes.file:.1f}; the ternary layers alone are {row.sizes.layers * _GB:.2f} GB. "
                f"Embedding and head are {row.sizes.head * _GB:.2f} GB, in FP16 {2 * head * _GB:.2f} GB."
            )
        elif row.shape == SHAPES["70b"]:
            rate = 1 / statistics.median(row.runs[1]["steps"])
            lines.append(
                f"- {row.title}: for 100B, 5 to 7 tokens/s on one CPU are claimed (6.58 on an M2 Ultra; 1.70 on an "
                f"i7-13700H). Measured for 70B: {rate:.2f} tokens/s. Extrapolated to 100B by the number of weights, "
                f"not measured: {rate * (layers + head) / 100e9:.2f}."
            )
    return lines


if __name__ == "__main__":
    main()
