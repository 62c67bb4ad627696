"""Work on floats that is no product, as cores of an `npu` array do it in bf16: element-wise chains, softmax, norms.

Which operations of a model become these is decided in `backends/npu`; meaning: `dialects/interp/npu_rows.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import (
    ArrayAttr,
    Float32Type,
    FloatAttr,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
    i32,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.store import dims_of

OCTAVES = 512
"""Words at the front of a curve: one for each sign and exponent of a bf16 number."""
BINARY = ("add", "sub", "mul", "max", "min")
"""Steps on two values."""


@dataclass(frozen=True)
class ChainStep:
    """A step of a chain: a binary one on two values, ``constant`` with its number, ``curve`` of a value by a table."""

    kind: str
    values: tuple[int, ...] = ()
    number: float = 0.0
    table: int = 0

    def __str__(self) -> str:
        """As `read` takes it."""
        if self.kind == "constant":
            return f"constant {self.number!r}"
        return " ".join([self.kind, *map(str, self.values), *([str(self.table)] if self.kind == "curve" else [])])

    @staticmethod
    def read(text: str) -> ChainStep:
        """A step as text: ``mul 0 1``, ``constant 0.5``, or ``curve 2 0`` with the table's number last.

        Raises:
            ValueError: it is none.
        """
        kind, *words = text.split()
        if kind == "constant" and len(words) == 1:
            return ChainStep(kind, (), float(words[0]))
        if (kind in BINARY or kind == "curve") and len(words) == 2:
            first, second = map(int, words)
            return ChainStep(kind, (first,), 0.0, second) if kind == "curve" else ChainStep(kind, (first, second))
        raise ValueError(f"{text!r} is no step of a chain")


@irdl_op_definition
class ChainOp(IRDLOperation):
    """Steps on values, element by element, each step's result rounded to bf16; the last one is the result, f32.

    Values are numbered: first the operands, broadcast to the result's shape and rounded to bf16, then the steps'
    results. ``add``, ``sub``, ``mul``, ``max`` and ``min`` compute in f32 and round; ``constant`` is a bf16 number;
    ``curve`` looks a value up in a table, one function of one value: i32 [512 + 2·S]. For a bf16 number's bits b, word
    b >> 7 holds the first of its octave's segments and, from bit 16 on, a shift s; the segment (b & 127) >> s further
    on has two words, f32 bits of c0 and c1, and the result is bf16(c0 + (b mod 2^s)·c1).
    """

    name = "npu.chain"
    inputs = var_operand_def(TensorType)
    tables = var_operand_def(TensorType)
    steps = prop_def(ArrayAttr[StringAttr])
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "`(` $inputs `:` type($inputs) `)` (`tables` `(` $tables^ `:` type($tables) `)`)? attr-dict `:` type($result)"
    )

    def __init__(
        self, inputs: Sequence[SSAValue], tables: Sequence[SSAValue], steps: Sequence[ChainStep], result: Attribute
    ) -> None:
        super().__init__(
            operands=[list(inputs), list(tables)],
            result_types=[result],
            properties={"steps": ArrayAttr([StringAttr(str(step)) for step in steps])},
        )

    @property
    def chain(self) -> list[ChainStep]:
        """The steps."""
        return [ChainStep.read(step.data) for step in self.steps]

    def verify_(self) -> None:
        """Steps read what there is; operands broadcast; tables are whole."""
        try:
            steps = self.chain
        except ValueError as error:
            raise VerifyException(str(error)) from error
        if not steps or not self.inputs:
            raise VerifyException("a chain has an operand and a step")
        for number, step in enumerate(steps):
            if any(not 0 <= value < len(self.inputs) + number for value in step.values):
                raise VerifyException(f"step {number} ({step}) reads a value that is not there yet")
            if step.kind == "curve" and not 0 <= step.table < len(self.tables):
                raise VerifyException(f"step {number} ({step}) has no table {step.table}")
        for i, value in enumerate(self.inputs):
            shapes.check_element(f"operand {i}", value, f32)
            shapes.check_broadcastable(f"operand {i}", dims_of(value), dims_of(self.result))
        for i, table in enumerate(self.tables):
            check_table(f"table {i}", table)
        shapes.check_element("result", self.result, f32)


def check_table(name: str, table: SSAValue) -> None:
    """Raise unless a value can be a curve: i32 words of whole segments behind those of octaves."""
    dims = dims_of(table)
    shapes.check_element(name, table, i32)
    if len(dims) != 1 or not dims[0].is_static or dims[0].value <= OCTAVES or dims[0].value % 2:
        raise VerifyException(f"{name} is no i32 vector of {OCTAVES} words and two for each segment")


@irdl_op_definition
class SoftmaxOp(IRDLOperation):
    """Softmax along the last axis: e = curve(bf16(x - max)), r = bf16(1 / sum of e), result = bf16(e·r), as f32.

    x is rounded to bf16 first. Sums are f32, 16 partial ones of columns 16 apart, ascending, added by halves (8 + 8,
    4 + 4, …); `table` is a curve as those of `npu.chain`.
    """

    name = "npu.softmax"
    x = operand_def(TensorType)
    table = operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = "$x `table` $table attr-dict `:` functional-type(operands, results)"

    def __init__(self, x: SSAValue, table: SSAValue) -> None:
        super().__init__(operands=[x, table], result_types=[x.type])

    def verify_(self) -> None:
        """Floats of at least one axis, a whole table."""
        if not dims_of(self.x):
            raise VerifyException("x has no axis")
        check_table("table", self.table)
        shapes.check_element("x", self.x, f32)
        shapes.check("result", self.result, dims_of(self.x), f32)


@irdl_op_definition
class LayerNormOp(IRDLOperation):
    """Normalisation along the last axis, of C columns.

    d = bf16(x - mean) with mean = sum·f32(1 / C), or x itself with `rms`; r = bf16(1 / sqrt(var + eps)) with var = sum
    of d·d, times f32(1 / C); result = bf16(bf16(bf16(d·r)·scale) + bias). Sums and moments are f32, in the order of
    `npu.softmax`; x, scale and bias are rounded to bf16 first.
    """

    name = "npu.layer_norm"
    x = operand_def(TensorType)
    scale = opt_operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    eps = prop_def(FloatAttr[Float32Type])
    rms = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$x (`scale` $scale^ `:` type($scale))? (`bias` $bias^ `:` type($bias))? attr-dict "
        "`:` type($x) `->` type($result)"
    )

    def __init__(
        self, x: SSAValue, scale: SSAValue | None, bias: SSAValue | None, eps: float, *, rms: bool = False
    ) -> None:
        super().__init__(
            operands=[[x], [] if scale is None else [scale], [] if bias is None else [bias]],
            result_types=[x.type],
            properties={"eps": FloatAttr(eps, f32), **({"rms": UnitAttr()} if rms else {})},
        )

    def verify_(self) -> None:
        """One scale and bias a column."""
        if not dims_of(self.x):
            raise VerifyException("x has no axis")
        shapes.check_element("x", self.x, f32)
        for name, value in (("scale", self.scale), ("bias", self.bias)):
            if value is not None:
                shapes.check(name, value, dims_of(self.x)[-1:], f32)
        shapes.check("result", self.result, dims_of(self.x), f32)
