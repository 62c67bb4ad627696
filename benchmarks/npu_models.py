"""The section on whole models of docs/npu.md: real networks on both arrays, what they take, and what tiles are worth.

`npu_page.py` runs it. Programs, plans and predictions are read from the artifacts; times are the simulator's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import npu_scales
import numpy as np

import neuc
from neuc.backends.npu.export.svg import to_svg
from neuc.compiler.npu.products import PlacedProduct, placed_products
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import GemmPlan, blocks
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.usage import array_usage

FIXED = (64, 64, 64)
"""The tile every product had before tiles were chosen."""
TARGETS = ("npu-xdna1", "npu-xdna2")


@dataclass(frozen=True)
class Case:
    """A model in numbers of one kind: ternary, int8 or bf16."""

    title: str
    file: str
    numbers: str

    @property
    def quantize(self) -> str:
        """What ``--quantize`` is."""
        return "none" if self.numbers == "bf16" else self.numbers


CASES = (
    Case("speech CNN", "model_v8.onnx", "ternary"),
    Case("MobileNetV3 classifier", "ch_ppocr_mobile_v2.0_cls_mobile.onnx", "ternary"),
    Case("MobileNetV3 classifier", "ch_ppocr_mobile_v2.0_cls_mobile.onnx", "int8"),
    Case("MiniLM, 16 tokens", "minilm.onnx", "ternary"),
    Case("MiniLM, 16 tokens", "minilm.onnx", "bf16"),
)


def feeds(file: str) -> dict[str, np.ndarray]:
    """An input of each model."""
    random = np.random.default_rng(0)
    if file == "minilm.onnx":
        ids = random.integers(0, 1000, (1, 16))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    name, shape = ("input_1", (1, 900, 120)) if file == "model_v8.onnx" else ("x", (1, 3, 48, 192))
    return {name: random.standard_normal(shape).astype(np.float32)}


def fixed_tiles(products: list[PlacedProduct]) -> tuple[float, float] | None:
    """Seconds and share of padding with `FIXED` tiles for all products, dispatches included; None: they fit no core."""
    seconds, work, done = 0.0, 0, 0
    for product in products:
        machine, facts = product.machine, product.facts
        m, k, n, groups = (int(str(facts[key])) for key in ("m", "k", "n", "groups"))
        operands = str(facts["operands"])
        if operands == "bf16":
            return None
        plan = GemmPlan.on(machine, FIXED, operands)
        whole = blocks(plan, m, k // groups, n)
        run = simulate(
            with_sizes(gemm_graph(plan, machine, 1), plan, machine, whole, groups), machine, {}, values=False
        )
        seconds += run.seconds + machine.host["dispatch_us"] * 1e-6
        work += m * k * n
        done += groups * whole[0] * whole[1] * whole[2]
    return seconds, 1 - work / done


def row(case: Case, target: str, folder: Path, pictures: Path) -> str:
    """One line of the table, and its picture."""
    path, arrays = str(folder / case.file), feeds(case.file)
    shapes = {name: array.shape for name, array in arrays.items()}
    options = "{float=bf16}" if case.numbers == "bf16" else ""
    expected = neuc.compile(path, "cpu", quantize=case.quantize, shapes=shapes).session().run(None, arrays)
    artifact = folder / f"{case.file}.{case.numbers}.{target}.neuc"
    neuc.compile(path, target + options, quantize=case.quantize, shapes=shapes).save(artifact)
    session = neuc.load(artifact, profile=True)
    got = session.run(None, arrays)
    products = placed_products(Artifact.open(artifact))
    artifact.unlink()
    same = all(np.array_equal(a, b) for a, b in zip(got, expected))
    error = np.linalg.norm(got[0] - expected[0]) / np.linalg.norm(expected[0])
    result = f"{error:.1%} from float" if case.numbers == "bf16" else "equal" if same else "DIFFERENT"
    assert session.profile is not None
    used = array_usage(session.profile)
    machine = products[0].machine
    waits = used["dispatches"] * machine.host["dispatch_us"] + used["switches"] * machine.host["program_switch_us"]
    predicted = sum(float(str(p.facts["cycles"])) for p in products) / machine.clock_hz + waits * 1e-6
    before = fixed_tiles(products)
    name = f"{Path(case.file).stem.split('_')[0]}-{case.numbers}-{target}"
    middle = products[len(products) // 2].design
    (pictures / f"{name}.svg").write_text(to_svg(replace(middle, name=name), machine), encoding="utf-8")
    cells = (
        case.title,
        case.numbers,
        target,
        result,
        f"{sum(int(str(p.facts['products'])) for p in products)} in {used['dispatches']:.0f}",
        f"{used['seconds'] * 1e3:.2f} ms",
        f"{predicted * 1e3:.2f} ms",
        f"{waits / 1e3:.1f} ms",
        "–" if before is None else f"{before[0] * 1e3:.2f} ms",
        f"{1 - used['macs'] / used['padded_macs']:.0%}",
        "–" if before is None else f"{before[1]:.0%}",
        f"{used['ddr_bytes'] / 1e6:.1f} MB",
        f"{used['energy_pj'] / 1e6:.0f} µJ",
        f"[array]({pictures.name}/{name}.svg)",
    )
    return "| " + " | ".join(cells) + " |"


def section(folder: Path, pictures: Path) -> list[str]:
    """The section's lines."""
    header = (
        "model",
        "numbers",
        "target",
        "bits of the CPU",
        "products in dispatches",
        "array time",
        "predicted",
        "of it dispatches",
        "time with 64 x 64 x 64 tiles",
        "padding",
        "padding then",
        "host memory",
        "energy",
        "picture",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for case in CASES:
        if (folder / case.file).exists():
            for target in TARGETS:
                lines.append(row(case, target, folder, pictures))
                print(lines[-1], file=sys.stderr, flush=True)
    return [
        *lines,
        "Products run on the simulated array, everything else on the CPU; outputs are assembled from tokens that left "
        "the shim DMAs. Ternary weights travel as 2-bit codes and are decoded on the cores. bf16 products add in "
        "float32 in one order, whatever the tiles are, so that both arrays give the same bits. Array time is the "
        "simulator's, dispatches included; predicted is the planner's cost model, which chose m, k, n, the spread over "
        "the cores and one program for all products (`neuc npu show`). Padding is the share of the cores' work that is "
        'filling; the columns "then" are the same products with the one tile size and spread there was before. '
        "Products of the same activations share a dispatch. No such run was compared with hardware; on XDNA2 bf16 goes "
        "through block floating point, which rounds otherwise. Energies are orders of magnitude from assumed figures. "
        "A picture shows where one product of the model lies; `neuc npu export` writes it for any, and timelines.",
        "### Scales of activations",
        *npu_scales.section(folder),
    ]
