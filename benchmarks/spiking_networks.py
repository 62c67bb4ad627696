"""The networks of `spiking_engine.py`: trained parameters as integrate-and-fire networks, the same for every engine.

`read` folds batch norms and thresholds into weights, so that all thresholds are 1 and spikes 0 or 1; `build` writes
the network in the `spike` dialect, in f32 or in integers. Images drive the first layer with a constant current.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr, f32, i8, i32
from xdsl.ir import Block, Operation, Region, SSAValue

from neuc.dialects import dense, spike
from neuc.dialects.onnx_base import NAME
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "spiking"
sys.path.insert(0, str(EXAMPLES))
from image_sets import ImageSet, fashion  # noqa: E402

CALIBRATION = 300
QUANTILE = 0.999
LEAST = 1e-3
"""Of a channel's threshold, in parts of the layer's."""
EPS = 1e-5
PIXELS = 127
"""What a white pixel is in integer networks."""
START = 0.5
"""Potentials before the first step, in thresholds."""


@dataclass(frozen=True)
class Layer:
    """Synapses before neurons, or the last ones.

    Attributes:
        weight: f32 [N, K] or [O, C, 3, 3], padded by 1.
        bias: f32.
        pooled: sums of 2x2 follow the neurons.
    """

    weight: np.ndarray
    bias: np.ndarray
    pooled: bool = False

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4


@dataclass(frozen=True)
class Network:
    """Layers, and images to run them on."""

    name: str
    layers: tuple[Layer, ...]
    images: np.ndarray
    labels: np.ndarray


def read(name: str, data: ImageSet | None = None, *, channels: bool = False) -> Network:
    """`fashion_mlp` or `fashion_cnn` with thresholds at a quantile of the activations on some training images.

    Args:
        name: which.
        data: its images.
        channels: a threshold for each channel, as SpikingJelly's channel-wise recipe has it, instead of each layer.
    """
    data = data or fashion()
    values = np.load(EXAMPLES / "parameters" / f"{name}.npz")
    plain = _mlp(values) if name.endswith("mlp") else _cnn(values)
    shape = (-1, 784) if name.endswith("mlp") else (-1, 1, 28, 28)
    x = data.train_images[:CALIBRATION].reshape(shape)
    layers: list[Layer] = []
    before = np.ones(1)
    for index, layer in enumerate(plain):
        current = synapse(x.reshape(len(x), -1) if not layer.is_conv else x, layer)
        threshold = np.ones(1) if index == len(plain) - 1 else _thresholds(current, channels)
        rank = layer.weight.ndim
        incoming = np.repeat(before, layer.weight.shape[1] // len(before)).reshape(1, -1, *[1] * (rank - 2))
        weight = (layer.weight * incoming / threshold.reshape(-1, *[1] * (rank - 1))).astype(np.float32)
        layers.append(Layer(weight, (layer.bias / threshold).astype(np.float32), layer.pooled))
        x = sums(np.maximum(current, 0)) / 4 if layer.pooled else np.maximum(current, 0)
        # Sums of 2x2 are four times the mean.
        before = threshold / 4 if layer.pooled else threshold
    return Network(name, tuple(layers), np.ascontiguousarray(data.test_images.reshape(shape)), data.test_labels)


def _thresholds(current: np.ndarray, channels: bool) -> np.ndarray:
    """One for all, or one a channel: [1] or [C]. Channels that hardly fire keep one that weights stay finite with."""
    active = np.maximum(current, 0)
    whole = np.quantile(active, QUANTILE, keepdims=True).reshape(1)
    if not channels:
        return whole
    other = tuple(axis for axis in range(active.ndim) if axis != 1)
    return np.maximum(np.quantile(active, QUANTILE, axis=other), LEAST * whole)


def _mlp(values: np.lib.npyio.NpzFile) -> list[Layer]:
    return [Layer(values[f"{i}.weight"].astype(np.float32), values[f"{i}.bias"].astype(np.float32)) for i in (1, 3, 5)]


def _cnn(values: np.lib.npyio.NpzFile) -> list[Layer]:
    layers: list[Layer] = []
    for i in (0, 4, 8):
        gain, shift, mean, variance = (
            values[f"{i + 1}.{part}"].astype(np.float32) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + EPS)
        weight = values[f"{i}.weight"].astype(np.float32) * scale[:, None, None, None]
        bias = (values[f"{i}.bias"].astype(np.float32) - mean) * scale + shift
        layers.append(Layer(weight.astype(np.float32), bias.astype(np.float32), pooled=True))
    layers.append(Layer(values["13.weight"].astype(np.float32), values["13.bias"].astype(np.float32)))
    return layers


def synapse(x: np.ndarray, layer: Layer) -> np.ndarray:
    """The layer's currents in numpy."""
    if not layer.is_conv:
        return x @ layer.weight.T + layer.bias
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, layer.weight, optimize=True) + layer.bias[:, None, None]


