"""Weights fitted to spikes: what a fit is aimed at, that it helps on other samples, and that it leaves well alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import f32
from xdsl.ir import Block, Operation, SSAValue

import neuc
from neuc.compiler.snn import front, refit
from neuc.compiler.snn.calibrate import calibrate
from neuc.compiler.snn.recipes import recipe_of
from neuc.compiler.snn.simulate import FEW, Simulation, affordable
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.store import constant_value, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from snn_models import cnn, inputs

WIDE, OUT = 12, 5


def _product(weight: np.ndarray, bias: np.ndarray) -> tuple[MatMulOp, WeightStore]:
    store = WeightStore()
    x = Block(arg_types=[tensor_type(f32, ["N", str(WIDE)])])
    constants = [make_constant(name, array, store) for name, array in (("w", weight), ("b", bias))]
    x.add_ops(constants)
    op = MatMulOp(x.args[0], constants[0].result, constants[1].result, tensor_type(f32, ["N", str(OUT)]))
    x.add_op(op)
    return op, store


def _data(rows: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, what quantisation makes of them, weights and biases."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.standard_normal((rows, WIDE))).astype(np.float32)
    w, b = rng.standard_normal((WIDE, OUT)).astype(np.float32), rng.standard_normal(OUT).astype(np.float32)
    return x, np.minimum(np.floor(x * 3) / 3, 1.5).astype(np.float32), w, b


def _error(op: MatMulOp, store: WeightStore, x: np.ndarray, wanted: np.ndarray) -> float:
    w, b = constant_value(op.b, store), constant_value(op.operands[2], store)
    assert w is not None
    assert b is not None
    return float(np.mean((np.maximum(x @ w + b, 0) - np.maximum(wanted, 0)) ** 2))


@pytest.mark.parametrize("rectified", [False, True])
def test_fitted_weights_have_less_error_on_other_samples(rectified: bool):
    x, rough, w, b = _data()
    truth = x @ w + b
    op, store = _product(w, b)
    before = _error(op, store, rough[400:], truth[400:])
    made = refit.refit(op, rough[:400], refit.Target(truth[:400], None, rectified), store, np.random.default_rng(0))
    assert len(made) == 2
    assert _error(op, store, rough[400:], truth[400:]) < 0.6 * before


def test_in_front_of_relus_the_fit_is_better_where_it_counts():
    x, rough, w, b = _data()
    truth = x @ w + b
    errors = []
    for rectified in (False, True):
        op, store = _product(w, b)
        refit.refit(op, rough[:400], refit.Target(truth[:400], None, rectified), store, np.random.default_rng(0))
        errors.append(_error(op, store, rough[400:], truth[400:]))
    assert errors[1] < errors[0]


def test_what_is_added_behind_is_made_up_for():
    x, _, w, b = _data()
    shortcut, off = np.float32(0.5) * x[:, :OUT], np.full((len(x), OUT), 0.4, np.float32)
    target = refit.Target(x @ w + b + shortcut, shortcut + off)
    op, store = _product(w, b)
    refit.refit(op, x, target, store, np.random.default_rng(0))
    bias = constant_value(op.operands[2], store)
    assert bias is not None
    np.testing.assert_allclose(bias, b - 0.4, atol=0.02)  # a ridge holds weights back a little


def test_exact_inputs_change_nothing():
    x, _, w, b = _data()
    op, store = _product(w, b)
    assert refit.refit(op, x, refit.Target(x @ w + b), store, np.random.default_rng(0)) == []


def test_what_helps_on_the_same_images_alone_is_not_taken():
    """Many places of three images: weights fitted to them are wrong for a fourth, as the held-out one shows."""
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((WIDE, OUT)).astype(np.float32), rng.standard_normal(OUT).astype(np.float32)
    images = rng.standard_normal((3, 1, WIDE)) * 3 + 0.1 * rng.standard_normal((3, 200, WIDE))
    off = np.repeat(rng.standard_normal((3, 1, OUT)), 200, axis=1)  # what differs from image to image
    x = images.astype(np.float32)
    op, store = _product(w, b)
    assert refit.refit(op, x, refit.Target(x @ w + b + off), store, np.random.default_rng(0)) == []


def _calibrated(samples: int) -> tuple[front.Marked, dict[str, np.ndarray]]:
    recipe = recipe_of("a")
    marked = front.mark(cnn(), recipe)
    x = inputs(cnn(), samples)
    done = calibrate(marked.module, marked.context.weights, [x], ["x"], recipe, 4, refit=True)
    seen: dict[str, np.ndarray] = {}
    run = Simulation(marked.module, marked.context.weights, recipe, 4, original=done.original)
    run.visit = lambda site, _current, exact: seen.update({site.name: exact} if exact is not None else {})
    run.run([x[:8]])
    assert done.refitted
    return marked, seen


def test_the_float_network_beside_a_fitted_one_keeps_its_weights():
    """Errors of layers are those against the network that was converted, not against its fitted weights."""
    marked, seen = _calibrated(24)
    fresh = marked.remarked(recipe_of("a"))
    exact: dict[str, np.ndarray] = {}
    calibrate(fresh.module, fresh.context.weights, [inputs(cnn(), 24)], ["x"], recipe_of("a"), 4, "max")
    run = Simulation(fresh.module, fresh.context.weights, recipe_of("a"), 4)
    run.visit = lambda site, _current, found: exact.update({site.name: found} if found is not None else {})
    run.run([inputs(cnn(), 24)[:8]])
    assert seen.keys() == exact.keys()
    for name, found in seen.items():
        np.testing.assert_array_equal(found, exact[name])


def test_products_behind_all_neurons_are_told_apart():
    marked = front.mark(cnn(), recipe_of("a"))
    products = [op for op in marked.module.walk() if isinstance(op, ConvOp | MatMulOp)]
    assert [refit.reads_out(op) for op in products] == [False] * (len(products) - 1) + [True]


def test_wide_read_outs_are_fitted_on_all_inputs(monkeypatch: pytest.MonkeyPatch):
    rows: list[int] = []
    original = refit.refit

    def spy(op: Operation, x: np.ndarray, *rest: Any) -> list[tuple[SSAValue, np.ndarray]]:
        if isinstance(op, MatMulOp):
            rows.append(len(x))
        return original(op, x, *rest)

    monkeypatch.setattr(refit, "refit", spy)
    monkeypatch.setattr("neuc.compiler.snn.calibrate.LEAST_INPUTS", 16)
    monkeypatch.setattr("neuc.compiler.snn.calibrate.MOST_INPUTS", 16)
    model = neuc.convert_to_snn(cnn(), inputs(cnn(), 40), recipe="a", steps=4)
    assert rows == [40]
    assert model.report.calibration.original  # operations, which a report leaves out
    assert json.loads(json.dumps(model.report.as_json()))["refitted"]


def test_memory_bounds_inputs_by_what_changes_over_the_steps():
    module = front.mark(cnn(), recipe_of("b")).module
    first = affordable(module, 1)
    assert affordable(module, 4) == first  # the first convolution, of 4 times as many numbers as neurons, runs once
    assert affordable(module, 8) == first // 2
    steps = 4 * first // FEW
    assert affordable(module, steps) == FEW
    assert affordable(module, 2 * steps) == FEW  # few inputs may take more
    assert affordable(module, 8 * steps) == FEW // 2
    assert affordable(module, 1024 * steps) == 1
