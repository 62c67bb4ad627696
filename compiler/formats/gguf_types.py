"""Tensor types of GGUF: what an id may mean, and how many bytes a tensor of it takes.

Ids are not unique: microsoft/BitNet, ik_llama.cpp, PrismML and llama.cpp have each given out numbers of their own.
Which meaning a file has in mind is found out in `gguf_layouts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuc.compiler.formats.block_format import matrix_shape
from neuc.compiler.formats.i2_s import TAIL
from neuc.compiler.formats.tl import tl2_code_bytes


@dataclass(frozen=True)
class Layout:
    """Rows of blocks, perhaps with something before each row and after the last.

    Attributes:
        name: lower-case name of the type.
        block: weights in a block; K has to be a multiple.
        block_bytes: bytes of a block.
        row_bytes: bytes before each row.
        tail: bytes after the last row.
        origin: whose type it is, if not llama.cpp's.
    """

    name: str
    block: int
    block_bytes: int
    row_bytes: int = 0
    tail: int = 0
    origin: str = ""

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Bytes a tensor of this shape may take, the usual first; none if the shape is not possible."""
        rows, columns = matrix_shape(shape)
        if columns % self.block:
            return ()
        return (rows * (columns // self.block * self.block_bytes + self.row_bytes) + self.tail,)


class _Tl1Layout(Layout):
    """The scale is in a tail, or in a tensor of its own."""

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        rows, columns = matrix_shape(shape)
        return () if rows * columns % 4 else _with_and_without_tail(rows * columns // 4)


class _Tl2Layout(Layout):
    """As for TL1."""

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        rows, columns = matrix_shape(shape)
        if columns < 256 or columns % 32 or rows % 32:
            return ()
        return _with_and_without_tail(tl2_code_bytes(rows, columns))


def _with_and_without_tail(codes: int) -> tuple[int, int]:
    return -(-codes // TAIL) * TAIL + TAIL, codes


_BITNET = "bitnet.cpp"
_IK = "ik_llama.cpp"
_PRISM = "PrismML"

# Everything an id may mean.
LAYOUTS: dict[int, tuple[Layout, ...]] = {
    0: (Layout("f32", 1, 4),),
    1: (Layout("f16", 1, 2),),
    2: (Layout("q4_0", 32, 18),),
    3: (Layout("q4_1", 32, 20),),
    6: (Layout("q5_0", 32, 22),),
    7: (Layout("q5_1", 32, 24),),
    8: (Layout("q8_0", 32, 34),),
    10: (Layout("q2_k", 256, 84),),
    11: (Layout("q3_k", 256, 110),),
    12: (Layout("q4_k", 256, 144),),
    13: (Layout("q5_k", 256, 176),),
    14: (Layout("q6_k", 256, 210),),
    15: (Layout("q8_k", 256, 292),),
    16: (Layout("iq2_xxs", 256, 66),),
    17: (Layout("iq2_xs", 256, 74),),
    18: (Layout("iq3_xxs", 256, 98),),
    19: (Layout("iq1_s", 256, 50),),
    20: (Layout("iq4_nl", 32, 18),),
    21: (Layout("iq3_s", 256, 110),),
    22: (Layout("iq2_s", 256, 82),),
    23: (Layout("iq4_xs", 256, 136),),
    24: (Layout("i8", 1, 1),),
    25: (Layout("i16", 1, 2),),
    26: (Layout("i32", 1, 4),),
    27: (Layout("i64", 1, 8),),
    28: (Layout("f64", 1, 8),),
    29: (Layout("iq1_m", 256, 56),),
    30: (Layout("bf16", 1, 2),),
    34: (Layout("tq1_0", 256, 54),),
    35: (Layout("tq2_0", 256, 66),),
    36: (Layout("i2_s", 4, 1, tail=TAIL, origin=_BITNET),),
    38: (_Tl1Layout("tl1", 4, 1, origin=_BITNET),),
    39: (Layout("mxfp4", 32, 17), _Tl2Layout("tl2", 32, 0, origin=_BITNET)),
    40: (Layout("nvfp4", 64, 36),),
    41: (Layout("q1_0", 128, 18),),
    42: (Layout("q2_0", 64, 18), Layout("q2_0-g128", 128, 34, origin=_PRISM)),
    133: (Layout("q6_0", 32, 26, origin=_IK),),
    134: (Layout("iq1_bn", 64, 13, row_bytes=2, origin=_IK),),
    135: (Layout("iq2_bn", 64, 16, row_bytes=4, origin=_IK),),
    142: (Layout("pq2_0", 128, 34, origin=_PRISM),),
    143: (Layout("ptq1_0", 128, 28, origin=_PRISM),),
    202: (Layout("q4_0_r8", 32, 18, origin=_IK),),
    208: (Layout("q8_0_r8", 32, 34, origin=_IK),),
    212: (Layout("q4_k_r4", 256, 144, origin=_IK),),
    213: (Layout("q5_k_r4", 256, 176, origin=_IK),),
    214: (Layout("q6_k_r4", 256, 210, origin=_IK),),
    335: (Layout("iq2_bn_r4", 64, 16, row_bytes=4, origin=_IK),),
}

# Ids that others have used for something else, and for what; a tensor of one has to fit its place in the file exactly.
OTHER_MEANINGS: dict[int, str] = {
    36: "a type llama.cpp has removed (IQ4_NL_4_4)",
    38: "a type llama.cpp has removed (IQ4_NL_8_8)",
    39: "MXFP4 in llama.cpp, TL2 in bitnet.cpp",
    40: "a type of vlut.cpp",
    41: "a type of vlut.cpp",
    42: "Q2_0 with groups of 64 in llama.cpp, of 128 in PrismML's first files",
    142: "a type ik_llama.cpp has removed (IQ2_TN)",
    143: "a type ik_llama.cpp has removed (IQ1_TN)",
}
