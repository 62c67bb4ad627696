"""A target of another paradigm: what it places runs in an executor of its own, the rest on the CPU, in one artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

import neuc
from neuc.backends import paradigm_target, placed
from neuc.backends.paradigm_target import ParadigmTarget, option_error
from neuc.backends.placed import PlacedProgram
from neuc.compiler import pipeline
from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import choose_target
from neuc.dialects.context import store_of
from neuc.dialects.dense_arithmetic import MatMulOp
from neuc.dialects.store import constant_value
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.module_facts import add_notes, keep_weights, set_fact
from neuc.passes.outlining import place
from neuc.runtime import executors
from neuc.runtime.artifact import Artifact
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.program import OtherSegment, Segment

EXECUTOR = "acme.multiplier"


@dataclass(frozen=True)
class PlaceProducts(ModulePass):
    """Put every product on a machine that multiplies, and scales by what it was told."""

    name = "place-products"

    gain: float = 1.0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Place them."""
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        for number, product in enumerate([o for o in main.body.block.ops if isinstance(o, MatMulOp)]):
            place(op, [product], f"product{number}", EXECUTOR)
        add_notes(op, "products are the multiplier's")
        set_fact(op, "acme", {"gain": self.gain})
        keep_weights(op, store_of(ctx).add("acme.calibration", np.arange(3, dtype=np.float32)))


def passes(options: Mapping[str, str]) -> Sequence[ModulePass]:
    try:
        return [PlaceProducts(float(options.get("gain", "1")))]
    except ValueError:
        raise option_error("acme", "gain", options["gain"], "a number") from None


def emit_product(function: func.FuncOp, module: ModuleOp, store: WeightStore) -> PlacedProgram:
    product = next(o for o in function.body.block.ops if isinstance(o, MatMulOp))
    weight = constant_value(product.b, store)
    assert weight is not None
    return PlacedProgram({"times": 2.0}, {"w": weight})


@dataclass
class Multiplier:
    weight: Array
    times: float

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        return [np.matmul(inputs[0], self.weight, dtype=np.float32) * np.float32(self.times)]


def make_multiplier(name: str, segment: Segment, setting: Setting) -> Multiplier:
    assert isinstance(segment, OtherSegment)
    times = segment.data["times"]
    assert isinstance(times, float)
    return Multiplier(setting.weights[f"{name}.w"], times)


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    target = ParadigmTarget("acme", "multiplies", f"{__name__}:passes", {"gain": "a number"})

    class Entry:
        def load(self) -> object:
            return target

    monkeypatch.setattr(paradigm_target, "_FAMILIES", ())
    monkeypatch.setattr(paradigm_target, "entry_points", lambda group: [Entry()] if group == "neuc.targets" else [])
    monkeypatch.setattr(paradigm_target, "import_module", lambda name: __import__("sys").modules[__name__])
    monkeypatch.setitem(placed._EMITTERS, EXECUTOR, f"{__name__}:emit_product")
    monkeypatch.setattr(placed, "import_module", lambda name: __import__("sys").modules[__name__])
    monkeypatch.setitem(executors._BUILT_IN, EXECUTOR, make_multiplier)


@pytest.fixture
def model() -> onnx.ModelProto:
    """relu(x + 1) @ w, twice its absolute value: work for the CPU before and after the machine."""
    text = """<ir_version: 10, opset_import: ["" : 20]>
    m (float[B, 3] x) => (float[B, 2] y)
    <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[1] one = {1}, float[1] two = {2}> {
        a = Add(x, one)
        b = Relu(a)
        c = MatMul(b, w)
        d = Abs(c)
        y = Mul(d, two)
    }"""
    return onnx.parser.parse_model(text)


X = np.array([[1, -5, 2], [0, 3, 4], [-1, 1, 1]], np.float32)
W = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
EXPECTED = np.abs(np.maximum(X + 1, 0) @ W * 2) * 2


@pytest.mark.usefixtures("acme")
def test_the_machine_runs_its_part(model: onnx.ModelProto, tmp_path: Path):
    compiled = neuc.compile(model, "acme{gain=3}")
    np.testing.assert_array_equal(compiled.session().run(None, {"x": X})[0], EXPECTED)
    assert compiled.report.target == "acme"
    assert "products are the multiplier's" in compiled.report.hints
    path = tmp_path / "m.neuc"
    compiled.save(path)
    session = neuc.load(path)
    np.testing.assert_array_equal(session.run(None, {"x": X[:1]})[0], EXPECTED[:1])
    artifact = Artifact.open(path)
    assert artifact.manifest["acme"] == {"gain": 3.0}
    np.testing.assert_array_equal(np.asarray(artifact.weights["acme.calibration"]), [0, 1, 2])


@pytest.mark.usefixtures("acme")
def test_a_placed_function_is_ir_like_any_other(model: onnx.ModelProto):
    compiled = neuc.compile(model, "acme")
    text = compiled.as_text("paradigm")
    assert "func.func private @product0" in text
    assert 'neuc.executor = "acme.multiplier"' in text
    assert text.count("func.call @product0") == 1


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(("target", "words"), [("acme{gian=3}", "gian"), ("acme{gain=x}", "gain=x"), ("acne", "acme")])
def test_options_are_checked_before_the_model(target: str, words: str):
    with pytest.raises(Error) as caught:
        pipeline.choose_target(CompileOptions(target=target))
    assert caught.value.code in ("NEUC-E001", "NEUC-E002")
    assert words in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("target", "said", "cure"),
    [
        ("npu-xdna2{float=bf16", "closing brace is missing", "float"),
        ("xbar-pcm{tile=64,tile=32}", "option tile stands there twice", "adc_bits"),
        ("", "the name is empty", "npu-xdna1"),
        ("npu-xdna2{columns=0}", "columns=0 makes no sense", "1 to 8"),
        ("npu-xdna2{machine=nothere.toml}", "makes no sense", "no such machine or file: nothere.toml; known: npu-dimc"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_in_its_own_options(target: str, said: str, cure: str):
    with pytest.raises(Error, match=said) as caught:
        choose_target(CompileOptions(target=target))
    assert cure in (caught.value.hint or "")


@pytest.mark.parametrize("machine", ["npu-northpole", "npu-loihi2", "npu-dimc"])
def test_machines_that_predict_are_said_to_be_no_targets(machine: str):
    with pytest.raises(Error, match=f"{machine} is a machine that neuc predicts times of, no target") as caught:
        pipeline.choose_target(CompileOptions(target=machine))
    assert caught.value.code == "NEUC-E001"
