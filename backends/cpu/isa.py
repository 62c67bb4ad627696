"""What the code generator knows about instruction sets: vector width, registers, LLVM features.

Detecting the machine's features is the runtime's business; nothing here looks at the CPU.
"""

from __future__ import annotations

import platform
from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Literal

# Each list is what a kernel of that instruction set may use without asking further.
_SSE4 = ("ssse3", "sse4.1", "sse4.2", "popcnt")
_NEON = ("neon", "dotprod")
_AVX2 = ("avx2", "fma", "f16c", "bmi", "bmi2", "popcnt")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
_AVX512_OPTIONAL = ("avx512vnni", "avx512vbmi", "gfni", "amx-int8", "amx-bf16")
_AVX2_OPTIONAL = ("avxvnni",)
_ZEN = "clzero"
"""What every processor has that was measured to read ahead best line after line, and no other: AMD's since Zen."""

FetchOrder = Literal["pages", "lines"]


@dataclass(frozen=True)
class Isa:
    """One instruction set to generate code for.

    Attributes:
        name: ``avx512``, ``avx2``, ``sse4``, ``neon``, ``portable`` (128-bit vectors on any CPU) or ``scalar`` (one
            lane).
        features: LLVM feature names the code may use, without the ``+``.
        f32_lanes: floats in one vector register.
        registers: vector registers there are.
        arch: LLVM architecture name, ``x86_64`` or ``aarch64``.
        fetch_order: how weights are best asked for before they are used: from several ``pages`` at a time, or
            ``lines`` one after the other, as they are read. Nothing but speed depends on it.
    """

    name: str
    features: tuple[str, ...]
    f32_lanes: int
    registers: int
    arch: str = "x86_64"
    fetch_order: FetchOrder = "pages"

    @staticmethod
    def select(features: Set[str], arch: str | None = None) -> Isa:
        """The widest instruction set these CPU features allow (LLVM's feature names)."""
        machine = arch or _host_arch()
        if machine != "x86_64":
            return Isa.neon() if machine == "aarch64" and features >= set(_NEON) else Isa.portable(machine)
        order: FetchOrder = "lines" if _ZEN in features else "pages"
        if features >= set(_AVX512):
            isa = Isa.avx512(tuple(name for name in _AVX512_OPTIONAL if name in features))
            return replace(isa, fetch_order=order)
        if features >= set(_AVX2):
            return replace(Isa.avx2(tuple(name for name in _AVX2_OPTIONAL if name in features)), fetch_order=order)
        return Isa.sse4() if features >= set(_SSE4) else Isa.portable(machine)

    @staticmethod
    def avx512(optional: tuple[str, ...] = ()) -> Isa:
        """AVX-512 F, BW, DQ, VL with FMA, and any of avx512vnni, avx512vbmi, gfni, amx-int8, amx-bf16."""
        tiles = ("amx-tile",) if {"amx-int8", "amx-bf16"} & set(optional) else ()
        return Isa("avx512", (*_AVX512, *optional, *tiles), f32_lanes=16, registers=32)

    @staticmethod
    def avx2(optional: tuple[str, ...] = ()) -> Isa:
        """AVX2 with FMA, and avxvnni or not (Intel's cores without AVX-512 since Alder Lake)."""
        return Isa("avx2", (*_AVX2, *optional), f32_lanes=8, registers=16)

    @staticmethod
    def sse4() -> Isa:
        """SSE4.2: byte shuffles and u8 x i8 products on 128 bits, what x86-64 has had since 2008."""
        return Isa("sse4", _SSE4, f32_lanes=4, registers=16)

    @staticmethod
    def neon() -> Isa:
        """AArch64 with i8 dot products (Armv8.2 DotProd): Graviton 2, Cortex-A76, Apple M1 and later."""
        return Isa("neon", _NEON, f32_lanes=4, registers=32, arch="aarch64")

    @staticmethod
    def portable(arch: str | None = None) -> Isa:
        """128-bit vectors on whatever the architecture guarantees."""
        machine = arch or _host_arch()
        return Isa("portable", (), f32_lanes=4, registers=16 if machine == "x86_64" else 32, arch=machine)

    @staticmethod
    def scalar(arch: str | None = None) -> Isa:
        """One lane: the reference the vector code is compared with."""
        return Isa("scalar", (), f32_lanes=1, registers=16, arch=arch or _host_arch())

    @property
    def optional(self) -> tuple[str, ...]:
        """The features that not every machine of this instruction set has."""
        return tuple(name for name in self.features if name in _AVX512_OPTIONAL or name in _AVX2_OPTIONAL)

    @property
    def feature_string(self) -> str:
        """The features as LLVM's target machine wants them: ``+avx2,+fma``."""
        return ",".join(f"+{name}" for name in self.features)

    @property
    def cpu(self) -> str:
        """LLVM CPU name. Generic on purpose: tuned CPU models narrow 512-bit vectors to 256."""
        return "x86-64" if self.arch == "x86_64" else "generic"

    @property
    def triple(self) -> str:
        """LLVM target triple; ELF everywhere, which is what the loader reads."""
        return f"{self.arch}-unknown-linux-gnu"

    @property
    def vector_bytes(self) -> int:
        """Bytes in one vector."""
        return 4 * self.f32_lanes

    @property
    def has_masks(self) -> bool:
        """Loads and stores of some lanes cost what those of all lanes do."""
        return "avx512f" in self.features

    @property
    def has_round(self) -> bool:
        """Whether rounding to integral is one instruction (SSE2 has none)."""
        return "avx2" in self.features or "sse4.1" in self.features or self.arch == "aarch64"

    @property
    def has_ssse3(self) -> bool:
        """`pshufb`, `psignb` and `pmaddubsw`, at least on 128 bits."""
        return "ssse3" in self.features or "avx2" in self.features

    @property
    def has_byte_shuffle(self) -> bool:
        """Look-ups of bytes in a table of 16: x86's `pshufb`, or `tbl`, which every AArch64 has."""
        return self.has_ssse3 or (self.arch == "aarch64" and self.f32_lanes > 1)

    @property
    def has_dotprod(self) -> bool:
        """AArch64's i8 dot products."""
        return "dotprod" in self.features

    @property
    def has_vnni(self) -> bool:
        """VNNI: u8 x i8 dot products."""
        return "avx512vnni" in self.features or "avxvnni" in self.features

    @property
    def has_amx(self) -> bool:
        """AMX: products of int8 tiles."""
        return "amx-int8" in self.features and self.has_vnni

    @property
    def has_amx_bf16(self) -> bool:
        """AMX: products of bf16 tiles."""
        return "amx-bf16" in self.features

    @property
    def has_vbmi(self) -> bool:
        """AVX-512 VBMI: byte permutations across a register."""
        return "avx512vbmi" in self.features

    @property
    def has_gfni(self) -> bool:
        """GFNI: affine transforms of bytes."""
        return "gfni" in self.features


def _host_arch() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
