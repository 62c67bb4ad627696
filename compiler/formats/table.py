"""Which block formats there are: by name, with their ids and file types in GGUF. Layouts stand in their own files."""

from __future__ import annotations

from dataclasses import dataclass

from neuc.compiler.formats import hf_packed, i2_s, iq_bn, q2, tq
from neuc.compiler.formats.block_format import BlockFormat
from neuc.compiler.formats.hf_packed import HfPacked


@dataclass(frozen=True)
class GgufForm:
    """How a format appears in a GGUF file.

    Attributes:
        type_id: id of its tensors.
        file_type: `general.file_type` of a file that holds mostly such tensors.
    """

    type_id: int
    file_type: int


GGUF_FORMS: dict[str, GgufForm] = {
    "i2_s": GgufForm(36, 40),
    "i2_s-neon": GgufForm(36, 40),
    "i2_s-rows4": GgufForm(36, 40),
    "iq1_bn": GgufForm(134, 136),
    "iq2_bn": GgufForm(135, 137),
    "pq2_0": GgufForm(142, 141),
    "ptq1_0": GgufForm(143, 143),
    "q2_0": GgufForm(42, 41),
    "q2_0-g128": GgufForm(42, 41),
    "tl1": GgufForm(38, 38),
    "tl2": GgufForm(39, 39),
    "tq1_0": GgufForm(34, 36),
    "tq2_0": GgufForm(35, 37),
}

# The formats that need no parameters; TL1 and TL2 are made for the block sizes of each shape (`tl.py`).
BLOCK_FORMATS: dict[str, BlockFormat] = {
    form.name: form
    for form in (
        i2_s.I2_S,
        i2_s.I2_S_NEON,
        i2_s.I2_S_ROWS4,
        iq_bn.IQ1_BN,
        iq_bn.IQ2_BN,
        q2.PQ2_0,
        tq.PTQ1_0,
        q2.Q2_0,
        q2.Q2_0_G128,
        tq.TQ1_0,
        tq.TQ2_0,
    )
}

HF_FORMATS: dict[str, HfPacked] = {form.name: form for form in (hf_packed.HF_AUTOBITLINEAR, hf_packed.HF_BITLINEAR)}

NAMES: tuple[str, ...] = tuple(sorted({*GGUF_FORMS, *HF_FORMATS}))
