"""Learning rules that relax an energy, as `energy` programs: what the numpy loops of the rules compute, in the dialect.

The program prints, can be edited, runs in the interpreter and compiles; tests keep it and the loops equal. Rules
without a relaxation are in `learning_layers.py`, the whole step of training in `learning_step.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import SSAValue

from neuc.compiler.energy.learning_maps import Array, ConvMap
from neuc.compiler.energy.learning_rules import (
    EquilibriumPropagation,
    ForwardForward,
    Layers,
    PredictiveCoding,
    maps_in,
)
from neuc.compiler.energy.learning_variants import ContrastiveHebbian
from neuc.compiler.energy.model import Model, Parameter, Variable
from neuc.compiler.energy.program import Program
from neuc.compiler.energy.states import State, Value, contrast
from neuc.dialects import energy as e
from neuc.dialects.dims import DimLike

HELD = 1e9
"""A nudge that holds an output at its label: what is left of the other forces is below f32's resolution."""


def learning_program(
    rule: EquilibriumPropagation | PredictiveCoding | ForwardForward,
    layers: Layers,
    *,
    precise: bool = False,
    weights: str = "constants",
) -> Program:
    """The program that computes dF/dθ of a batch, as results ``dw1``, ``db1``, ``dw2``, ….

    Inputs are f32 [batch, …]: ``x`` and one-hot ``y``; where each ``layer1``, … starts: zeros for equilibrium
    propagation, predictions for predictive coding. Forward-Forward: what each layer reads, ``right1``, ``wrong1``, ….
    Weights of predictive coding and Forward-Forward are transposed, [out, in], as the dialect has them.

    Args:
        rule: with its phases and steps; µPC's weights are the scaled ones here, and iPC makes all its steps.
        layers: weights and biases.
        precise: f64 states and weights.
        weights: ``inputs`` makes them inputs of the program, ``w1``, ``b1``, …, so that it need not be compiled anew.
    """
    made = ModelNetwork(
        Model(precise=precise),
        layers,
        transposed=isinstance(rule, PredictiveCoding | ForwardForward),
        given=weights == "inputs",
    )
    if isinstance(rule, EquilibriumPropagation):
        slopes = equilibrium_slopes(made, rule)
    elif isinstance(rule, PredictiveCoding):
        slopes = predictive_state(made, rule, {}).gradient(*made.parameters)
    else:
        slopes = _forward_forward(made, rule)
    return made.model.program(**{f"d{p.name}": slope for p, slope in zip(made.parameters, slopes, strict=True)})


def answer_program(rule: EquilibriumPropagation, layers: Layers) -> Program:
    """The program that settles a network: inputs ``x``, ``layer1``, … (zeros), ``w1``, ``b1``, …; result ``scores``."""
    made = ModelNetwork(Model(), layers, transposed=False, given=True)
    top = _hopfield(made, None)
    return made.model.program(scores=made.model.state("batch").relax("block_min", rule.answer_steps)[top])


class ModelNetwork:
    """Parameters of a model, and how its layers hang together."""

    def __init__(
        self, model: Model, layers: Layers, *, transposed: bool, given: bool, batch: DimLike = "batch"
    ) -> None:
        self.model, self.layers, self.maps, self.batch = model, layers, maps_in(layers), batch
        self.pairs = [
            (self._parameter(f"w{n}", w.T if transposed else w, given), self._parameter(f"b{n}", b, given))
            for n, (w, b) in enumerate(layers, 1)
        ]

    def _parameter(self, name: str, values: Array, given: bool) -> Parameter:
        return self.model.parameter(name, *values.shape) if given else self.model.constant(name, values)

    @property
    def parameters(self) -> list[Parameter]:
        """w1, b1, w2, …"""
        return [parameter for pair in self.pairs for parameter in pair]

    def input(self) -> Variable:
        """What the first layer reads."""
        return self.model.real(self.maps[0].inputs, name="x", clamped=True)

    def target(self) -> Variable:
        """The one-hot label."""
        return self.model.real(self.maps[-1].outputs, name="y", clamped=True)

    def state(self, computed: Mapping[str, SSAValue]) -> State:
        """A state of variables whose values are computed, and inputs of the program for the rest."""
        model = self.model
        known = [
            computed[v.name]
            if v.name in computed
            else model.input(v.name, model.element, (self.batch, *v.type.value_shape))
            for v in model.variables
        ]
        return State(model, model.add(e.StateOp(model.model(), known)))

    def couple(self, below: Variable, number: int, here: Variable) -> None:
        """−below W here."""
        map_, w = self.maps[number], self.pairs[number][0]
        if isinstance(map_, ConvMap):
            above, sites, weights = map_.edges()
            self.model.edges(here, above, sites, w, below, shared=weights)
        else:
            self.model.couple(below, w, here)

    def predict(self, here: Variable, number: int, below: Variable) -> None:
        """½ |here − W below − b|²."""
        map_, (w, b) = self.maps[number], self.pairs[number]
        if isinstance(map_, ConvMap):
            self.model.predict_edges(here, below, map_.edges(), w, b)
        else:
            self.model.predict(here, w, below, b)


def _hopfield(made: ModelNetwork, target: Variable | None) -> Variable:
    """The layers of a deep Hopfield network; the last of them."""
    model, below = made.model, made.input()
    for number, (map_, (_, b)) in enumerate(zip(made.maps, made.pairs)):
        here = model.real(map_.outputs, box=(0.0, 1.0), name=f"layer{number + 1}")
        model.quad(here)
        made.couple(below, number, here)
        model.linear(here, b)
        below = here
    if target is not None:
        model.cost(below, target)
    return below


def equilibrium_slopes(made: ModelNetwork, rule: EquilibriumPropagation) -> list[Value]:
    """Two phases from the free state, and their contrast."""
    target = made.target()
    top = _hopfield(made, target)
    free = made.state({}).relax("block_min", rule.free_steps)
    if isinstance(rule, ContrastiveHebbian):
        label = Parameter("y", made.model.input("y", made.model.element, (made.batch, *target.type.value_shape)))
        held = free.clamp(top, label).relax("block_min", rule.nudged_steps, nudge=HELD)
        return contrast([held, free], made.parameters, 2.0)
    up = free.relax("block_min", rule.nudged_steps, nudge=rule.beta)
    down = free.relax("block_min", rule.nudged_steps, nudge=-rule.beta) if rule.centred else free
    return contrast([up, down], made.parameters, (1.0 if rule.centred else 2.0) / rule.beta)


def predictive_state(
    made: ModelNetwork, rule: PredictiveCoding, latents: Mapping[str, SSAValue], steps: int = 0
) -> State:
    """The latents after the rule's steps, or so many; where they start, or inputs of the program for that."""
    model, below, y = made.model, made.input(), made.target()
    for number, map_ in enumerate(made.maps):
        last = number == len(made.maps) - 1
        here = y if last else model.real(map_.outputs, name=f"layer{number + 1}")
        made.predict(here, number, below)
        below = here if last else model.rho(here, "relu")
    return made.state(latents).relax("flow", steps or rule.steps, dt=rule.dt)


def _forward_forward(made: ModelNetwork, rule: ForwardForward) -> list[Value]:
    model = made.model
    for number, (map_, (w, b)) in enumerate(zip(made.maps, made.pairs), 1):
        for name, negative in (("right", False), ("wrong", True)):
            read = model.real(map_.inputs, name=f"{name}{number}", clamped=True)
            model.goodness(read, w, b, theta=rule.theta, negative=negative)
    return made.state({}).gradient(*made.parameters)