def sums(x: np.ndarray) -> np.ndarray:
    """Sums of 2x2; an odd last line or column is left out."""
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).sum((3, 5))


def integers(layers: tuple[Layer, ...]) -> tuple[list[Layer], list[np.ndarray]]:
    """Int8 weights and int32 biases, and what thresholds are in each layer: i32 [N], or [O, 1, 1] of a convolution."""
    made: list[Layer] = []
    units: list[np.ndarray] = []
    for index, layer in enumerate(layers):
        scale = PIXELS if index == 0 else 1
        largest = np.abs(layer.weight).reshape(len(layer.weight), -1).max(1)
        if index == len(layers) - 1:
            # Outputs are compared with each other: one scale for all.
            largest = np.full_like(largest, largest.max())
        step = 127 / np.maximum(largest, np.finfo(np.float32).tiny)
        weight = np.round(layer.weight * step.reshape(-1, *[1] * (layer.weight.ndim - 1))).astype(np.int8)
        made.append(Layer(weight, np.round(layer.bias * step * scale).astype(np.int32), layer.pooled))
        unit = np.maximum(1, np.round(step * scale)).astype(np.int32)
        units.append(unit.reshape(-1, 1, 1) if layer.is_conv else unit)
    return made, units


def build(network: Network, steps: int, *, whole: bool = False) -> tuple[func.FuncOp, WeightStore]:
    """`main(images [B, …]) -> logits [B, 10]`, summed up over `steps`.

    Args:
        network: what.
        steps: how long.
        whole: in integers: int8 images (0 to 127) and weights, int32 potentials.
    """
    store = WeightStore()
    if whole:
        layers, units = integers(network.layers)
    else:
        layers, units = list(network.layers), [np.ones(1, np.float32)] * len(network.layers)
    element, dtype = (i32, np.int32) if whole else (f32, np.float32)
    input_type = tensor_type(i8 if whole else f32, ["B", *network.images.shape[1:]])
    block = Block(arg_types=[input_type])

    def constant(array: np.ndarray) -> SSAValue:
        op = make_constant("c", array, store)
        block.add_op(op)
        return op.result

    weights = [(constant(layer.weight), constant(layer.bias)) for layer in layers]
    thresholds = [constant(unit) for unit in units]
    shapes = neuron_shapes(network)
    states: list[SSAValue] = []
    for unit, shape in zip(units, shapes, strict=True):
        start = unit * (0 if shape == shapes[-1] else START)
        op = dense.BroadcastOp(constant(start.astype(dtype)), tensor_type(element, ["B", *shape]))
        block.add_op(op)
        states.append(op.result)
    current = _synapse_op(block, block.args[0], layers[0], weights[0])
    loop = spike.LoopOp([], states, steps, [])
    body, after = loop.body.block, list[SSAValue]()
    for index, layer in enumerate(layers[:-1]):
        neuron = _add(body, spike.IfOp(current, [loop.states[index]], [thresholds[index]]))
        after.append(neuron.results[1])
        x = neuron.results[0]
        if layer.pooled:
            window = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
            x = _add(body, spike.SumPoolOp(x, **window, element=element)).results[0]
        current = _synapse_op(body, x, layers[index + 1], weights[index + 1])
    after.append(_add(body, spike.AccumulateOp(current, loop.states[-1])).results[0])
    body.add_op(spike.YieldOp([], after))
    block.add_ops([loop, func.ReturnOp(loop.final[-1])])
    main = func.FuncOp("main", ([input_type], [loop.final[-1].type]), Region(block))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("images")})])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("logits")})])
    return main, store


def neuron_shapes(network: Network) -> list[tuple[int, ...]]:
    """The shape of each layer's neurons in a sample."""
    shapes: list[tuple[int, ...]] = []
    side = network.images.shape[-1]
    for layer in network.layers:
        shapes.append((layer.weight.shape[0], side, side) if layer.is_conv else (layer.weight.shape[0],))
        side = side // 2 if layer.pooled else side
    return shapes


def _synapse_op(block: Block, x: SSAValue, layer: Layer, parameters: tuple[SSAValue, SSAValue]) -> SSAValue:
    if layer.is_conv:
        op: Operation = spike.ConvOp(x, *parameters, strides=[1, 1], pads=[1] * 4, dilations=[1, 1])
        return _add(block, op).results[0]
    wanted = tensor_type(x.type.get_element_type(), ["B", layer.weight.shape[1]])  # pyright: ignore
    if len(x.type.get_shape()) > 2:  # pyright: ignore[reportAttributeAccessIssue]
        x = _add(block, dense.ReshapeOp(x, wanted)).results[0]
    return _add(block, spike.LinearOp(x, *parameters)).results[0]


def _add(block: Block, op: Operation) -> Operation:
    block.add_op(op)
    return op
