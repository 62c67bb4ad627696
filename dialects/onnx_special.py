"""Operations of the `onnx` dialect that no schema describes: foreign nodes, absent inputs, what subgraphs yield.

Those of ONNX's own operators are generated in `onnx.py`; what they share is in `onnx_base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import ArrayAttr, StringAttr
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, result_def, traits_def, var_operand_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.onnx_base import OnnxOp
from neuc.dialects.onnx_types import NoneType


@irdl_op_definition
class CustomOp(OnnxOp):
    """A node of a domain onnx has no schemas for: `onnx.custom "com.acme" "Fancy"(%x)`."""

    name = "onnx.custom"
    custom_domain = prop_def(StringAttr)
    custom_type = prop_def(StringAttr)
    traits = traits_def(Pure())

    @staticmethod
    def of(
        domain: str,
        op_type: str,
        inputs: Sequence[SSAValue],
        result_types: Sequence[Attribute],
        attributes: Mapping[str, Attribute] | None = None,
        graphs: Mapping[str, Region] | None = None,
    ) -> CustomOp:
        """A node of operator `op_type` in `domain`."""
        graphs = graphs or {}
        properties: dict[str, Attribute] = {"custom_domain": StringAttr(domain), "custom_type": StringAttr(op_type)}
        if graphs:
            properties["graph_names"] = ArrayAttr([StringAttr(name) for name in graphs])
        return CustomOp.create(
            operands=inputs,
            result_types=result_types,
            properties=properties,
            attributes=dict(attributes or {}),
            regions=list(graphs.values()),
        )

    @property
    def op_type(self) -> str:
        """Operator name."""
        return self.custom_type.data

    @property
    def domain(self) -> str:
        """Operator domain."""
        return self.custom_domain.data

    @property
    def schema(self) -> None:
        return None

    def verify_(self) -> None:
        count = 0 if self.graph_names is None else len(self.graph_names)
        if count != len(self.bodies):
            raise VerifyException(f"has {len(self.bodies)} subgraphs but names {count}")

    def _print_head(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.custom_domain)
        printer.print_string(" ")
        printer.print_attribute(self.custom_type)

    @classmethod
    def _parse_head(cls, parser: Parser) -> dict[str, Attribute]:
        domain = StringAttr(parser.parse_str_literal())
        return {"custom_domain": domain, "custom_type": StringAttr(parser.parse_str_literal())}


@irdl_op_definition
class NoneOp(IRDLOperation):
    """An absent optional input."""

    name = "onnx.none"
    result = result_def(NoneType)
    traits = traits_def(Pure())
    assembly_format = "attr-dict"

    def __init__(self) -> None:
        super().__init__(result_types=[NoneType()])


@irdl_op_definition
class YieldOp(IRDLOperation):
    """The outputs of a subgraph."""

    name = "onnx.yield"
    values = var_operand_def()
    traits = traits_def(IsTerminator())
    assembly_format = "($values^ `:` type($values))? attr-dict"

    def __init__(self, values: Sequence[SSAValue]) -> None:
        super().__init__(operands=[values])
