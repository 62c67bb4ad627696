"""The part of docs/npu.md on scales: what run-time scales leave to the host, and what fixed ones cost in accuracy.

`python benchmarks/npu_scales.py FOLDER [FILE]` prints it, for one model or for all; `npu_page.py` puts it on the page.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import neuc
from neuc.compiler.npu.products import placed_products
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.usage import array_usage

TARGET = "npu-xdna2"
ROWS = 8
MODELS = {
    "model_v8.onnx": ("speech CNN", "input_1", (900, 120)),
    "ch_ppocr_mobile_v2.0_cls_mobile.onnx": ("MobileNetV3 classifier", "x", (3, 48, 192)),
}
"""File: what it is, its input and the shape of that; the batch is 1."""


def row(path: Path, scales: str, folder: Path) -> str:
    """One model with scales of one kind, int8 weights."""
    title, name, shape = MODELS[path.name]
    rows = np.random.default_rng(0).normal(0, 0.5, (ROWS, *shape)).astype(np.float32)
    data, artifact = folder / "rows.npz", folder / "m.neuc"
    np.savez(data, **{name: rows})
    target = f"{TARGET}{{scales={scales}}}"
    compiled = neuc.compile(str(path), target, quantize="int8", calib=data, shapes={name: (1, *shape)})
    compiled.save(artifact)
    session = neuc.load(artifact, profile=True)
    session.run(None, {name: rows[:1]})
    assert session.profile is not None
    used, report = array_usage(session.profile), compiled.report
    products = placed_products(Artifact.open(artifact))
    count = sum(int(str(p.facts["products"])) for p in products)
    finished = sum(int(str(p.facts["products"])) for p in products if "on the cores" in str(p.facts["finished"]))
    cut = sum(p.facts["windows"] == "by DMA" for p in products)
    errors = [row.error for row in report.layers if row.error is not None]
    error = (report.measured or {}).get("relative_l2", float("nan"))
    cells = (
        title,
        scales,
        f"{finished} of {count}",
        f"{report.launches}",
        f"{cut}",
        f"{used['ddr_bytes'] / 1e6:.2f} MB",
        f"{used['seconds'] * 1e3:.2f} ms",
        f"{used['dispatches']:.0f}",
        f"{error:.2%}",
        f"{max(errors):.1%}",
    )
    return "| " + " | ".join(cells) + " |"


def section(folder: Path, only: str = "") -> list[str]:
    """The lines of the section for the models that are in a folder."""
    header = (
        "model, int8 weights",
        "scales",
        "products finished on cores",
        "launches on the host",
        "windows cut by DMA",
        "host memory",
        "array time",
        "dispatches",
        "error",
        "largest error of a layer",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    with tempfile.TemporaryDirectory() as made:
        for file in MODELS:
            if (folder / file).exists() and only in ("", file):
                for scales in ("run-time", "calibrated"):
                    lines.append(row(folder / file, scales, Path(made)))
                    print(lines[-1], file=sys.stderr, flush=True)
    return [
        *lines,
        f"On {TARGET}, sizes fixed by `--shape`, made-up rows (normal, deviation 0.5), {ROWS} of them for `--calib`. "
        "Scales found at run time leave sums to the CPU, which scales, activates and rounds them; those that "
        "`--calib` fixes let the cores do that, and small and depthwise layers, floats otherwise, are products as "
        "well. That takes more dispatches, host memory and time of the array, and launches on the host become "
        "fewer. Errors are relative L2 against the float model on the first four rows; of a layer its output's, "
        "earlier layers' included. Every tensor between layers then has 8 bits and one scale for all inputs.",
    ]


if __name__ == "__main__":
    print("\n".join(section(Path(sys.argv[1]), "".join(sys.argv[2:3]))))
