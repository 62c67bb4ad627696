"""The digits classifier runs losslessly from every form that tools write, on every CPU target.

Its ternary layers are recognised, not quantised; integer sums are numpy's, which knows only the trained parameters;
logits are onnxruntime's for the model in fp32. Files and data are in `examples/digits`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from _pytest.mark.structures import ParameterSet
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr

import neuc
from neuc.backends.cpu.emit import emit
from neuc.backends.cpu.target import TARGETS, is_cpu_target
from neuc.compiler import pipeline
from neuc.compiler.api import compile_model
from neuc.compiler.options import CompileOptions
from neuc.dialects import lut, ternary
from neuc.dialects.onnx_base import NAME
from neuc.passes.tile_lut import TileLut
from neuc.runtime.session import Session
from qonnx_reference import evaluate

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
REFERENCE = {"ternary": "fake_quant", "mixed": "mixed", "binary": "binary"}
"""Kind of model -> the file that onnxruntime runs in fp32."""
KINDS = {
    **dict.fromkeys(
        "fake_quant_ste fake_quant hf_packed hf_unpacked qonnx_quant qonnx_int_quant int2_qdq qcdq matmul_2bit "
        "matmul_4bit".split(),
        "ternary",
    ),
    "mixed": "mixed",
    "binary": "binary",
    "binary_qonnx": "binary",
}
"""Form -> kind of model."""
QUICK_REPORTS = {
    ("fake_quant_ste", "cpu-tl2"),
    ("qonnx_quant", "cpu"),
    ("int2_qdq", "cpu-tl2"),
    ("int2_qdq", "cpu"),
    ("int2_qdq", "cpu-ref"),
    ("mixed", "cpu-tl2"),
}
QUICK_SUMS = {*((form, "cpu-tl2") for form in KINDS), ("int2_qdq", "cpu")}
"""What the default suite tries; the slow one tries all forms on all targets."""

TOLERANCE = 1e-5
"""Of a logit, all of which are below 6. In the reference's last layer 64 products of size 1, summed in f32, may be off
by 64 · 2^-24 of the sum of their magnitudes, about 4e-6 · 6; no activation is rounded differently."""


@lru_cache(maxsize=1)
def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Images f32 [450, 64] and labels."""
    with np.load(DIGITS / "held_out.npz") as arrays:
        return arrays["images"].astype(np.float32), arrays["labels"]


def model_path(form: str) -> Path:
    return DIGITS / "models" / f"{form}.onnx"


@lru_cache
def reference(kind: str) -> np.ndarray:
    """Logits f32 [450, 10] by onnxruntime from plain fp32 operators."""
    session = onnxruntime.InferenceSession(model_path(REFERENCE[kind]), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": held_out()[0]})[0])


def close(logits: object, kind: str) -> None:
    """Compare logits with those of the model in fp32."""
    assert isinstance(logits, np.ndarray)
    np.testing.assert_allclose(logits, reference(kind), rtol=0, atol=TOLERANCE)


@lru_cache
def numpy_sums(kind: str) -> list[np.ndarray]:
    """Integer sums [450, N] of every quantised layer, from the trained parameters in f64."""
    prefix = f"{kind}."
    with np.load(DIGITS / "parameters.npz") as arrays:
        p = {k.removeprefix(prefix): arrays[k].astype(np.float64) for k in arrays if k.startswith(prefix)}
    x, sums = held_out()[0].astype(np.float64), list[np.ndarray]()
    layers = sorted({int(key.partition(".")[0]) for key in p})
    for index in layers:
        w = p[f"{index}.weight"]
        if f"{index}.norm.weight" in p:
            x = rms_norm(x, p[f"{index}.norm.weight"])
            a = 127 / np.abs(x).max(1, keepdims=True)
            mean = np.abs(w).mean()
            levels = np.sign(w - w.mean()) if kind == "binary" else np.clip(np.rint(w / mean), -1, 1)
            sums.append(np.clip(np.rint(x * a), -128, 127) @ levels.T)
            x = sums[-1] / a * mean
        elif f"{index}.bias" in p:
            x = x @ w.T + p[f"{index}.bias"]
        else:
            x = rms_norm(x, w)
            continue
        x = x if index == layers[-1] else np.maximum(x, 0)
    return sums


def rms_norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6) * gain


