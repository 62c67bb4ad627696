"""NeuroBench's metrics of a spiking network, by their published definitions.

J. Yik et al., "The neurobench framework for benchmarking neuromorphic computing algorithms and systems", Nature
Communications 16, 2025; the details are those of the package `neurobench` 2.3. Counted on the module itself, which the
reference interpreter runs, so that what is counted is what is compiled and exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.compiler.signature import entry_of
from neuc.compiler.snn.synaptic_operations import fan_out, met_weights
from neuc.dialects import spike
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import ConstantOp, constant_array, constant_value
from neuc.dialects.weight_store import WeightStore

Array = np.ndarray
PRODUCTS = (MatMulOp, ConvOp, spike.LinearOp, spike.ConvOp)


@dataclass(frozen=True)
class NeuroBench:
    """The metrics.

    Attributes:
        footprint: bytes of all constants: weights, thresholds, first potentials.
        connection_sparsity: zeros among the weights of products, rounded to 4 digits.
        activation_sparsity: zeros among all that neurons sent, over all steps and samples.
        effective_macs: per sample, all steps: products of an input and a weight, both not 0, in layers and steps whose
            inputs are not all -1, 0 or 1. The analog input's layer counts once, since it runs once here; a network that
            computes it in each step has T times as many.
        effective_acs: the same of layers and steps whose inputs are all -1, 0 or 1.
        dense: per sample, all steps: operations there would be without zeros.
        membrane_updates: per sample: neurons whose membrane changed in a step, and all of them in the first.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    effective_macs: float
    effective_acs: float
    dense: float
    membrane_updates: float


def neurobench(module: ModuleOp, store: WeightStore, inputs: Sequence[Array]) -> NeuroBench:
    """The metrics of a converted network.

    Args:
        module: with one `spike.loop`, such as `SpikingModel.module`.
        store: its weights.
        inputs: one array [samples, …] for each input.
    """
    arguments: Sequence[SSAValue] = entry_of(module).body.block.args
    counter = _Counter(store, dict(zip(arguments, inputs)))
    interpret(module, inputs, store, observe=counter.observe)
    samples = inputs[0].shape[0] if inputs and inputs[0].ndim else 1
    zeros, weights, size = 0, 0, 0
    for op in module.walk():
        if isinstance(op, ConstantOp):
            size += constant_array(op, store).nbytes
        if isinstance(op, PRODUCTS) and (weight := constant_value(op.operands[1], store)) is not None:
            zeros, weights = zeros + int(np.count_nonzero(weight == 0)), weights + weight.size
    return NeuroBench(
        size,
        round(zeros / max(1, weights), 4),
        counter.silent / max(1, counter.sent),
        counter.macs / samples,
        counter.acs / samples,
        counter.dense / samples,
        counter.updates / samples,
    )


@dataclass
class _Counter:
    """Looks at every operation's results as the module runs."""

    store: WeightStore
    seen: dict[SSAValue, Array]
    """The last result of each value that a product may read."""
    membranes: dict[Operation, Array] = field(default_factory=dict[Operation, Array])
    silent: int = 0
    sent: int = 0
    macs: float = 0.0
    acs: float = 0.0
    dense: float = 0.0
    updates: int = 0

    def observe(self, op: Operation, results: list[Array]) -> None:
        """Count what one operation did."""
        if isinstance(op, PRODUCTS) and op.operands[0] in self.seen:
            self._product(op, self.seen[op.operands[0]])
        for value, array in zip(op.results, results):
            self.seen[value] = array
        if isinstance(op, spike.NeuronOp | spike.LevelsOp):
            self.silent += int(np.count_nonzero(results[0] == 0))
            self.sent += results[0].size
            before, after = self.membranes.get(op), results[1]
            self.updates += after.size if before is None else int(np.count_nonzero(after != before))
            self.membranes[op] = after

    def _product(self, op: Operation, x: Array) -> None:
        fans = fan_out(op, x.shape, self.store)
        every = fan_out(op, x.shape, self.store, dense=True)
        if fans is None or every is None:
            return
        made = met_weights(x, fans)
        if np.isin(x, (-1, 0, 1)).all():
            self.acs += made
        else:
            self.macs += made
        self.dense += met_weights(np.ones(x.shape, np.int8), every)
