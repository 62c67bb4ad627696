"""Every block format: payloads come back byte for byte, and mean what a slow decoder of the layout says they mean."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slow_formats
from neuc.compiler.formats.block_format import BlockFormat, InvalidPayload
from neuc.compiler.formats.hf_packed import HF_AUTOBITLINEAR, HF_BITLINEAR
from neuc.compiler.formats.table import BLOCK_FORMATS, GGUF_FORMS, HF_FORMATS
from neuc.compiler.formats.ternary import TENSOR, Ternary
from neuc.compiler.formats.tl import Tl1, Tl2, TlBlocks
from neuc.errors import Error

Rng = np.random.Generator

FIVE = [-(-256 * v // 243) for v in range(243)]
FOUR_HIGH = [-(-256 * 3 * v // 243) for v in range(81)]
FOUR_LOW = FIVE[:81]
CODES_012 = [b for b in range(256) if all(b >> s & 3 != 3 for s in (0, 2, 4, 6))]
ANY = list(range(256))

# What the bytes of a block (or, with its scale, of a row) may be: legal values and how many of them.
BLOCKS: dict[str, list[tuple[list[int] | str, int]]] = {
    "i2_s": [(CODES_012, 32)],
    "i2_s-neon": [(CODES_012, 16)],
    "i2_s-rows4": [(CODES_012, 1)],
    "iq1_bn": [(FIVE, 12), (FOUR_LOW, 1)],
    "iq2_bn": [(ANY, 16)],
    "pq2_0": [("f16", 2), (ANY, 32)],
    "ptq1_0": [(FIVE, 24), (FOUR_HIGH, 2), ("f16", 2)],
    "q2_0": [("f16", 2), (ANY, 16)],
    "q2_0-g128": [("f16", 2), (ANY, 32)],
    "tq1_0": [(FIVE, 48), (FOUR_HIGH, 4), ("f16", 2)],
    "tq2_0": [(ANY, 64), ("f16", 2)],
}
ROW_SCALE = {"iq1_bn": "f16", "iq2_bn": "f32"}
TENSOR_TAIL = ("i2_s", "i2_s-neon", "i2_s-rows4")


def finite(rng: Rng, kind: str) -> bytes:
    """The bits of any finite number, zeros, subnormals and negative ones among them."""
    code, size = {"f16": ("<e", 2), "f32": ("<f", 4)}[kind]
    while True:
        raw = rng.bytes(size)
        if np.isfinite(struct.unpack(code, raw)[0]):
            return raw


def random_payload(name: str, rows: int, columns: int, rng: Rng) -> bytes:
    """Any payload an encoder might write, made of bytes alone."""
    block = BLOCKS[name]
    multiple = BLOCK_FORMATS[name].multiple
    out = bytearray()
    count = columns // multiple if name != "i2_s-rows4" else columns // 4
    for _ in range(rows):
        if name in ROW_SCALE:
            out += finite(rng, ROW_SCALE[name])
        for _ in range(count):
            for legal, size in block:
                out += finite(rng, legal) if isinstance(legal, str) else bytes(rng.choice(legal, size).tolist())
    if name in TENSOR_TAIL:
        out += finite(rng, "f32") + rng.bytes(28)
    return bytes(out)


def compare(found: Ternary, wanted: slow_formats.Decoded) -> None:
    levels, scales = wanted
    np.testing.assert_array_equal(found.levels, np.array(levels, np.int8))
    exact = np.array(levels, np.float64) * np.array(scales)
    with np.errstate(over="ignore"):  # twice the largest scale is infinite
        np.testing.assert_array_equal(found.dequantize(), exact.astype(np.float32))


def test_the_lists_in_this_file_are_complete():
    assert BLOCKS.keys() == BLOCK_FORMATS.keys() == slow_formats.DECODERS.keys()
    assert {*BLOCKS, "tl1", "tl2"} == GGUF_FORMS.keys()


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 3), blocks=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_any_payload_comes_back_and_means_what_the_layout_says(name: str, rows: int, blocks: int, seed: int):
    form = BLOCK_FORMATS[name]
    rows, columns = (4 * rows, 4 * blocks) if name == "i2_s-rows4" else (rows, blocks * form.multiple)
    payload = random_payload(name, rows, columns, np.random.default_rng(seed))
    assert len(payload) == form.nbytes(rows, columns)
    found = form.decode(payload, (rows, columns))
    assert form.encode(found) == payload
    compare(found, slow_formats.DECODERS[name](payload, rows, columns))


@settings(max_examples=40, deadline=None)
@given(quarter=st.integers(1, 5), missing=st.integers(0, 3), columns=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_hf_packing_is_by_quarters_of_the_rows(quarter: int, missing: int, columns: int, seed: int):
    rows = max(4 * quarter - missing, 3 * quarter + 1)
    rng = np.random.default_rng(seed)
    payload = bytearray(rng.choice(CODES_012, quarter * columns).tolist())
    for n in range(rows, 4 * quarter):  # what pack_weights leaves where there is no row
        for k in range(columns):
            payload[n % quarter * columns + k] &= ~(3 << 2 * (n // quarter))
    found = HF_AUTOBITLINEAR.decode(bytes(payload), (rows, columns))
    compare(found, slow_formats.hf_packed(bytes(payload), rows, columns))
    assert HF_AUTOBITLINEAR.encode(found) == bytes(payload)


TL1_CASES = [(32, 64, 32, 64, 32), (64, 64, 64, 32, 32), (128, 48, 64, 12, 64), (256, 24, 128, 8, 64)]


@pytest.mark.parametrize(("rows", "columns", "BM", "BY", "bm"), TL1_CASES)
def test_tl1(rows: int, columns: int, BM: int, BY: int, bm: int):
    rng = np.random.default_rng(columns)
    nibbles = rng.integers(0, 9, (rows * columns // 4, 2))
    codes = (nibbles[:, 0] << 4 | nibbles[:, 1]).astype(np.uint8).tobytes()
    codes += bytes(-len(codes) % 32)
    payload = codes + finite(rng, "f32") + rng.bytes(28)
    form = Tl1(TlBlocks(BM, BY, bm))
    assert len(payload) == form.nbytes(rows, columns)
    found = form.decode(payload, (rows, columns))
    assert form.encode(found) == payload
    compare(found, slow_formats.tl1(payload, rows, columns, BM, BY, bm))


TL2_CASES = [(32, 288, 32, 96), (64, 256, 32, 96), (64, 320, 64, 96), (32, 480, 32, 192), (96, 416, 32, 96)]


@pytest.mark.parametrize(("rows", "columns", "BM", "BY"), TL2_CASES)
def test_tl2(rows: int, columns: int, BM: int, BY: int):
    rng = np.random.default_rng(rows + columns)
    levels = rng.integers(-1, 2, (rows, columns)).tolist()
    payload = slow_formats.tl2_encode(levels, BM, BY, 0.0371, padding=7, tail=rng.bytes(28))
    form = Tl2(TlBlocks(BM, BY, 32))
    found = form.decode(payload, (rows, columns))
    np.testing.assert_array_equal(found.levels, levels)
    assert found.granularity == TENSOR
    assert found.scales[0, 0] == np.float32(0.0371)
    assert form.encode(found) == payload


@pytest.mark.parametrize("form", [Tl1(TlBlocks(32, 32, 32)), Tl2(TlBlocks(32, 96, 32))], ids=["tl1", "tl2"])
def test_tl_with_the_scale_in_another_tensor(form: Tl1 | Tl2):
    levels = np.random.default_rng(0).integers(-1, 2, (32, 288)).astype(np.int8)
    whole = form.encode(Ternary(levels, np.full((1, 1), 0.5, np.float32), TENSOR))
    alone = form.decode_beside(whole[:-32], (32, 288), 0.5)
    assert form.encode(alone) == whole
    with pytest.raises(Error, match="NEUC-E122"):
        form.decode_beside(whole[:-64], (32, 288), 0.5)


@pytest.mark.parametrize("name", ["tq1_0", "tq2_0"])
def test_the_gguf_package_agrees(name: str):
    form, kind = BLOCK_FORMATS[name], gguf.GGMLQuantizationType[name.upper()]
    rng = np.random.default_rng(3)
    payload = random_payload(name, 5, 768, rng)
    theirs = gguf.dequantize(np.frombuffer(payload, np.uint8).reshape(5, -1), kind)
    np.testing.assert_array_equal(form.decode(payload, (5, 768)).dequantize(), theirs)
    # Its quantiser takes the largest weight of a block as scale: weights that are ternary come out exactly.
    levels = rng.integers(-1, 2, (5, 768)).astype(np.int8)
    levels[:, ::256] = 1
    scales = np.abs(rng.standard_normal((5, 3))).astype(np.float16).astype(np.float32)
    mine = Ternary(levels, scales, form.granularity)
    assert form.encode(mine) == gguf.quantize(mine.dequantize(), kind).tobytes()


@pytest.mark.parametrize("form", HF_FORMATS.values(), ids=HF_FORMATS)
def test_hf_scales_multiply_or_divide(form: object):
    assert form in (HF_BITLINEAR, HF_AUTOBITLINEAR)
    levels = np.array([[1, 0], [-1, 1], [0, 0], [1, -1]], np.int8)
    payload = HF_AUTOBITLINEAR.encode(Ternary(levels, np.ones((1, 1), np.float32), TENSOR))
    divided = HF_BITLINEAR.with_scale(HF_BITLINEAR.decode(payload, (4, 2)), 3.0)
    multiplied = HF_AUTOBITLINEAR.with_scale(HF_AUTOBITLINEAR.decode(payload, (4, 2)), 3.0)
    np.testing.assert_array_equal(divided.dequantize(), levels * (np.float32(1) / np.float32(3)))
    np.testing.assert_array_equal(multiplied.dequantize(), levels * np.float32(3))
    assert HF_BITLINEAR.stored_scale(divided) == (3.0, 0.0)
    assert HF_AUTOBITLINEAR.stored_scale(multiplied) == (3.0, 0.0)
    assert HF_BITLINEAR.encode(divided) == payload


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, 1e-45])
def test_hf_scales_that_cannot_divide(scale: float):
    codes = HF_BITLINEAR.decode(bytes([0b01010101]), (4, 1))
    with pytest.raises(InvalidPayload):
        HF_BITLINEAR.with_scale(codes, scale)


def valid(form: BlockFormat, rows: int, columns: int) -> bytearray:
    levels = np.random.default_rng(1).integers(-1, 2, (rows, columns)).astype(np.int8)
    scales = np.ones(form.granularity.shape(rows, columns), np.float32)
    return bytearray(form.encode(Ternary(levels, scales, form.granularity)))


def put(data: bytearray, at: int, *values: int) -> bytes:
    data[at : at + len(values)] = bytes(values)
    return bytes(data)


def tl2_zeros(columns: int) -> bytearray:
    return bytearray(slow_formats.tl2_encode([[0] * columns] * 32, 32, 96, 1.0))


B = BLOCK_FORMATS
TL1_FORM, TL2_FORM = Tl1(TlBlocks(32, 32, 32)), Tl2(TlBlocks(32, 96, 32))
F16_NAN, F32_INF = (0x01, 0x7C), (0, 0, 0x80, 0x7F)
INVALID: dict[str, tuple[BlockFormat, tuple[int, int], bytes, str]] = {
    "i2_s code 3": (B["i2_s"], (1, 128), put(valid(B["i2_s"], 1, 128), 5, 0b11), "byte 5 holds the code 3"),
    "i2_s-neon code 3": (B["i2_s-neon"], (1, 64), put(valid(B["i2_s-neon"], 1, 64), 0, 0xC0), "code 3"),
    "i2_s-rows4 code 3": (B["i2_s-rows4"], (4, 8), put(valid(B["i2_s-rows4"], 4, 8), 7, 0x0C), "code 3"),
    "i2_s infinite scale": (B["i2_s"], (1, 128), put(valid(B["i2_s"], 1, 128), 32, *F32_INF), "finite"),
    "i2_s short": (B["i2_s"], (1, 128), bytes(valid(B["i2_s"], 1, 128)[:-1]), "63 bytes"),
    "i2_s odd K": (B["i2_s"], (1, 100), bytes(57), "K = 100"),
    "i2_s-rows4 odd N": (B["i2_s-rows4"], (3, 4), bytes(35), "N = 3"),
    "tq1_0 illegal byte": (B["tq1_0"], (1, 256), put(valid(B["tq1_0"], 1, 256), 3, 1), "packed byte 3"),
    "tq1_0 fifth digit": (B["tq1_0"], (1, 256), put(valid(B["tq1_0"], 1, 256), 48, 2), "packed byte 0 is 2"),
    "tq1_0 NaN": (B["tq1_0"], (1, 256), put(valid(B["tq1_0"], 1, 256), 52, *F16_NAN), "finite"),
    "tq1_0 long": (B["tq1_0"], (1, 256), bytes(valid(B["tq1_0"], 1, 256) + b"\0"), "55 bytes"),
    "tq2_0 NaN": (B["tq2_0"], (1, 256), put(valid(B["tq2_0"], 1, 256), 64, *F16_NAN), "finite"),
    "ptq1_0 illegal byte": (B["ptq1_0"], (1, 128), put(valid(B["ptq1_0"], 1, 128), 0, 1), "packed byte"),
    "ptq1_0 fifth digit": (B["ptq1_0"], (1, 128), put(valid(B["ptq1_0"], 1, 128), 24, 2), "packed byte"),
    "q2_0 NaN": (B["q2_0"], (2, 64), put(valid(B["q2_0"], 2, 64), 18, *F16_NAN), "finite"),
    "pq2_0 odd K": (B["pq2_0"], (1, 64), bytes(18), "K = 64"),
    "iq1_bn illegal byte": (B["iq1_bn"], (1, 64), put(valid(B["iq1_bn"], 1, 64), 2, 1), "packed byte"),
    "iq1_bn fifth digit": (B["iq1_bn"], (1, 64), put(valid(B["iq1_bn"], 1, 64), 14, 255), "packed byte"),
    "iq1_bn NaN": (B["iq1_bn"], (1, 64), put(valid(B["iq1_bn"], 1, 64), 0, *F16_NAN), "finite"),
    "iq2_bn infinite": (B["iq2_bn"], (1, 64), put(valid(B["iq2_bn"], 1, 64), 0, *F32_INF), "finite"),
    "hf code 3": (HF_BITLINEAR, (4, 2), b"\x00\x30", "byte 1 holds the code 3"),
    "hf beyond the last row": (HF_BITLINEAR, (3, 2), b"\x00\x40", "codes beyond row 3"),
    "tl1 index 9": (TL1_FORM, (32, 32), put(valid(TL1_FORM, 32, 32), 4, 0x19), "byte 4 has index 9"),
    "tl1 N": (TL1_FORM, (16, 32), bytes(160), "N = 16"),
    "tl1 K": (TL1_FORM, (32, 48), bytes(416), "K = 48"),
    "tl2 index 14": (TL2_FORM, (32, 288), put(valid(TL2_FORM, 32, 288), 0, 0xE0), "index is 14"),
    "tl2 negative zero": (TL2_FORM, (32, 288), put(tl2_zeros(288), 1537, 0x80), "negative sign"),
    "tl2 pair index 15": (TL2_FORM, (32, 320), put(tl2_zeros(320), 1536 + 384, 0xF4), "index 15"),
    "tl2 N": (TL2_FORM, (48, 288), bytes(4000), "N = 48"),
    "tl2 small K": (TL2_FORM, (32, 192), bytes(4000), "K = 192"),
    "no rows": (B["i2_s"], (0, 128), bytes(32), "no elements"),
}


@pytest.mark.parametrize("case", INVALID)
def test_payloads_no_encoder_writes(case: str):
    form, shape, payload, says = INVALID[case]
    with pytest.raises(Error) as caught:
        form.decode(payload, shape, name="blk.0.w")
    assert caught.value.code == "NEUC-E122"
    assert caught.value.message.startswith(f"blk.0.w is no valid {form.name}: ")
    assert says in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        (Tl1(TlBlocks(32, 32, 16)), "bm = 16"),
        (Tl1(TlBlocks(32, 0, 32)), "not all positive"),
        (Tl1(TlBlocks(0, 32, 32)), "not all positive"),
        (Tl1(TlBlocks(48, 32, 32)), "BM = 48 is not a multiple of bm"),
        (Tl1(TlBlocks(96, 20, 32)), "BY"),
        (Tl2(TlBlocks(96, 96, 64)), "bm = 64"),
        (Tl2(TlBlocks(96, 100, 32)), "BY = 100"),
        (Tl2(TlBlocks(96, 0, 32)), "BY = 0"),
        (Tl2(TlBlocks(-32, 96, 32)), "not all positive"),
        (Tl2(TlBlocks(96, 768, 32)), "leaves"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_block_sizes_that_cannot_be(blocks: Tl1 | Tl2, says: str):
    assert says in blocks.shape_objection(96, 480)
