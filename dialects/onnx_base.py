"""What all operations of the `onnx` dialect share: syntax, verification against schemas, access by schema names.

The class per operator is generated from this in `onnx.py`; operations without a schema are in `onnx_special.py`,
attributes and types in `onnx_types.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    ModuleOp,
    StringAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, Operation, OpResult, Region, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    opt_prop_def,
    var_operand_def,
    var_region_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.onnx_schema import DEFAULT_DOMAIN, AttributeDefault, Formal, Schema, find_schema, newest_opset
from neuc.dialects.onnx_types import NoneType, SparseAttr, StoredAttr, StringsAttr, schema_type_name

OPSETS = "onnx.opsets"
"""Module attribute: a dictionary from domain to opset version, the default domain spelt ``ai.onnx``."""

NAME = "onnx.name"
"""Argument and result attribute of the entry function: the name of the model's input or output."""

AttributeValue = int | float | str | bytes | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Attribute


def opsets_of(op: Operation) -> dict[str, int]:
    """The opset versions of the module `op` is in, by domain ("" is the default one); empty without a module."""
    top: Operation | None = op
    while top is not None and not (isinstance(top, ModuleOp) and OPSETS in top.attributes):
        top = top.parent_op()
    if top is None:
        return {}
    opsets = top.attributes[OPSETS]
    if not isinstance(opsets, DictionaryAttr):
        raise VerifyException(f"{OPSETS} is not a dictionary")
    found: dict[str, int] = {}
    for domain, version in opsets.data.items():
        if not isinstance(version, IntegerAttr):
            raise VerifyException(f"{OPSETS}: the version of {domain} is not an integer")
        found["" if domain == DEFAULT_DOMAIN else domain] = version.value.data
    return found


def set_opsets(module: ModuleOp, opsets: Mapping[str, int]) -> None:
    """Write a module's opset versions."""
    module.attributes[OPSETS] = DictionaryAttr(
        {domain or DEFAULT_DOMAIN: IntegerAttr(version, i64) for domain, version in sorted(opsets.items())}
    )


