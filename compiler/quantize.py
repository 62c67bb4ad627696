"""Making a float module ternary as the options ask, and measuring what it costs in accuracy.

The rewriting is `passes/quantize_to_ternary.py`'s, the choice of planes `passes/analysis/error_budget.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.accuracy import Agreement, compare
from neuc.compiler.driver import Driver
from neuc.compiler.evaluate import Evaluator, Outputs, evaluation_inputs
from neuc.compiler.options import DEFAULT_MAX_ERROR, MAX_PLANES, CompileOptions
from neuc.compiler.report import Report
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.ternary import WeightOp
from neuc.errors import Error, Exit
from neuc.passes.analysis.error_budget import Layer, choose_planes
from neuc.passes.analysis.ternary_layers import layers, weight_matrix
from neuc.passes.analysis.ternary_trial import TernaryTrial
from neuc.passes.quantize_to_ternary import FitCache, QuantizeToTernary
from neuc.runtime.cpu_features import available_cpus

DEFAULT_PLANES = 2
_MARGIN = 0.999


def quantize(driver: Driver, options: CompileOptions, report: Report) -> None:
    """Make the layers of a float module ternary, and measure the error of its outputs in the interpreters.

    Raises:
        Error: NEUC-E262, the error budget is missed.
    """
    evaluator = Evaluator(driver.context, evaluation_inputs(driver.module, options))
    with driver.timed("run float model"):
        expected = evaluator.outputs(driver.module)
    if report.quantize == "ternary":
        report.budget = options.max_error
        driver.run([QuantizeToTernary(planes=options.planes or DEFAULT_PLANES, scale=options.scale)])
    else:
        report.budget = DEFAULT_MAX_ERROR if options.max_error is None else options.max_error
        with driver.timed("choose planes"):
            search = PlaneSearch(driver.module, driver.context, evaluator, expected, options.scale)
            planes = search.run(report.budget, options.planes or MAX_PLANES)
        report.hints.append(f"planes were chosen with {search.evaluations} measurements of the whole model")
        chosen = tuple(f"{name}={count}" for name, count in planes.items())
        driver.run([QuantizeToTernary(scale=options.scale, layers=chosen).using(search.fits)])
    with driver.timed("run ternary model"):
        agreement = compare(expected, evaluator.outputs(driver.module))
    report.measured = agreement.to_json()
    _check_budget(agreement, report.budget, options)


class PlaneSearch:
    """The search for planes per layer: what `choose_planes` asks of a model.

    Attributes:
        fits: fitted weights of everything tried.
        evaluations: how many assignments were measured.
    """

    def __init__(
        self, module: ModuleOp, context: NeucContext, evaluator: Evaluator, expected: Outputs, scale: str
    ) -> None:
        self.fits = FitCache()
        self.evaluations = 0
        self._weights, self._scale, self._expected = context.weights, scale, expected
        self._trial = TernaryTrial(module, context.weights, QuantizeToTernary.min_k)
        self._evaluator = Evaluator(NeucContext(weights=self._trial.scratch), evaluator.feeds)
        self._layers = {name: op for name, op in layers(module) if isinstance(op, MatMulOp | ConvOp)}
        self._fitted: dict[tuple[str, int], WeightOp] = {}

    def run(self, budget: float, most: int) -> dict[str, int]:
        """Planes for each layer that can be ternary.

        Raises:
            Error: NEUC-E262, no layer can be ternary within the budget.
        """
        candidates = [Layer(n, weight_matrix(self._layers[n], self._weights).size) for n in self._trial.names]
        # A trial differs from the ternary model by float rounding, which must not tip the scales.
        found = choose_planes(candidates, self._error, budget * _MARGIN, max_planes=most)
        self.evaluations = found.evaluations
        if candidates and not any(found.planes.values()):
            raise Error(
                "NEUC-E262",
                f"no layer can be ternary with at most {most} planes within the error budget {budget:g}",
                hint="give a larger --max-error, more --planes, or real inputs with --calib",
                exit_code=Exit.MISMATCH,
            )
        return found.planes

    def _error(self, planes: Mapping[str, int]) -> float:
        missing = [item for item in planes.items() if item[1] and item not in self._fitted]
        with ThreadPoolExecutor(available_cpus()) as pool:  # numpy lets go of the interpreter lock
            self._fitted.update(zip(missing, pool.map(self._fit, missing), strict=True))
        weights = {name: self._fitted[name, count] if count else None for name, count in planes.items()}
        self._trial.assign(weights, self._weights)
        return compare(self._expected, self._evaluator.outputs(self._trial.module)).error

    def _fit(self, item: tuple[str, int]) -> WeightOp:
        name, planes = item
        return self.fits.weight(self._layers[name], name, planes, self._scale, self._weights)


def _check_budget(agreement: Agreement, budget: float | None, options: CompileOptions) -> None:
    if budget is None or agreement.error <= budget:
        return
    source = "made-up inputs" if options.calib is None else options.calib.name
    raise Error(
        "NEUC-E262",
        f"{agreement.measure} {agreement.error:.3g} on {source} is above the budget {budget:g}",
        hint="use more --planes, --scale group, a larger --max-error, or real inputs with --calib",
        exit_code=Exit.MISMATCH,
    )
