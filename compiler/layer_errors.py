"""How far each layer's output is from the float model's: both are interpreted on one input, layer by layer.

The interpreters say what operations mean, so this is the error of the numbers a compiled program computes; that kernels
agree with the interpreters is other tests' business. What the whole model is off by stands in `verification.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from neuc.compiler.evaluate import Evaluator
from neuc.compiler.inputs import Arrays
from neuc.compiler.signature import signature_of
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import MapOp
from neuc.dialects.dense_movement import ReshapeOp, TransposeOp
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.ternary import LinearOp
from neuc.errors import Error, InternalError
from neuc.passes.analysis.multiply_adds import multiply_adds
from neuc.passes.analysis.ternary_layers import layers
from neuc.runtime.program import IoSpec

MEANT = 1 << 28
"""Multiply-adds that measuring should take: the rows of the input are cut to this, down to one."""
MOST = 1 << 32
"""Multiply-adds beyond which one row is too expensive to interpret."""
_DIGITS = 3
"""Digits of an error that are kept: the last ones depend on how many threads numpy's products take."""

_BEHIND = (MapOp, TransposeOp, ReshapeOp)
_LAYER = "neuc.layer"
"""Attribute with the name of the layer whose output an operation gives, on copies that are interpreted here."""


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        errors: relative L2 error of the output by layer; infinite or NaN where values are.
        basis: on what it was measured, or why it was not.
    """

    errors: dict[str, float]
    basis: str


class FloatLayers:
    """The outputs of a float model's layers, to compare those of its ternary form with."""

    def __init__(self, module: ModuleOp, context: NeucContext, feeds: Sequence[Arrays], source: str) -> None:
        """Interpret the float model.

        Args:
            module: the float model as operations on tensors; left unchanged.
            context: its context and weights.
            feeds: inputs; as much of the first is used as is affordable.
            source: what these inputs are called.
        """
        self.outputs: dict[str, np.ndarray] = {}
        self.basis = ""
        self._context = context
        inputs, _ = signature_of(module)
        self._feed, rows = _affordable(module, inputs, feeds[0])
        cost = _cost(module, inputs, self._feed)
        if cost > MOST:
            self.basis = f"not measured: one input takes {cost / 1e9:.1f} billion multiply-adds to interpret"
            return
        failed = self._run(module, self.outputs.__setitem__)
        what = "relative L2 of its output against the float model's, earlier layers' errors included"
        self.basis = failed or f"{what}, on {rows}{source}"

    def compare(self, module: ModuleOp) -> Measured:
        """Interpret the ternary form of the model, not partitioned yet; it is left unchanged."""
        errors: dict[str, float] = {}

        def meet(name: str, output: np.ndarray) -> None:
            expected = self.outputs.get(name)
            if expected is not None and expected.shape == output.shape:
                errors[name] = _relative_l2(expected, output)

        failed = self._run(module, meet) if self.outputs else ""
        return Measured(errors, failed or self.basis)

    def _run(self, module: ModuleOp, meet: Callable[[str, np.ndarray], None]) -> str:
        """Show `meet` the output of every layer; returns why that failed, or nothing."""
        copy = module.clone()
        for name, layer in layers(copy, MatmulOp):
            _whole(layer).attributes[_LAYER] = StringAttr(name)

        def observe(op: Operation, results: list[np.ndarray]) -> None:
            name = op.attributes.get(_LAYER)
            if isinstance(name, StringAttr):
                meet(name.data, results[0])

        try:
            Evaluator(self._context, [self._feed]).outputs(copy, observe)
        except Error as error:
            return f"not measured: {error.message}"
        except (InternalError, ValueError) as error:  # rows that were cut off, say, were needed
            return f"not measured: {str(error).splitlines()[0]}"
        return ""


class LayerErrors:
    """`FloatLayers` on a thread of its own, beside which planes are chosen and kernels made: most of it is numpy's."""

    def __init__(self, module: ModuleOp, context: NeucContext, feeds: Sequence[Arrays], source: str) -> None:
        """Begin to interpret the float model; as for `FloatLayers`, but `module` may change at once."""
        self._thread = ThreadPoolExecutor(1, "layer errors")
        self._float = self._thread.submit(FloatLayers, module.clone(), context, feeds, source)
        self._measured: Future[Measured] | None = None

    def __enter__(self) -> LayerErrors:
        """End the thread with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def compare(self, module: ModuleOp) -> None:
        """Begin to interpret the ternary form of the model, which must not change; the last one given counts."""
        if self._measured is not None:
            self._measured.cancel()
        self._measured = self._thread.submit(lambda: self._float.result().compare(module))

    def result(self) -> Measured:
        """What was found, once it is."""
        if self._measured is None:
            raise InternalError("there is nothing to compare with the float model")
        return self._measured.result()


def _whole(layer: Operation) -> Operation:
    """What gives a layer's output with its bias: a bias that is no vector is added after a `ternary.linear`.

    What follows a product in bf16 is always behind it: its bias, the way back to planes, its activation.
    """
    if isinstance(layer, MatmulOp):
        last: Operation = layer
        while True:
            users = [use.operation for use in last.results[0].uses]
            if len(users) != 1 or not isinstance(users[0], _BEHIND) or users[0].location != layer.location:
                return last
            last = users[0]
    if not isinstance(layer, LinearOp) or layer.bias is not None:
        return layer
    users = [use.operation for use in layer.result.uses]
    added = users[0] if len(users) == 1 and isinstance(users[0], MapOp) else None
    return added if added is not None and added.location == layer.location else layer


def _affordable(module: ModuleOp, inputs: Sequence[IoSpec], feed: Arrays) -> tuple[Arrays, str]:
    """As many of the first rows as `MEANT` allows, but one at least, and how many of them these are.

    Inputs are cut if all their rows go together: one symbol, which is the first dim of some and in no other dim.
    """
    symbols = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], str)}
    inner = {dim for spec in inputs for dim in spec.shape[1:] if isinstance(dim, str)}
    if len(symbols) != 1 or any(not str(s).isidentifier() or any(str(s) in d for d in inner) for s in symbols):
        return feed, ""
    batched = [spec.name for spec in inputs if spec.shape and spec.shape[0] in symbols]
    count = len(feed[batched[0]])
    rows = max(1, min(count, int(count * MEANT / max(1, _cost(module, inputs, feed)))))
    cut = {name: array[:rows] if name in batched else array for name, array in feed.items()}
    return cut, f"{rows} of {count} rows of " if rows < count else ""


def _cost(module: ModuleOp, inputs: Sequence[IoSpec], feed: Arrays) -> int:
    """Multiply-adds of one run on `feed`."""
    sizes = {
        dim: size for spec in inputs for dim, size in zip(spec.shape, feed[spec.name].shape) if isinstance(dim, str)
    }
    return sum(multiply_adds(op, sizes) for op in module.walk())


def _relative_l2(expected: np.ndarray, output: np.ndarray) -> float:
    """Length of the difference over the length of what was expected; 0 for equal arrays."""
    with np.errstate(all="ignore"):
        noise = float(np.linalg.norm((output - expected).reshape(-1)))
        signal = float(np.linalg.norm(expected.reshape(-1)))
    if noise == 0 or (np.isnan(noise) and np.array_equal(expected, output, equal_nan=True)):
        return 0.0
    return float(f"{noise / signal:.{_DIGITS}g}") if signal else float("inf")
