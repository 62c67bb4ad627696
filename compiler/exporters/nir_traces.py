"""Golden spike traces: what every neuron of a network did on some inputs, as NIRGraphData beside a NIR graph.

Another tool that reads the graph can compare itself step by step. Spikes come from the reference interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from neuc.compiler.exporters.nir_graph import Exported
from neuc.compiler.signature import signature_of
from neuc.dialects.interp.core import interpret
from neuc.dialects.weight_store import WeightStore

if TYPE_CHECKING:
    import nir


def golden_traces(
    module: ModuleOp, store: WeightStore, exported: Exported, inputs: Mapping[str, np.ndarray]
) -> nir.NIRGraphData:
    """Traces of `module` on `inputs`, for the nodes of its graph.

    Each node that spikes has the observable ``spikes``, bool [samples, T, neurons], Input nodes have ``input``, f32.

    Args:
        module: the network.
        store: its weights.
        exported: what `export_nir` made of it.
        inputs: arrays by the names of @main's inputs.
    """
    import nir

    wanted = {value: name for name, value in exported.spikes.items()}
    seen: dict[str, list[np.ndarray]] = {name: [] for name in exported.spikes}

    def observe(op: Operation, results: list[np.ndarray]) -> None:
        for value, array in zip(op.results, results):
            if value in wanted:
                seen[wanted[value]].append(array != 0)

    names = [spec.name for spec in signature_of(module)[0]]
    interpret(module, [inputs[name] for name in names], store, observe=observe)
    dt = float(exported.graph.metadata["dt"])
    steps = max((len(trace) for trace in seen.values()), default=1)
    nodes: dict[str, nir.NIRNodeData | nir.NIRGraphData] = {
        name: _observed("spikes", np.stack(trace), dt) for name, trace in seen.items() if trace
    }
    for node, name in zip([n for n, k in exported.graph.nodes.items() if type(k).__name__ == "Input"], names):
        given = inputs[name]
        whole = given if name in exported.scanned else np.broadcast_to(given, (steps, *given.shape))
        nodes[node] = _observed("input", whole, dt)
    return nir.NIRGraphData(nodes=nodes)


def _observed(what: str, trace: np.ndarray, dt: float) -> nir.NIRNodeData:
    """[T, B, ...] as NIR has it: [B, T, neurons]."""
    import nir

    data = np.moveaxis(trace.reshape(*trace.shape[:2], -1), 0, 1)
    return nir.NIRNodeData(observables={what: nir.TimeGriddedData(data=np.ascontiguousarray(data), dt=dt)})
