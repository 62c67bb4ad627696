"""Readers of model formats, one file a format; `import_model` chooses by what a file is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from neuc.compiler.importers.onnx_file import Shapes
    from neuc.dialects.context import NeucContext

SUPPORTED = "ONNX (.onnx), IR (.mlir), NIR (.nir, .h5) and GGUF (.gguf) files"

# First bytes of formats people try, with what to do about them.
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive, perhaps a PyTorch checkpoint", "export it with torch.onnx.export(dynamo=True)"),
    (b"\x80", "a pickle", "load it in PyTorch and export it with torch.onnx.export(dynamo=True)"),
    (b"GGUF", "a GGUF file", "compile it by its path: decoders are read in another way"),
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself", "fetch the file with git lfs pull"),
    (b"<", "a web page or XML", "download the model file itself"),
    (b"{", "JSON", "give the model's ONNX file"),
)


def import_model(path: str | Path, ctx: NeucContext, *, shapes: Shapes | None = None, name: str = "") -> ModuleOp:
    """Import the model in a file.

    Args:
        path: the file.
        ctx: its weight store receives the tensors.
        shapes: dims of some inputs, by input name: ints and symbol names.
        name: what to call the model in locations; the file's name by default.

    Raises:
        Error: NEUC-E102 when no importer reads such a file, or what the importer raises.
    """
    path = Path(path)
    if path.is_dir():
        raise Error("NEUC-E102", f"{path} is a folder", hint=f"give a file; {SUPPORTED} are read", exit_code=Exit.USAGE)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        reason = error.strerror or "it is not readable"
        raise Error("NEUC-E103", f"cannot read {path}: {reason}", hint="check the path and its permissions") from error
    for magic, what, hint in _OTHERS:
        if head.startswith(magic):
            raise Error("NEUC-E102", f"{path.name} is {what}; {SUPPORTED} are read", hint=hint)
    if path.suffix.lower() not in (".onnx", ".pb", "") and head[:1] != b"\x08":  # field 1, the IR version
        hint = "export the model to ONNX; what neuc compiled is called .neuc"
        raise Error("NEUC-E102", f"{path.name} has an unknown format; {SUPPORTED} are read", hint=hint)
    from neuc.compiler.importers.onnx_file import import_onnx

    return import_onnx(path, ctx, shapes=shapes, name=name)
