"""Reading a model of any kind `neuc.compile` takes: a file, IR text, a model in memory.

What formats mean is the importers' business.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.driver import level_of, read_module
from neuc.compiler.formats.recognition import is_source
from neuc.compiler.importers import import_model
from neuc.compiler.importers.decoder.facts import decoder_facts
from neuc.compiler.importers.nir.options import NirOptions, is_nir
from neuc.compiler.options import CompileOptions
from neuc.compiler.universe import new_context
from neuc.dialects.context import NeucContext
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Source:
    """A model as it was read.

    Attributes:
        module: the module, on the level the file was on.
        context: its context and weights.
        name: what to call it in reports.
        path: the file, if it came from one.
        graph_level: whether an importer made it from a model (and not from IR text).
        model: the model in memory, if it did not come from a file.
        extra: members that go into its artifact, by name.
        spiking: whether it was read from a NIR graph.
    """

    module: ModuleOp
    context: NeucContext
    name: str
    path: Path | None
    graph_level: bool
    model: object = None
    extra: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    spiking: bool = False

    @property
    def is_decoder(self) -> bool:
        """Whether it came from a file or folder of weights alone."""
        return decoder_facts(self.module) is not None

    @property
    def external(self) -> list[Path]:
        """Files beside the model that hold some of its tensors."""
        in_one_file = not self.graph_level or self.is_decoder or self.spiking
        return [] if self.path is None or in_one_file else external_files(self.path)

    def reference(self) -> Path | bytes:
        """The model as onnxruntime takes it.

        Raises:
            Error: NEUC-E261, there is no ONNX form of it.
        """
        self.require_reference()
        if self.path is not None:
            return self.path
        return (
            self.model if isinstance(self.model, bytes) else bytes(cast("ModelProto", self.model).SerializeToString())
        )

    def require_reference(self) -> None:
        """Refuse what `reference` has nothing of.

        Raises:
            Error: NEUC-E261.
        """
        if not self.graph_level:
            what = f"--verify needs the ONNX model, and {self.name} is IR text"
            hint = "compile first, then `neuc verify FILE --against model.onnx`"
            raise Error("NEUC-E261", what, hint=hint, exit_code=Exit.USAGE)
        onnx = self.path is not None or isinstance(self.model, bytes) or hasattr(self.model, "SerializeToString")
        if self.is_decoder or self.spiking or not onnx:
            hint = "leave --verify out" if self.is_decoder else "leave --verify out, or export it to ONNX first"
            what = f"{self.name} has no ONNX form to verify against"
            raise Error("NEUC-E261", what, hint=hint, exit_code=Exit.USAGE)

    @property
    def level(self) -> str:
        """The level the module is on."""
        return level_of(self.module)


def refuse_idle(source: Source, options: CompileOptions) -> None:
    """Refuse options for other kinds of models: nothing is ignored silently.

    Raises:
        Error: NEUC-E002.
    """
    decoders = {"head": options.head is not None, "kv": options.kv != CompileOptions.kv, "read-as": options.read_as}
    graphs = {"dt": options.dt is not None, "reset": options.reset != CompileOptions.reset}
    graphs["keep-state"] = options.keep_state
    idle: list[tuple[str, str]] = []
    if not (source.graph_level and source.is_decoder):
        idle += [(name, "decoders (GGUF, Hugging Face)") for name, given in decoders.items() if given]
    if not source.spiking:
        idle += [(name, "NIR graphs") for name, given in graphs.items() if given]
    if options.shapes and not source.graph_level:
        idle.append(("shape", "models, not for IR text"))
    for name, what in idle[:1]:
        message = f"--{name} does nothing with {source.name}: it is for {what}"
        raise Error("NEUC-E002", message, hint=f"leave --{name} out", exit_code=Exit.USAGE)


def _import(
    model: object,
    path: Path | None,
    context: NeucContext,
    shapes: Mapping[str, tuple[int | str, ...]] | None,
    example_inputs: tuple[object, ...] | None,
) -> ModuleOp:
    if path is not None:
        return import_model(path, context, shapes=shapes)
    from onnx import ModelProto

    if isinstance(model, bytes | ModelProto):
        from neuc.compiler.importers.onnx_file import import_onnx

        return import_onnx(model, context, shapes=shapes)
    if not callable(model):
        raise Error(
            "NEUC-E102",
            f"a {type(model).__name__} is no model",
            hint="give a path, an onnx.ModelProto, or a torch.nn.Module with example_inputs",
            exit_code=Exit.USAGE,
        )
    if example_inputs is None:
        raise Error(
            "NEUC-E102",
            f"a {type(model).__name__} needs inputs to be traced with",
            hint="neuc.compile(module, example_inputs=(x,))",
            exit_code=Exit.USAGE,
        )
    from neuc.compiler.importers.torch_module import import_torch

    return import_torch(model, example_inputs, context, shapes=shapes)


def external_files(path: Path) -> list[Path]:
    """The external data files an ONNX model names."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    model = onnx.load_model(path, load_external_data=False)
    tensors = [t for t in model.graph.initializer if uses_external_data(t)]
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return sorted(path.parent / name for name in names)


def read_model(
    model: object,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    example_inputs: tuple[object, ...] | None = None,
    *,
    head: str | None = None,
    kv: str = "f16",
    read_as: tuple[str, ...] = (),
    nir: NirOptions | None = None,
) -> Source:
    """Read a model of any kind `compile` takes; `head`, `kv` and `read_as` as `CompileOptions` has them.

    `nir` says how NIR graphs are read; it is an error with anything else, unless it says nothing. A `Source` is one
    already.

    Raises:
        Error: it cannot be read.
    """
    if isinstance(model, Source):
        return model
    path = Path(model) if isinstance(model, (str, os.PathLike)) else None
    if path is not None and path.suffix == ".mlir":
        module, context = read_module(path)
        return Source(module, context, path.name, path, graph_level=False)
    context = new_context()
    if is_nir(path or model):
        from neuc.compiler.importers.nir.importer import import_nir

        options = dataclasses.replace(nir or NirOptions(), shapes=shapes or {})
        module = import_nir(path or model, context, options)
        return Source(module, context, path.name if path else "graph", path, graph_level=True, spiking=True)
    if path is not None and is_source(path):
        if shapes:
            raise Error(
                "NEUC-E002",
                f"--shape with {path.name}: a decoder's inputs have the sizes each run gives them",
                hint="leave --shape out",
                exit_code=Exit.USAGE,
            )
        from neuc.compiler.importers.decoder.importer import import_decoder

        module, extra = import_decoder(path, context, head=head, kv=kv, read_as=read_as)
        return Source(module, context, path.name, path, graph_level=True, extra=extra)
    module = _import(model, path, context, shapes, example_inputs)
    return Source(
        module, context, path.name if path is not None else type(model).__name__, path, graph_level=True, model=model
    )
