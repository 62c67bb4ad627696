"""From a machine-level module to what runs: the emitted program, its host segments, the artifact or a session.

Emission is the backend's, the artifact's format the runtime's; here they meet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects import func, llvm
from xdsl.dialects.builtin import ModuleOp

from neuc import __version__
from neuc.backends.cpu.codegen import assembly, llvm_ir
from neuc.backends.cpu.emit import EmittedProgram, emit
from neuc.backends.cpu.lower_to_cpu import module_isa
from neuc.backends.cpu.target import isa_text
from neuc.compiler import interruption
from neuc.compiler.driver import Driver
from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.importers.decoder.facts import decoder_facts
from neuc.compiler.importers.library_steps import TARGET_OPSET
from neuc.compiler.report import Report
from neuc.dialects.context import NeucContext
from neuc.passes.module_facts import facts_of
from neuc.runtime.program import HostSegment

if TYPE_CHECKING:
    from neuc.runtime.session import Session


@dataclass(frozen=True)
class BuiltProgram:
    """Everything an artifact or a session needs.

    Attributes:
        emitted: program, kernels and weights.
        hosts: ONNX bytes of host segments, by the path the program names.
        facts: JSON data about the model that the manifest has, besides what the report says.
        extra: further members of the artifact, by name.
    """

    emitted: EmittedProgram
    hosts: Mapping[str, bytes]
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
    extra: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def write(self, path: str | os.PathLike[str], report: Report, ir: Mapping[str, str]) -> None:
        """Write the artifact; the same program and report give the same bytes."""
        from neuc.runtime.artifact import write_artifact

        interruption.check()
        isa = self.emitted.isa
        write_artifact(
            path,
            program=self.emitted.program,
            kernels=self.emitted.kernels,
            weights=self.emitted.weights if "arrays" not in self.__dict__ else self.arrays,
            hosts=self.hosts,
            ir=ir,
            manifest={
                "model": report.model,
                "target": report.target,
                "isa": isa_text(isa),
                "architecture": isa.arch,
                "features": sorted(isa.features),
                "versions": {"neuc": __version__, "llvmlite": metadata.version("llvmlite")},
                "report": report.lasting(),
                **self.facts,
            },
            extra=self.extra,
            debug_map={name: [list(nodes) for nodes in launches] for name, launches in self.emitted.debug_map.items()},
        )

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The weights, lazy ones made and kept."""
        return self.emitted.arrays()

    def session(self, *, threads: int | None, profile: bool) -> Session:
        """A session without a file."""
        from neuc.runtime.session import Session

        isa = self.emitted.isa
        return Session.from_parts(
            self.emitted.program,
            self.emitted.kernels,
            self.arrays,
            self.hosts,
            threads=threads,
            profile=profile,
            features=isa.features,
            architecture=isa.arch,
            manifest=self.facts,
        )


def build(module: ModuleOp, context: NeucContext, extra: Mapping[str, bytes] | None = None) -> BuiltProgram:
    """Emit the program of a machine-level module; `extra` are further members of its artifact."""
    emitted = emit(module, context.weights)
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
    hosts = {
        segment.model: export_onnx(functions[name], context.weights, newest=TARGET_OPSET).SerializeToString()
        for name, segment in emitted.program.segments.items()
        if isinstance(segment, HostSegment)
    }
    decoder = decoder_facts(module)
    facts = dict(facts_of(module)) | ({} if decoder is None else {"decoder": decoder})
    return BuiltProgram(emitted, hosts, facts, extra or {})


def dump_kernels(driver: Driver) -> None:
    """Write ``.ll`` and ``.s`` of every kernel into the dump folder, if there is one."""
    if driver.observation.dump is None:
        return
    isa = module_isa(driver.module)
    for op in driver.module.ops:
        if isinstance(op, llvm.FuncOp):
            name = op.sym_name.data
            driver.dump_text(f"{name}.ll", llvm_ir(op, isa, optimised=True))
            driver.dump_text(f"{name}.s", assembly(op, isa))
