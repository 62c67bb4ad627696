"""The `onnx` dialect: one operation class per operator, generated from ONNX's own schema registry.

`onnx.ConvOp`, `onnx.ml_ScalerOp`, … are made on first use (their fields are in the stub `onnx.pyi`, written by
`onnx_stub.py`); hand-written parts are in `onnx_base.py`, `onnx_special.py` and `onnx_types.py`. No lowering and no
file access here.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from functools import lru_cache

from xdsl.dialects.builtin import DictionaryAttr, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Dialect, Operation, OpResult, SSAValue
from xdsl.irdl import irdl_op_definition, traits_def
from xdsl.traits import Pure

from neuc.dialects.onnx_base import NAME, OPSETS, OnnxOp, opsets_of, set_opsets
from neuc.dialects.onnx_schema import DOMAIN_PREFIX, Signature, signatures
from neuc.dialects.onnx_special import CustomOp, NoneOp, YieldOp
from neuc.dialects.onnx_types import (
    MapType,
    NoneType,
    OptionalType,
    SequenceType,
    SparseAttr,
    SparseTensorType,
    StoredAttr,
    StringsAttr,
    StringType,
    UnknownType,
)

__all__ = [
    "NAME",
    "OPSETS",
    "CustomOp",
    "NoneOp",
    "Onnx",  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll] - made by __getattr__
    "OnnxOp",
    "YieldOp",
    "function_names",
    "op_class",
    "opsets_of",
    "set_opsets",
]

# Operators whose result differs from call to call: not to be merged.
_RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial Dropout".split()
)
_TYPES = [
    MapType, NoneType, OptionalType, SequenceType, SparseAttr, SparseTensorType, StoredAttr, StringsAttr, StringType,
    UnknownType,
]  # fmt: skip


def op_class(op_type: str, domain: str = "") -> type[OnnxOp] | None:
    """The class of an operator, None if onnx does not know it."""
    return _classes().get((domain, op_type))


def class_name(signature: Signature) -> str:
    """`ConvOp`; operators of other domains have a prefix: `ml_ScalerOp`."""
    prefix = DOMAIN_PREFIX[signature.domain].removeprefix("onnx.").replace(".", "_")
    return f"{prefix}{signature.op_type}Op"


def field_names(signature: Signature) -> tuple[dict[str, int], dict[str, int]]:
    """Property names of inputs and outputs of a class, with their positions."""
    inputs, outputs = dict[str, int](), dict[str, int]()
    taken = set(dir(OnnxOp))
    for fields, names in ((inputs, signature.inputs), (outputs, signature.outputs)):
        for index, name in enumerate(names):
            if name == "inputs" or name == "outputs":
                continue  # OnnxOp has them already
            unique = f"{name}_" if name in taken or keyword.iskeyword(name) else name
            taken.add(unique)
            fields[unique] = index
    return inputs, outputs


def function_names(func: FuncOp) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's names of a function's inputs and outputs; `in0`, `out0` … where it has none."""
    return (
        _names(func.arg_attrs.data if func.arg_attrs else (), len(func.function_type.inputs), "in"),
        _names(func.res_attrs.data if func.res_attrs else (), len(func.function_type.outputs), "out"),
    )


def _names(attrs: tuple[DictionaryAttr, ...], count: int, prefix: str) -> tuple[str, ...]:
    found: list[str] = []
    for index in range(count):
        name = attrs[index].data.get(NAME) if index < len(attrs) else None
        text = decode_name(name.data) if isinstance(name, StringAttr) else f"{prefix}{index}"
        found.append(text)
    return tuple(found)


def encode_name(name: str) -> str:
    """`name` with backslashes, control and non-ASCII characters escaped: string literals in IR text are ASCII."""
    return name.encode("unicode_escape").decode("ascii")


def decode_name(name: str) -> str:
    """The inverse of `encode_name`; text that it cannot have made stays as it is."""
    try:
        return name.encode("ascii").decode("unicode_escape") if "\\" in name else name
    except UnicodeError:
        return name


def _input(index: int) -> Callable[[OnnxOp], SSAValue | None]:
    return lambda op: op.operand_at(index)


def _inputs_from(index: int) -> Callable[[OnnxOp], tuple[SSAValue, ...]]:
    return lambda op: tuple(op.operands[index:])


def _output(index: int) -> Callable[[OnnxOp], OpResult | None]:
    return lambda op: op.result_at(index)


# Defining a class through irdl costs half a millisecond, so it is done once for each of two parents. The generated
# classes differ from their parent in name and properties only.
@irdl_op_definition
class _PureNode(OnnxOp):
    name = "onnx.node"
    traits = traits_def(Pure())


@irdl_op_definition
class _RandomNode(OnnxOp):
    name = "onnx.random_node"


def _make_class(signature: Signature) -> type[OnnxOp]:
    inputs, outputs = field_names(signature)
    namespace: dict[str, object] = {
        "name": DOMAIN_PREFIX[signature.domain] + signature.op_type,
        "OP_TYPE": signature.op_type,
        "DOMAIN": signature.domain,
        "__module__": __name__,
        "__doc__": f"ONNX operator {signature.op_type}.",
    }
    parent = _RandomNode if signature.op_type in _RANDOM else _PureNode
    cls: type[OnnxOp] = type(class_name(signature), (parent,), namespace)  # pyright: ignore[reportAssignmentType]
    last = len(signature.inputs) - 1
    for name, index in inputs.items():
        getter = _inputs_from if signature.last_variadic and index == last else _input
        setattr(cls, name, property(getter(index)))
    for name, index in outputs.items():
        setattr(cls, name, property(_output(index)))
    return cls


@lru_cache(maxsize=1)
def _classes() -> dict[tuple[str, str], type[OnnxOp]]:
    return {(s.domain, s.op_type): _make_class(s) for s in signatures()}


@lru_cache(maxsize=1)
def _dialect() -> Dialect:
    generated: list[type[Operation]] = list(_classes().values())
    return Dialect("onnx", [*generated, CustomOp, NoneOp, YieldOp], _TYPES)


@lru_cache(maxsize=1)
def _exports() -> dict[str, type[OnnxOp]]:
    return {class_name(s): _classes()[s.domain, s.op_type] for s in signatures()}


def __getattr__(name: str) -> Dialect | type[OnnxOp]:
    if name == "Onnx":
        return _dialect()
    if name.endswith("Op") and name in _exports():
        return _exports()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
