"""The part of a core in MLIR that adds another tensor's codes to those of its tile, token after token of A's stream.

What words say how stands in `runtime/npu/residual.py`; they are the first of the core's parameter block.
"""

from __future__ import annotations

from collections.abc import Mapping

from neuc.backends.npu.export.aie_types import memref
from neuc.runtime.npu.program import Channel, Kernel
from neuc.runtime.npu.requantize import MOST, parameter_bytes
from neuc.runtime.npu.residual import ADDEND, LIMITS, MULTIPLIERS, PAIR_COUNT, PAIRS_BEGIN, TABLE_BEGIN, TABLE_FLAG


def residual_tokens(kernel: Kernel) -> int:
    """Firings that take another tensor's codes; 0 if nothing is added."""
    found = kernel.params.get("residual", 0)
    return found if isinstance(found, int) else 0


def add_codes(kernel: Kernel, channels: Mapping[str, Channel], element: str, codes: str) -> list[str]:
    """Add to the tile `codes` what the token `element`, number %other, holds of its columns."""
    token, out = channels[kernel.inputs[0]], channels[kernel.outputs[0]]
    (m, n), width, part, size = out.shape, token.shape[1], kernel.params["part"], parameter_bytes(out.shape[1], MOST)
    assert isinstance(part, int)
    block_name, block, words = f"%block_{kernel.name}", f"memref<{size}xi8>", f"memref<{size // 4}xi32>"
    places = {
        "mword": MULTIPLIERS,
        "nword": MULTIPLIERS + 1,
        "lowword": ADDEND,
        "highword": ADDEND + 1,
        "manyword": PAIR_COUNT,
        "flagword": TABLE_FLAG,
    }
    limits = ("ashift", "azero", "alow", "ahigh")
    return [
        f"%awords = memref.view {block_name}[%c0][] : {block} to {words}",
        f"%am = arith.constant {m} : index",
        f"%an = arith.constant {n} : index",
        f"%awidth = arith.constant {width} : index",
        f"%afirst = arith.constant {part * n} : index",
        f"%apairs = arith.constant {PAIRS_BEGIN} : index",
        f"%atable = arith.constant {4 * TABLE_BEGIN + 128} : index",
        *(f"%a64_{value} = arith.constant {value} : i64" for value in (0, 1, 8, 16, 32, 255, 65535)),
        *(f"%at{name} = arith.constant {place} : index" for name, place in places.items()),
        *(f"%{name} = memref.load %awords[%at{name}] : {words}" for name in places),
        *(f"%at{name} = arith.constant {4 * LIMITS + i} : index" for i, name in enumerate(limits)),
        *(f"%{name}8 = memref.load {block_name}[%at{name}] : {block}" for name in limits),
        *(f"%{name} = arith.extsi %{name}8 : i8 to i64" for name in limits),
        "%am64 = arith.extsi %mword : i32 to i64",
        "%an64 = arith.extsi %nword : i32 to i64",
        "%aupper = arith.extsi %highword : i32 to i64",
        "%alifted = arith.shli %aupper, %a64_32 : i64",
        "%alower = arith.extui %lowword : i32 to i64",
        "%aaddend = arith.ori %alifted, %alower : i64",
        "%abefore = arith.subi %ashift, %a64_1 : i64",
        "%ahalf = arith.shli %a64_1, %abefore : i64",
        "%amany = arith.index_cast %manyword : i32 to index",
        "%anone = arith.constant 0 : i32",
        "%alooked = arith.cmpi ne, %flagword, %anone : i32",
        "%abegin = arith.muli %other, %awidth : index",
        "scf.for %ai = %c0 to %am step %c1 {",
        "  scf.for %aj = %c0 to %awidth step %c1 {",
        "    %awhole = arith.addi %abegin, %aj : index",
        "    %acolumn = arith.subi %awhole, %afirst : index",
        "    %amine = arith.cmpi ult, %acolumn, %an : index",  # columns before its own wrap around to large ones
        "    scf.if %amine {",
        *(f"      {line}" for line in _element(out, token, words, (block_name, block), element, codes)),
        "    }",
        "  }",
        "}",
    ]


def _element(out: Channel, token: Channel, words: str, block: tuple[str, str], element: str, codes: str) -> list[str]:
    """One code: the plane of both, rounded to even and clipped, what its pair differs by, the table."""
    return [
        f"%acode = memref.load {codes}[%ai, %acolumn] : {memref(out)}",
        f"%bcode = memref.load {element}[%ai, %aj] : {memref(token)}",
        "%a64 = arith.extsi %acode : i8 to i64",
        "%b64 = arith.extsi %bcode : i8 to i64",
        "%aown = arith.muli %a64, %am64 : i64",
        "%atheirs = arith.muli %b64, %an64 : i64",
        "%aboth = arith.addi %aown, %atheirs : i64",
        "%awide = arith.addi %aboth, %aaddend : i64",
        "%afloor = arith.shrsi %awide, %ashift : i64",
        "%aodd = arith.andi %afloor, %a64_1 : i64",
        "%aup = arith.addi %awide, %ahalf : i64",
        "%aless = arith.subi %aup, %a64_1 : i64",
        "%aeven = arith.addi %aless, %aodd : i64",
        "%anear = arith.shrsi %aeven, %ashift : i64",
        "%amoved = arith.addi %anear, %azero : i64",
        "%aatleast = arith.maxsi %amoved, %alow : i64",
        "%aplain = arith.minsi %aatleast, %ahigh : i64",
        "%abyte = arith.andi %a64, %a64_255 : i64",
        "%bbyte = arith.andi %b64, %a64_255 : i64",
        "%bmoved = arith.shli %bbyte, %a64_8 : i64",
        "%apair = arith.ori %abyte, %bmoved : i64",
        "%asum = scf.for %ae = %c0 to %amany step %c1 iter_args(%asofar = %aplain) -> (i64) {",
        "  %aplace = arith.addi %apairs, %ae : index",
        f"  %aword = memref.load %awords[%aplace] : {words}",
        "  %aword64 = arith.extsi %aword : i32 to i64",
        "  %akey = arith.andi %aword64, %a64_65535 : i64",
        "  %asame = arith.cmpi eq, %akey, %apair : i64",
        "  %ashifted = arith.shrsi %aword64, %a64_16 : i64",
        "  %achange8 = arith.trunci %ashifted : i64 to i8",
        "  %achange = arith.extsi %achange8 : i8 to i64",
        "  %ataken = arith.select %asame, %achange, %a64_0 : i64",
        "  %anext = arith.addi %asofar, %ataken : i64",
        "  scf.yield %anext : i64",
        "}",
        "%anumber = arith.index_cast %asum : i64 to index",
        "%aentry = arith.addi %anumber, %atable : index",
        f"%afound = memref.load {block[0]}[%aentry] : {block[1]}",
        "%anarrow = arith.trunci %asum : i64 to i8",
        "%amade = arith.select %alooked, %afound, %anarrow : i8",
        f"memref.store %amade, {codes}[%ai, %acolumn] : {memref(out)}",
    ]
