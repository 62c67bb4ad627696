"""What makes the steps of training: generated code, or numpy where a rule has no program or numpy is asked for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from neuc.compiler.energy.learning_maps import Array, ConvMap, Map
from neuc.compiler.energy.learning_models import answer_program
from neuc.compiler.energy.learning_rules import (
    ADAM,
    EquilibriumPropagation,
    Layers,
    Network,
    PredictiveCoding,
    Rule,
    maps_in,
)
from neuc.compiler.energy.learning_step import drawn, first_latents, training_step
from neuc.compiler.energy.learning_variants import IncrementalPredictiveCoding
from neuc.runtime.prepared import PreparedRun, in_place_pairs
from neuc.runtime.program import NativeSegment

if TYPE_CHECKING:
    from neuc.runtime.session import Session

_ANSWERS_AT_ONCE = 512


class Engine(Protocol):
    """One network that learns by one rule."""

    @property
    def layers(self) -> Layers:
        """The network as it is now."""
        ...

    def step(self, x: Array, y: Array, rng: np.random.Generator, epoch: int) -> None:
        """Learn from a batch: images [batch, inputs], one-hot labels [batch, classes]."""
        ...

    def peak(self, x: Array, y: Array, rng: np.random.Generator) -> int:
        """The most bytes that a step on such a batch holds at once, weights and optimiser included."""
        ...


class Rates:
    """The step sizes of a rule: its decay by epochs, and Adam's corrections of a young mean."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._count = rule, 0

    def next(self, epoch: int) -> tuple[float, float]:
        """Of the next step: what slopes or Adam's means are multiplied by, and Adam's squares."""
        rate = self._rule.rate * self._rule.decay**epoch
        if not self._rule.adaptive:
            return rate, 1.0
        self._count += 1
        return rate / (1.0 - ADAM[0] ** self._count), 1.0 / (1.0 - ADAM[1] ** self._count)


class NumpyEngine:
    """The rule's own loops.

    Attributes:
        layers: the network; its arrays change in place.
    """

    def __init__(self, rule: Rule, layers: Layers) -> None:
        self.layers = layers
        self._rule, self._rates = rule, Rates(rule)
        self._arrays = [array for layer in layers for array in layer]
        kept = self._arrays if rule.adaptive else []
        self._means, self._squares = [np.zeros_like(a) for a in kept], [np.zeros_like(a) for a in kept]

    def step(self, x: Array, y: Array, rng: np.random.Generator, epoch: int) -> None:
        """Learn from a batch."""
        for slopes in self._passes(x, y, rng):
            rate, shrink = self._rates.next(epoch)
            self.descend([array for layer in slopes for array in layer], rate, shrink)

    def descend(self, slopes: list[Array], rate: float, shrink: float) -> None:
        """One step of the optimiser."""
        if not self._rule.adaptive:
            for array, slope in zip(self._arrays, slopes, strict=True):
                array -= np.float32(rate) * slope
            return
        first, second, floor = ADAM
        for array, mean, square, slope in zip(self._arrays, self._means, self._squares, slopes, strict=True):
            mean += (1.0 - first) * (slope - mean)
            square += (1.0 - second) * (slope * slope - square)
            array -= rate * mean / (np.sqrt(shrink * square) + floor)

    def peak(self, x: Array, y: Array, rng: np.random.Generator) -> int:
        """What stays, and the most that Python and numpy hold while they compute slopes."""
        stays = sum(a.nbytes for a in (*self._arrays, *self._means, *self._squares))
        return stays + _peak_of(lambda: self._rule.slopes(self.layers, x, y, rng))

    def _passes(self, x: Array, y: Array, rng: np.random.Generator) -> Iterator[Layers]:
        """The slopes of a batch: once, or after every step of the latents."""
        if isinstance(self._rule, IncrementalPredictiveCoding):
            yield from self._rule.passes(self.layers, x, y, rng)
        else:
            yield self._rule.slopes(self.layers, x, y, rng)


