"""`neuc.convert_to_snn`: from a float network and calibration data to a spiking network, without training.

Wires the parts together: marking (`front.py`), calibration (`calibrate.py`), the pass `convert-ann-to-snn`, the report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.compiler.driver import Driver
from neuc.compiler.snn import front, support
from neuc.compiler.snn.calibrate import LEAST_INPUTS, QUANTILE, calibrate
from neuc.compiler.snn.data import Data, arrays_of
from neuc.compiler.snn.front import Marked
from neuc.compiler.snn.layer_errors import spike_errors
from neuc.compiler.snn.model import SpikingModel
from neuc.compiler.snn.recipes import Recipe, check_steps, for_depth, recipe_of
from neuc.compiler.snn.recurrent import recurrent_warnings
from neuc.compiler.snn.report import ConversionReport
from neuc.compiler.snn.simulate import Simulation, affordable
from neuc.dialects import spike
from neuc.dialects.dense import ReshapeOp, TransposeOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.locations import node_names
from neuc.dialects.spike import event_of
from neuc.errors import Error, Exit, InternalError
from neuc.passes.analysis.neuron_sites import sites, write_rate
from neuc.passes.convert_ann_to_snn import ConvertAnnToSnn, loops
from neuc.passes.group_neurons import GroupNeurons

SPREAD = 0.5
"""How far first potentials of neighbours in images differ, in parts of an ordered dither over the whole threshold."""
DEFAULT_STEPS = {"a": 8, "b": 4, "c": 4}
"""T if none is asked for."""


def convert_to_snn(
    model: object,
    calibration: Data,
    *,
    recipe: str = "a",
    steps: int | None = None,
    thresholds: str = "search",
    levels: int | None = None,
    coding: str | None = None,
    group: int = 1,
    start: int | None = 0,
    quantile: float = QUANTILE,
    refit: bool = True,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    example_inputs: tuple[object, ...] | None = None,
    max_steps: int = 16,
    max_drop: float = 0.005,
    labels: np.ndarray | None = None,
    spiking_after: str | None = None,
    seed: int = 0,
) -> SpikingModel:
    """Convert a float network to a spiking one, without training.

    Args:
        model: path of an ``.onnx`` or ``.mlir`` file, an ``onnx.ModelProto``, or a ``torch.nn.Module``.
        calibration: inputs [samples, …] like those the network is for: an array for a model of one input, a dict by
            input name, or an ``.npz``. Some hundred are enough; 256 to 1,024 are simulated.
        recipe: ``a``: binary spikes of integrate-and-fire neurons, for neuromorphic chips; ``b``: signed power-of-two
            spikes that carry changes, fewest steps and spikes; ``c``: the same spikes with rate coding; b and c also
            convert Transformers; ``auto``: the fewest steps that keep accuracy, see `max_steps` and `max_drop`.
        steps: T, the time steps; 8 for a, 4 for b and c.
        thresholds: ``search`` (each layer simulated on the spikes of those before; also finds biases), ``mse`` (each
            layer by itself), ``max``, ``quantile``, ``ltb`` (local threshold balancing), ``gaussian``.
        levels: powers of two of a spike in b and c; by default 4, and 7 in b for networks of more than 24 layers.
        coding: ``rate`` or ``differential``, if not the recipe's.
        group: of a: how many neurons carry one number together; 2 tell about as much in T steps as one in 2·T, for
            twice as many neurons and synapses.
        start: with rate coding, the first step that the read-out counts; None chooses it on the calibration data.
        quantile: of ``quantile``.
        refit: with ``search``, weights are fitted, too, by a regression on what spikes bring (`snn/refit.py`); False
            leaves them what they are, times scales.
        shapes: shapes of inputs by name; a string keeps a dim symbolic.
        example_inputs: arguments to trace a torch module with.
        max_steps: of ``auto``: the most steps that are tried.
        max_drop: of ``auto``: how much accuracy may be lost, on the calibration data.
        labels: of ``auto``: labels of the calibration data; without them agreement with the float network counts.
        spiking_after: the name of a node: what does not depend on it stays a network of numbers, which runs once in
            front of the spiking one (a hybrid network, in one program).
        seed: which samples thresholds are found from, where there are more than needed.

    Raises:
        Error: the model or the data cannot be read or do not go together; NEUC-E520 to E530: calibration data are
            missing, empty or no finite numbers, T or an option makes no sense, operations have no spiking form, nothing
            would spike, or the goal of ``auto`` is missed.
    """
    if recipe == "auto":
        from neuc.compiler.snn.auto import Goal, convert_auto

        if group != 1:
            raise Error("NEUC-E527", f"recipe auto with groups of {group}", hint="name recipe a", exit_code=Exit.USAGE)
        goal = Goal(max_steps, max_drop, labels)
        return convert_auto(
            model,
            calibration,
            goal,
            steps=steps,
            shapes=shapes,
            example_inputs=example_inputs,
            spiking_after=spiking_after,
            seed=seed,
        )
    chosen = recipe_of(recipe, levels, coding, group)
    count = DEFAULT_STEPS[recipe] if steps is None else steps
    check_steps(count)
    begun = time.perf_counter()
    marked = front.mark(model, chosen, shapes, example_inputs, spiking_after)
    if levels is None:
        chosen = for_depth(chosen, sum(1 for _ in sites(marked.module)))
    inputs = arrays_of(calibration, marked.inputs, "calibration data")
    made = convert_marked(
        marked, inputs, chosen, count, thresholds, start=start, quantile=quantile, seed=seed, refit=refit
    )
    made.report.seconds = time.perf_counter() - begun
    return made


def convert_marked(
    marked: Marked,
    inputs: Sequence[np.ndarray],
    recipe: Recipe,
    steps: int,
    thresholds: str = "search",
    *,
    start: int | None = 0,
    quantile: float = QUANTILE,
    seed: int = 0,
    refit: bool = True,
) -> SpikingModel:
    """`convert_to_snn` for a model that is marked for `recipe`; the marks get thresholds."""
    begun = time.perf_counter()
    if start is not None and not 0 <= start < steps:
        raise Error(
            "NEUC-E523", f"{steps} steps, read from step {start}", hint="0 ≤ start < steps", exit_code=Exit.USAGE
        )
    verdicts = support.check(marked.module, recipe)
    support.refuse_unsupported(verdicts, recipe, marked.name)
    store, names = marked.context.weights, [spec.name for spec in marked.inputs]
    done = calibrate(
        marked.module,
        store,
        inputs,
        names,
        recipe,
        steps,
        thresholds,
        q=quantile,
        seed=seed,
        spread=SPREAD if recipe.binary else 0.0,
        refit=refit,
    )
    done.warnings += recurrent_warnings(marked.module, names)
    few_inputs = min(LEAST_INPUTS, affordable(marked.module, steps))
    few = [array[:few_inputs] if array.ndim else array for array in inputs]
    if start is None:
        start = _best_start(marked, few, recipe, steps)
    errors = spike_errors(marked.module, store, few, recipe, steps, seed, done.original)
    if recipe.group > 1:
        GroupNeurons().apply(marked.context, marked.module)
        marked.module.verify()
        Simulation(marked.module, store, recipe, steps, feeding=write_rate).run(few)
    module = marked.module.clone()
    driver = Driver(module, marked.context)
    driver.run([ConvertAnnToSnn(steps, recipe.levels, recipe.coding, start)])
    report = ConversionReport(marked.name, recipe, steps, start, verdicts, done, errors, _carried(module))
    _check_spikes(module, len(done.sites) * recipe.group)
    report.seconds = time.perf_counter() - begun
    return SpikingModel(
        module,
        marked.context,
        recipe,
        steps,
        start,
        report,
        marked.module,
        marked.dense,
        marked.inputs,
        marked.outputs,
    )


def _best_start(marked: Marked, inputs: Sequence[np.ndarray], recipe: Recipe, steps: int) -> int:
    """The first step to read from, whose outputs come closest to the float network's on calibration data."""
    if recipe.coding == "differential":
        return 0
    exact = interpret(marked.dense, inputs, marked.context.weights)[0]
    run = Simulation(marked.module, marked.context.weights, recipe, steps)
    means = np.stack(run.run(inputs)[0]).astype(np.float64)
    total = means * np.arange(1, steps + 1).reshape(-1, *[1] * (means.ndim - 1))
    errors = [np.mean((total[-1] / steps - exact) ** 2)]
    errors += [np.mean(((total[-1] - total[s - 1]) / (steps - s) - exact) ** 2) for s in range(1, steps)]
    return int(np.argmin(errors))


