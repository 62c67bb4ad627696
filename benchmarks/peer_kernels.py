"""One linear layer of neuc beside the same product in ggml libraries, in turns: one token from memory, and many.

neuc's are its fused layers, without the rounding of activations that comes before and without a barrier after each;
ggml's are `ggml_mul_mat`, with both (2560 numbers beside millions of weights). Times are by the clock on the wall. What
other kernels are said to reach stands below, as published, on another machine. Peers built without the instruction sets
of this processor are refused.

    python benchmarks/peer_kernels.py kernels.toml [--page docs/performance.md] [--rounds 5]
        [--shapes 2560x2560] [--tokens 128] [--threads 1,2]

The TOML file has an `[[engine]]` of kind "ggml" for each library and type: `name`, `model` (the library: libggml.so, or
libggml-cpu.so), `model_options = { type = 335 }`, and `environment` if it needs one; see `peers.md`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path

import llvmlite.binding as llvmlite
import numpy as np
from engines import Engine, native_table, read_specs, refusal
from linear_layers import Layer, one_token, products
from page_marks import fill_for
from team import Team

from neuc.backends.cpu.isa import Isa
from neuc.runtime.cpu_features import host_cpu_name, host_features
from neuc.runtime.native.amx import permit_tiles

SHAPES = ((2560, 2560), (6912, 2560), (2560, 6912))
"""Rows and columns of BitNet b1.58 2B-4T."""
WITHOUT_TILES = " without AMX"
POOL = 256 << 20
"""Bytes of copies of the weights of one token: more than any cache here."""
_PRODUCTS = 4
PUBLISHED = """
Kernels that no engine has, measured elsewhere, not in this run: tommyyliu/lut_mm (1.6 bits, AVX-512 look-ups; no
rounding of activations, no scales) on 2 vCPUs of a Zen 4 EPYC at 3.69 GHz, GOPS:

| lut_mm | 2560x2560 | 6912x2560 | 2560x6912 |
| --- | ---: | ---: | ---: |
| 1 token, 1 thread, from memory | 152 | 167 | 160 |
| 1 token, 1 thread, from cache | 181 to 194 | 192 | 187 |
| 1 token, 2 threads, from memory | 243 | 253 | (disturbed) |
| 128 tokens, 1 thread | 232 to 239 | | |
"""


class WallTeam(Team):
    """Threads whose times are those of a clock on the wall, as ggml's are: a busy machine slows all of them down."""

    def slowest(self, job: Callable[[int], object]) -> float:
        """Seconds from the first start to the last end."""
        return self.run(job)


Samples = dict[tuple[str, str, int, int], list[float]]
"""GOPS by kernel, shape, tokens and threads: one for each round, in the order of rounds."""


def layers_of(tokens: int) -> tuple[str, ...]:
    """What is measured of neuc: with several tokens also without AMX, which no peer has for these weights."""
    tiles = tokens > 1 and Isa.select(host_features()).has_amx
    return ("t5", "i2", *((f"t5{WITHOUT_TILES}", f"i2{WITHOUT_TILES}") if tiles else ()))


def _layer(name: str, rows: int, columns: int, tokens: int, pool: int) -> Layer:
    features = host_features() - ({"amx-int8"} if name.endswith(WITHOUT_TILES) else set[str]())
    layer = Layer(name.removesuffix(WITHOUT_TILES), rows, columns, tokens, Isa.select(features), pool)
    layer.name = name
    return layer


