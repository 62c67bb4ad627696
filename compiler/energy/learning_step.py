"""A whole step of training as one program: slopes of a batch by a rule, and the optimiser's step against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from neuc.compiler.energy import learning_layers as layered
from neuc.compiler.energy.learning_circle import holomorphic
from neuc.compiler.energy.learning_local import DendriticLearning, SelfContrastive
from neuc.compiler.energy.learning_maps import Array
from neuc.compiler.energy.learning_models import ModelNetwork, equilibrium_slopes, predictive_state
from neuc.compiler.energy.learning_rules import (
    ADAM,
    Backpropagation,
    EquilibriumPropagation,
    ForwardForward,
    Layers,
    PredictiveCoding,
    Rule,
    maps_in,
    wrong_labels,
)
from neuc.compiler.energy.learning_variants import (
    ContrastiveDivergence,
    ContrastiveHebbian,
    HolomorphicEquilibriumPropagation,
    IncrementalPredictiveCoding,
    ScaledPredictiveCoding,
)
from neuc.compiler.energy.model import Model, Parameter
from neuc.compiler.energy.program import Program
from neuc.compiler.energy.states import Value
from neuc.compiler.energy.tensors import Tensors
from neuc.dialects.store import dims_of
from neuc.errors import Error, Exit
from neuc.passes.scalar_builder import Scalar, sqrt

RELAXED = (
    EquilibriumPropagation,
    ContrastiveHebbian,
    PredictiveCoding,
    IncrementalPredictiveCoding,
    ScaledPredictiveCoding,
)
"""Rules with a model in the `energy` dialect."""
LAYERED: Mapping[type, Callable[[layered.Batch, Any], list[SSAValue]]] = {
    ForwardForward: layered.forward_forward,
    SelfContrastive: layered.self_contrastive,
    DendriticLearning: layered.dendritic,
    ContrastiveDivergence: layered.contrastive_divergence,
    HolomorphicEquilibriumPropagation: holomorphic,
    Backpropagation: layered.backpropagation,
}
"""Rules written as tensor operations."""


def has_program(rule: Rule) -> bool:
    """Whether `training_step` writes this rule; rules derived from one may do something else."""
    return type(rule) in RELAXED or type(rule) in LAYERED


def training_step(rule: Rule, layers: Layers, shape: tuple[int, int, int]) -> Program:
    """The program of one step.

    Inputs, f32: ``x`` [batch, inputs], one-hot ``y`` [batch, classes], what `drawn` gives; weights ``w1``, ``b1``, …
    (matrices of predictive coding as [out, in]); ``rate``, and with Adam ``shrink``, ``mean_w1``, ``square_w1``, ….
    Equilibrium propagation: ``layer1``, …, zeros. Incremental predictive coding makes one of its steps: ``layer1``, …
    are the latents before it.

    Results: slopes ``dw1``, …, and ``next_`` before the name of what they replace.

    Args:
        rule: a rule that `has_program`.
        layers: for the shapes.
        shape: batch, inputs, classes.

    Raises:
        Error: NEUC-E619, no such rule; NEUC-E618, layers of another shape.
    """
    if not has_program(rule):
        what = f"rule {type(rule).__name__} has no program"
        raise Error("NEUC-E619", what, hint="train with engine='numpy'", exit_code=Exit.USAGE)
    if not _fits(rule, layers, shape):
        hint = "for layers made by rule.start((64, 128, 10), rng): (32, 64, 10)"
        raise Error(
            "NEUC-E618", f"layers do not fit {shape}, batch, inputs and classes", hint=hint, exit_code=Exit.USAGE
        )
    model = Model()
    t = Tensors(model)
    results: dict[str, SSAValue] = {}
    if isinstance(rule, RELAXED):
        made = ModelNetwork(model, layers, transposed=isinstance(rule, PredictiveCoding), given=True, batch=shape[0])
        parameters = made.parameters
        slopes = _relaxed(t, made, rule, results)
    else:
        pairs = [(t.input(f"w{n}", *w.shape), t.input(f"b{n}", *b.shape)) for n, (w, b) in enumerate(layers, 1)]
        parameters = [Parameter(f"{k}{n}", v) for n, pair in enumerate(pairs, 1) for k, v in zip("wb", pair)]
        x, y = t.input("x", shape[0], shape[1]), t.input("y", shape[0], shape[2])
        slopes = LAYERED[type(rule)](layered.Batch(t, pairs, maps_in(layers), x, y, shape), rule)
    for parameter, slope in zip(parameters, slopes, strict=True):
        results[f"d{parameter.name}"] = slope
        _descend(t, parameter, slope, results, adaptive=rule.adaptive)
    return model.program(**{name: Value(model, value) for name, value in results.items()})


def _fits(rule: Rule, layers: Layers, shape: tuple[int, int, int]) -> bool:
    """Whether layers read and give so many values."""
    maps, (batch, inputs, classes) = maps_in(layers), shape
    if isinstance(rule, ForwardForward | ContrastiveDivergence):  # the label is read beside the pixels
        return batch > 0 and inputs + classes == maps[0].inputs
    last = maps[len(maps) // 2] if isinstance(rule, DendriticLearning) else maps[-1]  # feedback comes after the layers
    return batch > 0 and (inputs, classes) == (maps[0].inputs, last.outputs)


def first_latents(layers: Layers, shape: tuple[int, int, int]) -> Program:
    """Where incremental predictive coding starts: ``next_layer1``, … of ``x`` and the weights of `training_step`."""
    model = Model()
    made = ModelNetwork(model, layers, transposed=True, given=True, batch=shape[0])
    return model.program(**{f"next_{n}": Value(model, z) for n, z in _predictions(Tensors(model), made).items()})


def drawn(rule: Rule, x: Array, y: Array, layers: Layers, rng: np.random.Generator) -> dict[str, Array]:
    """What a batch needs of the generator, drawn as the numpy rules draw it."""
    match rule:
        case ForwardForward():
            return {"wrong": wrong_labels(y, rng)}
        case SelfContrastive():
            return {"other": x[rng.permutation(len(x))]}
        case ContrastiveDivergence():
            return {"draws": rng.random((int(rule.sweeps), len(x) * len(layers[0][1])))}
        case _:
            return {}


def _relaxed(
    t: Tensors, made: ModelNetwork, rule: EquilibriumPropagation | PredictiveCoding, results: dict[str, SSAValue]
) -> list[SSAValue]:
    """Slopes of a rule with a model; latents that outlive the step become results."""
    if isinstance(rule, EquilibriumPropagation):
        return [slope.value for slope in equilibrium_slopes(made, rule)]
    if isinstance(rule, IncrementalPredictiveCoding):
        state = predictive_state(made, rule, {}, steps=1)
        for variable in made.model.variables:
            if variable.name.startswith("layer"):
                results[f"next_{variable.name}"] = state[variable].value
        return [slope.value for slope in state.gradient(*made.parameters)]
    scales = rule.scales(made.layers) if isinstance(rule, ScaledPredictiveCoding) else None
    if scales is not None:
        made.pairs = [
            (Parameter(w.name, _times(t, w.value, float(scale))), b) for (w, b), scale in zip(made.pairs, scales)
        ]
    state = predictive_state(made, rule, _predictions(t, made))
    slopes = [slope.value for slope in state.gradient(*made.parameters)]
    if scales is None:
        return slopes
    return [_times(t, s, float(scales[n // 2])) if n % 2 == 0 else s for n, s in enumerate(slopes)]


def _predictions(t: Tensors, made: ModelNetwork) -> dict[str, SSAValue]:
    """``layer1``, … where each is what the layers below predict, the label's layer left out."""
    a = t.input("x", made.batch, made.maps[0].inputs)
    found: dict[str, SSAValue] = {}
    for number, (map_, (w, b)) in enumerate(zip(made.maps[:-1], made.pairs), 1):
        found[f"layer{number}"] = z = t.forward(map_, w.value, a, b.value, turned=True)
        a = t.relu(z)
    return found


