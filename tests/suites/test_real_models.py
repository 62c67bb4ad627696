"""Trained models end to end: what runs natively, and results equal to onnxruntime's on several shapes of one artifact.

``NEUC_TEST_MODELS`` names a folder that holds, at any depth: ``model_v8.onnx`` (speech quality, convolutions),
``minilm.onnx`` (sentence embedding), ``silero_vad_16k_sequence.onnx`` (voice activity, LSTM) and
``ch_ppocr_mobile_v2.0_cls_mobile.onnx`` (text direction, MobileNetV3). Those that are missing are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import neuc
from neuc.compiler.checking import check_model
from neuc.compiler.options import CompileOptions

pytestmark = pytest.mark.slow

FOLDER = "NEUC_TEST_MODELS"
SPEECH, TEXT, VOICE, DIRECTION = (
    "model_v8.onnx",
    "minilm.onnx",
    "silero_vad_16k_sequence.onnx",
    "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
)
TARGETS = ("cpu", "cpu-tl2", "cpu-ref")

RELATIVE_ERROR = 1e-4
"""Largest difference over largest result: about 1000 roundings of float32, which deep networks amplify."""
SIGMOID_ERROR = 2.0**-22
"""onnxruntime's sigmoid is a quotient of polynomials, right to two steps of float32 at 1 and no better near 0."""
NATIVE_SHARE = 0.8

Feeds = Mapping[str, np.ndarray]


def path_of(name: str) -> Path:
    folder = os.environ.get(FOLDER)
    if not folder:
        pytest.skip(f"{FOLDER} names no folder of models")
    found = sorted(Path(folder).rglob(name))
    if not found:
        pytest.skip(f"no {name} in {folder}")
    return found[0]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sentence(batch: int, length: int) -> Feeds:
    ids = np.random.default_rng(length).integers(0, 1000, (batch, length))
    mask = np.ones_like(ids)
    mask[1:, length // 2 + 1 :] = 0  # shorter sentences than the first
    return {"input_ids": ids, "attention_mask": mask}


def voice(steps: int) -> Feeds:
    return {"input": normal(1, steps, 576) / 10, "h": normal(2, 1, 1, 128), "c": normal(3, 1, 1, 128)}


INPUTS: Mapping[str, Sequence[Feeds]] = {
    SPEECH: [{"input_1": normal(0, batch, 900, 120)} for batch in (1, 3)],
    TEXT: [sentence(batch, length) for batch, length in ((1, 1), (1, 7), (3, 33), (2, 128))],
    VOICE: [voice(steps) for steps in (1, 10, 60)],
    DIRECTION: [{"x": normal(0, n, 3, h, w)} for n, h, w in ((1, 48, 192), (3, 48, 192), (2, 80, 161))],
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [SPEECH, TEXT])
def test_compiles_without_host_nodes(name: str, target: str) -> None:
    compiled = neuc.compile(path_of(name), target, fallback="error", quantize="none" if target == "cpu-ref" else None)
    assert compiled.report.hosts == []
    assert compiled.report.native_share == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [VOICE, DIRECTION])
def test_most_of_the_work_is_native_and_the_rest_is_listed(name: str, target: str) -> None:
    checked = check_model(path_of(name), CompileOptions(target=target))
    assert checked.native_share is not None
    assert checked.native_share >= NATIVE_SHARE
    assert all(node.name and node.op_type and node.reason for node in checked.nodes)
    assert bool(checked.nodes) or checked.native_share == 1


@pytest.mark.parametrize("isa", ["host", "avx2", "portable", "scalar"])
@pytest.mark.parametrize("name", [SPEECH, TEXT, VOICE, DIRECTION])
def test_float_results_are_those_of_onnxruntime(name: str, isa: str) -> None:
    path = path_of(name)
    reference = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    target, isa = ("cpu-ref", "host") if isa == "scalar" else ("cpu", isa)
    compiled = neuc.compile(path, target, quantize="none", isa=isa)
    for threads in (1, 2):
        with compiled.session(threads=threads) as session:
            for feeds in INPUTS[name]:
                check_equal(session.run(None, dict(feeds)), reference.run(None, dict(feeds)))


def check_equal(got: Sequence[np.ndarray], expected: Sequence[object]) -> None:
    for ours, theirs in zip(got, map(np.asarray, expected), strict=True):
        assert ours.dtype == theirs.dtype
        tolerance = RELATIVE_ERROR * np.abs(theirs).max(initial=0) + SIGMOID_ERROR
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
