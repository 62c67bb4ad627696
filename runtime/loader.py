"""From kernel objects to callable addresses: checks that the code fits this processor, then links all of it at once.

Loading an artifact is running its code. The hashes find damage; they do not make a stranger's file safe.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Collection, Mapping

from neuc.errors import Error
from neuc.runtime.cpu_features import host_architecture, missing_features
from neuc.runtime.native import amx
from neuc.runtime.native.llvm import LoadedCode, link_objects

_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_ELF_RELOCATABLE = 1


def load_kernels(
    kernels: Mapping[str, bytes], wanted: Collection[str], *, features: Collection[str] = (), architecture: str = ""
) -> LoadedCode:
    """Load object code for the kernels ``wanted``.

    Args:
        kernels: object files by kernel name; each defines the symbol of that name.
        wanted: kernels the program launches.
        features: processor features the code was compiled for, in LLVM's spelling.
        architecture: what it was compiled for; empty if unknown.
    """
    check_processor(features, architecture)
    if amx.FEATURES & set(features) and not amx.permit_tiles():
        raise Error(
            "NEUC-E401",
            "compiled for AMX, whose tiles the operating system does not let this process have",
            hint="set NEUC_CPU_FEATURES=-amx-tile and compile the model again",
        )
    absent = sorted(set(wanted) - set(kernels))
    if absent:
        raise Error(
            "NEUC-E305",
            f"the program launches kernels it does not contain: {', '.join(absent[:5])}",
            hint="the file is damaged; compile the model again",
        )
    chosen = sorted(wanted)
    for name in chosen:
        _check_object(name, kernels[name])
    if not chosen:
        return LoadedCode({}, None, {})
    try:
        return link_objects((kernels[name] for name in chosen), chosen)
    except RuntimeError as error:
        raise Error(
            "NEUC-E305",
            f"kernel code cannot be linked: {str(error).strip()[:300]}",
            hint="the file is damaged or was made by an incompatible version; compile the model again",
        ) from error


def check_processor(features: Collection[str], architecture: str = "") -> None:
    """Refuse code for another architecture, or for processor features that are missing here."""
    here = host_architecture()
    if architecture and architecture != here:
        raise Error(
            "NEUC-E402",
            f"compiled for {architecture}, but this machine is {here}",
            hint="compile the model on this machine, or with --cpu for its architecture",
        )
    missing = missing_features(features)
    if missing:
        raise Error(
            "NEUC-E401",
            f"compiled for a processor with {', '.join(missing)}, which this one does not have (or may not use)",
            hint="compile the model on this machine, or with a smaller --cpu such as x86-64-v3",
        )


def _check_object(name: str, data: bytes) -> None:
    """Look at the header before LLVM does: what LLVM is given must at least be an object file of this machine."""
    if sys.platform != "linux":
        return
    problem = ""
    if len(data) < 64 or data[:4] != b"\x7fELF":
        problem = "is not an object file"
    else:
        kind, machine = struct.unpack_from("<HH", data, 16)
        if data[4] != 2 or data[5] != 1 or kind != _ELF_RELOCATABLE:
            problem = "is not a relocatable 64-bit object"
        elif machine != _ELF_MACHINES.get(host_architecture(), machine):
            problem = f"is code for another architecture (ELF machine {machine})"
    if problem:
        raise Error(
            "NEUC-E305",
            f"kernel '{name[:80]}' {problem}",
            hint="the file is damaged or was made for another machine; compile the model again",
        )
