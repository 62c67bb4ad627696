"""AMX on Linux: whether a process may use its tiles, and asking for that.

Tiles are 8 KB of registers, which the kernel saves only for processes that have asked. Linux 5.16 and later;
Documentation/arch/x86/xstate.rst.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

FEATURES = frozenset({"amx-tile", "amx-int8", "amx-bf16", "amx-fp16", "amx-complex"})
"""LLVM's names of what needs tiles."""

_ARCH_PRCTL = 158
_GET_SUPPORTED = 0x1021
_REQUEST_PERMISSION = 0x1023
_TILE_DATA = 18


def tiles_supported() -> bool:
    """Whether the operating system lets processes have tiles."""
    mask = ctypes.c_uint64()
    return _arch_prctl(_GET_SUPPORTED, ctypes.addressof(mask)) and bool(mask.value >> _TILE_DATA & 1)


@lru_cache(maxsize=1)
def permit_tiles() -> bool:
    """Ask for tiles, for all threads of this process; whether it may have them now."""
    return _arch_prctl(_REQUEST_PERMISSION, _TILE_DATA)


def _arch_prctl(what: int, argument: int) -> bool:
    if sys.platform != "linux":
        return False
    system_call = ctypes.CDLL(None).syscall
    system_call.restype = ctypes.c_long
    return system_call(ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(what), ctypes.c_ulong(argument)) == 0
