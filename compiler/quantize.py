"""Making a float module ternary as the options ask, and measuring what it costs in accuracy.

The rewriting is `passes/quantize_to_ternary.py`'s, the choice of planes `passes/analysis/error_budget.py`'s; how the
model is run for it stands in `trials.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from textwrap import shorten

from onnx import ModelProto
from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.accuracy import Agreement, compare
from neuc.compiler.driver import Driver
from neuc.compiler.evaluate import Evaluator, Outputs, evaluation_inputs
from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.importers.library_steps import TARGET_OPSET
from neuc.compiler.inputs import Arrays
from neuc.compiler.options import DEFAULT_MAX_ERROR, MAX_PLANES, CompileOptions
from neuc.compiler.report_text import as_typed
from neuc.compiler.trials import InterpretedTrial, OnnxTrial, Trial
from neuc.compiler.verification import reference_session, run_first
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.ternary import WeightOp
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit
from neuc.passes.analysis.error_budget import Layer, choose_planes
from neuc.passes.analysis.ternary_layers import layers, reason_to_keep, weight_matrix
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense
from neuc.passes.quantize_to_ternary import FitCache, QuantizeToTernary
from neuc.runtime.cpu_features import available_cpus

DEFAULT_PLANES = 2
_SHOWN = 160
"""Characters of onnxruntime's complaints that a report repeats."""
_HINT = "use more --planes, --scale group, a larger --max-error, or real inputs with --calib"
_HINT_INT8 = "use --quantize auto, which leaves layers float, a larger --max-error, or real inputs with --calib"


@dataclass(frozen=True)
class Reference:
    """What the float model computes.

    Attributes:
        feeds: inputs.
        expected: its outputs, for each input.
        model: the float model; None if onnxruntime cannot run it.
        obstacle: why not.
    """

    feeds: Sequence[Arrays]
    expected: Outputs
    model: ModelProto | None
    obstacle: str = ""

    @staticmethod
    def of(driver: Driver, options: CompileOptions) -> Reference:
        """Run a graph-level module in onnxruntime, or in the interpreters if it has operators only they know.

        Raises:
            Error: the calibration data do not fit, or the model fails on them.
        """
        with driver.timed("run float model"):
            model = export_onnx(driver.module, driver.context.weights, newest=TARGET_OPSET)
            try:
                session = reference_session(model.SerializeToString(), beside_others=True)
            except Error as error:
                return Reference._interpreted(driver, options, shorten(error.message, _SHOWN, placeholder=" …"))
            names = [output.name for output in model.graph.output]
            return Reference(*run_first(session, names, evaluation_inputs(driver.module, options)), model)

    @staticmethod
    def _interpreted(driver: Driver, options: CompileOptions, obstacle: str) -> Reference:
        module = driver.module.clone()
        LowerOnnxToDense().apply(driver.context, module)
        feeds = next(evaluation_inputs(driver.module, options))
        return Reference(feeds, Evaluator(driver.context, feeds).outputs(module), None, obstacle)

    def compare(self, outputs: Outputs) -> Agreement:
        """How far `outputs` are from the float model's."""
        return compare(self.expected, outputs)


def quantize_fixed(driver: Driver, options: CompileOptions) -> None:
    """Make every layer of a float module ternary that can be, with the same planes, or int8 if that was asked for."""
    bits = 8 if options.quantize == "int8" else 0
    driver.run([QuantizeToTernary(planes=options.planes or DEFAULT_PLANES, scale=options.scale, bits=bits)])


def quantize_within(
    driver: Driver, search: PlaneSearch, budget: float, options: CompileOptions, share: float = 1
) -> None:
    """Make layers of a float module ternary with as few planes as keep a trial's error within a `share` of `budget`.

    Raises:
        Error: NEUC-E262, no layer can be, or no error can be measured.
    """
    with driver.timed("choose planes"):
        planes = search.run(budget, options.planes or MAX_PLANES, share)
    chosen = tuple(f"{name}={count}" for name, count in planes.items())
    whole = DEFAULT_MAX_ERROR if options.max_error is None else options.max_error
    kept = f"auto keeps it float, for the error budget {as_typed(whole)}"
    driver.run([QuantizeToTernary(scale=options.scale, layers=chosen).using(search.fits, kept)])


