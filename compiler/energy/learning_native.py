"""The inner loop of training as generated code: a rule's program, compiled once, run on the weights where they lie."""

from __future__ import annotations

import numpy as np

from neuc.compiler.energy.learning_maps import Array, ConvMap
from neuc.compiler.energy.learning_models import answer_program, learning_program, transposed
from neuc.compiler.energy.learning_rules import (
    EquilibriumPropagation,
    ForwardForward,
    Layers,
    Network,
    PredictiveCoding,
    Rule,
    forward,
    maps_in,
)

WITH_PROGRAMS = (EquilibriumPropagation, PredictiveCoding, ForwardForward)
"""Rules that `learning_program` writes."""
_ANSWERS_AT_ONCE = 512


class NativeSlopes:
    """`Rule.slopes` of one network and batch size, on one thread.

    Attributes:
        layers: the network; changes of its arrays in place are what the next call computes with.
    """

    def __init__(self, rule: Rule, layers: Layers, batch: int) -> None:
        assert isinstance(rule, WITH_PROGRAMS)
        self.rule, maps = rule, maps_in(layers)
        self._turned = [transposed(rule) and w.ndim == 2 for w, _ in layers]
        self.layers = Network(
            [(np.ascontiguousarray(w.T).T if t else w, b) for (w, b), t in zip(layers, self._turned)], maps
        )
        program = learning_program(rule, self.layers, weights="inputs")
        session = program.session(threads=1)
        inputs = {spec.name: spec for spec in session.program.inputs}
        self._feeds: dict[str, Array] = {}
        for number, ((w, b), turned) in enumerate(zip(self.layers, self._turned), 1):
            self._feeds |= {f"w{number}": w.T if turned else w, f"b{number}": b}
        for name, spec in inputs.items():
            if name not in self._feeds:
                width = spec.shape[1]
                assert isinstance(width, int)
                self._feeds[name] = np.zeros((batch, width), np.float32)
        binding = session.io_binding()
        for name, array in self._feeds.items():
            binding.bind_cpu_input(name, array)
        self._run = session.prepare(binding)
        self._session = session

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> Layers:
        """dF/dθ of a batch; valid until the next call."""
        for name, values in self._start(x, y, rng).items():
            self._feeds[name][...] = values
        self._run()
        found, results = list[tuple[Array, Array]](), self._run.outputs
        for number, turned in enumerate(self._turned, 1):
            w = results[f"dw{number}"]
            found.append((w.T if turned else w, results[f"db{number}"]))
        if isinstance(self.rule, ForwardForward):  # the dialect adds right and wrong labels up, the rule averages
            return [(0.5 * w, 0.5 * b) for w, b in found]
        return found

    def _start(self, x: Array, y: Array, rng: np.random.Generator) -> dict[str, Array]:
        """The inputs of a batch that change."""
        if isinstance(self.rule, ForwardForward):
            return self.rule.reads(self.layers, x, y, rng)
        found = {"x": x, "y": y}
        if isinstance(self.rule, PredictiveCoding):
            found |= {f"layer{n}": z for n, z in enumerate(forward(self.layers, x)[:-1], 1)}
        return found


class NativeAnswers:
    """The output layer of a network at rest, by generated code: numpy takes long where there are convolutions."""

    def __init__(self, rule: EquilibriumPropagation, layers: Layers) -> None:
        self._session = answer_program(rule, layers).session(threads=1)
        self._sizes = {f"layer{n}": map_.outputs for n, map_ in enumerate(maps_in(layers), 1)}

    def __call__(self, layers: Layers, x: Array) -> Array:
        """Scores [B, classes]; the layers may have changed since."""
        weights = {f"{name}{n}": a for n, pair in enumerate(layers, 1) for name, a in zip("wb", pair)}
        found: list[Array] = []
        for begin in range(0, len(x), _ANSWERS_AT_ONCE):
            part = x[begin : begin + _ANSWERS_AT_ONCE]
            zeros = {name: np.zeros((len(part), size), np.float32) for name, size in self._sizes.items()}
            found += self._session.run(["scores"], {"x": part, **zeros, **weights})
        return np.concatenate(found)


def convolves(layers: Layers) -> bool:
    """Whether a network has a convolution."""
    return any(isinstance(map_, ConvMap) for map_ in maps_in(layers))
