"""Imports a PyTorch module through `torch.onnx.export(dynamo=True)`. PyTorch is imported only here, on call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from onnx import ModelProto
from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.dialects.context import NeucContext
from neuc.errors import Error, Exit


class _Program(Protocol):
    model_proto: ModelProto


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
) -> ModuleOp:
    """Import a `torch.nn.Module`.

    Args:
        module: the module, in evaluation mode.
        example_inputs: tensors to trace it with.
        ctx: its weight store receives the parameters.
        dynamic_shapes: as `torch.export` takes them: which dims are symbols.

    Raises:
        Error: NEUC-E410 without PyTorch; NEUC-E112 when PyTorch cannot export the module.
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
