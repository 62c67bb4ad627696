"""`--tune`: candidates compute the layer they stand for, the fastest is chosen, and figures are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.utils.exceptions import VerifyException

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.target import host_isa
from neuc.compiler import layer_timing
from neuc.compiler.compilation import Compilation
from neuc.compiler.driver import Driver
from neuc.compiler.layer_timing import Candidate, Shape
from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import choose_target
from neuc.compiler.tuning import FEW, MANY, candidates, tune
from neuc.dialects.context import NeucContext
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary import LinearOp, PackOp, QuantizeOp
from neuc.dialects.ternary_types import ScaleAttr, TritsType
from neuc.dialects.ternary_weights import make_weight
from neuc.errors import Error, Exit
from neuc.passes.choose_encoding import CHOICE, WHY
from neuc.passes.tile_lut import TileLut

TERNARY = (-1, 0, 1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        layer_timing, "last_cache", lambda: 20_000
    )  # copies of weights that exceed it take no time to make


def model(rows: int | str = "B", levels: tuple[int, ...] = TERNARY) -> tuple[ModuleOp, NeucContext]:
    """Two layers of one shape."""
    context, random = NeucContext(), np.random.default_rng(1)
    function = FuncOp("main", ([tensor_type(f32, [rows, 40])], []))
    block = function.body.block
    codes = QuantizeOp(block.args[0])
    block.add_op(codes)
    results = []
    for _ in range(2):
        trits = random.choice(np.array(levels, np.int8), (1, 24, 40))
        scales, row = np.ones((1, 24, 1), np.float32), ScaleAttr.of("row")
        weight = make_weight("w", trits, scales, context.weights, scale=row, levels=levels)
        linear = LinearOp(codes.q, codes.s, weight.result)
        block.add_ops([weight, linear])
        results.append(linear.result)
    block.add_op(ReturnOp(*results))
    function.update_function_type()
    return ModuleOp([function]), context


def choices(module: ModuleOp) -> list[str]:
    found = []
    for op in module.walk():
        choice = op.attributes.get(CHOICE)
        if isinstance(choice, DictionaryAttr):
            encoding = choice.data["encoding"]
            assert isinstance(encoding, StringAttr)
            found.append(encoding.data)
    return found


@pytest.mark.parametrize("encoding", ["i2", "t5", "tl2", "tl1"])
@pytest.mark.parametrize(("scale", "planes"), [(ScaleAttr.of("row"), 1), (ScaleAttr.of("group", 48), 2)], ids=str)
@pytest.mark.parametrize("tokens", [1, 20])
def test_candidates_compute_the_layer(encoding: str, scale: ScaleAttr, planes: int, tokens: int) -> None:
    trits = TritsType.of(70, 130, scale, planes)
    candidate = Candidate(Shape(trits, tokens, cached=False), encoding, host_isa())
    random = np.random.default_rng(0)
    q = random.integers(-127, 128, tokens * 130 + 64).astype(np.int8)[: tokens * 130].reshape(tokens, 130)
    weights = random.choice(np.array(TERNARY, np.int8), (planes, 70, 130))
    expected = q.astype(np.float32) @ weights.sum(axis=0).astype(np.float32).T * np.float32(0.5)
    for _ in range(3):  # on several copies of the weights
        candidate.y[...] = np.nan
        candidate()
        np.testing.assert_array_equal(candidate.y, expected)


def test_measures_what_holds_the_levels() -> None:
    trits = TritsType.of(32, 64, ScaleAttr.of("row"), 1, (-3, -1, 1, 3))
    times = layer_timing.measure(Shape(trits, 1, cached=True), ("i2", "t5"), host_isa())
    assert list(times) == ["i2"]
    assert times["i2"] > 0
    with pytest.raises(VerifyException, match="t5"):
        Candidate(Shape(trits, 1, cached=True), "t5", host_isa())


def test_the_fastest_is_chosen_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Shape] = []

    def measure(shape: Shape, encodings: tuple[str, ...], isa: Isa) -> dict[str, float]:
        asked.append(shape)
        return {"i2": 2e-6, "t5": 1e-6} if shape.tokens == FEW else {"i2": 10e-6, "t5": 12e-6}

    monkeypatch.setattr(layer_timing, "measure", measure)
    isa = host_isa()
    module, context = model()
    assert tune(module, ("i2", "t5"), isa) == 2
    assert [shape.tokens for shape in asked] == [FEW, MANY]  # both layers have one shape
    assert choices(module) == ["t5", "t5"]
    again, _ = model()
    assert tune(again, ("i2", "t5"), isa) == 0
    assert choices(again) == choices(module)
    TileLut().apply(context, module)
    packs = [op for op in module.walk() if isinstance(op, PackOp)]
    assert {op.packed.encoding.kind.data for op in packs} == {"t5"}
    why = packs[0].attributes[WHY]
    assert isinstance(why, StringAttr)
    assert why.data == "measured in cache: i2 2.0, t5 1.0 us for 1 row; i2 10.0, t5 12.0 us for 64 rows"
    many, _ = model(rows=MANY)
    assert tune(many, ("i2", "t5"), isa) == 0
    assert choices(many) == ["i2", "i2"]


def test_a_choice_that_is_there_stays() -> None:
    module, _ = model()
    for op in module.walk():
        if isinstance(op, LinearOp):
            op.attributes[CHOICE] = DictionaryAttr({"encoding": StringAttr("i4")})
    assert tune(module, ("i2",), host_isa()) == 0
    assert choices(module) == ["i4", "i4"]


def test_targets_without_a_choice_are_refused() -> None:
    for target, isa, why in (
        ("cpu-t5", "host", "target cpu-t5 leaves no choice of encodings"),
        ("cpu", "neon", "this machine has no"),
    ):
        chosen = choose_target(CompileOptions(target=target, isa=isa))
        with pytest.raises(Error, match=why) as caught:
            candidates(chosen)
        assert caught.value.exit_code == Exit.USAGE


def test_the_report_says_what_was_measured() -> None:
    module, context = model()
    with_tuning = Compilation(
        Driver(module, context), CompileOptions(tune=True), choose_target(CompileOptions()), "m", False
    )
    with_tuning.run("machine")
    rows = with_tuning.report.layers
    assert len(rows) == 2
    assert all(row.why.startswith("measured in cache: i2 ") for row in rows)
    assert "tuned: 2 shapes measured, the others were known" in with_tuning.report.hints