class NativeEngine:
    """`training_step` compiled for one batch size, on one thread; networks of one rule and shape share a program.

    Attributes:
        layers: the network; its arrays change in place.
        slopes: dF/dθ of the last step.
    """

    def __init__(self, rule: Rule, layers: Layers, shape: tuple[int, int, int]) -> None:
        self._rule, self._rates = rule, Rates(rule)
        self._arrays: dict[str, Array] = {}
        self._first: PreparedRun | None = None
        self._own_bytes = 0
        turned = isinstance(rule, PredictiveCoding)
        for number, (w, b) in enumerate(layers, 1):
            self._arrays[f"w{number}"] = np.array(w.T if turned else w, np.float32, order="C")
            self._arrays[f"b{number}"] = b.copy()
        kind = replace(rule, rate=1.0, decay=1.0)  # type: ignore[type-var]  # every rule with a program is a dataclass
        like = maps_in(layers), tuple((w.shape, b.shape) for w, b in layers)
        self._step, self._moves = self._prepared(_session(kind, *like, shape))
        self._repeats = 1
        if isinstance(rule, IncrementalPredictiveCoding):
            self._repeats = int(rule.steps)
            self._first, _ = self._prepared(_session(kind, *like, shape, first=True))
        self.layers: Layers = self._network(self._arrays, "", layers, turned=turned)
        self.slopes: Layers = self._network(self._step.outputs, "d", layers, turned=turned)

    def step(self, x: Array, y: Array, rng: np.random.Generator, epoch: int) -> None:
        """Learn from a batch."""
        arrays = self._arrays
        arrays["x"][...], arrays["y"][...] = x, y
        for name, values in drawn(self._rule, x, y, self.layers, rng).items():
            arrays[name][...] = values
        if self._first is not None:
            self._first()
        for _ in range(self._repeats):
            rate, shrink = self._rates.next(epoch)
            arrays["rate"][...] = rate
            if "shrink" in arrays:
                arrays["shrink"][...] = shrink
            self._step()
            for target, source in self._moves:
                target[...] = source

    def peak(self, x: Array, y: Array, rng: np.random.Generator) -> int:
        """Inputs, weights, slopes and what the optimiser keeps, and what the program has for itself."""
        arrays = {id(a): a.nbytes for a in (*self._arrays.values(), *self._step.outputs.values())}
        return sum(arrays.values()) + self._own_bytes

    def _prepared(self, session: Session) -> tuple[PreparedRun, list[tuple[Array, Array]]]:
        """The program on the engine's arrays; what it cannot replace where it lies, and what replaces it afterwards."""
        for segment in session.program.segments.values():
            assert isinstance(segment, NativeSegment)
            self._own_bytes += int(segment.arena) + int(segment.scratch)  # all sizes are known
        binding = session.io_binding()
        inputs, in_place = {spec.name for spec in session.program.inputs}, in_place_pairs(session.program)
        moves: list[tuple[Array, Array]] = []
        for spec in (*session.program.inputs, *session.program.outputs):
            name = spec.name.removeprefix("next_")
            shape = [size for size in spec.shape if isinstance(size, int)]
            if spec.name in inputs:
                binding.bind_cpu_input(name, self._arrays.setdefault(name, np.zeros(shape, np.float32)))
            elif name != spec.name:
                if name not in inputs or (name, spec.name) in in_place:
                    place = self._arrays[name]
                else:
                    place = np.zeros(shape, np.float32)
                    moves.append((self._arrays[name], place))
                binding.bind_cpu_output(spec.name, place)
        return session.prepare(binding), moves

    @staticmethod
    def _network(arrays: Mapping[str, Array], prefix: str, like: Layers, *, turned: bool) -> Network:
        """Arrays as layers: views of them."""
        pairs = [(arrays[f"{prefix}w{n}"], arrays[f"{prefix}b{n}"]) for n in range(1, len(like) + 1)]
        return Network([(w.T if turned and w.ndim == 2 else w, b) for w, b in pairs], maps_in(like))


@lru_cache(maxsize=16)
def _session(
    rule: Rule,
    maps: tuple[Map, ...],
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...],
    shape: tuple[int, int, int],
    *,
    first: bool = False,
) -> Session:
    """A rule's program compiled for layers of such maps and shapes; `first`: that of the first latents."""
    layers = Network([(np.zeros(w, np.float32), np.zeros(b, np.float32)) for w, b in shapes], maps)
    program = first_latents(layers, shape) if first else training_step(rule, layers, shape)
    return program.session(threads=1)


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


def _peak_of(work: Callable[[], object]) -> int:
    """The most bytes that `work` held at once."""
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if ours:
            tracemalloc.stop()
