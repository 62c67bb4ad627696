"""One compilation: from the level a module is on to the one asked for, and again with other planes if need be.

Which passes there are stands in `pipeline.py`, how planes are chosen in `quantize.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from neuc.backends.cpu.ahead import objects_ahead
from neuc.compiler import decided, energies, program
from neuc.compiler.accuracy import Agreement
from neuc.compiler.calibrated_scales import FixedScales, with_fixed_scales
from neuc.compiler.driver import LEVELS, Driver
from neuc.compiler.evaluate import Evaluator, Outputs
from neuc.compiler.importers.decoder.facts import decoder_facts
from neuc.compiler.layer_errors import LayerErrors
from neuc.compiler.options import DEFAULT_MAX_ERROR, CompileOptions
from neuc.compiler.pipeline import ChosenTarget, float_passes, graph_passes, layer_passes, partition_pass
from neuc.compiler.program import BuiltProgram
from neuc.compiler.quantize import PlaneSearch, Reference, budget_missed, quantize_fixed, quantize_within
from neuc.compiler.report import Report
from neuc.compiler.reporting import (
    describe_errors,
    describe_hosts,
    describe_inputs,
    describe_layers,
    describe_program,
    describe_rounded,
)
from neuc.compiler.signature import check_names, entry_of
from neuc.errors import Error, Exit, InternalError
from neuc.passes.analysis.index_bounds import note_index_bounds
from neuc.passes.module_facts import notes_of
from neuc.passes.tile_lut import TileLut

_AIMS = (0.98, 0.85, 0.7, 0.5)
"""Shares of the error budget that trials aim at, one after the other until the compiled model is within the budget.

