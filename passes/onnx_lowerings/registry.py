"""Which rule lowers which operator: the tables of the family files put together."""

from __future__ import annotations

from functools import lru_cache

from neuc.dialects.onnx import OnnxOp
from neuc.passes.onnx_lowerings import (
    contrib,
    convolution,
    elementwise,
    matrix,
    normalization,
    qonnx,
    quantization,
    recurrent,
    reduction,
    resampling,
    selection,
    shape,
)
from neuc.passes.onnx_lowerings.builder import Rule
from neuc.passes.onnx_lowerings.quantization import MICROSOFT


@lru_cache
def _rules() -> dict[tuple[str, str], Rule]:
    families = (
        elementwise.RULES,
        matrix.RULES,
        convolution.RULES,
        reduction.RULES,
        normalization.RULES,
        shape.RULES,
        selection.RULES,
        recurrent.RULES,
        resampling.RULES,
        quantization.RULES,
    )
    rules = {("", name): rule for family in families for name, rule in family.items()}
    rules |= {(MICROSOFT, name): rule for name, rule in {**contrib.RULES, **quantization.CONTRIB_RULES}.items()}
    rules |= {(domain, name): rule for domain in qonnx.DOMAINS for name, rule in qonnx.RULES.items()}
    # onnxruntime moved these into its own domain, with ONNX's meaning.
    for name in ("LayerNormalization", "SimplifiedLayerNormalization"):
        rules[MICROSOFT, name] = normalization.RULES[name]
    return rules


def rule_for(node: OnnxOp) -> Rule | None:
    """The rule that lowers `node`'s operator, if there is one."""
    return _rules().get((node.domain, node.op_type))


def lowered_operators() -> frozenset[tuple[str, str]]:
    """(domain, operator) of every operator with a rule."""
    return frozenset(_rules())
