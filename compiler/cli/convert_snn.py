"""`neuc convert MODEL OUT.mlir --to snn`: its options, and what it prints. What conversion does is `compiler/snn`'s."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from neuc.compiler.cli import arguments, console, idle_options
from neuc.errors import Exit

if TYPE_CHECKING:
    from neuc.compiler.labelled_data import LabelledData
    from neuc.compiler.snn.model import SpikingModel
    from neuc.compiler.snn.sweep import Sweep
    from neuc.runtime.program import IoSpec

CommandT = TypeVar("CommandT", bound=Callable[..., object])

_OPTIONS = (
    click.option("--calib", type=click.Path(path_type=Path), help="snn, qdq-int8: .npz with inputs to calibrate on."),
    click.option(
        "--recipe",
        default="auto",
        show_default=True,
        help="snn: a (binary spikes), b (signed spikes of changes), c (signed spikes, rates), or auto.",
    ),
    click.option("--steps", type=int, help="snn: time steps T; 8 for recipe a, 4 for b and c, searched by auto."),
    click.option(
        "--thresholds",
        default="search",
        show_default=True,
        help="snn: search, mse, max, quantile, ltb or gaussian.",
    ),
    click.option(
        "--levels",
        type=int,
        help="snn: powers of two of a spike in recipes b and c; 4 by default, 7 in deep networks of b.",
    ),
    click.option("--coding", help="snn: rate or differential, if not the recipe's."),
    click.option("--group", type=int, default=1, help="snn: neurons that carry one number together, in recipe a."),
    click.option("--start", type=int, help="snn: first step that a rate-coded read-out counts; 0 by default."),
    click.option("--spiking-after", metavar="NODE", help="snn: what stands before this node stays numbers (hybrid)."),
    click.option("--keep-weights", is_flag=True, help="snn: no regression of weights on what spikes bring."),
    click.option("--eval", "evaluation", metavar="FILE.npz:LABELS", help="snn: labelled data for the sweep over T."),
    click.option("--sweep", "swept", default="1,2,4,8,16,32,64", show_default=True, help="snn: T of the sweep."),
    click.option("--time", "timed", is_flag=True, help="snn: compile for each T of the sweep, and time one input."),
    click.option("--max-steps", type=int, default=16, show_default=True, help="snn: most steps that auto tries."),
    click.option(
        "--max-drop",
        type=float,
        default=0.005,
        show_default=True,
        help="snn: accuracy that auto may lose (0.005: half a point).",
    ),
    click.option("--report", "report", type=click.Path(path_type=Path), help="snn: write everything as JSON."),
    click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="snn: write pictures to DIR."),
)


def snn_options(command: CommandT) -> CommandT:
    """The options of ``--to snn``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


CALIBRATION = "calibration data"
"""What a sweep without labelled data is on."""
COUNTED = 8
"""Samples that NeuroBench's metrics are counted on."""
CHOSEN_BY_AUTO = ("thresholds", "levels", "coding", "group", "start", "keep_weights")
"""Parameters that recipe auto has no use for."""


def convert_snn(source: Path, target: Path, options: Mapping[str, Any], as_json: bool) -> int:
    """Convert `source` to a spiking network in `target`, and say what happened.

    Raises:
        Error: as `neuc.convert_to_snn` does; NEUC-E002, options that make no sense.
    """
    from neuc.compiler.files import check_writable, write_text
    from neuc.compiler.inputs import load_npz
    from neuc.compiler.labelled_data import load_labelled
    from neuc.compiler.signature import signature_of
    from neuc.compiler.snn.convert import convert_to_snn
    from neuc.compiler.snn.data import arrays_of
    from neuc.compiler.snn.plots import require_matplotlib, write_plots
    from neuc.compiler.source import read_model

    arguments.require_file(source)
    _refuse_idle(options)
    if options["calib"] is None:
        raise arguments.usage_error("--to snn needs --calib", "an .npz with some inputs of the model, by name")
    if target.suffix != ".mlir":
        raise arguments.usage_error(f"{target}: a spiking network is written as IR", "name it OUT.mlir")
    check_writable(target)
    if options["report"] is not None:
        check_writable(options["report"])
    swept = _steps(options["swept"])
    labelled = None if options["evaluation"] is None else load_labelled(options["evaluation"])
    if labelled is not None:
        # Conversion takes long: what does not fit the model is refused before.
        inputs, outputs = signature_of(read_model(source).module)
        arrays_of(labelled.feeds, inputs, "--eval data")
        _check_labels(labelled, outputs)
    if options["plots"] is not None:
        require_matplotlib()
        if options["plots"].exists() and not options["plots"].is_dir():
            raise arguments.usage_error(f"--plots {options['plots']} is a file", "name a folder")
    arrays = load_npz(options["calib"])
    labels = arrays.pop("labels", None)
    model = convert_to_snn(
        source,
        arrays,
        recipe=options["recipe"],
        steps=options["steps"],
        thresholds=options["thresholds"],
        levels=options["levels"],
        coding=options["coding"],
        group=options["group"],
        start=options["start"] or 0,
        refit=not options["keep_weights"],
        max_steps=options["max_steps"],
        max_drop=options["max_drop"],
        labels=labels,
        spiking_after=options["spiking_after"],
    )
    found = _swept(model, labelled, arrays, swept, timed=options["timed"])
    data = {"file": str(target), **model.report.as_json(), "sweep": found.as_json()}
    data["sweep"]["data"] = CALIBRATION if labelled is None else labelled.source
    few = {name: array[:COUNTED] for name, array in _feeds(model, labelled, arrays).items()}
    data["neurobench"] = dataclasses.asdict(model.neurobench(few))
    report = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    model.save(target)  # last, when nothing can fail any more but the disk
    if options["report"] is not None:
        write_text(options["report"], report)
    pictures = (
        [] if options["plots"] is None else write_plots(model, _feeds(model, labelled, arrays), found, options["plots"])
    )
    if as_json:
        console.product_json(data)
    else:
        _describe(model, found, data["sweep"]["data"])
        console.note(_neurobench(data["neurobench"], binary=model.recipe.binary))
    for path in (target, options["report"], *pictures):
        if path is not None:
            console.note(f"wrote {path}")
    return Exit.OK


