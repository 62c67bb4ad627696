"""A network's footprint beside a chip's limits: one row for each bound, all of them, not the first that fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx

from neuc.compiler.chips.footprint import Footprint
from neuc.compiler.chips.limits import ANY, CHIPS, Chip, Source

_WHAT = {
    "neurons": "neurons",
    "neurons_in_a_core": "neurons in a core",
    "synapses": "synapses",
    "inputs": "inputs",
    "outputs": "outputs",
    "hidden_neurons": "hidden neurons",
    "fan_out": "connections of a neuron",
    "delay": "longest delay in steps",
    "recurrent_layers": "recurrent layers",
    "kernel": "largest side of a kernel",
}


@dataclass(frozen=True)
class Row:
    """One bound.

    Attributes:
        what: what is bounded.
        needed: what the network needs.
        allowed: what the chip has.
        fits: whether that is enough.
        source: where the bound comes from.
    """

    what: str
    needed: str
    allowed: str
    fits: bool
    source: Source


def compare(found: Footprint, chip: Chip) -> list[Row]:
    """Every bound of the chip beside what the network needs."""
    rows = [
        Row(
            _WHAT[key],
            str(found.amounts[key]),
            str(limit.most),
            limit.most is None or found.amounts[key] <= limit.most,
            limit.source,
        )
        for key, limit in chip.limits.items()
    ]
    spiking = [p for p in found.populations if p.kind not in ("integrator", "li", "cuba_li")]
    kinds = sorted({p.kind for p in spiking})
    rows.append(
        Row(
            "kinds of neurons",
            _list(kinds),
            "any" if chip.neurons == ANY else _list(chip.neurons),
            set(kinds) <= chip.neurons,
            chip.neurons_source,
        )
    )
    resets = sorted({p.reset for p in spiking if p.reset})
    rows.append(Row("resets", _list(resets), _list(chip.resets), set(resets) <= chip.resets, chip.neurons_source))
    binary = all(p.binary for p in found.populations)
    graded, source = chip.graded
    rows.append(
        Row("spikes", "binary" if binary else "graded", "graded" if graded else "binary", binary or graded, source)
    )
    rows.append(_precision(found, chip))
    if found.others:
        rows.append(Row("other operations", _list(found.others), "none", False, chip.neurons_source))
    if chip.cores:
        rows.append(_placement(found, chip))
    if not chip.convolutions and any(s.kernel > 1 for s in found.synapses):
        rows.append(Row("convolutions", "some", "none: write them as matrices", False, chip.neurons_source))
    return rows


def _list(items: Iterable[str]) -> str:
    return ", ".join(sorted(items)) or "none"


def _precision(found: Footprint, chip: Chip) -> Row:
    """Whether weights are integers of the chip's width; floats can always be rounded, at a loss this does not tell."""
    bits, widths = chip.weight_bits.most or 0, [s.bits for s in found.synapses]
    whole = [w for w in widths if w is not None]
    needed = "floats, to be rounded" if len(whole) < len(widths) else f"{max(whole, default=1)}-bit integers"
    fits = len(whole) < len(widths) or max(whole, default=1) <= bits
    return Row("weights", needed, f"{bits} bits", fits, chip.weight_bits.source)


def _placement(found: Footprint, chip: Chip) -> Row:
    """Whether every layer finds a core of its own: a matching of layers and cores."""
    spiking = [p for p in found.populations if p.kind not in ("integrator", "li", "cuba_li")]
    layers = list(zip(found.synapses, [*spiking, *[None] * len(found.synapses)]))
    graph = nx.Graph()
    tops = [f"layer{i}" for i in range(len(layers))]
    graph.add_nodes_from(tops)
    for i, (synapses, population) in enumerate(layers):
        words = population.words if population is not None else 0
        for j, core in enumerate(chip.cores):
            if synapses.weights <= core.weights and words <= core.neurons and synapses.biases <= core.biases:
                graph.add_edge(tops[i], j)
    matched = nx.bipartite.maximum_matching(graph, top_nodes=tops) if layers else {}
    homeless = [synapses.name for top, (synapses, _) in zip(tops, layers) if top not in matched]
    needed = f"{len(layers)} layers" + (f"; no core for {', '.join(homeless)}" if homeless else "")
    assert chip.cores_source is not None
    return Row("cores", needed, f"{len(chip.cores)} cores", not homeless, chip.cores_source)


def chip_named(name: str) -> Chip:
    """The chip called `name`.

    Raises:
        Error: NEUC-E001.
    """
    from neuc.compiler.universe import unknown_name

    if name not in CHIPS:
        raise unknown_name("chip", name, CHIPS)
    return CHIPS[name]
