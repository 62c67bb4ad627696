"""A step of learning as an `energy` program: what the numpy loops of `learning_rules.py` compute, in the dialect.

The program prints, can be edited, and runs in the interpreter; a test keeps it and the loops equal.
"""

from __future__ import annotations

from neuc.compiler.energy.learning_rules import (
    EquilibriumPropagation,
    ForwardForward,
    Layers,
    PredictiveCoding,
)
from neuc.compiler.energy.model import Model, Parameter, Variable
from neuc.compiler.energy.program import Program
from neuc.compiler.energy.states import State, Value, contrast


def learning_program(
    rule: EquilibriumPropagation | PredictiveCoding | ForwardForward, layers: Layers, *, precise: bool = False
) -> Program:
    """The program that computes dF/dθ of a batch, as results ``dw1``, ``db1``, ``dw2``, ….

    Inputs are f32 [batch, …]: ``x`` and one-hot ``y``; where each ``layer1``, … starts: zeros for equilibrium
    propagation, predictions for predictive coding. Forward-Forward: what each layer reads, ``right1``, ``wrong1``, ….
    Weights of predictive coding and Forward-Forward are transposed, [out, in], as the dialect has them.

    Args:
        rule: with its phases and steps.
        layers: weights [in, out] and biases [out].
        precise: f64 states and weights.
    """
    model = Model(precise=precise)
    if isinstance(rule, EquilibriumPropagation):
        parameters, slopes = _equilibrium_propagation(model, rule, layers)
    elif isinstance(rule, PredictiveCoding):
        parameters, slopes = _predictive_coding(model, rule, layers)
    else:
        parameters, slopes = _forward_forward(model, rule, layers)
    return model.program(**{f"d{p.name}": slope for p, slope in zip(parameters, slopes, strict=True)})


def _parameters(model: Model, layers: Layers, *, transposed: bool) -> list[tuple[Parameter, Parameter]]:
    return [
        (model.constant(f"w{n}", w.T if transposed else w), model.constant(f"b{n}", b))
        for n, (w, b) in enumerate(layers, 1)
    ]


def _flat(pairs: list[tuple[Parameter, Parameter]]) -> list[Parameter]:
    return [parameter for pair in pairs for parameter in pair]


def _equilibrium_propagation(
    model: Model, rule: EquilibriumPropagation, layers: Layers
) -> tuple[list[Parameter], list[Value]]:
    x, y, pairs = _ends(model, layers, transposed=False)
    below = x
    for number, (w, b) in enumerate(pairs, 1):
        here = model.real(len(layers[number - 1][1]), box=(0.0, 1.0), name=f"layer{number}")
        model.quad(here)
        model.couple(below, w, here)
        model.linear(here, b)
        below = here
    model.cost(below, y)
    free: State = model.state("batch").relax("block_min", rule.free_steps)
    up = free.relax("block_min", rule.nudged_steps, nudge=rule.beta)
    down = free.relax("block_min", rule.nudged_steps, nudge=-rule.beta) if rule.centred else free
    parameters = _flat(pairs)
    return parameters, contrast([up, down], parameters, (1.0 if rule.centred else 2.0) / rule.beta)


def _predictive_coding(model: Model, rule: PredictiveCoding, layers: Layers) -> tuple[list[Parameter], list[Value]]:
    x, y, pairs = _ends(model, layers, transposed=True)
    below = x
    for number, (w, b) in enumerate(pairs, 1):
        last = number == len(pairs)
        here = y if last else model.real(len(layers[number - 1][1]), name=f"layer{number}")
        model.predict(here, w, below, b)
        below = here if last else model.rho(here, "relu")
    settled = model.state("batch").relax("flow", rule.steps, dt=rule.dt)
    parameters = _flat(pairs)
    return parameters, settled.gradient(*parameters)


def _forward_forward(model: Model, rule: ForwardForward, layers: Layers) -> tuple[list[Parameter], list[Value]]:
    pairs = _parameters(model, layers, transposed=True)
    for number, (w, b) in enumerate(pairs, 1):
        for name, negative in (("right", False), ("wrong", True)):
            read = model.real(len(layers[number - 1][0]), name=f"{name}{number}", clamped=True)
            model.goodness(read, w, b, theta=rule.theta, negative=negative)
    parameters = _flat(pairs)
    return parameters, model.state("batch").gradient(*parameters)


def _ends(
    model: Model, layers: Layers, *, transposed: bool
) -> tuple[Variable, Variable, list[tuple[Parameter, Parameter]]]:
    """The clamped input and label, and the parameters."""
    x = model.real(len(layers[0][0]), name="x", clamped=True)
    y = model.real(len(layers[-1][1]), name="y", clamped=True)
    return x, y, _parameters(model, layers, transposed=transposed)
