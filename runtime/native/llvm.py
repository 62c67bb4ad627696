"""The one place of the runtime that touches llvmlite, with types: host facts, IR to objects, objects to memory."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Protocol, cast

from neuc.errors import InternalError


class _Module(Protocol):
    def verify(self) -> None: ...


class _TargetMachine(Protocol):
    def emit_object(self, module: _Module) -> bytes: ...


class _Target(Protocol):
    def create_target_machine(
        self, *, cpu: str, features: str, opt: int, reloc: str, codemodel: str, jit: bool
    ) -> _TargetMachine: ...


class _TargetClass(Protocol):
    def from_default_triple(self) -> _Target: ...


class _Tracker(Protocol):
    def __getitem__(self, item: str) -> int: ...


class _Jit(Protocol):
    closed: bool


class _Builder(Protocol):
    def add_object_img(self, data: bytes) -> object: ...
    def add_current_process(self) -> object: ...
    def export_symbol(self, name: str) -> object: ...
    def link(self, lljit: _Jit, library_name: str) -> _Tracker: ...


class _Binding(Protocol):
    """The part of ``llvmlite.binding`` used here; llvmlite ships no types."""

    Target: _TargetClass

    def initialize_native_target(self) -> None: ...
    def initialize_native_asmprinter(self) -> None: ...
    def get_host_cpu_features(self) -> Mapping[str, bool]: ...
    def get_host_cpu_name(self) -> str: ...
    def get_process_triple(self) -> str: ...
    def parse_assembly(self, llvmir: str) -> _Module: ...
    def create_lljit_compiler(self) -> _Jit: ...
    def JITLibraryBuilder(self) -> _Builder: ...


_binding = cast(_Binding, import_module("llvmlite.binding"))
_library_numbers = itertools.count()


def version() -> str:
    """The version of llvmlite, part of every cache key of generated code."""
    return cast(str, import_module("llvmlite").__version__)


def host_cpu_features() -> Mapping[str, bool]:
    """Every feature LLVM knows for this architecture, and whether this processor has it; empty if unknown."""
    try:
        return dict(_binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot ask this operating system
        return {}


def host_cpu_name() -> str:
    """LLVM's name of this processor."""
    return _binding.get_host_cpu_name()


def process_triple() -> str:
    """The target triple of this process."""
    return _binding.get_process_triple()


@lru_cache(maxsize=1)
def _initialised() -> None:
    _binding.initialize_native_target()
    _binding.initialize_native_asmprinter()


def compile_baseline(ir: str) -> bytes:
    """Object code for this architecture's baseline processor: it may be cached and used by any of its machines."""
    _initialised()
    module = _binding.parse_assembly(ir)
    module.verify()
    machine = _binding.Target.from_default_triple().create_target_machine(
        cpu="", features="", opt=2, reloc="static", codemodel="jitdefault", jit=True
    )
    return machine.emit_object(module)


class LoadedCode:
    """Object files linked into this process; the addresses are valid as long as this object lives."""

    def __init__(self, tracker: _Tracker | Mapping[str, int], jit: _Jit | None, addresses: Mapping[str, int]) -> None:
        self._keep = (tracker, jit)
        self.addresses = addresses


def link_objects(objects: Iterable[bytes], symbols: Collection[str]) -> LoadedCode:
    """Link objects with each other and with the C library, and look up ``symbols``.

    Raises:
        RuntimeError: LLVM cannot read an object, or a symbol is defined nowhere or twice.
    """
    _initialised()
    builder = _binding.JITLibraryBuilder()
    for data in objects:
        builder.add_object_img(data)
    builder.add_current_process()
    for name in symbols:
        builder.export_symbol(name)
    jit = _binding.create_lljit_compiler()
    tracker = builder.link(jit, f"neuc{next(_library_numbers)}")
    addresses = {name: tracker[name] for name in symbols}
    if not all(addresses.values()):
        raise InternalError("a linked symbol has no address")
    return LoadedCode(tracker, jit, addresses)