def measure(engines: list[Engine], options: argparse.Namespace, isa: Isa) -> Samples:
    """All figures; within a round, kernels take turns."""
    samples: Samples = defaultdict(list)
    for rows, columns in options.shapes:
        shape = f"{rows}x{columns}"
        for tokens in dict.fromkeys((1, options.tokens)):
            pool, operations = POOL if tokens == 1 else 1, 2e-9 * rows * columns * tokens
            layers = [_layer(name, rows, columns, tokens, pool) for name in layers_of(tokens)]
            for threads in options.threads:
                team = WallTeam(threads)
                bursts = one_token(layers, isa, team) if tokens == 1 else products(layers, isa, team)
                found: dict[str, float] = {}
                for number in range(-1, options.rounds):  # the first one warms up
                    for name, burst in bursts.items():
                        layer = next((layer for layer in layers if layer.name == name), None)
                        # Of one token bursts are GB/s of packed weights.
                        factor = 1.0 if layer is None or tokens > 1 else operations * 1e9 / layer.pool.copy_bytes
                        found[name if layer is None else f"neuc {name}"] = burst() * factor
                    for engine in engines:
                        shapes = {"rows": rows, "columns": columns, "tokens": tokens, "threads": threads}
                        answer = engine.request(op="multiply", **shapes, pool=pool, products=_PRODUCTS)
                        found[engine.spec.name] = operations / answer["seconds"]
                    for name, value in found.items():
                        if number >= 0:
                            samples[name, shape, tokens, threads].append(value)
                print(shape, tokens, threads, {name: round(value, 1) for name, value in found.items()}, flush=True)
    return samples


def page(samples: Samples, engines: list[Engine], options: argparse.Namespace, load: float) -> str:
    """The tables as Markdown."""
    lines = [
        f"{date.today()}, {host_cpu_name()}, {os.cpu_count()} CPUs, load average {load:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after; {options.rounds} rounds. GOPS: two operations a multiply-add; medians (10th "
        "to 90th percentile), and in brackets the median of the ratios of neuc's fastest to it within rounds."
    ]
    shapes = [f"{rows}x{columns}" for rows, columns in options.shapes]
    for tokens in dict.fromkeys((1, options.tokens)):
        own = [f"neuc {name}" for name in layers_of(tokens)]
        kernels = own + [engine.spec.name for engine in engines]
        for threads in options.threads:
            what = "1 token, weights from memory" if tokens == 1 else f"{tokens} tokens, weights from cache"
            lines += ["", f"{what}, {threads} thread{'s' * (threads > 1)}", ""]
            lines += ["| kernel | " + " | ".join(shapes) + " |", "| --- |" + " ---: |" * len(shapes)]
            best = {
                shape: max((samples[name, shape, tokens, threads] for name in own), key=np.median) for shape in shapes
            }
            for kernel in kernels:
                cells = [_cell(samples[kernel, shape, tokens, threads], best[shape]) for shape in shapes]
                lines.append(f"| {kernel} | " + " | ".join(cells) + " |")
            limits = sorted({key[0] for key in samples if key[2:] == (tokens, threads)} - set(kernels))
            for limit in limits:
                cells = [f"{np.median(samples[limit, shape, tokens, threads]):.1f}" for shape in shapes]
                unit = "GB/s" if tokens == 1 else "GOPS"
                lines.append(f"| *{limit}, {unit}* | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {engine.spec.name}: {engine.system}" for engine in engines)]
    return "\n".join(lines) + "\n" + PUBLISHED


def _cell(values: list[float], best: list[float]) -> str:
    low, middle, high = np.percentile(values, [10, 50, 90])
    ratio = np.median(np.array(best) / np.array(values))
    return f"{middle:.0f} ({low:.0f}..{high:.0f}) [{ratio:.2f}]"


def _shapes(text: str) -> list[tuple[int, ...]]:
    return [tuple(int(part) for part in shape.split("x")) for shape in text.split(",")]


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description="one linear layer beside ggml's")
    parser.add_argument("engines", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--shapes", type=_shapes, default=SHAPES)
    parser.add_argument("--threads", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2])
    options = parser.parse_args()
    permit_tiles()
    llvmlite.initialize_native_target()
    llvmlite.initialize_native_asmprinter()
    isa, load = Isa.select(host_features()), os.getloadavg()[0]
    engines: list[Engine] = []
    with tempfile.TemporaryDirectory() as logs:
        try:
            for spec in read_specs(options.engines):
                if spec.kind != "ggml":
                    continue
                engine = Engine(spec, max(options.threads), native_table(), Path(logs) / f"{len(engines)}.log")
                if reason := refusal(spec, engine.system, native_table()):
                    engine.close()
                    raise SystemExit(f"{spec.name}: {reason}")
                engines.append(engine)
            text = page(measure(engines, options, isa), engines, options, load)
        finally:
            for engine in engines:
                engine.close()
    print(text)
    if options.page is not None:
        fill_for(options.page, "peer kernels", host_cpu_name(), text)


if __name__ == "__main__":
    main()
