"""Products on the array: every spread computes the specification's bits, and the cost model chooses well."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as every

import numpy as np
import pytest

from neuc.backends.npu.check.checker import violations
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.tiling import Product, candidates, choose_plans, product_cost
from neuc.dialects.interp.npu import run_graph
from neuc.errors import Error
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import OPERANDS, SPREADS, GemmPlan, blocks, tiled_weights
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.simulator import simulate

XDNA1 = find_machine("npu-xdna1")
XDNA2 = find_machine("npu-xdna2")
MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones: in small products, parts overlap that it adds up."""
SHAPES = ((420, 288, 128), (16, 384, 768), (576, 88, 44), (1, 200, 100))
FIXED = (64, 64, 64)
LEAST_GAIN = 1.4


def _operands(plan: GemmPlan, m: int, k: int, n: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """A [m, groups, k] and weights [groups, n, k] of the plan's types; floats are small bf16 numbers."""
    random = np.random.default_rng(7)
    if plan.operands == "bf16":
        a, b = (random.standard_normal(s).astype(np.float32) for s in ((m, groups, k), (groups, n, k)))
        return (a.view(np.uint32) >> 16).astype(np.uint16), (b.view(np.uint32) >> 16).astype(np.uint16)
    low = 1 if plan.operands == "ternary" else 127
    return random.integers(-127, 128, (m, groups, k), np.int8), random.integers(-low, low + 1, (groups, n, k), np.int8)


def _program(plan: GemmPlan, m: int, k: int, n: int, groups: int) -> tuple[Design, dict[str, np.ndarray]]:
    """The program for these sizes, and its buffers."""
    whole = blocks(plan, m, k, n)
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, groups)
    a, weights = _operands(plan, m, k, n, groups)
    padded = np.zeros((whole[0], groups, whole[1]), a.dtype)
    padded[:m, :, :k] = a
    return design, {"a": padded.reshape(whole[0], -1), "b": np.stack([tiled_weights(plan, w) for w in weights])}


@pytest.mark.parametrize(("spread", "operands"), list(every(SPREADS, OPERANDS)))
def test_every_spread_computes_what_the_specification_says(spread: str, operands: str):
    m, k, n, groups = 13, 20, 37, 2
    plan = GemmPlan(4, 8, 16, 2, 2, operands, spread)
    design, arrays = _program(plan, m, k, n, groups)
    run = simulate(design, XDNA1, arrays)
    assert run.deadlock is None
    np.testing.assert_array_equal(run.outputs["c"], run_graph(graph_of(checked(design)), arrays)["c"])
    a, weights = _operands(plan, m, k, n, groups)
    if operands != "bf16":
        expected = np.einsum("mgk,gnk->gmn", a.astype(np.int64), weights.astype(np.int64))
        np.testing.assert_array_equal(run.outputs["c"][:, :m, :n], expected)
    else:
        wide_a, wide_b = ((x.astype(np.uint32) << 16).view(np.float32) for x in (a, weights))
        exact = np.einsum("mgk,gnk->gmn", wide_a.astype(np.float64), wide_b.astype(np.float64))
        size = np.einsum("mgk,gnk->gmn", np.abs(wide_a, dtype=np.float64), np.abs(wide_b, dtype=np.float64))
        # Higham's bound for k additions in a row, each off by at most 2^-24.
        np.testing.assert_array_less(np.abs(run.outputs["c"][:, :m, :n] - exact), k * 2.0**-24 * size + 1e-30)


def test_bf16_sums_do_not_depend_on_tiles():
    made = []
    for tile, spread in (((4, 8, 16), "grid"), ((8, 24, 8), "down"), ((12, 40, 24), "across")):
        plan = GemmPlan(*tile, 2, 2, "bf16", spread)
        design, arrays = _program(plan, 11, 40, 21, 1)
        made.append(simulate(design, XDNA1, arrays).outputs["c"][0, :11, :21])
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


@pytest.mark.parametrize("spread", SPREADS)
def test_placed_programs_and_their_longer_sequences_break_no_rule(spread: str):
    plan = GemmPlan.on(XDNA1, (16, 96, 48), "ternary", spread)
    placed = block_program("npu-xdna1", plan)
    full = with_sizes(placed, plan, XDNA1, blocks(plan, 200, 300, 500), 2)
    assert violations(full, XDNA1) == []


@pytest.mark.parametrize("machine", [XDNA1, XDNA2], ids=lambda m: m.name)
def test_the_choice_is_faster_than_one_fixed_tile_and_predicted_right(machine):
    for shape in SHAPES:
        product = Product(*shape, operands="ternary")
        chosen = choose_plans(machine, (product,)).plans[0]
        cycles = {}
        for plan in (chosen, GemmPlan.on(machine, FIXED, "ternary")):
            cost = product_cost(plan, machine, product)
            run = simulate(
                with_sizes(gemm_graph(plan, machine, 1), plan, machine, blocks(plan, *shape)), machine, {}, values=False
            )
            cycles[plan] = run.cycles
            assert run.counts.ddr_bytes == cost.ddr_bytes
            assert MODEL_BAND[0] < cost.cycles / run.cycles < MODEL_BAND[1], (shape, plan)
        assert LEAST_GAIN * cycles[chosen] < cycles[GemmPlan.on(machine, FIXED, "ternary")], shape


def test_programs_change_only_where_that_pays():
    products = (Product(1024, 64, 64), Product(1, 64, 512), Product(1024, 64, 64), Product(1, 64, 512))
    dear = choose_plans(XDNA1, products)
    assert dear.switches == 0
    assert dear.seconds <= dear.one_program + 1e-12
    assert dear.seconds <= dear.own_programs
    free = choose_plans(replace(XDNA1, host={**XDNA1.host, "program_switch_us": 0.0}), products)
    assert free.seconds == pytest.approx(free.own_programs)
    assert free.switches == len(products)
    assert free.seconds < dear.seconds


def test_ternary_and_int8_layers_may_share_a_program():
    products = (Product(64, 64, 64, operands="ternary"), Product(64, 64, 64, operands="int8"))
    choice = choose_plans(XDNA1, products)
    assert {plan.operands for plan in choice.plans} == {"int8"}
    assert choice.switches == 0


def test_a_machine_without_room_or_rate_is_named():
    small = replace(XDNA1.classes["core"], memory_bytes=2048)
    tiny = replace(XDNA1, classes={**XDNA1.classes, "core": small})
    with pytest.raises(Error, match="holds no tile of the product 8 x 8 x 8 of int8") as caught:
        choose_plans(tiny, (Product(8, 8, 8),))
    assert caught.value.code == "NEUC-E677"
    slow = replace(XDNA1, gemm={})
    with pytest.raises(Error, match="npu-xdna1 has no rate for products of bf16") as caught:
        choose_plans(slow, (Product(8, 8, 8, operands="bf16"),))
    assert caught.value.code == "NEUC-E688"


def test_plans_fit_a_core():
    cls = XDNA2.classes["core"]
    plans = list(candidates(XDNA2, "int8", [Product(512, 512, 512)]))
    assert plans
    for plan in plans:
        buffers = 2 * (plan.m * plan.k + plan.k * plan.n) + 2 * plan.m * plan.n * 4
        assert buffers + cls.reserved_bytes <= cls.memory_bytes
