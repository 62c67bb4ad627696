"""The compiled SPMD driver of this process: made once per machine, cached as object code, called through ctypes."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from neuc.errors import Error
from neuc.runtime.cache import BlobCache, key_of
from neuc.runtime.cpu_features import host_architecture
from neuc.runtime.native import llvm
from neuc.runtime.native.driver_ir import driver_ir
from neuc.runtime.native.waiting_ir import has_futex

_SYMBOLS = ("neuc_run", "neuc_worker", "neuc_leave")


@dataclass(frozen=True)
class Driver:
    """The driver's entry points; each call releases the interpreter lock while it runs."""

    run: Callable[[int, int], None]
    worker: Callable[[int, int], None]
    leave: Callable[[int], None]
    os_call: int
    clock: int
    code: llvm.LoadedCode


@lru_cache(maxsize=1)
def driver() -> Driver:
    """The driver, loaded on first use.

    Raises:
        Error: this operating system has none of the calls it waits with.
    """
    if not hasattr(time, "CLOCK_MONOTONIC"):
        raise Error("NEUC-E406", f"compiled models do not run on {sys.platform} yet", hint="on Windows, use WSL")
    code = llvm.link_objects([_object()], _SYMBOLS)
    # CFUNCTYPE, not PYFUNCTYPE: waiting threads must not hold the interpreter lock.
    pair = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    job = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    one = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    return Driver(
        run=job(code.addresses["neuc_run"]),
        worker=pair(code.addresses["neuc_worker"]),
        leave=one(code.addresses["neuc_leave"]),
        os_call=_c_function("syscall" if has_futex(sys.platform, host_architecture()) else "sched_yield"),
        clock=_c_function("clock_gettime"),
        code=code,
    )


def _object() -> bytes:
    text = driver_ir(sys.platform, host_architecture(), time.CLOCK_MONOTONIC)
    cache = BlobCache("driver")
    key = key_of((text, llvm.version(), llvm.process_triple()))
    stored = cache.get(key)
    if stored is not None:
        return stored
    made = llvm.compile_baseline(text)
    cache.put(key, made)
    return made


def _c_function(name: str) -> int:
    """Address of a C library function."""
    function = getattr(ctypes.CDLL(None), name)
    return cast(int, ctypes.cast(function, ctypes.c_void_p).value)