def attribute_value(attr: Attribute) -> AttributeValue:
    """An attribute as the plain Python value it stands for; tensors and types stay attributes."""
    match attr:
        case IntegerAttr() | FloatAttr():
            return attr.value.data
        case StringAttr() | BytesAttr():
            return attr.data if isinstance(attr, StringAttr) else _text(attr.data)
        case DenseArrayBase():
            return tuple(cast("DenseArrayBase[IntegerType]", attr).get_values())
        case ArrayAttr() if all(isinstance(a, StringAttr | BytesAttr | FloatAttr) for a in attr.data):
            return tuple(attribute_value(a) for a in attr.data)  # pyright: ignore[reportReturnType]
        case _:
            return attr


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class OnnxOp(IRDLOperation):
    """An ONNX node.

    Inputs and outputs are also properties with their names in the newest schema (`conv.W`, `lstm.Y_h`): the value, None
    when it is absent, a tuple when the formal input is variadic. Subgraphs are `bodies`, named by `graph_names`; values
    they capture from outside are used directly.
    """

    OP_TYPE: ClassVar[str] = ""
    DOMAIN: ClassVar[str] = ""

    inputs = var_operand_def()
    outputs = var_result_def()
    bodies = var_region_def()
    graph_names = opt_prop_def(ArrayAttr[StringAttr])

    def __init__(
        self,
        inputs: Sequence[SSAValue | Operation],
        result_types: Sequence[Attribute],
        attributes: Mapping[str, Attribute] | None = None,
        graphs: Mapping[str, Region] | None = None,
    ) -> None:
        # Not through irdl's builder, which takes ten times as long for what is one operand and one result list.
        graphs = graphs or {}
        names = {"graph_names": ArrayAttr([StringAttr(name) for name in graphs])} if graphs else {}
        Operation.__init__(
            self,
            operands=[SSAValue.get(value) for value in inputs],
            result_types=result_types,
            attributes=dict(attributes or {}),
            properties=names,
            regions=list(graphs.values()),
        )

    @property
    def op_type(self) -> str:
        """Operator name as in ONNX."""
        return self.OP_TYPE

    @property
    def domain(self) -> str:
        """Operator domain as in ONNX; "" is the default one."""
        return self.DOMAIN

    @property
    def opset(self) -> int:
        """The version of this op's domain in its module; the newest one for a detached op."""
        return opsets_of(self).get(self.domain) or newest_opset(self.domain)

    @property
    def schema(self) -> Schema | None:
        """The schema that holds here; None for foreign operators."""
        return find_schema(self.op_type, self.domain, self.opset)

    @property
    def full_name(self) -> str:
        """Operator name as users know it, with its domain if that is not the default one."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    @property
    def graphs(self) -> dict[str, Region]:
        """Subgraphs by attribute name."""
        names = self.graph_names.data if self.graph_names is not None else ()
        return {name.data: region for name, region in zip(names, self.bodies)}

    def operand_at(self, index: int) -> SSAValue | None:
        """Input number `index`, None if absent."""
        if index >= len(self.operands) or isinstance(self.operands[index].type, NoneType):
            return None
        return self.operands[index]

    def result_at(self, index: int) -> OpResult | None:
        """Output number `index`, None if absent."""
        if index >= len(self.results) or isinstance(self.results[index].type, NoneType):
            return None
        return self.results[index]

    def attribute(self, name: str) -> AttributeValue | None:
        """The value of attribute `name`; the schema's default if it is not set; None if there is no default."""
        attr = self.attributes.get(name)
        return self._default(name) if attr is None else attribute_value(attr)

    def int_attribute(self, name: str, default: int | None = None) -> int:
        """Integer attribute `name`, else the schema's default, else `default`."""
        value = self.attribute(name)
        value = default if value is None else value
        assert isinstance(value, int), f"{self.full_name}.{name}"
        return value

    def float_attribute(self, name: str, default: float | None = None) -> float:
        """Float attribute `name`, else the schema's default, else `default`."""
        value = self.attribute(name)
        value = default if value is None else value
        assert isinstance(value, float | int), f"{self.full_name}.{name}"
        return float(value)

    def str_attribute(self, name: str, default: str | None = None) -> str:
        """String attribute `name`, else the schema's default, else `default`."""
        value = self.attribute(name)
        value = default if value is None else value
        assert isinstance(value, str), f"{self.full_name}.{name}"
        return value

    def ints_attribute(self, name: str) -> tuple[int, ...] | None:
        """Integer list attribute `name`, else the schema's default, else None."""
        value = self.attribute(name)
        return None if value is None else tuple(int(v) for v in value)  # pyright: ignore

    def _default(self, name: str) -> AttributeDefault:
        schema = self.schema
        info = None if schema is None else schema.attributes.get(name)
        return None if info is None else info.default

    def verify_(self) -> None:
        count = 0 if self.graph_names is None else len(self.graph_names)
        if count != len(self.bodies):
            raise VerifyException(f"has {len(self.bodies)} subgraphs but names {count}")
        schema = self.schema
        if schema is None:
            raise VerifyException(f"operator {self.full_name} does not exist at opset {self.opset}")
        verify_against(self, schema)

    def print(self, printer: Printer) -> None:
        self._print_head(printer)
        with printer.in_parens():
            printer.print_list(self.operands, printer.print_operand)
        for name, region in self.graphs.items():
            printer.print_string(f" {name} ")
            printer.print_region(region)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_function_type(self.operand_types, self.result_types)

    def _print_head(self, printer: Printer) -> None:
        """What stands between the operation's name and its operands."""

    @classmethod
    def parse(cls, parser: Parser) -> OnnxOp:
        properties = cls._parse_head(parser)
        operands = parser.parse_op_args_list()
        names, regions = list[Attribute](), list[Region]()
        while (name := parser.parse_optional_identifier()) is not None:
            names.append(StringAttr(name))
            regions.append(parser.parse_region())
        if names:
            properties["graph_names"] = ArrayAttr(names)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        position = parser.pos
        type_ = parser.parse_function_type()
        return cls.create(
            operands=parser.resolve_operands(operands, type_.inputs.data, position),
            result_types=type_.outputs.data,
            properties=properties,
            attributes=attributes,
            regions=regions,
        )

    @classmethod
    def _parse_head(cls, parser: Parser) -> dict[str, Attribute]:
        """Read what `_print_head` wrote."""
        return {}