Trials round activations from floats that differ in the last bit from the compiled model's, so some round the other way.
"""


FIXED = ("ternary", "int8")
"""What ``--quantize`` may say where calibration data fix the scales of activations."""


@dataclass
class Compilation:
    """A module on its way down.

    Attributes:
        driver: runs the passes and holds the module.
        options: what was asked for.
        chosen: the target.
        name: the model's name, for the report.
        keep: keep the module of every level in `levels`.
        levels: those modules.
        extra: members that go into the artifact, by name.
        program: what runs, once the last level is reached.
    """

    driver: Driver
    options: CompileOptions
    chosen: ChosenTarget
    name: str
    keep: bool
    levels: dict[str, ModuleOp] = field(default_factory=dict[str, ModuleOp])
    program: BuiltProgram | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def __post_init__(self) -> None:
        self.report = Report(self.name, self.chosen.name, quantize=self._quantization())

    def run(self, to_level: str) -> None:
        """Take the module to `to_level`.

        Raises:
            Error: NEUC-E253, it is beyond that level; NEUC-E262, the error budget cannot be met; or what passes raise.
        """
        start = LEVELS.index(self.driver.level)
        steps = LEVELS[start + 1 : LEVELS.index(to_level) + 1]
        if LEVELS.index(to_level) < start:
            raise Error(
                "NEUC-E253",
                f"{self.name} is on level {self.driver.level}, beyond {to_level}",
                hint="choose a later level with --compile-to",
                exit_code=Exit.USAGE,
            )
        if self.driver.level in ("graph", "paradigm"):
            check_names(self.driver.module)
            if "machine" in steps:
                energies.refuse_sampling(self.driver.module, self.chosen, self.name)
        self._reached(LEVELS[start])
        self._tell_plain()
        with objects_ahead() if to_level == LEVELS[-1] else nullcontext():
            self._go(steps)

    def _tell_plain(self) -> None:
        """Say that a target for energies or spikes does nothing of its own for a network of layers."""
        module = self.driver.module
        if energies.of_energies(module) is not None:
            return
        if self.chosen.target.relaxes:
            self.report.hints.append(f"{self.name} has no energy to sample or relax: same code as --target cpu")
        spikes = self.chosen.target.spikes and self.chosen.machine is None
        if spikes and self.driver.level in LEVELS[:2] and not any(op.name.startswith("spike.") for op in module.walk()):
            cure = "`neuc convert --to snn` makes a spiking network of it"
            self.report.hints.append(f"warning: {self.name} has no spikes: same code as --target cpu; {cure}")

    def _tell_no_generation(self, built: BuiltProgram) -> None:
        """Say that a decoder with parts outside of compiled code is none that tokens are generated with."""
        outside = [segment for segment in built.emitted.program.segments.values() if segment.kind != "native"]
        if outside and decoder_facts(self.driver.module) is not None:
            what = f"{len(outside)} of {len(built.emitted.program.segments)} parts run outside of compiled code"
            self.report.hints.append(
                f"warning: {self.name} for target {self.chosen.name} generates no tokens, as {what}; `neuc generate` "
                "and neuc.load_decoder take it compiled for --target cpu"
            )

    def _go(self, steps: tuple[str, ...]) -> None:
        if decoder_facts(self.driver.module) is not None:
            self._lower(steps)
        elif "paradigm" in steps:
            self._from_graph(steps)
        else:
            self._lower(steps)

    def _from_graph(self, steps: tuple[str, ...]) -> None:
        """Through the graph level, as often as it takes to be within the error budget."""
        driver, report = self.driver, self.report
        describe_inputs(driver.module, report)
        driver.run(graph_passes())
        note_index_bounds(entry_of(driver.module))
        rounding = self.chosen.rounding() if report.quantize == "none" else []
        reference = None if report.quantize == "none" and not rounding else Reference.of(driver, self.options)
        if reference is not None and reference.model is None:
            report.hints.append(f"errors are measured against neuc's interpreters, as {reference.obstacle}")
        if reference is not None and not rounding and self.chosen.fixes_scales(self.options):
            fixed = self._fixed_scales(reference)
            if not isinstance(fixed, str):
                self._with_fixed_scales(fixed, reference, steps)
                return
            report.hints.append(f"{self.name} gets no fixed scales: {fixed}")
        driver.run(float_passes(self.options, self.chosen))
        if reference is None:
            self._lower(steps)
            return
        if rounding:
            self._rounded(rounding, reference, steps)
            return
        with LayerErrors(driver.module, driver.context, reference.feeds, self.options.measured_on) as layer_errors:
            if report.quantize in ("ternary", "int8"):
                report.budget = self.options.max_error
                quantize_fixed(driver, replace(self.options, quantize=report.quantize))
                layer_errors.compare(driver.module.clone())
                self._lower(steps)
                agreement = reference.compare(self._outputs(reference))
            else:
                report.budget = DEFAULT_MAX_ERROR if self.options.max_error is None else self.options.max_error
                agreement = self._within(report.budget, reference, layer_errors, steps)
            with driver.timed("measure layers"):
                describe_errors(layer_errors.result(), report)
        self._measured(agreement)

    def _measured(self, agreement: Agreement) -> None:
        """Report how well the result agrees with the float model, if that is within the budget."""
        report = self.report
        report.measured = agreement.to_json()
        if agreement.nothing and not self._lossy():
            return  # nothing was changed that an error could come from
        if report.budget is not None and not agreement.error <= report.budget:  # true for NaN, too
            raise budget_missed(agreement, report.budget, self.options)

    def _lossy(self) -> bool:
        """Whether weights or activations of any layer were rounded."""
        return any(row.source == "fitted" or row.activations == "neuc" for row in self.report.layers)

    def _fixed_scales(self, reference: Reference) -> FixedScales | str:
        """The int8 form of the model with scales from calibration data, or why there is none."""
        quantize = self.report.quantize
        if quantize not in FIXED:
            return f"--quantize {quantize} chooses with scales of each input (--quantize int8 or ternary fixes them)"
        if reference.model is None:
            return "onnxruntime, which calibrates, cannot run it"
        with self.driver.timed("calibrate"):
            return with_fixed_scales(self.driver, self.options, ternary=quantize == "ternary")

    def _with_fixed_scales(self, fixed: FixedScales, reference: Reference, steps: tuple[str, ...]) -> None:
        """Lower the int8 form of a model, and measure what it costs, in each layer before what follows it is fused."""
        driver, report = self.driver, self.report
        report.budget = self.options.max_error
        report.hints += fixed.notes
        options = replace(self.options, recognize=True)
        with LayerErrors(self._unfused(), driver.context, reference.feeds, self.options.measured_on) as layer_errors:
            driver.module = fixed.module
            note_index_bounds(entry_of(driver.module))
            layer_errors.compare(self._unfused())
            driver.run(float_passes(options, self.chosen))
            self._lower(steps)
            report.layers = [fixed.told(row) for row in report.layers]
            agreement = reference.compare(self._outputs(reference))
            with driver.timed("measure layers"):
                describe_errors(layer_errors.result(), report)
        self._measured(agreement)

    def _unfused(self) -> ModuleOp:
        """The graph-level module in operations on tensors, layers without the activations behind them."""
        module = self.driver.module.clone()
        for step in layer_passes(self.chosen):
            step.apply(self.driver.context, module)
        return module

    def _rounded(self, rounding: Sequence[ModulePass], reference: Reference, steps: tuple[str, ...]) -> None:
        """Lower a float model whose products the machine rounds, and measure what that costs in the interpreters.

        They give the machine's bits, whatever its tiles are, and do not simulate it.
        """
        driver = self.driver
        rounded = driver.module.clone()
        rounding[0].apply(driver.context, rounded)
        products = rounded.clone()  # passes behind the first are for what is between layers
        for step in rounding[1:]:
            step.apply(driver.context, rounded)
        with LayerErrors(driver.module, driver.context, reference.feeds, self.options.measured_on) as layer_errors:
            layer_errors.compare(products)
            self._lower(steps)
            with driver.timed("measure"):
                agreement = reference.compare(Evaluator(driver.context, reference.feeds).outputs(rounded))
            with driver.timed("measure layers"):
                describe_rounded(products, layer_errors.result(), self.report)
        self.report.measured = agreement.to_json()

    def _within(
        self, budget: float, reference: Reference, layer_errors: LayerErrors, steps: tuple[str, ...]
    ) -> Agreement:
        """Choose planes and lower, aiming lower each time, until the result is within `budget` or no aim is left.

        Returns:
            How well the result agrees with the float model.
        """
        driver = self.driver
        with driver.timed("choose planes"):
            search = PlaneSearch(driver.module, driver.context.weights, reference, self.options)
        dense = driver.module
        for attempt, aim in enumerate(_AIMS, 1):
            driver.module = dense.clone()
            quantize_within(driver, search, budget, self.options, aim)
            layer_errors.compare(driver.module.clone())
            self._lower(steps)
            agreement = reference.compare(self._outputs(reference))
            if agreement.error <= budget or attempt == len(_AIMS):
                if search.names:
                    times = f"{search.evaluations} measurement{'s' if search.evaluations != 1 else ''}"
                    self.report.hints.append(f"planes were chosen with {times} of the model")
                return agreement
        raise InternalError("there is no aim")

    def _lower(self, steps: tuple[str, ...]) -> None:
        """From operations on tensors to the last of `steps`."""
        driver, report = self.driver, self.report
        for level in steps:
            match level:
                case "paradigm":
                    if self.chosen.machine is not None:
                        describe_layers(driver.module, driver.context, report)
                    driver.run([*self.chosen.placing(), partition_pass(self.options, self.chosen)])
                    describe_hosts(driver.module, report)
                    machine = "" if self.chosen.machine is None else self.options.target
                    decided.record(driver.module, machine, report.quantize)
                case "machine":
                    driver.run(self.chosen.finishing())
                    self._tune()
                    passes = self.chosen.passes()
                    tiled = next(i for i, step in enumerate(passes) if isinstance(step, TileLut)) + 1
                    driver.run(passes[:tiled])
                    describe_layers(driver.module, driver.context, report)
                    self._advise()
                    driver.run(passes[tiled:])
                case _:
                    with driver.timed("emit"):
                        self.program = program.build(driver.module, driver.context, self.extra)
                    describe_program(self.program, report)
                    self._tell_no_generation(self.program)
                    program.dump_kernels(driver)
            self._reached(level)

    def _tune(self) -> None:
        """Choose encodings by measurement, if that was asked for."""
        if not self.options.tune:
            return
        from neuc.compiler import tuning

        with self.driver.timed("tune"):
            count = tuning.tune(self.driver.module, tuning.candidates(self.chosen), self.chosen.isa)
        self.report.hints.append(f"tuned: {count} shapes measured, the others were known")

    def _advise(self) -> None:
        """Say so when another target would run the ternary layers faster."""
        advice = self.chosen.target.advice(self.chosen.isa)
        if advice is not None and advice not in self.report.hints and any(row.ternary for row in self.report.layers):
            self.report.hints.append(advice)

    def _reached(self, level: str) -> None:
        self.report.hints += [note for note in notes_of(self.driver.module) if note not in self.report.hints]
        if level != LEVELS[-1]:
            self.driver.reach(level)
            if self.keep:
                self.levels[level] = self.driver.module.clone()

    def _outputs(self, reference: Reference) -> Outputs:
        """What the model computes now: natively from the machine level on, else in the interpreters."""
        with self.driver.timed("measure"):
            if self.program is None and self.driver.level != "machine":
                return Evaluator(self.driver.context, reference.feeds).outputs(self.driver.module)
            built = self.program or program.build(self.driver.module, self.driver.context)
            session = built.session(threads=None, profile=False)
            return [session.run(None, feed) for feed in reference.feeds]

    def _quantization(self) -> str:
        """What ``--quantize`` means: what was asked for, else what the target is for."""
        if decoder_facts(self.driver.module) is not None:
            return self._quantized_already()
        energies.refuse_quantization(self.driver.module, self.options, self.chosen, self.name)
        if self.options.quantize is not None:
            return self.options.quantize
        if self.options.max_error is not None:
            return "auto"
        if self.options.planes is not None:
            return "ternary"
        # One plane is all that a core finishes, and too little for most networks that were not trained so.
        return "int8" if self.chosen.fixes_scales(self.options) else self.chosen.default_quantize

    def _quantized_already(self) -> str:
        """What there is to quantise of a decoder: nothing.

        Raises:
            Error: NEUC-E002, something was asked for.
        """
        options = self.options
        if options.quantize in (None, "none") and options.planes is None and options.max_error is None:
            return "none"
        raise Error(
            "NEUC-E002",
            f"{self.name} is ternary: there is nothing for --quantize, --planes or --max-error to do",
            hint="leave them out; --head rounds the head",
            exit_code=Exit.USAGE,
        )