def _carried(module: ModuleOp) -> list[str]:
    """Synapses inside the loop that see numbers instead of spikes, with what they see."""
    found: list[str] = []
    for loop in loops(module):
        for op in loop.body.block.ops:
            if isinstance(op, spike.LinearOp | spike.ConvOp) and event_of(op.x) is None:
                pooled = _comes_from_pool(op.x)
                what = "sums of pooled spikes" if pooled else "currents of another layer without neurons between"
                found.append(f"{next(iter(node_names(op)), op.name)}: {what}")
    return list(dict.fromkeys(found))  # Once for all neurons of a group.


def _comes_from_pool(value: SSAValue) -> bool:
    """Whether a value is a sum of spikes, moved or scaled at most."""
    while isinstance(value.owner, Operation) and not isinstance(value.owner, spike.SumPoolOp):
        if not isinstance(value.owner, spike.ScaleOp | ReshapeOp | TransposeOp):
            return False
        value = value.owner.operands[0]
    return isinstance(value.owner, spike.SumPoolOp)


def _check_spikes(module: ModuleOp, wanted: int) -> None:
    """Make sure that each site became a neuron that makes events: nothing stays a float network silently."""
    made = sum(
        event_of(op.results[0]) is not None
        for loop in loops(module)
        for op in loop.body.block.ops
        if isinstance(op, spike.IfOp | spike.LevelsOp)
    )
    if made != wanted:
        raise InternalError(f"{wanted} sites became {made} neurons")