def verify_against(op: OnnxOp, schema: Schema) -> None:
    """Check counts, types and attributes of `op`.

    Raises:
        VerifyException: names the first thing that is wrong.
    """
    _check_count("inputs", len(op.operands), schema.min_input, schema.max_input)
    _check_count("outputs", len(op.results), schema.min_output, schema.max_output)
    bound: dict[str, str] = {}
    _check_values(op.operands, schema.inputs, "input", bound)
    _check_values(op.results, schema.outputs, "output", bound)
    graphs = op.graphs
    for name, info in schema.attributes.items():
        if info.required and name not in op.attributes and name not in graphs:
            raise VerifyException(f"attribute {name} is missing")
    for name in graphs:
        if name not in schema.attributes or schema.attributes[name].kind != "GRAPH":
            raise VerifyException(f"{op.full_name} at opset {op.opset} has no subgraph {name}")
    for name, attr in op.attributes.items():
        if "." in name:
            continue  # discardable attributes of other dialects
        info = schema.attributes.get(name)
        if info is None:
            raise VerifyException(f"{op.full_name} at opset {op.opset} has no attribute {name}")
        if not _matches(attr, info.kind):
            raise VerifyException(f"attribute {name} is {attr}, expected {info.kind}")


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise VerifyException(f"has {count} {what}, expected {wanted}")


def _check_values(values: Sequence[SSAValue], formals: tuple[Formal, ...], what: str, bound: dict[str, str]) -> None:
    for index, value in enumerate(values):
        formal = formals[min(index, len(formals) - 1)]
        if isinstance(value.type, NoneType):
            if what == "input" and not (formal.optional or formal.variadic):
                raise VerifyException(f"{what} {formal.name} is absent but not optional")
            continue
        name = schema_type_name(value.type)
        if name is None:
            continue
        if name not in formal.allowed:
            raise VerifyException(f"{what} {formal.name} is {name}, which this operator does not take")
        if formal.homogeneous and bound.setdefault(formal.type_name, name) != name:
            raise VerifyException(
                f"{what} {formal.name} is {name} but {formal.type_name} is {bound[formal.type_name]} already"
            )


def _matches(attr: Attribute, kind: str) -> bool:
    match kind:
        case "INT":
            return isinstance(attr, IntegerAttr) and attr.type == i64
        case "FLOAT":
            return isinstance(attr, FloatAttr) and attr.type == f32
        case "STRING":
            return isinstance(attr, StringAttr | BytesAttr)
        case "TENSOR":
            return isinstance(attr, DenseIntOrFPElementsAttr | StoredAttr | StringsAttr)
        case "SPARSE_TENSOR":
            return isinstance(attr, SparseAttr)
        case "TYPE_PROTO":
            return isinstance(attr, TypeAttribute)
        case "INTS":
            return isinstance(attr, DenseArrayBase) and attr.elt_type == i64
        case "FLOATS":
            return (isinstance(attr, DenseArrayBase) and attr.elt_type == f32) or (
                isinstance(attr, ArrayAttr) and all(isinstance(a, FloatAttr) for a in attr.data)
            )
        case "STRINGS":
            return isinstance(attr, ArrayAttr) and all(isinstance(a, StringAttr | BytesAttr) for a in attr.data)
        case _:
            return isinstance(attr, ArrayAttr)
