"""ONNX's own node tests through import, lowering and the interpreter: those in the manifest must go on passing.

A case counts as passing when no node stays behind and every output is right. Integer inputs that say how (axes, shapes,
pads …) are made constants first, as they are in models. ``--update-golden`` writes the manifest.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx import OnnxOp
from neuc.errors import Error, InternalError
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense
from neuc.passes.onnx_lowerings.registry import lowered_operators

MANIFEST = Path(__file__).with_name("onnx_nodes_dense.txt")
# ONNX's default for these tests is rtol 1e-3, atol 1e-7; exp and erf near 0 differ by some f32 units of 1.
ATOL = 1e-6


@dataclass(frozen=True)
class Case:
    """One test: a model, inputs and outputs."""

    name: str
    model: ModelProto
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    rtol: float


def _arrays(values: list[object]) -> list[np.ndarray] | None:
    found: list[np.ndarray] = []
    for value in values:
        array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
        if not isinstance(array, np.ndarray | np.generic):
            return None  # sequences and optionals
        found.append(np.asarray(array))
    return found


def cases() -> Iterator[Case]:
    """Every node test that has an operator with a lowering."""
    from onnx.backend.test.loader import load_model_tests

    known = {op for _, op in lowered_operators()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = load_model_tests(kind="node")
    for case in collected:
        model = case.model
        if model is None or not {node.op_type for node in model.graph.node} & known:
            continue
        for inputs, outputs in case.data_sets or ():
            given, expected = _arrays(list(inputs)), _arrays(list(outputs))
            if given is not None and expected is not None:
                yield with_constants(Case(case.name, model, given, expected, max(case.rtol, 1e-4)))


def with_constants(case: Case) -> Case:
    """The case with its small int64 inputs, the first input excepted, as initializers."""
    model, kept, inputs = onnx.ModelProto(), list[onnx.ValueInfoProto](), list[np.ndarray]()
    model.CopyFrom(case.model)
    for index, (value, array) in enumerate(zip(model.graph.input, case.inputs)):
        if index and array.dtype == np.int64 and array.ndim <= 1:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            kept.append(value)
            inputs.append(array)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return Case(case.name, model, inputs, case.outputs, case.rtol)


def failure(case: Case) -> str:
    """Why `case` does not pass; empty if it does."""
    context = new_context()
    try:
        module = import_onnx(case.model, context)
    except Error as error:
        return str(error)
    LowerOnnxToDense().apply(context, module)
    module.verify()
    for op in module.walk():
        if isinstance(op, OnnxOp):
            return f"{op.op_type} stays"
    try:
        found = interpret(module, case.inputs, context.weights)
        for result, wanted in zip(found, case.outputs, strict=True):
            assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_allclose(result, wanted, rtol=case.rtol, atol=ATOL)
    except (AssertionError, Error, InternalError) as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def manifest() -> frozenset[str]:
    return frozenset(MANIFEST.read_text(encoding="utf-8").split())


@pytest.mark.slow
def test_the_manifest_passes(request: pytest.FixtureRequest) -> None:
    results = {case.name: failure(case) for case in cases()}
    passing = sorted(name for name, why in results.items() if not why)
    if request.config.getoption("--update-golden"):
        MANIFEST.write_text("\n".join(passing) + "\n", encoding="utf-8")
    broken = {name: results.get(name, "no such test") for name in manifest() if results.get(name, "gone")}
    assert broken == {}
    assert set(passing) == manifest(), "some tests started passing: run with --update-golden"


def test_the_manifest_is_not_small() -> None:
    assert len(manifest()) >= 700
