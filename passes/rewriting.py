"""What every rewrite pattern of ours goes through: new operations keep the location of what they replace."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp, UnknownLoc
from xdsl.ir import Operation
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
)

_DIFFERENTIATED = "energy.prediction"
"""Named here, not imported: few modules have one. What its region holds is differentiated as it is written."""


class KeepLocation(RewritePattern):
    """Give every op that the inner pattern inserts without a location that of the op it matched."""

    def __init__(self, inner: RewritePattern) -> None:
        self.inner = inner

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Run the inner pattern and mend locations."""
        parent = op.parent_op()
        if parent is not None and parent.name == _DIFFERENTIATED:
            return
        location, inserted = op.location, list[Operation]()
        handler = inserted.append
        rewriter.operation_insertion_handler.append(handler)
        try:
            self.inner.match_and_rewrite(op, rewriter)
        finally:
            rewriter.operation_insertion_handler.remove(handler)
        for new in inserted:
            if isinstance(new.location, UnknownLoc):
                new.location = location


def rewrite(module: ModuleOp, patterns: Sequence[RewritePattern], *, recursive: bool = True) -> bool:
    """Apply `patterns` greedily over `module`, keeping locations; whether anything changed."""
    applier = GreedyRewritePatternApplier([KeepLocation(p) for p in patterns])
    return PatternRewriteWalker(applier, apply_recursively=recursive).rewrite_module(module)
