"""Folding what happens to codes between products: the same codes before and after, for all codes there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuc.backends.npu.fold_codes import FoldCodes
from neuc.compiler.diagnostics import parse_module
from neuc.compiler.universe import new_context
from neuc.dialects.dense import MapOp, ReshapeOp, TransposeOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.ternary import Im2ColOp

MODEL = Path(__file__).parent / "fold-codes.mlir"


def test_folded_codes_are_the_same_and_nothing_moves_any_more():
    text, random = MODEL.read_text(encoding="utf-8"), np.random.default_rng(5)
    context = new_context()
    module = parse_module(text, context, MODEL.name)
    acc = random.integers(-3000, 3000, (1, 6, 1, 4)).astype(np.int32)
    other = random.integers(-128, 128, (1, 6, 4)).astype(np.int8)
    before = interpret(module, [acc, other], context.weights)[0]
    FoldCodes().apply(context, module)
    module.verify()
    np.testing.assert_array_equal(interpret(module, [acc, other], context.weights)[0], before)
    assert len(np.unique(before)) > 10
    assert sum(isinstance(op, MapOp) for op in module.walk()) == 1
    assert not any(isinstance(op, TransposeOp | ReshapeOp | Im2ColOp) for op in module.walk())


def test_codes_that_others_read_too_get_no_table():
    text = MODEL.read_text(encoding="utf-8").replace(
        "dense.map(%half, %same)", "dense.map(%half, %i)"
    )  # now %i has two readers
    context = new_context()
    module = parse_module(text, context, MODEL.name)
    random = np.random.default_rng(6)
    acc = random.integers(-3000, 3000, (1, 6, 1, 4)).astype(np.int32)
    other = np.zeros((1, 6, 4), np.int8)
    before = interpret(module, [acc, other], context.weights)[0]
    FoldCodes().apply(context, module)
    np.testing.assert_array_equal(interpret(module, [acc, other], context.weights)[0], before)
    assert sum(isinstance(op, MapOp) for op in module.walk()) == 2
