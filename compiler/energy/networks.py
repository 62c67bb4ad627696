"""Layered networks as energies: deep Hopfield networks (equilibrium propagation) and predictive coding, as programs.

`from_onnx` takes the layers of a perceptron or of a convolutional network; whatever is affine between two activations,
convolutions, averages and norms included, is one matrix.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from neuc.compiler.energy.model import Model, Variable
from neuc.compiler.energy.program import Program, Results
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    import onnx

Array = np.ndarray
Kind = Literal["ep", "pc"]
_KINDS = ("ep", "pc")
_RHO = {"none": None, "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "clip": "hardsigmoid"}
"""Activations, and ρ of the same name. A clip is one to 0 … 1."""


@dataclass(frozen=True)
class Layer:
    """a = ρ(x W + b).

    Attributes:
        w: f32 [in, out].
        b: f32 [out].
        activation: none, relu, tanh, sigmoid, or clip (to 0 … 1).
    """

    w: Array
    b: Array
    activation: str = "none"


@dataclass(frozen=True)
class Network:
    """A layered network as a program of the `energy` dialect.

    Attributes:
        kind: ``ep`` or ``pc``.
        layers: its layers.
        program: inputs ``x`` [batch, in] and where each layer starts, ``layer1`` …; results ``answer``, the last
            layer's state, and ``state1`` … of those before it.
    """

    kind: Kind
    layers: tuple[Layer, ...]
    program: Program

    def feeds(self, x: ArrayLike) -> dict[str, Array]:
        """The program's inputs for images [batch, in]: zeros to start from, or a forward pass."""
        images = np.asarray(x, np.float32)
        images = images.reshape(len(images), -1 if len(images) else len(self.layers[0].w))
        if not len(images):
            raise network_error("no images", "at least one")
        if images.shape[1] != len(self.layers[0].w):
            what = f"images of {images.shape[1]} numbers for a network of {len(self.layers[0].w)} inputs"
            raise network_error(what, "rows as long as the first layer's inputs")
        found, below = {"x": images}, images
        for number, layer in enumerate(self.layers, 1):
            before = below @ layer.w + layer.b
            found[f"layer{number}"] = np.zeros_like(before) if self.kind == "ep" else before
            below = apply(layer.activation, before)
        return found

    def run(self, x: ArrayLike) -> Results:
        """The program's results, by generated code."""
        return self.program.run(**self.feeds(x))

    def interpret(self, x: ArrayLike) -> Results:
        """The program's results, by the interpreter."""
        return self.program.interpret(**self.feeds(x))


def network(layers: Sequence[Layer], as_: Kind = "ep", *, steps: int = 20, dt: float = 0.1) -> Network:
    """A network from its layers.

    ``ep``: a deep Hopfield network, F = Σ ½|s|² − s W s' − b s with states in the range of each layer's activation, at
    rest after `steps` sweeps; feedback through Wᵀ makes its answers others than the forward pass's, so it is a network
    to go on training, or one trained as such. ``pc``: F = Σ ½|z − W ρ(z') − b|²; without a label its states are
    the forward pass's, which is the minimum.

    Args:
        layers: from the first to the last.
        as_: ``ep`` or ``pc``.
        steps: sweeps, or steps of the flow.
        dt: step of the flow.

    Raises:
        Error: NEUC-E635, layers that do not follow each other, or activations that the energy has no form for.
    """
    if as_ not in _KINDS:
        raise network_error(f"as_={as_!r} is no kind of network", f"kinds: {', '.join(_KINDS)}")
    _check(layers)
    model = Model()
    below = model.real(len(layers[0].w), name="x", clamped=True)
    made: list[Variable] = []
    for number, layer in enumerate(layers, 1):
        here = model.real(len(layer.b), box=_box(layer.activation) if as_ == "ep" else None, name=f"layer{number}")
        if as_ == "ep":
            model.quad(here)
            model.couple(below, layer.w, here)
            model.linear(here, layer.b)
            below = here
        else:
            model.predict(here, layer.w.T, below, layer.b)
            rho = _RHO[layer.activation]
            below = here if rho is None else model.rho(here, rho)
        made.append(here)
    settled = model.state("batch").relax(*(("block_min", steps) if as_ == "ep" else ("flow", steps)), dt=dt)
    results = {"answer": settled[made[-1]]} | {f"state{n}": settled[v] for n, v in enumerate(made[:-1], 1)}
    return Network(as_, tuple(layers), model.program(**results))


def from_onnx(
    model: str | os.PathLike[str] | onnx.ModelProto, as_: Kind = "ep", *, steps: int = 20, dt: float = 0.1
) -> Network:
    """The network of an ONNX model: a chain of affine operations and activations from one input to one output.

    Weights that a convolution shares become a matrix that no longer shares them. A PyTorch module comes here by
    ``torch.onnx.export(module, …, dynamo=True)``.

    Raises:
        Error: NEUC-E635, a model that is no such chain.
    """
    from neuc.compiler.energy.onnx_chain import layers_of

    # Seen through the folder and through the package, this file has two classes of one name for pyright.
    return network(layers_of(model), as_, steps=steps, dt=dt)  # pyright: ignore[reportArgumentType]


def apply(activation: str, x: Array) -> Array:
    """An activation of `Layer`."""
    match activation:
        case "relu":
            return np.maximum(x, 0.0)
        case "tanh":
            return np.tanh(x)
        case "sigmoid":
            return 1.0 / (1.0 + np.exp(-x))
        case "clip":
            return np.clip(x, 0.0, 1.0)
        case _:
            return x


def _box(activation: str) -> tuple[float, float]:
    """The range of states: the values that the activation takes."""
    ranges = {"relu": (0.0, np.inf), "clip": (0.0, 1.0), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
    return ranges.get(activation, (-np.inf, np.inf))


def _check(layers: Sequence[Layer]) -> None:
    if not layers:
        raise network_error("a network of no layers", "at least one layer")
    for number, layer in enumerate(layers):
        if layer.activation not in _RHO:
            raise network_error(f"layer {number} has {layer.activation}", f"activations: {', '.join(_RHO)}")
        if layer.w.ndim != 2 or layer.b.shape != layer.w.shape[1:]:
            shapes = f"W {list(layer.w.shape)} and b {list(layer.b.shape)}"
            raise network_error(f"layer {number} has {shapes}", "W [in, out], b [out]")
        if number and len(layer.w) != len(layers[number - 1].b):
            what = f"layer {number} takes {len(layer.w)} numbers, the one before gives {len(layers[number - 1].b)}"
            raise network_error(what, "layers that follow each other")


def network_error(what: str, hint: str) -> Error:
    """Layers that make no network of energies."""
    return Error("NEUC-E635", what, hint=hint, exit_code=Exit.USAGE)
