"""The operations of decoders, lowered and run on every instruction set, against the interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, f16, f32, i8, i64
from xdsl.ir import Attribute, Operation, SSAValue

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.attention import AttentionKernel
from neuc.backends.cpu.kernels.attention_amx import TileProducts
from neuc.backends.cpu.kernels.attention_merge import AttentionMergeKernel
from neuc.backends.cpu.kernels.attention_products import AttentionShape
from neuc.backends.cpu.lowering import lower_segment
from neuc.backends.cpu.lowerings.attention import chunks_of
from neuc.dialects import dense, ternary
from neuc.dialects.cpu_launch import LaunchOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary_types import EncodingAttr, ScaleAttr
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

ISAS = runnable_isas()
every_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
EPS = float(np.finfo(np.float32).eps)
ATTENTION_TOLERANCE = 64 * EPS
"""Sums of products of at most 256 standard normal numbers in f32, then weighted means of such numbers."""
TILE_TOLERANCE = 2.0**-14
"""Scores of size 8 at most lack 2^-16 of each product, at random, and so do the means: four times that."""
NORM_TOLERANCE = 16 * EPS
"""A sum of squares over some lanes, a division and a root, relative to the result."""
STORE = WeightStore()


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def types(dims: Sequence[tuple[Attribute, Sequence[int | str]]]) -> list[Attribute]:
    return [tensor_type(element, shape) for element, shape in dims]


def caches(kv: int, blocks: int, width: int, held: str) -> tuple[np.ndarray, np.ndarray]:
    if held == "i8":
        return coded_cache(kv, blocks, width, 0), coded_cache(kv, blocks, width, 1)
    dtype = np.float16 if held == "f16" else np.float32
    return random(kv, blocks, width, 16).astype(dtype), random(kv, blocks, 16, width, seed=1).astype(dtype)


def coded_cache(kv: int, blocks: int, width: int, seed: int) -> np.ndarray:
    """Any codes, and scales that make numbers of standard size of them."""
    codes = np.random.default_rng([seed, kv, blocks, width]).integers(-127, 128, (kv, blocks * 16 * width), np.int8)
    scales = (1 + np.abs(random(kv, blocks * 16, seed=seed))) / np.float32(127)
    return np.concatenate([codes, scales.view(np.int8)], axis=1).reshape(kv, blocks, 16 * (width + 4))


def cache_types(kv: int, width: int, held: str) -> list[tuple[Attribute, Sequence[int | str]]]:
    if held == "i8":
        return [(i8, (kv, "C", 16 * (width + 4)))] * 2
    element = f16 if held == "f16" else f32
    return [(element, (kv, "C", width, 16)), (element, (kv, "C", 16, width))]


def attention(heads: int, kv: int, width: int, held: str) -> func.FuncOp:
    dims = [(f32, ("S", heads, width)), *cache_types(kv, width, held), (i64, ())]
    return function_of(types(dims), lambda args: [dense.AttentionOp(*args, scale=width**-0.5)])


SPECS = {
    "grouped": AttentionKernel(8, 2, 20, "f16"),
    "alone": AttentionKernel(3, 3, 8, "f32"),
    "coded": AttentionKernel(8, 2, 20, "i8"),
}


def check_attention(spec: AttentionKernel, tokens: int, blocks: int, position: int, isa: Isa = ISAS[0]) -> None:
    """Run the kernels themselves: building and compiling them takes longer than anything they do here."""
    heads, kv, width = spec.heads, spec.groups, spec.width
    found = caches(kv, blocks, width, spec.held)
    seen = min(max(position + tokens - 1, 0) + 1, 16 * blocks)
    # What no token sees may be anything.
    if spec.held == "i8":
        for cache in found:
            cache.reshape(kv, -1)[:, blocks * 16 * width :].view(np.float32)[:, seen:] = np.nan
    else:
        found[0].transpose(0, 1, 3, 2)[:, seen // 16 :][:, :1, seen % 16 :] = np.nan
        found[1].reshape(kv, -1, width)[:, seen:] = np.nan
    arrays = [random(tokens, heads, width), *found, np.array(position)]
    chunks = chunks_of(kv, Dim.of(tokens)).value
    (out, whole), parts = guarded(np.zeros_like(arrays[0])), np.zeros((chunks, tokens, heads, width + 2), np.float32)
    work = kv * -(-tokens // spec.tokens) * chunks
    args = [*arrays, out, parts, tokens, blocks, chunks, width**-0.5]
    run_kernel(spec, isa, args, work, threads_split=3, scratch_bytes=spec.layout(isa).nbytes)
    if chunks > 1:
        rows = tokens * heads
        run_kernel(AttentionMergeKernel(width), isa, [parts, out, rows, chunks], rows, scratch_bytes=4 * chunks)
    assert_guards(whole)
    (want,) = expected_of(attention(heads, kv, width, spec.held), arrays, STORE)
    np.testing.assert_allclose(out, want, rtol=0, atol=TILE_TOLERANCE if spec.tiles else ATTENTION_TOLERANCE)


CASES = pytest.mark.parametrize(
    ("tokens", "blocks", "position"),
    [
        (1, 5, 70),  # keys in pieces, the last of which ends within a block
        (1, 3, 0),
        (2, 4, 5),
        (5, 9, 131),
        (33, 3, 0),
        (128, 16, 100),
        (5, 3, 46),  # positions past the end see all keys
        (3, 2, -2),  # positions before the beginning see the first
        (2, 3, -(2**63)),
        (2, 3, 2**63 - 1),
    ],
)


@every_isa
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@CASES
def test_attention(tokens: int, blocks: int, position: int, spec: AttentionKernel, isa: Isa) -> None:
    check_attention(spec, tokens, blocks, position, isa)


@CASES
@pytest.mark.parametrize("shape", [(8, 2, 64, "f16"), (3, 3, 32, "f32"), (17, 1, 32, "f16"), (8, 2, 64, "i8")], ids=str)
def test_attention_on_tiles(shape: tuple[int, int, int, str], tokens: int, blocks: int, position: int) -> None:
    if not TileProducts.fits(ISAS[0], AttentionShape(*shape)):
        pytest.skip("this CPU has no AMX for bf16")
    check_attention(AttentionKernel(*shape, tiles=True), tokens, blocks, position)


@pytest.mark.parametrize(
    "shape", [(20, 5, 128, "f16"), (6, 2, 5, "f16"), (50, 1, 16, "f32"), (20, 5, 128, "i8")], ids=str
)
def test_attention_of_other_shapes(shape: tuple[int, int, int, str]) -> None:
    check_attention(AttentionKernel(*shape), 1, 40, 500)
    check_attention(AttentionKernel(*shape), 17, 7, 90)


@pytest.mark.parametrize("tokens", [1, 5])
def test_attention_as_it_is_lowered(tokens: int) -> None:
    function = attention(8, 2, 20, "f16")
    arrays = [random(tokens, 8, 20), *caches(2, 6, 20, "f16"), np.array(60)]
    (got,) = run_segment(function, arrays, ISAS[0], STORE)
    (want,) = expected_of(function, arrays, STORE)
    np.testing.assert_allclose(got, want, rtol=0, atol=ATTENTION_TOLERANCE)


def test_attention_does_not_depend_on_how_work_is_cut() -> None:
    function = attention(8, 2, 20, "f16")
    arrays = [random(1, 8, 20), *caches(2, 6, 20, "f16"), np.array(95)]
    first = run_segment(function, arrays, ISAS[0], STORE, threads_split=1)[0]
    for parts in (2, 5):
        np.testing.assert_array_equal(run_segment(function, arrays, ISAS[0], STORE, threads_split=parts)[0], first)


def test_keys_are_cut_for_few_tokens_alone() -> None:
    symbol = Dim.of("S")
    pieces = {tokens: chunks_of(5, symbol).evaluate({"S": tokens}) for tokens in (0, 1, 2, 3, 4, 512)}
    assert pieces == {0: 4, 1: 4, 2: 2, 3: 1, 4: 1, 512: 1}
    assert chunks_of(32, symbol) == 1
    assert chunks_of(1, symbol).evaluate({"S": 1}) == 16


@every_isa
@pytest.mark.parametrize("position", [0, 13, 29, 47, -2, 2**62, -(2**63), 2**63 - 1])
def test_cache_append(position: int, isa: Isa) -> None:
    kv, width, tokens, blocks = 2, 21, 5, 3
    for held in ("f16", "f32", "i8"):
        dims = [*cache_types(kv, width, held), (f32, ("S", kv, width)), (f32, ("S", kv, width)), (i64, ())]
        function = function_of(types(dims), lambda args: [dense.CacheAppendOp(*args)])
        k, v = (random(tokens, kv, width, seed=seed) * np.float32(100) for seed in (2, 3))
        k[0, 0, :4] = [1e6, np.nan, -1e-7, 3e-5]
        arrays = [*caches(kv, blocks, width, held), k, v, np.array(position)]
        with np.errstate(over="ignore"):
            wanted = expected_of(function, arrays, STORE)
        for got, want in zip(run_segment(function, arrays, isa, STORE), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


@every_isa
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("tokens", "heads", "width"), [(1, 3, 2), (5, 2, 20), (33, 1, 70), (2, 5, 128)])
def test_rotary_to_the_bit(tokens: int, heads: int, width: int, interleaved: bool, isa: Isa) -> None:
    dims = [(f32, ("S", heads, width)), (f32, ("S", width // 2)), (f32, ("S", width // 2))]
    function = function_of(types(dims), lambda args: [dense.RotaryOp(*args, interleaved=interleaved)])
    angles = random(tokens, width // 2, seed=4)
    arrays = [random(tokens, heads, width), np.cos(angles), np.sin(angles)]
    np.testing.assert_array_equal(run_segment(function, arrays, isa, STORE), expected_of(function, arrays, STORE))


def rms_norm(x: SSAValue, gamma: SSAValue) -> dense.LayerNormOp:
    return dense.LayerNormOp(x, gamma, None, axis=1, eps=1e-5, rms=True)


def norm(width: int, *, reciprocal: bool | None = None) -> func.FuncOp:
    """A root-mean-square norm, and what quantises it."""

    def build(args: Sequence[SSAValue]) -> list[Operation]:
        made = rms_norm(*args)
        if reciprocal is None:
            return [made]
        return [made, ternary.QuantizeOp(made, reciprocal=reciprocal)]

    return function_of(types([(f32, ("S", width)), (f32, (width,))]), build)


@every_isa
@pytest.mark.parametrize("width", [1, 7, 64, 77, 2560])
def test_rms_norm_and_quantize_give_the_bits_of_two_launches(width: int, isa: Isa) -> None:
    x, gamma = random(5, width) * np.float32(3), random(width, seed=1)
    x[3] = 0
    x[4, width // 2] = np.inf
    (normed,) = run_segment(norm(width), [x, gamma], isa, STORE)
    np.testing.assert_allclose(normed[:4], expected_of(norm(width), [x, gamma], STORE)[0][:4], rtol=NORM_TOLERANCE)
    for reciprocal in (False, True):
        single = function_of(
            types([(f32, ("S", width))]), lambda args, r=reciprocal: [ternary.QuantizeOp(args[0], reciprocal=r)]
        )
        wanted = run_segment(single, [normed], isa, STORE)
        function = norm(width, reciprocal=reciprocal)
        for got, want in zip(run_segment(function, [x, gamma], isa, STORE), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
        program = lower_segment(function, isa, STORE, {})
        assert sum(isinstance(op, LaunchOp) for op in program.body.block.ops) == 1


def test_a_norm_that_others_read_keeps_its_launch() -> None:
    function = norm(8, reciprocal=False)
    block = function.body.block
    made = next(op for op in block.ops if isinstance(op, dense.LayerNormOp))
    last = block.last_op
    assert last is not None
    block.insert_op_before(again := rms_norm(made.result, block.args[1]), last)
    last.operands = [*last.operands, again.result]
    inputs, outputs = function.function_type.inputs.data, [value.type for value in last.operands]
    function.function_type = FunctionType.from_lists(list(inputs), outputs)
    program = lower_segment(function, ISAS[0], STORE, {})
    assert sum(isinstance(op, LaunchOp) for op in program.body.block.ops) == 3


def lookup(
    n: int, k: int, scale: ScaleAttr, levels: tuple[int, ...], planes: int, encoding: str | None, seed: int
) -> tuple[func.FuncOp, WeightStore]:
    """Rows of a matrix which, with an encoding, a layer multiplies with, too."""
    rng, store = np.random.default_rng(seed), WeightStore()
    trits = rng.choice(np.array(levels, np.int8), (planes, n, k))
    groups = scale.groups(k)
    scales = (rng.standard_normal((planes, n, groups)) ** 2).astype(np.float16 if seed % 2 else np.float32)
    weight = make_weight("w", trits, scales.astype(np.float32), store, scale=scale, levels=levels)

    def build(args: Sequence[SSAValue]) -> list[Operation]:
        found = ternary.LookupOp(args[0], weight.result)
        if encoding is None:
            return [weight, found]
        quantize = ternary.QuantizeOp(found.result)
        pack = ternary.PackOp(weight.result, EncodingAttr.of(encoding), 64, 32 if scale.kind.data == "group" else 40)
        product = ternary.AccumulateOp(quantize.q, pack.result)
        return [weight, found, quantize, pack, product, ternary.DequantizeOp(product.result, quantize.s, weight.result)]

    return function_of(types([(i64, ("S",))]), build), store


IDS = np.array([0, 3, 69, 17, -1, 70, 64, -(2**63), 2**63 - 1])


@every_isa
@pytest.mark.parametrize(
    ("scale", "levels", "planes"),
    [
        (ScaleAttr.of("row"), (-1, 0, 1), 2),
        (ScaleAttr.of("row"), (-1, 0, 1), 1),
        (ScaleAttr.of("group", 32), tuple(range(-8, 8)), 1),
        (ScaleAttr.of("group", 32), tuple(range(-127, 128)), 1),
    ],
)
@pytest.mark.parametrize("seed", [3, 4])  # scales that f16 holds, and others
def test_lookup_in_rows_of_its_own(seed: int, scale: ScaleAttr, levels: tuple[int, ...], planes: int, isa: Isa) -> None:
    function, store = lookup(70, 83, scale, levels, planes, None, seed)
    before, wanted = set(store), expected_of(function, [IDS], store)
    np.testing.assert_array_equal(run_segment(function, [IDS], isa, store), wanted)
    small = {(3, 1): "t5", (16, 1): "i4"}.get((len(levels), planes)) if isa.name != "scalar" else None
    assert (small or "rows") in {key.rpartition(".")[2] for key in set(store) - before}


@pytest.mark.parametrize(
    "isa", [isa for isa in ISAS if isa is ISAS[0] or isa.name in ("portable", "scalar")], ids=lambda isa: isa.name
)
@pytest.mark.parametrize(
    ("encoding", "levels", "scale"),
    [
        ("i2", (-1, 0, 1), ScaleAttr.of("row")),
        ("t5", (-1, 0, 1), ScaleAttr.of("group", 32)),
        ("i4", tuple(range(-8, 8)), ScaleAttr.of("group", 32)),
        ("i8", tuple(range(-127, 128)), ScaleAttr.of("group", 32)),
    ],
    ids=["i2", "t5", "i4", "i8"],
)
def test_lookup_in_the_weights_of_a_layer(encoding: str, levels: tuple[int, ...], scale: ScaleAttr, isa: Isa) -> None:
    seed = 5 if encoding in ("i2", "i8") else 4  # scales that f16 holds, and others
    function, store = lookup(70, 83, scale, levels, 1, encoding, seed)
    # The looked-up rows themselves, and what the layer makes of them.
    returned = function.body.block.last_op
    assert returned is not None
    rows = next(op for op in function.body.block.ops if isinstance(op, ternary.LookupOp)).result
    returned.operands = [rows, *returned.operands]
    function.update_function_type()
    before = set(store)
    got = run_segment(function, [IDS], isa, store)
    np.testing.assert_array_equal(got[0], expected_of(function, [IDS], store)[0])
    added = {key.rpartition(".")[2] for key in set(store) - before}
    assert ("rows" in added) == (isa.name == "scalar"), "the matrix is stored once"


@pytest.mark.slow
@pytest.mark.parametrize("isa", [Isa.neon(), Isa.portable("aarch64")], ids=lambda isa: isa.name)
@pytest.mark.parametrize("tokens", [1, 5])
def test_on_aarch64(tokens: int, isa: Isa) -> None:
    heads, kv, width, held = 8, 2, 16, "f16"
    found, position = caches(kv, 4, width, held), np.array(37)
    arrays = [random(tokens, heads, width), *found, position]
    function = attention(heads, kv, width, held)
    (got,), (want,) = run_segment(function, arrays, isa, STORE), expected_of(function, arrays, STORE)
    np.testing.assert_allclose(got, want, rtol=0, atol=ATTENTION_TOLERANCE)
    dims = [*cache_types(kv, width, held), (f32, ("S", kv, width)), (f32, ("S", kv, width)), (i64, ())]
    append = function_of(types(dims), lambda args: [dense.CacheAppendOp(*args)])
    arrays = [*found, random(tokens, kv, width), random(tokens, kv, width, seed=1), position]
    for got, want in zip(run_segment(append, arrays, isa, STORE), expected_of(append, arrays, STORE), strict=True):
        np.testing.assert_array_equal(got, want)
