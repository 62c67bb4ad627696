"""Imports a PyTorch module through `torch.onnx.export(dynamo=True)`. PyTorch is imported only here, on call."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from onnx import ModelProto
from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.dialects.context import NeucContext
from neuc.errors import Error, Exit


class _Program(Protocol):
    model_proto: ModelProto


class _Tensor(Protocol):
    @property
    def shape(self) -> Sequence[int]: ...


class _Exporter(Protocol):
    def export(
        self,
        model: object,
        args: tuple[object, ...],
        *,
        dynamo: bool,
        dynamic_shapes: object,
        verbose: bool,
    ) -> _Program | None: ...


def import_torch(
    module: object,
    example_inputs: Sequence[object],
    ctx: NeucContext,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
) -> ModuleOp:
    """Import a `torch.nn.Module`.

    Args:
        module: the module, in evaluation mode.
        example_inputs: tensors to trace it with.
        ctx: its weight store receives the parameters.
        dynamic_shapes: as `torch.export` takes them: which dims are symbols.
        shapes: the same by names of ``forward``'s parameters: sizes as the example inputs have them, and symbols.

    Raises:
        Error: NEUC-E410 without PyTorch; NEUC-E112 when PyTorch cannot export the module; NEUC-E108, a shape does not
            fit the example inputs.
    """
    try:
        exporter = cast(_Exporter, importlib.import_module("torch.onnx"))
    except ImportError as error:
        raise Error(
            "NEUC-E410",
            "PyTorch is not installed, so a torch module cannot be imported",
            hint="pip install torch, or export the model to ONNX where PyTorch is",
        ) from error
    kind = type(module).__name__
    if shapes:
        dynamic_shapes = _symbols(module, example_inputs, shapes)
    try:
        program = exporter.export(
            module, tuple(example_inputs), dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False
        )
    except Exception as error:  # tracing runs the user's code, which may raise anything
        line = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
        raise Error(
            "NEUC-E112",
            f"PyTorch cannot export {kind}: {line[:300]}",
            hint="make torch.onnx.export(module, inputs, dynamo=True) work first",
            exit_code=Exit.FAULT,
        ) from error
    if program is None:
        raise Error("NEUC-E112", f"PyTorch exported nothing for {kind}", hint="use PyTorch 2.5 or newer")
    return import_onnx(program.model_proto, ctx, name=f"{kind}.onnx")


def _symbols(
    module: object, example_inputs: Sequence[object], shapes: Mapping[str, Sequence[int | str]]
) -> tuple[object, ...]:
    """`shapes` as `torch.export` takes them, an entry for each example input."""
    dim = importlib.import_module("torch.export").Dim
    forward = cast("Callable[..., object]", getattr(module, "forward", module))
    names = list(inspect.signature(forward).parameters)[: len(example_inputs)]
    unknown = [name for name in shapes if name not in names]
    if unknown:
        what = f"a shape is given for {unknown[0]!r}, which is no parameter that example_inputs has a tensor for"
        raise Error("NEUC-E108", what, hint=f"those are {', '.join(names)}")
    found: dict[str, dict[int, object] | None] = dict.fromkeys(names)
    examples = dict(zip(names, example_inputs))
    for name, dims in shapes.items():
        given = examples[name]
        shape = tuple(cast(_Tensor, given).shape) if hasattr(given, "shape") else None
        if shape is None or len(shape) != len(dims) or any(d not in (n, str(d)) for d, n in zip(dims, shape)):
            what = f"the shape {list(dims)} given for {name!r} does not fit its example input"
            has = "is no tensor" if shape is None else f"is {list(shape)}"
            hint = f"that {has}: give its sizes, with names where they may change, or another example input"
            raise Error("NEUC-E108", what, hint=hint)
        wrong = [d for d in dims if isinstance(d, str) and not d.isidentifier()]
        if wrong:
            what = f"the shape {list(dims)} given for {name!r}: {wrong[0]!r} is no name"
            raise Error("NEUC-E108", what, hint="name dims with letters, digits and _")
        found[name] = {axis: dim(d) for axis, d in enumerate(dims) if isinstance(d, str)}
    return tuple(found[name] for name in names)
