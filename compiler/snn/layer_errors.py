"""Where a spiking network loses: the error of each layer by its cause, and the layer that limits.

On the same samples as the float network, for each site, in parts of the root mean square of what the float network has:
what comes in from the layers before, what thresholds clip, what a finite number of steps rounds, and what uneven spike
trains add to that (Bu et al., ICLR 2022, call the three clipping, quantisation and unevenness error).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.compiler.snn.calibrate import SAMPLES
from neuc.compiler.snn.recipes import Recipe
from neuc.compiler.snn.signals import Signal
from neuc.compiler.snn.simulate import Simulation, group_spikes
from neuc.compiler.snn.thresholds import estimate
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.neuron_sites import BIAS, HALF, IDENTITY, POTENTIAL, SCALE, THRESHOLD, Site, write_rate

Array = np.ndarray
CAUSES = ("clipping", "quantisation", "unevenness")


@dataclass(frozen=True)
class SpikeError:
    """The errors of one site, in parts of the root mean square of the float network's numbers there.

    Attributes:
        name: the site.
        incoming: of its mean current, from the layers before.
        clipping: what its spikes cannot reach.
        quantisation: what a constant current of the same mean loses.
        unevenness: what the actual current loses beyond that.
        total: of its output.
        bound: θ/2T of binary spikes, which the quantisation error of evenly fed neurons never exceeds; 0 for others.
    """

    name: str
    incoming: float
    clipping: float
    quantisation: float
    unevenness: float
    total: float
    bound: float

    @property
    def own(self) -> float:
        """What the layer itself adds, its causes taken as independent."""
        return float(np.sqrt(self.clipping**2 + self.quantisation**2 + self.unevenness**2))

    @property
    def worst(self) -> str:
        """The largest of its own causes."""
        return max(CAUSES, key=lambda cause: getattr(self, cause))


def spike_errors(
    module: ModuleOp,
    store: WeightStore,
    inputs: Sequence[Array],
    recipe: Recipe,
    steps: int,
    seed: int = 0,
    original: Mapping[Operation, Sequence[SSAValue]] | None = None,
) -> list[SpikeError]:
    """The errors of every site of a calibrated module, in order; rates are written on its products on the way.

    `original` has the float network's operands of products that calibration gave others.
    """
    found: list[SpikeError] = []
    rng = np.random.default_rng(seed)

    def visit(site: Site, current: Signal, exact: Array | None) -> None:
        assert exact is not None
        truth = site.by_channel(exact)
        columns = rng.permutation(truth.shape[1])[:SAMPLES]
        static = None if current.static is None else site.by_channel(current.static)[:, columns]
        trains = None if current.steps is None else [site.by_channel(s)[:, columns] for s in current.steps]
        part = site.parameter(POTENTIAL)
        part = np.full(site.channels, HALF, np.float32) if part is None else part
        start = site.by_channel(np.broadcast_to(site.starts(part, exact.shape), exact.shape))[:, columns]
        found.append(_errors(site, Signal(static, trains), truth[:, columns], start, recipe, steps))

    Simulation(module, store, recipe, steps, visit, feeding=write_rate, original=original or {}).run(inputs)
    return found


def limiting(errors: Sequence[SpikeError]) -> SpikeError | None:
    """The layer that adds most."""
    return max(errors, key=lambda e: e.own, default=None)


def _errors(site: Site, current: Signal, truth: Array, start: Array, recipe: Recipe, steps: int) -> SpikeError:
    theta, bias = site.parameter(THRESHOLD), site.parameter(BIAS)
    assert theta is not None
    level = theta[:, None]
    bias = None if bias is None else bias[:, None]
    mean = current.means(steps, recipe.coding)[-1]
    ideal = _activation(site, mean)
    worth = site.parameter(SCALE)
    full = level if worth is None else worth[:, None]  # a spike in every step
    reach = full if recipe.coding == "rate" else np.float32(np.inf)
    reached = np.clip(ideal, -reach, reach)
    even = estimate(group_spikes(Signal(mean), recipe, steps, level, start, bias, site), recipe)
    actual = estimate(group_spikes(current, recipe, steps, level, start, bias, site), recipe)
    if worth is not None:
        even, actual = (v * (worth / theta)[:, None] for v in (even, actual))
    scale = max(float(np.sqrt(np.mean(truth.astype(np.float64) ** 2))), 1e-12)

    def relative(difference: Array) -> float:
        return float(np.sqrt(np.mean(difference.astype(np.float64) ** 2))) / scale

    bound = float(theta.max()) / (2 * steps) / scale if recipe.binary else 0.0
    return SpikeError(
        site.name,
        relative(ideal - truth),
        relative(ideal - reached),
        relative(reached - even),
        relative(even - actual),
        relative(truth - actual),
        bound,
    )


def _activation(site: Site, mean: Array) -> Array:
    return mean if site.kind == IDENTITY else np.clip(mean, 0, np.float32(site.bound))