def budget_missed(agreement: Agreement, budget: float, options: CompileOptions, measured_on: str = "") -> Error:
    """The error for a compiled model beyond its error budget; on what the error was measured, `measured_on` says."""
    on = measured_on or options.measured_on
    if agreement.nothing:
        what = f"the float model gives no finite number on {on}: no error can be held to the budget {as_typed(budget)}"
        hint = "give rows with --calib on which its outputs are finite, or leave it float with --quantize none"
        return Error("NEUC-E262", what, hint=hint, exit_code=Exit.MISMATCH)
    return Error(
        "NEUC-E262",
        f"{agreement.measure} {agreement.error:.3g} on {on} is above the budget {as_typed(budget)}",
        hint=_HINT_INT8 if options.quantize == "int8" else _HINT,
        exit_code=Exit.MISMATCH,
    )


class PlaneSearch:
    """The search for planes per layer: what `choose_planes` asks of a model.

    Attributes:
        fits: fitted weights of everything tried.
        evaluations: how many assignments were measured.
    """

    def __init__(self, module: ModuleOp, store: WeightStore, reference: Reference, options: CompileOptions) -> None:
        self.fits = FitCache()
        self.evaluations = 0
        self._store, self._options, self._reference = store, options, reference
        least = QuantizeToTernary.min_k
        self._layers = {
            name: op
            for name, op in layers(module)
            if isinstance(op, MatMulOp | ConvOp) and not reason_to_keep(op, store, least)
        }
        matrices = {name: weight_matrix(op, store) for name, op in self._layers.items()}
        self._sizes = {name: matrix.size for name, matrix in matrices.items()}
        self._trial: Trial
        try:
            if reference.model is None:
                raise KeyError
            self._trial = OnnxTrial(reference.model, matrices, store, reference.feeds)
        except KeyError:
            # onnxruntime cannot run the model, or some layer is no single MatMul, Gemm or Conv of it.
            self._trial = InterpretedTrial(module, store, reference.feeds, least)
        self._fitted: dict[tuple[str, int], WeightOp] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be ternary."""
        return self._trial.names

    def run(self, budget: float, most: int, share: float = 1) -> dict[str, int]:
        """Planes for each layer that can be ternary, for a `share` of the budget.

        Raises:
            Error: NEUC-E262, no layer can be ternary within a budget that was given, or nothing finite is measured.
        """
        candidates = [Layer(name, self._sizes[name]) for name in self._trial.names]
        if candidates and (itself := self._reference.compare(self._reference.expected)).nothing:
            raise budget_missed(itself, budget, self._options)
        found = choose_planes(candidates, self._error, budget * share, max_planes=most)
        self.evaluations += found.evaluations
        # A model that keeps the budget of nobody's choosing only as it is stays so, and the report says why, by layer.
        if candidates and not any(found.planes.values()) and self._options.max_error is not None:
            raise Error(
                "NEUC-E262",
                f"no layer can be ternary with at most {most} plane{'s' if most > 1 else ''} "
                f"within the error budget {as_typed(budget)}",
                hint=_HINT,
                exit_code=Exit.MISMATCH,
            )
        return found.planes

    def _error(self, planes: Mapping[str, int]) -> float:
        missing = [item for item in planes.items() if item[1] and item not in self._fitted]
        with ThreadPoolExecutor(available_cpus()) as pool:  # numpy lets go of the interpreter lock
            self._fitted.update(zip(missing, pool.map(self._fit, missing), strict=True))
        weights = {name: self._fitted[name, count] if count else None for name, count in planes.items()}
        return compare(self._reference.expected, self._trial.outputs(weights)).error

    def _fit(self, item: tuple[str, int]) -> WeightOp:
        name, planes = item
        return self.fits.weight(self._layers[name], name, planes, self._options.scale, self._store)
