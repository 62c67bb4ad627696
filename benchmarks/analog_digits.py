"""Digits on phase-change memory: float, noise-trained and ternary networks as they age, and with stuck devices.

    python benchmarks/analog_digits.py [--networks 3] [--draws 4] [--json digits.json]

A 64-256-10 perceptron is trained here, in numpy, on scikit-learn's digits (no download); converters of 8 bits and
range 10, column-wise scaling, global drift compensation, iterative bound management. The noise factor multiplies
programming, read and converter noise, not drift.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import neuc

MODES = ("float", "noise-trained", "ternary")
TIMES = {"1 d": 86400.0, "1 y": 31536000.0}
NOISE = (1, 3, 6)
STUCK = (0.0, 0.01, 0.05)
EPOCHS, BATCH, RATE, TRAINING_NOISE = 60, 64, 2e-3, 0.06
Weights = list[np.ndarray]


@dataclass(frozen=True)
class Digits:
    """Training and test samples."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def digits() -> Digits:
    """Three quarters of scikit-learn's digits for training, the rest for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split((x / 16).astype(np.float32), y, test_size=0.25, random_state=0, stratify=y)
    x, test_x, y, test_y = (np.asarray(part) for part in parts)
    return Digits(x, y, test_x, test_y)


def ternary(w: np.ndarray) -> np.ndarray:
    """Weights [inputs, outputs] rounded to -1, 0, 1 times the mean magnitude of each output's (BitNet b1.58)."""
    scale = np.abs(w).mean(axis=0, keepdims=True)
    return np.clip(np.rint(w / scale), -1, 1) * scale


def train(mode: str, seed: int, data: Digits) -> Weights:
    """Two layers' weights and biases, by Adam; roundings and noise are passed through by the gradient."""
    rng = np.random.default_rng(seed)
    p: Weights = []
    for rows, columns in ((64, 256), (256, 10)):
        bound = 1 / np.sqrt(rows)
        p += [rng.uniform(-bound, bound, (rows, columns)), rng.uniform(-bound, bound, columns)]
    first, second = ([np.zeros_like(a) for a in p] for _ in range(2))
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(data.x))
        for start in range(0, len(order), BATCH):
            x, y = data.x[order[start : start + BATCH]], data.y[order[start : start + BATCH]]
            w0, w1 = (_used(p[i], mode, rng) for i in (0, 2))
            hidden = np.maximum(x @ w0 + p[1], 0)
            logits = hidden @ w1 + p[3]
            error = np.exp(logits - logits.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(len(y)), y] -= 1
            error /= len(y)
            inner = (error @ w1.T) * (hidden > 0)
            gradients = [x.T @ inner, inner.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
            step += 1
            for a, g, m, v in zip(p, gradients, first, second):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                a -= RATE * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    if mode == "ternary":
        p[0], p[2] = ternary(p[0]), ternary(p[2])
    return [a.astype(np.float32) for a in p]


def _used(w: np.ndarray, mode: str, rng: np.random.Generator) -> np.ndarray:
    match mode:
        case "ternary":
            return ternary(w)
        case "noise-trained":
            return w + TRAINING_NOISE * np.abs(w).max() * rng.standard_normal(w.shape)
        case _:
            return w


def network(p: Weights) -> onnx.ModelProto:
    """The trained network as an ONNX model."""
    names = ("w0", "b0", "w1", "b1")
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], name="second"),
        ],
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 10])],
        [numpy_helper.from_array(array, name) for array, name in zip(p, names, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def target(noise: int, extra: str = "") -> str:
    """The crossbar target with its noise times `noise`."""
    factors = f"prog_noise={noise},read_noise={noise},out_noise={0.04 * noise:g}"
    return f"xbar-pcm{{adc_bits=8,dac_bits=8,adc_bound=10,doublings=6,{factors}{extra}}}"


def settings() -> dict[str, str]:
    """Targets by what is measured: noise factors, no compensation, stuck devices with and without remapping."""
    found = {f"{noise}x noise": target(noise) for noise in NOISE}
    found["1x noise, no compensation"] = target(1, ",compensation=none")
    for rate in STUCK[1:]:
        half = f",stuck_low={rate / 2:g},stuck_high={rate / 2:g}"
        found[f"{rate:.0%} stuck"] = target(1, half + ",remap=no")
        found[f"{rate:.0%} stuck, remapped"] = target(1, half)
    return found


def accuracies(
    model: onnx.ModelProto, where: str, feeds: Mapping[str, np.ndarray], labels: np.ndarray, draws: Iterable[int]
) -> Iterator[dict[str, float]]:
    """Accuracy at each time, for each draw."""
    session = neuc.compile(model, where).session(threads=1)
    assert session.analog is not None
    for seed in draws:
        found: dict[str, float] = {}
        for label, time in TIMES.items():
            session.analog.set(time, seed)
            scores = session.run(None, feeds)[0]
            found[label] = float(np.mean(scores.argmax(axis=1) == labels))
        yield found


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation of the accuracies of one setting at one time."""

    mode: str
    setting: str
    time: str
    mean: float
    std: float


def measure(networks: int, draws: int) -> list[Cell]:
    """All settings, and digital accuracy."""
    data, cells = digits(), list[Cell]()
    feeds = {"x": data.test_x}
    for mode in MODES:
        nets = [train(mode, seed, data) for seed in range(networks)]
        digital = [_digital(p, data) for p in nets]
        cells.append(Cell(mode, "digital", "-", float(np.mean(digital)), float(np.std(digital))))
        models = [network(p) for p in nets]
        for setting, where in settings().items():
            rows = [row for model in models for row in accuracies(model, where, feeds, data.test_y, range(draws))]
            for time in TIMES:
                values = [row[time] for row in rows]
                cells.append(Cell(mode, setting, time, float(np.mean(values)), float(np.std(values))))
    return cells


def _digital(p: Weights, data: Digits) -> float:
    scores = np.maximum(data.test_x @ p[0] + p[1], 0) @ p[2] + p[3]
    return float(np.mean(scores.argmax(axis=1) == data.test_y))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells = measure(arguments.networks, arguments.draws)
    for cell in cells:
        print(f"{cell.mode:14} {cell.setting:28} {cell.time:4} {100 * cell.mean:6.2f} ± {100 * cell.std:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(cell) for cell in cells], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