def _times(t: Tensors, x: SSAValue, scale: float) -> SSAValue:
    return t.map(lambda value: value * scale, x)


def _descend(
    t: Tensors, parameter: Parameter, slope: SSAValue, results: dict[str, SSAValue], *, adaptive: bool
) -> None:
    """A plain step, or Adam's: ``rate`` and ``shrink`` have the corrections of a young mean in them."""
    name, rate = parameter.name, t.input("rate")
    if not adaptive:
        results[f"next_{name}"] = t.map(lambda w, s, r: w - r * s, parameter.value, slope, rate)
        return
    first, second, floor = ADAM
    shape = [dim.value for dim in dims_of(slope)]
    mean, square = t.input(f"mean_{name}", *shape), t.input(f"square_{name}", *shape)

    def moved(weight: Scalar, mean: Scalar, square: Scalar, rate: Scalar, shrink: Scalar) -> Scalar:
        return weight - rate * mean / (sqrt(shrink * square) + floor)

    mean = t.map(lambda m, s: m + (1.0 - first) * (s - m), mean, slope)
    square = t.map(lambda q, s: q + (1.0 - second) * (s * s - q), square, slope)
    results[f"next_{name}"] = t.map(moved, parameter.value, mean, square, rate, t.input("shrink"))
    results[f"next_mean_{name}"], results[f"next_square_{name}"] = mean, square
