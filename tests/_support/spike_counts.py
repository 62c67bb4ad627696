"""Counts of a small spiking network's run, for models of chips."""

from __future__ import annotations

from neuc.compiler.snn.simulate import Activity, Layer, Synapses


def activity() -> Activity:
    """Two inputs, three steps: 10 and 9000 neurons, an analog front, two products of spikes."""
    layers = [Layer("a", 10, [4, 6, 8], 1.0), Layer("b", 9000, [20, 0, 2], 1.0)]
    synapses = [
        Synapses("front", [50.0], spikes=False, once=True, dense=100),
        Synapses("ab", [400.0, 600.0, 800.0], spikes=True, once=False, dense=90_000),
        Synapses("out", [200.0, 0.0, 20.0], spikes=True, once=False, dense=90_000),
    ]
    return Activity(layers, synapses, samples=2)
