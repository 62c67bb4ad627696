"""The trained spiking blocks beside their twins: accuracy, spikes, additions and multiplications, energy by two tables.

    python benchmarks/spiking_blocks.py

Accuracies of the blocks are measured on their `spike` programs, those of the twins are what training found. The result
goes to the history that `spiking_page.py` reads.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spiking_energy import ENERGY_TABLES
from spiking_records import Record, add, interval
from xdsl.dialects import arith
from xdsl.ir import Operation, SSAValue

from neuc.dialects import spike
from neuc.dialects.dense import MapOp
from neuc.dialects.interp.core import interpret

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "spiking"))

from block_programs import PARAMETERS, PROGRAMS, TOKENS, block_program
from image_sets import digits


@dataclass
class Counter:
    """Counts what a program does while the interpreter runs it.

    An operation counts where its input is not 0: weights that spikes meet are added (ACs), weights that numbers meet
    are multiplied (MACs), and so is each product in an element-wise body.

    Attributes:
        macs, acs: operations.
        spikes, chances: spikes of neurons, and how many there could have been.
    """

    macs: float = 0.0
    acs: float = 0.0
    spikes: int = 0
    chances: int = 0

    def __post_init__(self) -> None:
        self._seen: dict[SSAValue, np.ndarray] = {}

    def watch(self, op: Operation, results: list[np.ndarray]) -> None:
        """One operation and its results."""
        self._seen.update(zip(op.results, results))
        if isinstance(op, spike.LinearOp):
            x = self._seen.get(op.x)
            assert x is not None, "a synapse reads what no operation made"
            met = np.count_nonzero(x) * results[0].shape[-1]
            if spike.event_of(op.x) is not None:
                self.acs += met
            else:
                self.macs += met
        elif isinstance(op, MapOp):
            products = sum(isinstance(inner, arith.MulfOp | arith.DivfOp) for inner in op.body.block.ops)
            self.macs += products * results[0].size
        elif isinstance(op, spike.LifOp | spike.MultiThresholdOp):
            self.spikes += int(np.count_nonzero(results[0]))
            self.chances += results[0].size


def twin_macs(name: str, parameters: dict[str, np.ndarray], counted: Counter, images: int) -> float:
    """Multiplications of the twin for one image: its layers once for each token, its head once.

    Attention of the Transformer's twin is two products of all tokens with all; the Mamba's twin has the same
    element-wise products as the block.
    """
    layers = {key: a.size for key, a in parameters.items() if key.endswith("weight") and a.ndim == 2}
    head = layers.pop("head.weight")
    macs = float(TOKENS * sum(layers.values()) + head)
    if name == "spike_transformer":
        return macs + 2.0 * TOKENS**2 * parameters["position"].shape[1]
    once = TOKENS * (layers["embed.weight"] + layers["step.weight"]) + head
    return macs + (counted.macs / images - once)


def measure(name: str) -> Record:
    """One block."""
    images = digits()
    module, store = block_program(name)
    counted = Counter()
    logits = interpret(module, [images.test_images], store, observe=counted.watch)[0]
    trained = json.loads((PARAMETERS / "blocks.json").read_text(encoding="utf-8"))
    right = logits.argmax(1) == images.test_labels
    count = len(right)
    with np.load(PARAMETERS / f"{name}.npz") as arrays:
        parameters = {key: arrays[key] for key in arrays.files}
    macs, acs, twin = counted.macs / count, counted.acs / count, twin_macs(name, parameters, counted, count)
    energy = {t.name: [t.picojoules(macs, acs) / 1e3, t.picojoules(twin, 0) / 1e3] for t in ENERGY_TABLES}
    return {
        "block": name,
        "images": count,
        "accuracy": float(right.mean()),
        "interval": interval(right.astype(np.float64)),
        "trained": trained[name],
        "twin": trained[f"{name}_twin"],
        "rate": counted.spikes / counted.chances,
        "macs": macs,
        "acs": acs,
        "twin_macs": twin,
        "nanojoules": energy,
        "tables": {t.name: t.source for t in ENERGY_TABLES},
    }


def main() -> None:
    """All blocks."""
    for name in PROGRAMS:
        record = measure(name)
        add(f"blocks/{name}", record)
        print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
