"""Small spiking networks as functions of the `spike` dialect, and sessions that run them; for tests and benchmarks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr, f32, i8, i32
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.emit import emit
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.target import TARGETS
from neuc.dialects import dense, spike
from neuc.dialects.context import NeucContext
from neuc.dialects.dims import DimLike
from neuc.dialects.onnx_base import NAME
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes.expose_spike_state import FACT, ExposeSpikeState
from neuc.passes.module_facts import facts_of
from neuc.passes.partition import Partition
from neuc.runtime.session import Session

BUSY = 2.0
"""Weights are drawn with this standard deviation over √K: a third of the neurons fire."""
LEVEL = 100
"""What 1.0 is in integer networks."""


class Network:
    """A function `main` under construction: operations in front of a loop, in it, and behind it."""

    def __init__(self, inputs: Sequence[Attribute], store: WeightStore) -> None:
        self.store = store
        self.block = Block(arg_types=list(inputs))
        self.inputs = list(self.block.args)
        self._count = 0

    def constant(self, array: np.ndarray) -> SSAValue:
        """A constant in front of the loop."""
        self._count += 1
        op = make_constant(f"c{self._count}", array, self.store)
        self.block.add_op(op)
        return op.result

    def add(self, op: Operation) -> Operation:
        """An operation in front of the loop or behind it."""
        self.block.add_op(op)
        return op

    def zeros(self, element: Attribute, dims: Sequence[DimLike]) -> SSAValue:
        """A state that begins as 0."""
        if isinstance(element, spike.EventType):
            return self.add(spike.SilenceOp(tensor_type(element, dims))).results[0]
        none = self.constant(np.zeros(1, np.float32 if element == f32 else np.int32))
        return self.add(dense.BroadcastOp(none, tensor_type(element, dims))).results[0]

    def function(self, results: Sequence[SSAValue]) -> func.FuncOp:
        """The function, with names of inputs and outputs."""
        self.block.add_op(func.ReturnOp(*results))
        main = func.FuncOp("main", ([v.type for v in self.inputs], [v.type for v in results]), Region(self.block))
        main.arg_attrs = _names("x", len(self.inputs))
        main.res_attrs = _names("y", len(results))
        return main


def _names(prefix: str, count: int) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr([DictionaryAttr({NAME: StringAttr(f"{prefix}{i}")}) for i in range(count)])


def weights(rng: np.random.Generator, n: int, k: int, integer: bool) -> tuple[np.ndarray, np.ndarray]:
    """W[n, k] and a bias."""
    w, bias = rng.standard_normal((n, k)) * (BUSY / np.sqrt(k)), rng.standard_normal(n) * 0.1
    if integer:
        return np.clip(np.round(w * LEVEL), -127, 127).astype(np.int8), np.round(bias * LEVEL).astype(np.int32)
    return w.astype(np.float32), bias.astype(np.float32)


def constant_current_mlp(
    store: WeightStore,
    sizes: Sequence[int],
    steps: DimLike,
    *,
    batch: DimLike = "B",
    integer: bool = False,
    seed: int = 0,
    raster: bool = True,
    sums_alone: bool = False,
) -> func.FuncOp:
    """Linear, IF, linear, IF … from an analog input (int8 in integer networks); the last layer is summed up.

    Results: the first layer's events [T, B, N] (with `raster`), then all potentials and the sum; or the sum alone.
    """
    raster = raster and not sums_alone
    rng, element = np.random.default_rng(seed), i32 if integer else f32
    net = Network([tensor_type(i8 if integer else f32, [batch, sizes[0]])], store)
    layers = [[net.constant(array) for array in weights(rng, n, k, integer)] for k, n in itertools.pairwise(sizes)]
    dtype = np.int32 if integer else np.float32
    unit = LEVEL if integer else 1
    # The first layer sees numbers of the scale LEVEL, the others events.
    thresholds = [net.constant(np.array([unit if place else unit * unit], dtype)) for place in range(len(sizes) - 2)]
    states = [net.zeros(element, [batch, n]) for n in sizes[1:]]
    current = net.add(spike.LinearOp(net.inputs[0], *layers[0])).results[0]
    events = [tensor_type(spike.BINARY, [batch, sizes[1]])] if raster else []
    loop = spike.LoopOp([], states, steps, events)
    body, after, rasters = loop.body.block, list[SSAValue](), list[SSAValue]()
    for place, threshold in enumerate(thresholds):
        if place:
            current = added(body, spike.LinearOp(current, *layers[place])).results[0]
        neuron = spike.IfOp(current, [loop.states[place]], [threshold])
        current = added(body, neuron).results[0]
        after.append(neuron.next_potential)
        rasters.append(neuron.events)
    last = added(body, spike.LinearOp(current, *layers[-1])).results[0]
    after.append(added(body, spike.AccumulateOp(last, loop.states[-1])).results[0])
    body.add_op(spike.YieldOp(rasters[:1] if raster else [], after))
    net.add(loop)
    return net.function([loop.final[-1]] if sums_alone else list(loop.results))


def constant_current_cnn(
    store: WeightStore, steps: DimLike, *, integer: bool = False, size: int = 9, channels: Sequence[int] = (2, 5, 19)
) -> func.FuncOp:
    """Convolution, IF, sums of 2x2; again with other thresholds for each channel; linear, summed up.

    Results: the second neurons' events, all potentials, the sum.
    """
    rng, element = np.random.default_rng(1), i32 if integer else f32
    dtype, unit = (np.int32, LEVEL) if integer else (np.float32, 1)
    c0, c1, c2 = channels
    half, quarter = size // 2, size // 4
    net = Network([tensor_type(i8 if integer else f32, ["B", c0, size, size])], store)
    layers = []
    for n, k, shape in ((c1, c0 * 9, (c0, 3, 3)), (c2, c1 * 9, (c1, 3, 3)), (10, c2 * quarter**2, (c2 * quarter**2,))):
        w, bias = weights(rng, n, k, integer)
        layers.append((net.constant(w.reshape(n, *shape)), net.constant(bias)))
    thresholds = [net.constant(np.array([unit * unit], dtype))]
    thresholds.append(net.constant((np.linspace(1, 2, c2) * unit).astype(dtype).reshape(c2, 1, 1)))
    sizes = (["B", c1, size, size], ["B", c2, half, half])
    states = [net.zeros(element, dims) for dims in (*sizes, ["B", 10])]
    window = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1]}
    pool = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0], "element": element}
    current = net.add(spike.ConvOp(net.inputs[0], *layers[0], **window)).results[0]
    loop = spike.LoopOp([], states, steps, [tensor_type(spike.BINARY, sizes[1])])
    body, after, rasters = loop.body.block, list[SSAValue](), list[SSAValue]()
    for place in range(2):
        neuron = spike.IfOp(current, [loop.states[place]], [thresholds[place]])
        added(body, neuron)
        rasters.append(neuron.events)
        after.append(neuron.next_potential)
        current = added(body, spike.SumPoolOp(neuron.events, **pool)).results[0]
        if place == 0:
            current = added(body, spike.ConvOp(current, *layers[1], **window)).results[0]
    flat = added(body, dense.ReshapeOp(current, tensor_type(element, ["B", c2 * quarter**2]))).results[0]
    last = added(body, spike.LinearOp(flat, *layers[2])).results[0]
    after.append(added(body, spike.AccumulateOp(last, loop.states[2])).results[0])
    body.add_op(spike.YieldOp(rasters[-1:], after))
    net.add(loop)
    return net.function(list(loop.results))


def added(block: Block, op: Operation) -> Operation:
    """The operation, appended."""
    block.add_op(op)
    return op


def session(main: func.FuncOp, store: WeightStore, isa: Isa, threads: int = 1) -> Session:
    """The function compiled for target cpu-spike."""
    context = NeucContext(weights=store)
    module = ModuleOp([main])
    module.verify()
    for step in (Partition(target="cpu-spike"), *TARGETS["cpu-spike"].pipeline(isa)):
        step.apply(context, module)
    made = emit(module, store)
    return Session.from_parts(made.program, made.kernels, made.arrays(), threads=threads)


def anytime_session(module: ModuleOp, store: WeightStore) -> Session:
    """A session of the module with its state exposed, for this CPU's best instruction set; the module is changed."""
    context = NeucContext(weights=store)
    ExposeSpikeState().apply(context, module)
    module.verify()
    fact = facts_of(module)
    for step in (Partition(target="cpu-spike"), *TARGETS["cpu-spike"].pipeline(runnable_isas()[0])):
        step.apply(context, module)
    made = emit(module, store)
    return Session.from_parts(made.program, made.kernels, made.arrays(), threads=1, manifest={FACT: fact[FACT]})
