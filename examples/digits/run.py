"""Compiles a digits classifier with neuc, runs the 450 held-out images and compares with the model in fp32.

    python examples/digits/run.py                                # the INT2 file, for cpu-tl2
    python examples/digits/run.py qonnx_quant mixed --target cpu
    python examples/digits/run.py --all

Needs neuc alone, neither torch nor scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

import neuc

HERE = Path(__file__).parent
MODELS = HERE / "models"
REFERENCES = {"mixed": "mixed", "binary": "binary", "binary_qonnx": "binary"}
"""The model in plain fp32 operators that a file is compared with, where that is not `fake_quant`."""


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Images as f32 [450, 64] with values 0 to 16, and labels u8 [450]."""
    with np.load(HERE / "held_out.npz") as arrays:
        return arrays["images"].astype(np.float32), arrays["labels"]


def reference(name: str, pixels: np.ndarray) -> np.ndarray:
    """Logits f32 [N, 10] of the model in fp32, by onnxruntime."""
    path = MODELS / f"{REFERENCES.get(name, 'fake_quant')}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def show(name: str, target: str) -> None:
    """Compile one file, run it and print what came of it."""
    pixels, labels = held_out()
    # Without quantize="none", cpu-tl2 would make float layers ternary, too, which is not lossless.
    compiled = neuc.compile(MODELS / f"{name}.onnx", target, quantize="none")
    with compiled.session() as session:
        (logits,) = session.run(None, {"pixels": pixels})
    print(f"\n{name}.onnx for {target} ({compiled.report.isa})")
    for row in compiled.report.layers:
        kind = f"{row.encoding}, scale {row.scale}" if row.ternary else "float"
        print(f"  {row.node:<14} {'x'.join(map(str, row.shape))}  {kind}  {row.note}".rstrip())
    expected = reference(name, pixels)
    print(f"  accuracy {np.mean(logits.argmax(1) == labels):.2%} of {len(labels)} held-out images,", end=" ")
    print(f"of the fp32 model {np.mean(expected.argmax(1) == labels):.2%}")
    print(f"  largest difference of a logit: {np.abs(logits - expected).max():.1e}")


def main() -> None:
    """Run the files that are named."""
    known = sorted(path.stem for path in MODELS.glob("*.onnx"))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", default=["int2_qdq"], help=", ".join(known))
    options.add_argument("--target", default="cpu-tl2")
    options.add_argument("--all", action="store_true", help="every file")
    given = options.parse_args()
    names = known if given.all else given.names
    for name in names:
        if name not in known:
            options.error(f"there is no {name}.onnx; there are {', '.join(known)}")
        show(name, given.target)


if __name__ == "__main__":
    main()
