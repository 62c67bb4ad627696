"""ONNX's own backend suite on compiled code: every test does what `onnx_suite.json` says, no worse and no better.

The manifest lists the tests that pass natively, those that pass with nodes in onnxruntime, and those that fail, by
reason; ``--update-golden`` writes it. Nobody may put ``wrong`` or ``crash`` there unless onnxruntime fails as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest

import onnx_suite

MANIFEST = Path(__file__).with_name("onnx_suite.json")
PASSES = ("native", "host")
TOO = ", as in onnxruntime"
"""Said of failures that are onnxruntime's, too, when it is given the model as it is."""

PER_OPERATOR = 2
QUICK = {
    "Add": "",
    "AveragePool": "",
    "BatchNormalization": "batch_normalization",
    "Cast": "",
    "Clip": "",
    "Concat": "",
    "Conv": "",
    "Gather": "",
    "Gelu": "",
    "Gemm": "",
    "GRU": "",
    "LSTM": "",
    "LayerNormalization": "",
    "LeakyRelu": "",
    "MatMul": "",
    "NonZero": "",
    "Pad": "",
    "QuantizeLinear": "",
    "Resize": "",
    "SequenceInsert": "sequenceinsert",
    "Shape": "",
    "Softmax": "",
    "StringNormalizer": "stringnormalizer",
    "Transpose": "",
    "Where": "",
}
"""Operators of every family, with the file their tests are in if it is not named like them."""


@lru_cache(maxsize=1)
def manifest() -> dict[str, str]:
    """Test name -> what becomes of it."""
    listed = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return {name: how for how, names in listed.items() for name in names}


def difference(name: str, found: onnx_suite.Outcome) -> str:
    """How an outcome differs from the manifest; empty if it does not."""
    expected = manifest().get(name, "not listed").removesuffix(TOO)
    if found.how == expected:
        return ""
    return f"{name}: expected {expected}, found {found.how} {' '.join(found.message.split())[:300]}"


@pytest.mark.parametrize("operator", QUICK)
def test_some_tests_of_an_operator(operator: str) -> None:
    cases = onnx_suite.cases_of(operator, QUICK[operator])
    cases = cases[:: -(-len(cases) // PER_OPERATOR)]
    assert [d for case in cases if (d := difference(case.name, onnx_suite.outcome(case)))] == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "cpu-ref"])
def test_the_whole_suite(target: str, request: pytest.FixtureRequest) -> None:
    found: dict[str, onnx_suite.Outcome] = {}
    listed: dict[str, list[str]] = {how: [] for how in PASSES}
    for case in onnx_suite.all_cases():
        result = found[case.name] = onnx_suite.outcome(case, target=target)
        too = TOO if result.how not in PASSES and not onnx_suite.onnxruntime_passes(case) else ""
        listed.setdefault(result.how + too, []).append(case.name)
    if request.config.getoption("--update-golden") and target == "cpu":
        ordered = dict(sorted(listed.items(), key=lambda item: (item[0] not in PASSES, item[0])))
        MANIFEST.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        manifest.cache_clear()
    assert [d for name, result in found.items() if (d := difference(name, result))] == []
    assert sorted(manifest().keys() - found.keys()) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", [onnx_suite.with_constants, onnx_suite.with_symbols])
def test_the_suite_in_another_form(form: Callable[[onnx_suite.SuiteCase], onnx_suite.SuiteCase | None]) -> None:
    """What passes as it is passes with constant shapes and with symbolic dims, too, unless onnxruntime fails then."""
    tried, worse = 0, dict[str, str]()
    for case in onnx_suite.all_cases():
        other = form(case) if manifest().get(case.name) in PASSES else None
        if other is None:
            continue
        tried += 1
        result = onnx_suite.outcome(other)
        if result.how == "crash" or (result.how not in PASSES and onnx_suite.onnxruntime_passes(other)):
            worse[case.name] = f"{result.how} {result.message}"
    assert worse == {}
    assert tried > 300


def test_no_wrong_result_and_no_crash_is_ours() -> None:
    ours = {how for how in manifest().values() if not how.endswith(TOO)}
    assert not {how for how in ours if how.startswith(("wrong", "crash"))}


def test_most_of_the_suite_passes() -> None:
    counts = {how: sum(1 for h in manifest().values() if h == how) for how in PASSES}
    assert len(manifest()) >= 2000
    assert counts["native"] >= 700
    assert counts["native"] + counts["host"] >= 1400