def with_sums(form: str, target: str) -> list[np.ndarray]:
    """Logits, then the int32 accumulators of every ternary layer, from one compiled program that gives them all."""
    options = CompileOptions(target=target, quantize="none")
    compiled = compile_model(model_path(form), options, to_level="paradigm")
    passes = pipeline.choose_target(options).passes()
    tiled = next(i for i, step in enumerate(passes) if isinstance(step, TileLut)) + 1
    for step in passes[:tiled]:
        step.apply(compiled.context, compiled.module)
    (segment,) = (op for op in compiled.module.ops if isinstance(op, func.FuncOp) and is_cpu_target(op))
    last = segment.body.block.last_op
    assert isinstance(last, func.ReturnOp)
    found = [op.results[0] for op in segment.walk() if isinstance(op, lut.AccumulateOp | ternary.AccumulateOp)]
    last.operands = [*last.operands, *found]
    inputs, outputs = segment.body.block.arg_types, last.operand_types
    main = func.FuncOp("main", (list(inputs), list(outputs)), segment.detach_region(segment.body))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("pixels")})])
    names = ["logits", *(f"sums{i}" for i in range(len(found)))]
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr(name)}) for name in names])
    module = ModuleOp([main])
    for step in (pipeline.partition_pass(options, pipeline.choose_target(options)), *passes[tiled:]):
        step.apply(compiled.context, module)
    made = emit(module, compiled.context.weights)
    with Session.from_parts(made.program, made.kernels, made.arrays(), threads=2) as session:
        return [result.copy() for result in session.run(None, {"pixels": held_out()[0]})]


def crossed(quick: set[tuple[str, str]]) -> list[ParameterSet]:
    """All forms with all targets, slow unless `quick`."""
    return [
        pytest.param(form, target, marks=() if (form, target) in quick else pytest.mark.slow)
        for form in KINDS
        for target in TARGETS
    ]


@pytest.mark.parametrize(("form", "target"), crossed(QUICK_REPORTS))
def test_layers_are_recognised_and_logits_are_those_of_fp32(form: str, target: str) -> None:
    pixels, labels = held_out()
    # Layers that are recognised are not fitted, whatever the target's default; those chosen to be float would be.
    quantize = "none" if form == "mixed" else None
    compiled = neuc.compile(model_path(form), target, quantize=quantize, fallback="error")
    rows = compiled.report.layers
    expected = [False, True, False] if form == "mixed" else [True] * 3
    assert [row.ternary for row in rows] == expected
    levels = 2 if KINDS[form] == "binary" else 3
    for row in rows:
        if row.ternary:
            assert (row.planes, row.scale) == (1, "tensor")
            assert row.note.startswith(f"recognised, {levels} levels, exact")
    with compiled.session(threads=2) as session:
        (logits,) = session.run(None, {"pixels": pixels})
    close(logits, KINDS[form])
    assert np.mean(logits.argmax(1) == labels) == np.mean(reference(KINDS[form]).argmax(1) == labels)


@pytest.mark.parametrize(("form", "target"), crossed(QUICK_SUMS))
def test_integer_sums_are_numpys(form: str, target: str) -> None:
    logits, *sums = with_sums(form, target)
    wanted = numpy_sums(KINDS[form])
    assert [s.dtype for s in sums] == [np.int32] * len(wanted)
    for found, exact in zip(sums, wanted, strict=True):
        np.testing.assert_array_equal(found[:, 0, :], exact)
    close(logits, KINDS[form])
    # Asked for, sums are in memory; else they stay in registers, and nothing else may change.
    with neuc.compile(model_path(form), target, quantize="none").session(threads=2) as session:
        np.testing.assert_array_equal(session.run(None, {"pixels": held_out()[0]})[0], logits)


@pytest.mark.parametrize("kind", REFERENCE)
def test_the_models_are_good(kind: str) -> None:
    assert np.mean(reference(kind).argmax(1) == held_out()[1]) >= 0.97


@pytest.mark.parametrize("form", [form for form in KINDS if "qonnx" in form])
def test_qonnx_files_say_the_same_by_their_definition(form: str) -> None:
    (logits,) = evaluate(onnx.load(model_path(form)), {"pixels": held_out()[0]})
    close(logits, KINDS[form])


@pytest.mark.parametrize("form", [form for form in KINDS if "qonnx" not in form])
def test_onnxruntime_says_the_same_of_the_other_files(form: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model_path(form), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": held_out()[0]})
    close(logits, KINDS[form])


def test_the_same_layer_stays_float_where_recognition_is_off() -> None:
    compiled = neuc.compile(model_path("int2_qdq"), "cpu", recognize=False)
    assert [row.ternary for row in compiled.report.layers] == [False] * 3
    with compiled.session(threads=1) as session:
        (logits,) = session.run(None, {"pixels": held_out()[0]})
    close(logits, "ternary")