def _steps(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise arguments.usage_error(f"--sweep {text}: not a list of whole numbers", "1,2,4,8") from error


def _check_labels(labelled: LabelledData, outputs: Sequence[IoSpec]) -> None:
    """Refuse labels that are no outputs, where the model says how many it has."""
    from neuc.compiler.snn.sweep import check_labels

    sizes = [size for size in outputs[0].shape[1:] if isinstance(size, int)] if outputs else []
    if sizes and len(sizes) == len(outputs[0].shape) - 1:
        check_labels(labelled.labels, math.prod(sizes))


def _refuse_idle(options: Mapping[str, Any]) -> None:
    """Refuse options that the recipe has no use for, before a conversion that takes long."""
    from neuc.compiler.snn.recipes import RECIPES

    recipe = options["recipe"]
    if recipe == "auto":
        chosen = {name: f"--{name.replace('_', '-')}" for name in CHOSEN_BY_AUTO}
        idle_options.refuse(chosen, "with --recipe auto, which chooses", "name a recipe, --recipe b")
        if options["steps"] is not None:
            idle_options.refuse({"max_steps": "--max-steps"}, "beside --steps")
        return
    idle_options.refuse({"max_steps": "--max-steps", "max_drop": "--max-drop"}, f"with --recipe {recipe}")
    coding = options["coding"] or (RECIPES[recipe].coding if recipe in RECIPES else None)
    if coding == "differential":
        idle_options.refuse({"start": "--start"}, "with differential coding, whose outputs are no sums over steps")


def _feeds(model: SpikingModel, labelled: LabelledData | None, arrays: Mapping[str, Any]) -> dict[str, Any]:
    given = arrays if labelled is None else labelled.feeds
    return {spec.name: given[spec.name] for spec in model.inputs if spec.name in given}


def _swept(
    model: SpikingModel, labelled: LabelledData | None, arrays: Mapping[str, Any], swept: Sequence[int], *, timed: bool
) -> Sweep:
    """On labelled data, else on the calibration data, where agreement with the float network is all there is to say."""
    labels = None if labelled is None else labelled.labels
    return model.sweep(_feeds(model, labelled, arrays), labels, swept, timed=timed)


def _neurobench(metrics: Mapping[str, float], *, binary: bool) -> str:
    """The metrics in words, with the rule that surprises where spikes are graded."""
    words = {name.replace("_", " "): f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for name, v in metrics.items()}
    named = ", ".join(f"{name} {text}" for name, text in words.items())
    rule = "" if binary else "; by its rules a step with spikes other than -1, 0, 1 is MACs"
    return f"NeuroBench, footprint in bytes, operations of one sample: {named}{rule}"


def _describe(model: SpikingModel, found: Sweep, data: str) -> None:
    report = model.report
    console.note(f"{report.model} as recipe {report.recipe.name}, T = {report.steps}: {report.recipe.about}")
    console.note("support:")
    console.note(report.support_text())
    for text in report.carried:
        console.note(f"  numbers, no spikes, go into {text}")
    if report.calibration.refitted:
        fitted = ", ".join(report.calibration.refitted)
        console.note(f"  weights fitted to what spikes bring (--keep-weights leaves them): {fitted}")
    if report.chosen:
        console.note("tried:")
        for text in report.chosen:
            console.note(f"  {text}")
    console.note("errors of layers on calibration data, in parts of what the float network has there:")
    console.note(report.errors_text())
    seen = ", half of them or more seen by the conversion" if data == CALIBRATION else ""
    console.note(f"time steps of this network, on {found.samples} samples of {data}{seen}:")
    console.note(found.text())
    for text in report.warnings:
        console.note(f"warning: {text}")
