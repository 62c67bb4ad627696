"""What a model says about its inputs and outputs: absurd sizes are refused, and contradicted ones."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto, ValueInfoProto
from xdsl.dialects.func import FuncOp

from neuc.dialects.onnx import function_names
from neuc.dialects.store import dims_of
from neuc.errors import Error

MAX_ELEMENTS = 1 << 40
"""More elements than any tensor here can have: 2^40 bytes would be a terabyte."""


def check_dims(info: ValueInfoProto, what: str) -> None:
    """Refuse sizes no tensor has.

    Raises:
        Error: NEUC-E105, a negative dim (other than -1, which some exporters write for a free one), or too many
            elements.
    """
    elements = 1
    for index, size in enumerate(static_dims(info) or ()):
        if size is None:
            continue
        if size < 0:
            raise _absurd(f"{what} {info.name!r} has size {size} in dim {index}")
        elements *= max(size, 1)
    if elements > MAX_ELEMENTS:
        raise _absurd(f"{what} {info.name!r} has {elements} elements")


def static_dims(info: ValueInfoProto) -> list[int | None] | None:
    """The declared sizes, None for a free dim; None if no shape is declared."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value != -1 else None for d in dims]


def check_default(info: ValueInfoProto, number: int, dims: Sequence[int]) -> None:
    """Compare what an input is declared as with its default value, an initializer of its name.

    Args:
        info: the input; it may be declared without a type.
        number: ONNX's number of the default value's element type.
        dims: the default value's shape.

    Raises:
        Error: NEUC-E108, the types differ, or the sizes that are numbers.
    """
    if not info.type.WhichOneof("value"):
        return
    declared = info.type.tensor_type.elem_type
    if declared != number:
        raise _contradicted(info.name, _element(declared), _element(number))
    sizes = static_dims(info)
    if sizes is not None and (len(sizes) != len(dims) or any(s not in (None, d) for s, d in zip(sizes, dims))):
        raise _contradicted(info.name, *(_shape(shape) for shape in (sizes, dims)))


def _element(number: int) -> str:
    known = number in TensorProto.DataType.values()
    return f"element type {TensorProto.DataType.Name(number) if known else number}"


def _shape(sizes: Sequence[int | None]) -> str:
    return f"shape [{', '.join('?' if size is None else str(size) for size in sizes)}]"


def _contradicted(name: str, declared: str, found: str) -> Error:
    return Error(
        "NEUC-E108",
        f"input {name!r} is declared with {declared}, but its default value, an initializer, has {found}",
        hint="export the model again, or remove the input or the initializer from the file",
    )


def check_outputs(func: FuncOp, declared: Sequence[Sequence[int | None] | None]) -> None:
    """Compare the declared sizes of the outputs with the inferred ones.

    Raises:
        Error: NEUC-E108, a size that is a number on both sides differs.
    """
    names = function_names(func)[1]
    for name, type_, sizes in zip(names, func.function_type.outputs, declared, strict=True):
        try:
            inferred = dims_of(type_)
        except ValueError:
            continue
        if sizes is None or len(sizes) != len(inferred):
            continue
        for index, (size, dim) in enumerate(zip(sizes, inferred)):
            if size is not None and dim.is_static and dim.value != size:
                raise Error(
                    "NEUC-E108",
                    f"output {name!r} is declared with size {size} in dim {index}, but the model computes {dim.value}",
                    hint="export the model again, or remove the output's shape from the file",
                )


def _absurd(message: str) -> Error:
    return Error("NEUC-E105", message, hint="the file is damaged or was written wrongly; export the model again")
