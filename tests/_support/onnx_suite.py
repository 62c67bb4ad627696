"""ONNX's own backend tests: their models and data, and what becomes of each in neuc."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from neuc.compiler.onnx_backend import NeucBackend
from neuc.errors import Error

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")
"""The kinds whose models come with the onnx package."""

_TYPES = {
    "sequences": "!onnx.seq",
    "optional values": "!onnx.optional",
    "strings": "!onnx.string",
    "unknown rank": "<*x",
    "8-bit floats": "f8",
    "bfloat16": "bf16",
}
_PATTERNS = {
    "onnxruntime has no such kernel": r"Could not find an implementation|is not a registered function",
    "onnxruntime does not load this opset or IR version": r"IR version|under development|officially? released",
    "onnxruntime does not load the model": r"cannot load host segment",
    "onnxruntime fails on the input": r"cannot run host segment",
}


@dataclass(frozen=True)
class SuiteCase:
    """One test: a model with sets of inputs and expected outputs."""

    name: str
    model: ModelProto
    data: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float

    def check(self, run: Callable[[list[Any]], Sequence[Any]]) -> None:
        """Compare outputs as ONNX's own runner does."""
        for given, wanted in self.data:
            Runner.assert_similar_outputs(wanted, list(run(given)), self.rtol, self.atol)


@dataclass(frozen=True)
class Outcome:
    """What became of a test.

    Attributes:
        how: ``native``, ``host`` (right, with nodes in onnxruntime), or why it fails, in few words.
        message: the whole message of a failure.
    """

    how: str
    message: str = ""


def all_cases() -> Iterator[SuiteCase]:
    """Every test, by kind and name."""
    for kind in KINDS:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            found = load_model_tests(kind=kind)
        for case in sorted(found, key=lambda case: case.name):
            yield _loaded(case)


def cases_of(operator: str, module: str = "") -> list[SuiteCase]:
    """The tests of one operator; only these are generated, which takes a moment for all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"onnx.backend.test.case.node.{module or operator.lower()}")
        from onnx.backend.test.case.node import _NodeTestCases  # pyright: ignore[reportPrivateUsage]
    mine = [case for case in _NodeTestCases if case.model and [n.op_type for n in case.model.graph.node] == [operator]]
    return [_loaded(case) for case in sorted(mine, key=lambda case: case.name)]


def outcome(case: SuiteCase, **options: Any) -> Outcome:
    """Compile a test's model with `options`, run it on its data, and compare."""
    try:
        prepared = NeucBackend.prepare(case.model, **options)
    except Error as error:
        return Outcome(_reason(error), str(error))
    except Exception as error:
        return Outcome("crash", f"{type(error).__name__}: {error}")
    try:
        case.check(prepared.run)
    except Error as error:
        return Outcome(_reason(error), str(error))
    except AssertionError as error:
        return Outcome("wrong", str(error))
    return Outcome("host" if prepared.compiled.report.hosts else "native")


def with_constants(case: SuiteCase) -> SuiteCase | None:
    """The test with its small integer inputs, the first input excepted, as initializers; None if there are none.

    That is how models have axes, shapes and pads; ONNX's tests give them when they run.
    """
    if len(case.data) != 1 or len(case.data[0][0]) != len(case.model.graph.input):
        return None
    given, wanted = case.data[0]
    fixed = {
        info.name: array
        for info, array in list(zip(case.model.graph.input, given))[1:]
        if isinstance(array, np.ndarray) and array.dtype == np.int64 and array.ndim <= 1
    }
    if not fixed:
        return None
    model = ModelProto.FromString(case.model.SerializeToString())
    kept = [(info, array) for info, array in zip(model.graph.input, given) if info.name not in fixed]
    del model.graph.input[:]
    model.graph.input.extend(info for info, _ in kept)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in fixed.items())
    return replace(case, model=model, data=[([array for _, array in kept], wanted)])


def with_symbols(case: SuiteCase) -> SuiteCase | None:
    """The test with a symbol for every dim of its inputs; None if they have no dims."""
    model = ModelProto.FromString(case.model.SerializeToString())
    initialized = {tensor.name for tensor in model.graph.initializer}
    count = 0
    for info in model.graph.input:
        if info.name in initialized or info.type.WhichOneof("value") != "tensor_type":
            continue
        for dim in info.type.tensor_type.shape.dim:
            dim.dim_param = f"D{count}"
            count += 1
    for info in model.graph.output:
        if info.type.WhichOneof("value") == "tensor_type":
            info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return replace(case, model=model) if count else None


def onnxruntime_passes(case: SuiteCase) -> bool:
    """Whether onnxruntime alone, given the model as it is, passes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [spec.name for spec in session.get_inputs()]
        case.check(lambda given: session.run(None, dict(zip(names, given))))
    except Exception:  # its own exceptions and failed comparisons alike
        return False
    return True


def _reason(error: Error) -> str:
    """Why, in few words: the error's code and what its message is about."""
    message = str(error)
    if error.code == "NEUC-E255":
        about = next((name for name, text in _TYPES.items() if text in message), "other types")
    else:
        about = next((name for name, pattern in _PATTERNS.items() if re.search(pattern, message)), "")
    return f"{error.code} {about}".strip()


def _loaded(case: TestCase) -> SuiteCase:
    if case.model is not None and case.data_sets is not None:
        data = [([_array(v) for v in given], [_array(v) for v in wanted]) for given, wanted in case.data_sets]
        return SuiteCase(case.name, case.model, data, case.rtol, case.atol)
    folder = Path(case.model_dir or "")
    model = onnx.load(folder / "model.onnx")
    stored = sorted(folder.glob("test_data_set*"))
    data = [(_read(f, "input", model.graph.input), _read(f, "output", model.graph.output)) for f in stored]
    return SuiteCase(case.name, model, data, case.rtol, case.atol)


def _array(value: Any) -> Any:
    value = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
    return np.asarray(value) if isinstance(value, np.generic) else value


def _read(folder: Path, kind: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    values: list[Any] = []
    for index, info in enumerate(infos):
        file = folder / f"{kind}_{index}.pb"
        if not file.exists():  # an initializer listed as an input
            continue
        data = file.read_bytes()
        match info.type.WhichOneof("value"):
            case "sequence_type":
                values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
            case "optional_type":
                values.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(data)))
            case _:
                values.append(numpy_helper.to_array(TensorProto.FromString(data)))
    return values
