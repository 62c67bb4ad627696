"""Layered networks as energies: deep Hopfield networks (equilibrium propagation) and predictive coding, as programs.

`from_onnx` takes the layers of a perceptron or of a convolutional network; whatever is affine between two activations,
convolutions, averages and norms included, is one matrix.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
        layers: its layers; none of a network that is no chain.
        program: inputs ``x`` [batch, in] and where each layer starts, ``layer1`` …; results ``answer``, the last
            layer's state, and ``state1`` … of those before it.
    """

    kind: Kind
    layers: tuple[Layer, ...]
    program: Program

    @property
    def inputs(self) -> int:
        """Numbers of one input."""
        return len(self.layers[0].w)

    def forward(self, images: Array) -> Iterator[tuple[str, Array]]:
        """The input, and what each variable starts from: zeros, or a forward pass."""
        yield "x", images
        below = images
        for number, layer in enumerate(self.layers, 1):
            before = below @ layer.w + layer.b
            yield f"layer{number}", np.zeros_like(before) if self.kind == "ep" else before
            below = apply(layer.activation, before)

    def feeds(self, x: ArrayLike) -> dict[str, Array]:
        """The program's inputs for images [batch, …]: zeros to start from, or a forward pass.

        Raises:
            Error: NEUC-E635, no images, or such of another size; NEUC-E617, such that hold NaN or infinity.
        """
        images = np.asarray(x, np.float32)
        images = images.reshape(len(images), -1 if len(images) else self.inputs)
        if not len(images):
            raise network_error("no images", "at least one")
        if images.shape[1] != self.inputs:
            what = f"images of {images.shape[1]} numbers for a network of {self.inputs} inputs"
            raise network_error(what, "rows as long as the first layer's inputs")
        if not np.isfinite(images).all():
            at = int(np.flatnonzero(~np.isfinite(images).all(1))[0])
            hint = "leave such images out, or repair them"
            raise Error("NEUC-E617", f"image {at} holds NaN or infinity", hint=hint, exit_code=Exit.USAGE)
        return dict(self.forward(images))

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
    check_kind(as_)
    _check(layers)
    model = Model()
    below = model.real(len(layers[0].w), name="x", clamped=True)
    made: list[Variable] = []
    for number, layer in enumerate(layers, 1):
        here = model.real(len(layer.b), box=box_of(layer.activation) if as_ == "ep" else None, name=f"layer{number}")
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
    """The network of an ONNX model of one input and one output.

    A chain of affine operations and activations becomes `Layer` matrices, which then no longer share what convolutions
    share. Skip connections, maximum pooling and products of branches make a network without `layers`, whose terms are
    ``energy.prediction`` with the model's own operations; for ``ep`` its activations must have a range that states can
    keep to, and where a maximum is taken it flows (`dt`) instead of minimising block by block. A PyTorch module comes
    here by ``torch.onnx.export(module, …, dynamo=True)``.

    Raises:
        Error: NEUC-E635, a model that is no such network.
    """
    from neuc.compiler.energy.onnx_chain import layers_of, loaded
    from neuc.compiler.energy.onnx_graph import graph_network

    check_kind(as_)
    proto = loaded(model)
    layers = layers_of(proto)
    # Seen through the folder and through the package, this file has two classes of one name for pyright.
    if layers is None or (as_ == "pc" and layers[-1].activation != "none"):
        return graph_network(proto, as_, steps, dt)  # pyright: ignore[reportReturnType]
    return network(layers, as_, steps=steps, dt=dt)  # pyright: ignore[reportArgumentType]


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


def box_of(activation: str) -> tuple[float, float]:
    """The range of states: the values that the activation takes."""
    ranges = {"relu": (0.0, np.inf), "clip": (0.0, 1.0), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
    return ranges.get(activation, (-np.inf, np.inf))


def check_kind(as_: str) -> None:
    """Refuse kinds of networks that there are not (NEUC-E635)."""
    if as_ not in _KINDS:
        raise network_error(f"as_={as_!r} is no kind of network", f"kinds: {', '.join(_KINDS)}")


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
