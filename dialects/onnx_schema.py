"""What ONNX's schema registry says about an operator, as plain data: the `onnx` dialect's verifier reads this.

The only place besides `onnx_proto.py` where the dialect imports onnx, and it does so on first use: importing onnx takes
0.3 s. No IR here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import AttributeProto
    from onnx.defs import OpSchema

DEFAULT_DOMAIN = "ai.onnx"
"""How the IR spells ONNX's default domain, whose name in files is empty."""

# Prefix of operation names in the IR for each domain that onnx has schemas for.
DOMAIN_PREFIX = {
    "": "onnx.",
    "ai.onnx.ml": "onnx.ml.",
    "ai.onnx.preview": "onnx.preview.",
    "ai.onnx.preview.training": "onnx.training.",
}

AttributeDefault = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None


@dataclass(frozen=True)
class Formal:
    """A formal input or output.

    Attributes:
        name: as in the schema.
        optional: may be absent.
        variadic: stands for this and all following ones.
        type_name: the type variable or type.
        allowed: the types it may have, as schemas write them.
        homogeneous: a variadic one whose values all have the same type.
    """

    name: str
    optional: bool
    variadic: bool
    type_name: str
    allowed: frozenset[str]
    homogeneous: bool


@dataclass(frozen=True)
class AttributeInfo:
    """A formal attribute: `kind` is ONNX's name of its type (INT, FLOATS, GRAPH …)."""

    name: str
    kind: str
    required: bool
    default: AttributeDefault


@dataclass(frozen=True)
class Schema:
    """One version of one operator."""

    domain: str
    op_type: str
    since_version: int
    deprecated: bool
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    attributes: dict[str, AttributeInfo]
    min_input: int
    max_input: int
    min_output: int
    max_output: int


@lru_cache(maxsize=2048)
def find_schema(op_type: str, domain: str, opset: int) -> Schema | None:
    """The schema of an operator that holds at `opset` of `domain` ("" is the default one); None if there is none."""
    schema = raw_schema(op_type, domain, opset)
    return None if schema is None else _convert(schema)


def raw_schema(op_type: str, domain: str, opset: int) -> OpSchema | None:
    """ONNX's own schema object."""
    from onnx import defs

    if not defs.has(op_type, opset, domain):
        return None
    return defs.get_schema(op_type, opset, domain)


def has_function_body(op_type: str, opset: int) -> bool:
    """Whether ONNX defines an operator of the default domain by others."""
    schema = raw_schema(op_type, "", opset)
    return (
        schema is not None and (_versions(schema, "function") or _versions(schema, "context_dependent_function")) != []
    )


def function_body(op_type: str, opset: int, node: bytes, types: Sequence[bytes]) -> bytes | None:
    """The function that ONNX defines an operator of the default domain by, as a serialised message.

    Args:
        op_type: the operator.
        opset: the version that holds.
        node: a node of it, serialised; some bodies depend on what a node has.
        types: the types of its inputs, serialised; "" for absent ones.

    Returns:
        None if there is none for this node.
    """
    schema: Any = raw_schema(op_type, "", opset)  # onnx's stubs lack what is asked here
    for kind, arguments in (("function", ()), ("context_dependent_function", (node, list(types)))):
        known = [version for version in _versions(schema, kind) if version <= opset]
        if known:
            try:
                return getattr(schema, f"get_{kind}_with_opset_version")(max(known), *arguments) or None
            except RuntimeError:
                return None
    return None


def attribute_defaults(op_type: str, opset: int) -> list[AttributeProto]:
    """The attributes of an operator of the default domain that have defaults."""
    schema = raw_schema(op_type, "", opset)
    known = () if schema is None else schema.attributes.values()
    return [attribute.default_value for attribute in known if attribute.default_value.name]


def _versions(schema: Any, kind: str) -> list[int]:
    return list(getattr(schema, f"{kind}_opset_versions")) if getattr(schema, f"has_{kind}") else []


@dataclass(frozen=True)
class Signature:
    """What an operation class is made of: names of the newest schema's formal inputs and outputs.

    Attributes:
        domain: operator domain, "" is the default one.
        op_type: operator name.
        inputs: names of the formal inputs.
        outputs: names of the formal outputs.
        last_variadic: the last formal input stands for any number.
        required: positions of inputs that are neither optional nor variadic.
        always_made: positions of outputs that are neither optional nor variadic.
    """

    domain: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_variadic: bool
    required: frozenset[int]
    always_made: frozenset[int]


@lru_cache(maxsize=1)
def signatures() -> tuple[Signature, ...]:
    """One signature for every operator onnx knows, deprecated ones included."""
    from onnx import defs

    option = defs.OpSchema.FormalParameterOption
    return tuple(
        Signature(
            s.domain,
            s.name,
            tuple(p.name for p in s.inputs),
            tuple(p.name for p in s.outputs),
            any(p.option == option.Variadic for p in s.inputs),
            frozenset(i for i, p in enumerate(s.inputs) if p.option == option.Single),
            frozenset(i for i, p in enumerate(s.outputs) if p.option == option.Single),
        )
        for s in defs.get_all_schemas()
        if s.domain in DOMAIN_PREFIX
    )


def newest_opset(domain: str = "") -> int:
    """The newest version of `domain` onnx knows; 1 for foreign domains."""
    from onnx import defs

    return _newest_opsets().get(domain, 1) if domain else defs.onnx_opset_version()


@lru_cache
def _newest_opsets() -> dict[str, int]:
    """The newest version of every domain, in one walk over the schemas."""
    from onnx import defs

    newest: dict[str, int] = {}
    for schema in defs.get_all_schemas_with_history():
        newest[schema.domain] = max(schema.since_version, newest.get(schema.domain, 1))
    return newest


def _convert(schema: OpSchema) -> Schema:
    from onnx import defs

    variables = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    option = defs.OpSchema.FormalParameterOption

    def formal(parameter: OpSchema.FormalParameter) -> Formal:
        return Formal(
            name=parameter.name,
            optional=parameter.option == option.Optional,
            variadic=parameter.option == option.Variadic,
            type_name=parameter.type_str,
            allowed=variables.get(parameter.type_str, frozenset((parameter.type_str,))),
            homogeneous=parameter.is_homogeneous,
        )

    return Schema(
        domain=schema.domain,
        op_type=schema.name,
        since_version=schema.since_version,
        deprecated=schema.deprecated,
        inputs=tuple(formal(p) for p in schema.inputs),
        outputs=tuple(formal(p) for p in schema.outputs),
        attributes={
            name: AttributeInfo(name, _kind(a), a.required, _default(a)) for name, a in schema.attributes.items()
        },
        min_input=schema.min_input,
        max_input=schema.max_input,
        min_output=schema.min_output,
        max_output=schema.max_output,
    )


def _kind(attribute: OpSchema.Attribute) -> str:
    return str(attribute.type).rpartition(".")[2]


def _default(attribute: OpSchema.Attribute) -> AttributeDefault:
    value = attribute.default_value
    match _kind(attribute):
        case "INT" if value.name:
            return value.i
        case "FLOAT" if value.name:
            return value.f
        case "STRING" if value.name:
            return value.s.decode()
        case "INTS" if value.name:
            return tuple(value.ints)
        case "FLOATS" if value.name:
            return tuple(value.floats)
        case "STRINGS" if value.name:
            return tuple(s.decode() for s in value.strings)
        case _:
            return None


HOST_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"})
"""Operator domains that onnxruntime has kernels for."""
