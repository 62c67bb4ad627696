"""Transposes and factors around a product become its properties, and the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from neuc.compiler.universe import new_context
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import MapOp, MatMulOp, TransposeOp
from neuc.dialects.interp.core import interpret
from neuc.passes.fold_into_matmul import FoldIntoMatMul

# alpha is applied once to the sum instead of to each summand: two f32 roundings on sums of 8 numbers near 1.
ROUNDING = 4e-6

SCALE = """{
  ^bb0(%p: f32):
    %c = arith.constant 0.125 : f32
    %q = arith.mulf %p, %c : f32
    dense.yield %q : f32
  }"""
ATTENTION = f"""
func.func @main(%queries: tensor<2x5x3x8xf32>, %k: tensor<2x6x3x8xf32>) -> tensor<2x3x5x6xf32> {{
  %a = dense.transpose(%queries) {{perm = [0, 2, 1, 3]}} : (tensor<2x5x3x8xf32>) -> tensor<2x3x5x8xf32>
  %b = dense.transpose(%k) {{perm = [0, 2, 3, 1]}} : (tensor<2x6x3x8xf32>) -> tensor<2x3x8x6xf32>
  %s = dense.matmul(%a, %b) : (tensor<2x3x5x8xf32>, tensor<2x3x8x6xf32>) -> tensor<2x3x5x6xf32>
  %y = dense.map(%s) : (tensor<2x3x5x6xf32>) -> tensor<2x3x5x6xf32> {SCALE}
  func.return %y : tensor<2x3x5x6xf32>
}}"""
PLAIN = f"""
func.func @main(%x: tensor<8x5xf32>, %w: tensor<6x8xf32>) -> tensor<5x6xf32> {{
  %a = dense.transpose(%x) {{perm = [1, 0]}} : (tensor<8x5xf32>) -> tensor<5x8xf32>
  %b = dense.transpose(%w) {{perm = [1, 0]}} : (tensor<6x8xf32>) -> tensor<8x6xf32>
  %c = dense.map(%a) : (tensor<5x8xf32>) -> tensor<5x8xf32> {SCALE}
  %y = dense.matmul(%c, %b) : (tensor<5x8xf32>, tensor<8x6xf32>) -> tensor<5x6xf32>
  func.return %y : tensor<5x6xf32>
}}"""
KEPT = f"""
func.func @main(%x: tensor<5x8xf32>, %w: tensor<8x6xf32>, %b: tensor<6xf32>) -> tensor<5x6xf32> {{
  %y = dense.matmul(%x, %w, %b) : (tensor<5x8xf32>, tensor<8x6xf32>, tensor<6xf32>) -> tensor<5x6xf32>
  %z = dense.map(%y) : (tensor<5x6xf32>) -> tensor<5x6xf32> {SCALE}
  func.return %z : tensor<5x6xf32>
}}"""


def folded(text: str, *shapes: tuple[int, ...]) -> tuple[ModuleOp, NeucContext]:
    """The module after the pass, checked to compute the same."""
    ctx = new_context()
    module = Parser(ctx, text).parse_module()
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    (expected,) = interpret(module, inputs, ctx.weights)
    FoldIntoMatMul().apply(ctx, module)
    module.verify()
    (found,) = interpret(module, inputs, ctx.weights)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING)
    return module, ctx


def count(module: ModuleOp, kind: type) -> int:
    return sum(isinstance(op, kind) for op in module.walk())


def product(module: ModuleOp) -> MatMulOp:
    (found,) = (op for op in module.walk() if isinstance(op, MatMulOp))
    return found


def test_attention_scores() -> None:
    module, _ = folded(ATTENTION, (2, 5, 3, 8), (2, 6, 3, 8))
    assert product(module).transpose_b is not None
    assert product(module).transpose_a is None
    assert product(module).alpha.value.data == 0.125
    assert count(module, MapOp) == 0
    perms = [op.perm.get_values() for op in module.walk() if isinstance(op, TransposeOp)]
    assert perms == [(0, 2, 1, 3), (0, 2, 1, 3)]


def test_plain_transposes_and_a_scaled_operand_vanish() -> None:
    module, _ = folded(PLAIN, (8, 5), (6, 8))
    assert product(module).transpose_a is not None
    assert product(module).transpose_b is not None
    assert count(module, TransposeOp) == count(module, MapOp) == 0


def test_a_factor_after_a_bias_stays() -> None:
    module, _ = folded(KEPT, (5, 8), (8, 6), (6,))
    assert count(module, MapOp) == 1
    assert product(module).alpha.value.data == 1.0


@pytest.mark.parametrize("spelling", ["%q = arith.divf %p, %c : f32", "%q = arith.mulf %c, %p : f32"])
def test_other_spellings_of_a_factor(spelling: str) -> None:
    module, _ = folded(ATTENTION.replace("%q = arith.mulf %p, %c : f32", spelling), (2, 5, 3, 8), (2, 6, 3, 8))
    assert product(module).alpha.value.data == (8.0 if "div" in spelling else 0.125)
