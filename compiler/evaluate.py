"""Running paradigm-level modules without compiling them: the interpreters, and onnxruntime for host segments.

This is how errors are measured before anything is lowered. What operations mean is `neuc.dialects.interp`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.importers.library_steps import TARGET_OPSET
from neuc.compiler.inputs import Arrays, check_calibration, load_npz, more_modest, random_inputs
from neuc.compiler.options import CompileOptions
from neuc.compiler.signature import entry_of, signature_of
from neuc.compiler.verification import reference_session, run_reference
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import Observer, interpret
from neuc.dialects.onnx import function_names
from neuc.errors import Error, Exit
from neuc.passes.partition import Partition, is_host
from neuc.runtime.program import IoSpec, Program
from neuc.runtime.signature import Signature

EVALUATION_BATCH = 4
EVALUATION_ELEMENTS = 1 << 17
"""Batch size of the made-up input errors are measured on when no data are given, and how many elements it may have."""

Outputs = list[list[np.ndarray]]


def evaluation_inputs(module: ModuleOp, options: CompileOptions) -> Iterator[list[Arrays]]:
    """The inputs to measure errors on: the calibration file, or made-up ones, to be tried in turn.

    Of data with several times a model's fixed leading size the first four feeds are taken.

    Raises:
        Error: NEUC-E006, the file lacks an input of the model; NEUC-E311, E312 or E326, one does not fit its input;
            NEUC-E263, it is empty or holds NaN or infinity.
    """
    inputs, _ = signature_of(module)
    if options.calib is None:
        leading = {dim for spec in inputs for dim in spec.shape[:1] if isinstance(dim, str)}
        one = random_inputs(inputs, sizes=dict.fromkeys(leading, 1))
        largest = max((array.size for array in one.values()), default=1)
        batch = min(EVALUATION_BATCH, max(1, EVALUATION_ELEMENTS // max(largest, 1)))
        for sizes, limit in more_modest(inputs):
            yield [random_inputs(inputs, sizes={**dict.fromkeys(leading, batch), **sizes}, limit=limit)]
        return
    given = load_npz(options.calib)
    missing = [spec.name for spec in inputs if spec.name not in given]
    if missing:
        raise Error(
            "NEUC-E006",
            f"{options.calib} has no array {missing[0]!r}",
            hint=f"the model's inputs: {', '.join(spec.name for spec in inputs)}",
            exit_code=Exit.USAGE,
        )
    check_calibration(given, str(options.calib), [spec.name for spec in inputs])
    feeds = _cut({spec.name: given[spec.name] for spec in inputs}, inputs)
    try:
        signature = Signature(Program(tuple(inputs), (), {}, ()))
        for feed in feeds:
            signature.check_indices(signature.check_feeds(feed)[0])
    except Error as error:
        error.message = f"{options.calib}: {error.message}"
        raise
    yield feeds


def _cut(arrays: Arrays, inputs: Sequence[IoSpec]) -> list[Arrays]:
    """Some feeds of the model's own rows out of arrays of several times as many; the arrays where rows are free."""
    counts: set[int] = set()
    for spec in inputs:
        lead = spec.shape[0] if spec.shape else None
        rows = arrays[spec.name].shape[0] if arrays[spec.name].ndim else 0
        counts.add(rows // lead if isinstance(lead, int) and lead and rows % lead == 0 else 0)
    count = counts.pop() if len(counts) == 1 else 0
    if count < 2:
        return [arrays]
    leads = {spec.name: len(arrays[spec.name]) // count for spec in inputs}
    some = range(min(count, EVALUATION_BATCH))
    return [{name: arrays[name][i * lead : (i + 1) * lead] for name, lead in leads.items()} for i in some]


@dataclass
class Evaluator:
    """Runs versions of one model on the same inputs.

    Attributes:
        context: the context of all versions; passes run in it.
        feeds: the inputs.
    """

    context: NeucContext
    feeds: Sequence[Arrays]
    _hosts: dict[str, onnxruntime.InferenceSession] = field(default_factory=dict[str, onnxruntime.InferenceSession])

    def outputs(self, module: ModuleOp, observe: Observer | None = None) -> Outputs:
        """The outputs of a module that is not partitioned yet (it is left unchanged), for each input."""
        copy = module.clone()
        if any(is_host(op) for op in copy.walk()):
            Partition().apply(self.context, copy)
            return [self._scheduled(copy, feed, observe) for feed in self.feeds]
        names = function_names(entry_of(copy))[0]
        store = self.context.weights
        return [interpret(copy, [feed[name] for name in names], store, observe=observe) for feed in self.feeds]

    def _scheduled(self, module: ModuleOp, feed: Arrays, observe: Observer | None) -> list[np.ndarray]:
        """One run of a partitioned module, segment by segment."""
        entry = entry_of(module)
        segments = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
        names = function_names(entry)[0]
        values: dict[SSAValue, np.ndarray] = dict(zip(entry.body.block.args, (feed[name] for name in names)))
        for op in entry.body.block.ops:
            arguments = [values[value] for value in op.operands]
            if not isinstance(op, func.CallOp):
                return arguments
            segment = segments[op.callee.root_reference.data]
            run = self._host(segment) if any(is_host(inner) for inner in segment.walk()) else None
            if run is not None:
                results = run(arguments)
            else:
                name = segment.sym_name.data
                results = interpret(module, arguments, self.context.weights, entry=name, observe=observe)
            values.update(zip(op.results, results))
        return []

    def _host(self, segment: func.FuncOp) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
        data = export_onnx(segment, self.context.weights, newest=TARGET_OPSET).SerializeToString()
        key = hashlib.sha256(data).hexdigest()
        session = self._hosts.setdefault(key, reference_session(data))
        inputs, outputs = function_names(segment)

        def run(arguments: list[np.ndarray]) -> list[np.ndarray]:
            return run_reference(session, outputs, dict(zip(inputs, arguments)))

        return run
