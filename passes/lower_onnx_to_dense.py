"""`lower-onnx-to-dense`: ONNX nodes become `dense` operations; what cannot stays, with the reason on it.

How each operator is lowered is in `onnx_lowerings/`; here is the walk, the decision node by node, and what happens to
shape computations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, IntegerType, ModuleOp, StringAttr, TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.arg_spec import ArgSpec
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from neuc.dialects.context import store_of
from neuc.dialects.dense_attrs import DenseOp
from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp, YieldOp
from neuc.dialects.onnx_types import NoneType
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.symbolic_values import symbolic_values
from neuc.passes.onnx_lowerings.builder import Builder, Unsupported
from neuc.passes.onnx_lowerings.registry import rule_for
from neuc.passes.partition import REASON, drop_unused, mentioned_symbols

Supports = Callable[[Operation], "str | None"]
"""Says why a backend cannot do a `dense` operation; None if it can."""


def supports_everything(op: Operation) -> str | None:
    """The predicate of a backend without limits."""
    return None


def lowering_reason(op: Operation) -> str | None:
    """Why `op` stayed an ONNX node in `lower-onnx-to-dense`; None if it did not."""
    reason = op.attributes.get(REASON)
    return reason.data if isinstance(reason, StringAttr) else None


@dataclass(frozen=True)
class LowerOnnxToDense(ModulePass):
    """Replace every ONNX node that has a lowering by `dense` operations, in one walk over each function.

    1. An integer tensor whose elements are known, symbols included, becomes a constant or `dense.dims`, whatever
       computed it; the computation vanishes if nothing else uses it.
    2. A node with a rule becomes what the rule builds, if `supports` accepts each operation.
    3. Any other node stays, with the reason as its attribute `neuc.reason`; so do nodes that need a size which depends
       on data and is not that of an operand.
    4. Result types are inferred again on the way, so a dim that shape inference had to name anew becomes an expression
       over the dims of the inputs where the lowering knows it.

    ``%y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>`` becomes a ``dense.map`` with body
    ``arith.maximumf %x, 0.0``.
    """

    name = "lower-onnx-to-dense"

    supports: Supports = field(default=supports_everything, repr=False, compare=False)

    def spec(self, *, include_default: bool = False) -> ArgSpec:
        """The pass as written in a pipeline: without `supports`, which is a function."""
        return ArgSpec(self.name, {})

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Lower every function."""
        store = store_of(ctx)
        values = dict(symbolic_values(op, store))
        for function in op.ops:
            if isinstance(function, func.FuncOp) and not function.is_declaration:
                _Lowering(store, values, self.supports).run(function)


class _Lowering:
    """The walk over one function."""

    def __init__(self, store: WeightStore, values: dict[SSAValue, tuple[Dim, ...]], supports: Supports) -> None:
        self.store = store
        self.values = values
        self.supports = supports
        self.symbols: set[str] = set()
        """Symbols that have a value at this point of the function."""
        self.given: set[str] = set()
        """Those of the arguments."""

    def run(self, function: func.FuncOp) -> None:
        block = function.body.block
        self._learn(block.args)
        self.given = _symbols_of(block.args)
        for op in list(block.ops):
            if isinstance(op, OnnxOp) and not isinstance(op, YieldOp):
                self._lower(op)
            self._learn(op.results if op.parent is not None else ())
        drop_unused(block)
        self._retype(function, block)

    def _lower(self, node: OnnxOp) -> None:
        build = Builder(node, self.store, self.values)
        try:
            results = self._integers(build) or self._by_rule(build)
        except (Unsupported, VerifyException, ZeroDivisionError) as error:
            for op in reversed(build.ops):
                op.erase()
            node.attributes[REASON] = StringAttr(str(error).splitlines()[0])
            return
        for op in build.ops:
            op.location = node.location
        self._replace(node, build.ops, results)

    def _integers(self, build: Builder) -> list[SSAValue | None] | None:
        """The results of a node whose only result is an integer tensor with known elements."""
        node = build.node
        known = self.values.get(node.results[0]) if len(node.results) == 1 else None
        type_ = node.results[0].type if known is not None else None
        if known is None or not (isa(type_, TensorType[Attribute]) and isinstance(type_.element_type, IntegerType)):
            return None
        if not all(dim.symbols <= self.given for dim in known):
            return None
        try:
            result = build.integer_tensor(known, node.results[0].type)
        except Unsupported:
            return None
        self._check(build)
        return [result]

    def _by_rule(self, build: Builder) -> list[SSAValue | None]:
        node = build.node
        rule = rule_for(node)
        if rule is None:
            recurrent = node.op_type in ("GRU", "RNN")
            raise Unsupported("of recurrent operators only LSTM has a lowering" if recurrent else "no lowering")
        if not all(isinstance(value.type, TensorType | NoneType) for value in node.operands):
            raise Unsupported("the shape of an operand is not known")
        results = list(rule(node, build))
        self._check(build)
        return results

    def _check(self, build: Builder) -> None:
        for op in build.ops:
            if not isinstance(op, DenseOp):
                continue
            op.verify_()  # Types and structure are right by construction; sizes depend on the model.
            if not mentioned_symbols(op) <= self.given | _symbols_of(op.operands):
                # Nothing would keep the operation that finds out the size.
                raise Unsupported("a size that depends on data")
            reason = self.supports(op)
            if reason is not None:
                raise Unsupported(reason)

    def _replace(self, node: OnnxOp, ops: list[Operation], results: list[SSAValue | None]) -> None:
        fresh = {id(value) for op in ops for value in op.results}
        Rewriter.insert_op(ops, InsertPoint.before(node))
        for old, new in zip(node.results, results):
            if new is None:
                continue
            if id(new) in fresh:
                fresh.discard(id(new))
                new = Rewriter.replace_value_with_new_type(new, self._refined(new.type, old.type))
            if old in self.values:
                self.values[new] = self.values[old]
            if new.name_hint is None:
                new.name_hint = old.name_hint
            old.replace_all_uses_with(new)
        node.detach()
        node.erase()
        for op in ops:
            self._learn(op.results)

    def _refined(self, computed: Attribute, declared: Attribute) -> Attribute:
        """The type that says most: static dims first, then dims the function can evaluate."""
        try:
            pairs = list(zip(dims_of(computed), dims_of(declared), strict=True))
        except ValueError:
            return computed
        return tensor_type(element_of(computed), [self._better(a, b) for a, b in pairs])

    def _better(self, computed: Dim, declared: Dim) -> Dim:
        if declared.is_static or (not computed.symbols <= self.symbols and declared.symbols <= self.symbols):
            return declared
        return computed

    def _learn(self, values: Iterable[SSAValue]) -> None:
        """Note the symbols that `values` bring along: dims that are one symbol each."""
        for value in values:
            try:
                dims = dims_of(value)
            except ValueError:
                continue
            self.symbols |= {str(d) for d in dims if d.symbols == {str(d)}}

    def _retype(self, function: func.FuncOp, block: Block) -> None:
        """Bring the function's type up to date with what it returns."""
        last = block.last_op
        if isinstance(last, func.ReturnOp):
            function.function_type = FunctionType.from_lists(
                list(function.function_type.inputs), [v.type for v in last.operands]
            )


def _symbols_of(values: Iterable[SSAValue]) -> set[str]:
    """The symbols in the sizes of `values`."""
    found: set[str] = set()
    for value in values:
        try:
            found.update(symbol for dim in dims_of(value) for symbol in dim.symbols)
        except ValueError:
            continue
    return found
