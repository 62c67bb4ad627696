"""From kernels in the llvm dialect to ELF object code, through llvmlite, with a cache on disk.

Nothing here knows what a kernel computes, and nothing is loaded or run here.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llvmlite.binding as llvmlite
import platformdirs
from llvmlite.binding import ffi
from xdsl.dialects import llvm
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import VerifyException

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.translate import to_llvm_ir
from neuc.errors import InternalError

CACHE_VARIABLE = "NEUC_CACHE_DIR"
"""Environment variable that moves the cache; set to nothing, it turns the cache off."""

_ELF_SYMBOL_TABLE = 2

# Part of the cache key: raise it when the optimisation settings below change.
_SETTINGS = "neuc-2 O1 functions"


def compile_object(kernels: llvm.FuncOp | Sequence[llvm.FuncOp] | ModuleOp, isa: Isa, *, cache: bool = True) -> bytes:
    """One relocatable ELF object with these functions.

    Position-independent code of the small model: it runs wherever it is loaded, as long as the sections of
    one object stay within 2 GB of each other. The object refers to no outside symbol.

    Several threads may do this at once, and LLVM then works at once: see `_without_lock`.
    """
    functions = _functions(kernels)
    text = to_llvm_ir(functions, isa)
    path = _cache_path(text, isa) if cache else None
    if path is not None and path.is_file():
        return path.read_bytes()
    with _parsed(text, functions) as module, _target_machine(isa) as machine:
        _optimise(module, machine)
        code = _object_code(module, machine)
    if outside := outside_symbols(code):
        names = ", ".join(function.sym_name.data for function in functions)
        raise InternalError(f"kernel {names} on {isa.name} would call {', '.join(outside)}")
    if path is not None:
        _write_atomically(path, code)
    return code


def assembly(kernels: llvm.FuncOp | Sequence[llvm.FuncOp] | ModuleOp, isa: Isa) -> str:
    """The machine code as assembly text."""
    functions = _functions(kernels)
    with _parsed(to_llvm_ir(functions, isa), functions) as module, _target_machine(isa) as machine:
        _optimise(module, machine)
        return machine.emit_assembly(module)


def llvm_ir(kernels: llvm.FuncOp | Sequence[llvm.FuncOp] | ModuleOp, isa: Isa, *, optimised: bool = False) -> str:
    """The LLVM IR text, as translated or after optimisation."""
    functions = _functions(kernels)
    text = to_llvm_ir(functions, isa)
    if not optimised:
        return text
    with _parsed(text, functions) as module, _target_machine(isa) as machine:
        _optimise(module, machine)
        return str(module)


def verify(function: llvm.FuncOp) -> None:
    """Check a kernel against the llvm dialect (slow: for tests and for IR that people have edited)."""
    try:
        function.verify()
    except VerifyException as error:
        raise InternalError(f"kernel {function.sym_name.data}: {error}") from error


def outside_symbols(code: bytes) -> list[str]:
    """What a 64-bit little-endian ELF object expects others to define: kernels must need nothing."""
    table = struct.unpack_from("<Q", code, 40)[0]
    entry_size, count = struct.unpack_from("<HH", code, 58)
    # Of a section header: type, file offset, size, and the index of the string table it refers to.
    sections = [struct.unpack_from("<4xI16xQQI", code, table + i * entry_size) for i in range(count)]
    names: list[str] = []
    for kind, offset, size, link in sections:
        if kind != _ELF_SYMBOL_TABLE:
            continue
        strings = sections[link][1]
        for name, section in struct.iter_unpack("<I2xH16x", code[offset : offset + size]):
            if name and section == 0:
                start = strings + name
                names.append(code[start : code.index(b"\0", start)].decode())
    return names


def cache_dir() -> Path | None:
    """Where objects are cached; None when the cache is off."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen) / "objects" if chosen else None
    return Path(platformdirs.user_cache_dir("neuc", appauthor=False)) / "objects"


def _functions(kernels: llvm.FuncOp | Sequence[llvm.FuncOp] | ModuleOp) -> list[llvm.FuncOp]:
    match kernels:
        case llvm.FuncOp():
            return [kernels]
        case ModuleOp():
            return [op for op in kernels.body.block.ops if isinstance(op, llvm.FuncOp)]
        case _:
            return list(kernels)


def _without_lock(function: Callable[..., object]) -> Callable[..., object]:
    """An LLVM function as llvmlite has it, but without the lock that lets one thread in at a time.

    LLVM itself allows threads with contexts of their own, which `_parsed` makes. Where llvmlite hides the function in
    another way than it did, the lock stays, and threads take turns.
    """
    return getattr(function, "_cfn", function)


@contextmanager
def _parsed(text: str, functions: Sequence[llvm.FuncOp]) -> Iterator[llvmlite.ModuleRef]:
    """A verified module in a context of its own."""
    with llvmlite.create_context() as context:
        try:
            module = llvmlite.parse_assembly(text, context)
        except RuntimeError as error:
            raise _refused(functions, error) from error
        with module:  # left before the context, which must not go first
            try:
                module.verify()
            except RuntimeError as error:
                raise _refused(functions, error) from error
            yield module


def _refused(functions: Sequence[llvm.FuncOp], error: RuntimeError) -> InternalError:
    names = ", ".join(function.sym_name.data for function in functions)
    return InternalError(f"LLVM refuses kernel {names}: {error}")


def _target_machine(isa: Isa) -> llvmlite.TargetMachine:
    llvmlite.initialize_all_targets()
    llvmlite.initialize_all_asmprinters()
    target = llvmlite.Target.from_triple(isa.triple)
    return target.create_target_machine(cpu=isa.cpu, features=isa.feature_string, opt=2, reloc="pic", codemodel="small")


def _optimise(module: llvmlite.ModuleRef, machine: llvmlite.TargetMachine) -> None:
    # Kernels come vectorised and unrolled as they should be, and call nothing: what simplifies single functions is
    # enough. A pipeline without loop passes (invariant code above all) made depthwise convolution half as fast; this
    # one gives the speed of the whole one in two fifths of the time.
    run = _without_lock(ffi.lib.LLVMPY_RunNewFunctionPassManager)
    with llvmlite.create_pipeline_tuning_options(1) as options:
        options.loop_vectorization = False
        options.slp_vectorization = False
        options.loop_unrolling = False
        options.loop_interleaving = False
        with llvmlite.create_pass_builder(machine, options) as builder:
            with builder.getFunctionPassManager() as manager:
                for function in module.functions:
                    if not function.is_declaration:
                        run(manager, function, builder)


def _object_code(module: llvmlite.ModuleRef, machine: llvmlite.TargetMachine) -> bytes:
    """`TargetMachine.emit_object`, but without the lock."""
    emit = _without_lock(ffi.lib.LLVMPY_TargetMachineEmitToMemory)
    with ffi.OutputString() as complaint:
        buffer = emit(machine, module, 1, complaint)
        if not buffer:
            raise InternalError(f"LLVM emits no code: {complaint}")
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _cache_path(text: str, isa: Isa) -> Path | None:
    folder = cache_dir()
    if folder is None:
        return None
    version = ".".join(map(str, llvmlite.llvm_version_info))
    key = "\n".join((_SETTINGS, version, isa.triple, isa.cpu, isa.feature_string, text))
    digest = hashlib.sha256(key.encode()).hexdigest()
    return folder / digest[:2] / f"{digest[2:]}.o"


def _write_atomically(path: Path, data: bytes) -> None:
    """Store a cache entry; a cache that cannot be written is as good as none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
