"""Training of a perceptron in the array: every change of a weight is a pulse to a simulated device.

Products forwards and backwards are exact, or go through converters; biases and activations are digital. What devices do
is `runtime/analog`'s business. The trained weights are a network like any other, to be exported and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from neuc.compiler.analog.array_products import ArrayConverters
from neuc.compiler.analog.pulsed_layer import PulsedLayer
from neuc.errors import Error, Exit
from neuc.runtime.analog.pulsed_devices import PulsedDevice, pulsed_device
from neuc.runtime.analog.pulsed_update import DEFAULT_TRAINS, RULES, PulseTrains

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From weights [lines out, lines in] and samples [N, lines in] to [N, lines out]."""
MOST_WIDTH = 4096
"""Lines of an array; arrays are simulated device by device."""


@dataclass(frozen=True)
class InArrayResult:
    """A perceptron that was trained in the array.

    Attributes:
        layers: weights f32 [outputs, inputs] and biases f32 [outputs] of each layer.
        accuracies: share of the test samples that were named rightly after each epoch, by products as in training.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    accuracies: tuple[float, ...]

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Scores f64 [N, classes] of samples [N, inputs]."""
        return _forward(_exact, list(self.layers), x)[-1].astype(np.float64)

    def to_onnx(self, path: Path) -> None:
        """Write the network: `x` f32 [batch, inputs] -> `scores` f32 [batch, classes]."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        nodes: list[onnx.NodeProto] = []
        constants: list[onnx.TensorProto] = []
        value = "x"
        for i, (weights, bias) in enumerate(self.layers):
            constants += [numpy_helper.from_array(weights, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
            last = i == len(self.layers) - 1
            made = "scores" if last else f"h{i}"
            nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [made], name=f"layer{i}", transB=1))
            if not last:
                nodes.append(helper.make_node("Relu", [made], [f"r{i}"], name=f"relu{i}"))
                value = f"r{i}"
        sizes = self.layers[0][0].shape[1], self.layers[-1][0].shape[0]
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
            for name, size in zip(("x", "scores"), sizes, strict=True)
        ]
        graph = helper.make_graph(nodes, "trained_in_the_array", ends[:1], ends[1:], constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


def train_in_array(
    sizes: Sequence[int],
    x: np.ndarray,
    labels: np.ndarray,
    *,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    rule: str = "tiki-taka-2",
    device: str | PulsedDevice = "soft-bounds",
    epochs: int = 10,
    batch: int = 10,
    rate: float = 0.1,
    trains: PulseTrains = DEFAULT_TRAINS,
    converters: ArrayConverters | None = None,
    seed: int = 0,
) -> InArrayResult:
    """Train a perceptron with ReLU on the cross-entropy of its scores, all weights being pulsed devices.

    Args:
        sizes: inputs, hidden layers, classes.
        x: samples [N, inputs].
        labels: classes, integers [N].
        test: samples and labels to follow accuracy with; the training samples if not given.
        rule: sgd, tiki-taka or tiki-taka-2.
        device: constant, soft-bounds, ecram, capacitor, or one of your own.
        epochs: passes over the samples.
        batch: samples whose products are made with the same weights; their slopes are averaged.
        rate: learning rate.
        trains: length and management of pulse trains.
        converters: what products forwards and backwards go through; none for exact ones.
        seed: of devices, first weights, order of samples and pulses.

    Raises:
        Error: NEUC-E662, samples, sizes, rule, device or a number makes no sense.
    """
    x, labels = _checked(sizes, x, labels)
    held = (x, labels) if test is None else _checked(sizes, *test)
    if rule not in RULES:
        raise _bad(f"learning rule {rule!r}", f"choose {', '.join(RULES)}")
    if not 0 < rate <= 100:
        raise _bad(f"rate {rate:g}", "give a number above 0, up to 100")
    if not 1 <= batch <= len(x):
        raise _bad(f"batch {batch}", f"give 1 to the number of samples, {len(x)}")
    if not 1 <= epochs <= 100_000:
        raise _bad(f"{epochs} epochs", "give 1 to 100,000")
    rng, kind = np.random.default_rng(seed), pulsed_device(device)
    layers: list[PulsedLayer] = []
    for inputs, outputs in pairwise(sizes):
        bound = 1 / np.sqrt(inputs)
        drawn = RULES[rule](kind, rng.uniform(-bound, bound, (outputs, inputs)), rng, trains)
        layers.append(PulsedLayer(drawn, int(rng.integers(2**62))))
    biases = [np.zeros(outputs) for outputs in sizes[1:]]
    product = _exact if converters is None else partial(converters.product, rng=rng)
    accuracies: list[float] = []
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            _learn(product, layers, biases, x[chosen], labels[chosen], rate)
        scores = _forward(product, [(layer.weights, bias) for layer, bias in zip(layers, biases)], held[0])[-1]
        accuracies.append(float(np.mean(scores.argmax(axis=1) == held[1])))
    made = [(layer.weights.astype(np.float32), b.astype(np.float32)) for layer, b in zip(layers, biases)]
    return InArrayResult(tuple(made), tuple(accuracies))


def _exact(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x @ weights.T


def _forward(product: Product, layers: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> list[np.ndarray]:
    """Inputs of each layer, and the scores."""
    values = [x]
    for i, (weights, bias) in enumerate(layers):
        value = product(weights, values[-1]) + bias
        values.append(value if i == len(layers) - 1 else np.maximum(value, 0))
    return values


def _learn(
    product: Product,
    layers: Sequence[PulsedLayer],
    biases: list[np.ndarray],
    x: np.ndarray,
    labels: np.ndarray,
    rate: float,
) -> None:
    values = _forward(product, [(layer.weights, bias) for layer, bias in zip(layers, biases)], x)
    scores = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
    slope = scores / scores.sum(axis=1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    slope /= len(labels)
    for i in reversed(range(len(layers))):
        below = product(layers[i].weights.T, slope) * (values[i] > 0) if i else slope
        layers[i].update(values[i], slope, rate)
        biases[i] -= rate * slope.sum(axis=0)
        slope = below


def _checked(sizes: Sequence[int], x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(sizes) < 2 or not all(1 <= size <= MOST_WIDTH for size in sizes):
        raise _bad(f"layers of {list(sizes)}", f"give inputs, hidden layers and classes, each 1 to {MOST_WIDTH}")
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    if x.ndim != 2 or x.shape[1] != sizes[0] or not len(x):
        raise _bad(f"samples of shape {list(x.shape)}", f"give numbers [N, {sizes[0]}]")
    bad = int(np.count_nonzero(~np.isfinite(x).all(axis=1)))
    if bad:
        raise _bad(f"{bad} of {len(x)} samples with NaN or infinity", "give finite numbers")
    whole = labels.shape == (len(x),) and np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.min() < 0 or labels.max() >= sizes[-1]:
        raise _bad("labels", f"give {len(x)} integers from 0 to {sizes[-1] - 1}")
    return x, labels


def _bad(what: str, hint: str) -> Error:
    return Error("NEUC-E662", f"training in the array: {what} will not do", hint=hint, exit_code=Exit.USAGE)
