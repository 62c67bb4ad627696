"""Matrix products: the kernels and the lowering of `dense.matmul`, against float64, on every instruction set."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu import codegen
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.gemm import K_BLOCK, GemmKernel, PackPanelsKernel, pack_panels, row_block
from neuc.backends.cpu.kernels.gemm_micro import Epilogue, Tile
from neuc.dialects import dense
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import function_of, run_segment

ISAS = pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
WIDEST = runnable_isas()[0]
UNIT = 2.0**-24
"""Rounding to f32 moves a number by at most this fraction."""


def bound(a: np.ndarray, b: np.ndarray, extra: np.ndarray | float = 0.0) -> np.ndarray:
    """Largest error of a product of K terms: each product and each sum rounds once, whatever the order."""
    k = a.shape[-1]
    return 1.01 * (k + 3) * UNIT * (np.abs(a) @ np.abs(b) + np.abs(extra))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def multiply(
    isa: Isa, m: int, n: int, k: int, *, known: bool, epilogue: Epilogue, transpose_a: bool = False, split: int = 1
) -> None:
    a = random(k, m) if transpose_a else random(m, k)
    b, bias = random(k, n), random(m if epilogue.bias == "scalar" else n, seed=1)
    lda = m if transpose_a else k
    kernel = GemmKernel(
        n if known else None, k if known else None, lda if known else None, transpose_a=transpose_a, epilogue=epilogue
    )
    tile = Tile.of(isa)
    c, whole = guarded(np.full((m, n), np.nan, np.float32))
    args = [a, pack_panels(b, tile.columns), c, bias, m, n, k, lda, 0.5, int(epilogue.bias == "scalar")]
    work = -(-m // row_block(isa, kernel.n)) * -(-n // tile.columns)
    run_kernel(kernel, isa, args, work, threads_split=split, scratch_bytes=kernel.scratch_bytes(isa))
    assert_guards(whole)
    wide = (a.T if transpose_a else a).astype(np.float64)
    exact = wide @ b * (0.5 if epilogue.scaled else 1.0)
    offset = {"none": np.zeros(1), "vector": bias[None, :], "scalar": bias[:, None]}[epilogue.bias]
    exact = exact + offset
    if epilogue.activation == "relu":
        exact = np.maximum(exact, 0)
    assert (np.abs(c - exact) <= bound(wide, b.astype(np.float64), offset)).all()


@ISAS
@pytest.mark.parametrize("m", [1, 2, 3, 17, 130])
@pytest.mark.parametrize(("n", "k"), [(64, 64), (37, 19), (100, 130), (1, 7)])
def test_product_of_run_time_sizes(isa: Isa, m: int, n: int, k: int) -> None:
    multiply(isa, m, n, k, known=False, epilogue=Epilogue(scaled=True, bias="vector", activation="relu"), split=3)


@ISAS
def test_product_of_known_sizes(isa: Isa) -> None:
    for m in (1, 14, 50):
        multiply(isa, m, 75, 33, known=True, epilogue=Epilogue(bias="scalar"), split=2)


@ISAS
def test_transposed_a(isa: Isa) -> None:
    multiply(isa, 29, 33, 21, known=isa is not WIDEST, epilogue=Epilogue(), transpose_a=True)


@ISAS
@pytest.mark.parametrize("k", [0, 1, K_BLOCK, K_BLOCK + 1, 2 * K_BLOCK + 5])
def test_long_k_goes_in_blocks(isa: Isa, k: int) -> None:
    multiply(isa, 3, 21, k, known=False, epilogue=Epilogue(scaled=True, bias="vector", activation="relu"))


@ISAS
@pytest.mark.parametrize("transpose", [False, True])
def test_packing_at_run_time_equals_packing_at_compile_time(isa: Isa, transpose: bool) -> None:
    columns = Tile.of(isa).columns
    b = random(3, 19, 70)
    want = pack_panels(b, columns)
    got, whole = guarded(np.full(want.shape, np.nan, np.float32))
    stored = np.ascontiguousarray(b.swapaxes(1, 2)) if transpose else b
    run_kernel(PackPanelsKernel(transpose, columns), isa, [stored, got, 70, 19], 3 * want.shape[1], threads_split=2)
    np.testing.assert_array_equal(got, want)
    assert_guards(whole)


@pytest.mark.parametrize("isa", [Isa.avx512(), Isa.avx2()], ids=lambda isa: isa.name)
@pytest.mark.parametrize("known", [True, False])
def test_sums_stay_in_registers(isa: Isa, known: bool) -> None:
    size = 384 if known else None
    text = codegen.assembly(GemmKernel(size, size, size, epilogue=Epilogue(bias="vector")).build(isa), isa)
    loops = [lines for lines in innermost_loops(text) if any("vfmadd" in line for line in lines)]
    sums = Tile.of(isa).rows[0] * Tile.of(isa).vectors
    assert any(sum("vfmadd" in line for line in lines) % sums == 0 for lines in loops), "no loop of the full tile"
    vectors = "zmm" if isa.name == "avx512" else "ymm"
    for lines in loops:
        assert not [line for line in lines if vectors in line and "%rsp" in line]


def test_code_for_another_architecture_needs_nothing_from_outside() -> None:
    # compile_object refuses outside symbols; running it is for a machine that can.
    isa = Isa.portable("aarch64")
    kernel = GemmKernel(70, 33, 33, epilogue=Epilogue(bias="vector", activation="gelu"))
    assert codegen.compile_object(kernel.build(isa), isa).startswith(b"\x7fELF")
    assert "fmla" in codegen.assembly(kernel.build(isa), isa)


def innermost_loops(text: str) -> list[list[str]]:
    """The instructions from each label to a jump back to it with no other jump between."""
    lines, labels, loops = text.splitlines(), dict[str, int](), list[list[str]]()
    for number, line in enumerate(lines):
        if found := re.match(r"(\.LBB\S+):", line):
            labels[found[1]] = number
        elif (found := re.match(r"\s+j\w+\s+(\.LBB\S+)", line)) and found[1] in labels:
            body = lines[labels[found[1]] : number]
            if not any(re.match(r"\s+j\w+\s", other) for other in body):
                loops.append(body)
    return loops


def matmul(
    a_dims: Sequence[int | str],
    b_dims: Sequence[int | str],
    bias_dims: Sequence[int | str] | None,
    result: Sequence[int | str],
    arrays: list[np.ndarray],
    isa: Isa,
    *,
    constant_b: bool = False,
    activation: str = "none",
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: float = 1.0,
) -> None:
    """Lower a `dense.matmul`, run it, and compare with float64."""
    store = WeightStore()
    types = [tensor_type(f32, dims) for dims in (a_dims, b_dims, *([bias_dims] if bias_dims is not None else []))]
    given = [types[0], *([] if constant_b else [types[1]]), *types[2:]]
    inputs = [arrays[0], *([] if constant_b else [arrays[1]]), *arrays[2:]]

    def build(args: Sequence[SSAValue]):
        rest = list(args[1:])
        constant = make_constant("w", arrays[1], store) if constant_b else None
        right = constant.result if constant is not None else rest.pop(0)
        op = dense.MatMulOp(
            args[0],
            right,
            rest[0] if rest else None,
            tensor_type(f32, result),
            transpose_a=transpose_a,
            transpose_b=transpose_b,
            alpha=alpha,
            activation=ActivationAttr.of(activation),
        )
        return [op] if constant is None else [constant, op]

    (got,) = run_segment(function_of(given, build), inputs, isa, store)
    a, b = (x.astype(np.float64) for x in arrays[:2])
    a = a.swapaxes(-1, -2) if transpose_a else a
    b = b.swapaxes(-1, -2) if transpose_b else b
    offset = arrays[2] if len(arrays) > 2 else np.zeros(1)
    exact = np.matmul(a, b) * alpha + offset
    limit = bound(a, b, offset)
    if activation == "sigmoid":
        exact = 1 / (1 + np.exp(-exact))
        limit = limit + 8 * UNIT  # slope at most 1/4, and 4 ULP of a number below 1 of the function itself
    assert got.shape == exact.shape
    assert (np.abs(got - exact) <= limit).all()


@ISAS
def test_linear_layer_with_symbolic_rows(isa: Isa) -> None:
    arrays = [random(2, 5, 48), random(48, 70), random(70)]
    matmul(["B", "S", 48], [48, 70], [70], ["B", "S", 70], arrays, isa, constant_b=True, activation="sigmoid")


@ISAS
def test_attention_scores_and_context(isa: Isa) -> None:
    q, k = random(2, 3, 9, 16), random(2, 3, 9, 16, seed=1)
    matmul(
        ["B", 3, "S", 16], ["B", 3, "S", 16], ["B", 1, 1, "S"], ["B", 3, "S", "S"],
        [q, k, random(2, 1, 1, 9)], isa, transpose_b=True, alpha=0.25,
    )  # fmt: skip
    matmul(
        ["B", 3, "S", "S"], ["B", 3, "S", 32], None, ["B", 3, "S", 32], [random(2, 3, 9, 9), random(2, 3, 9, 32)], isa
    )


@pytest.mark.parametrize("constant_b", [False, True])
def test_batch_axes_broadcast(constant_b: bool) -> None:
    arrays = [random(4, 1, 5, 8), random(3, 8, 33), random(4, 3, 5, 33)]
    matmul([4, 1, 5, 8], [3, 8, 33], [4, 3, 5, 33], [4, 3, 5, 33], arrays, WIDEST, constant_b=constant_b)
    arrays = [random(5, 8), random(2, 3, 8, 33), random(5, 1)]
    matmul([5, 8], [2, 3, 8, 33], [5, 1], [2, 3, 5, 33], arrays, WIDEST, constant_b=constant_b)


@pytest.mark.parametrize("transpose_b", [False, True])
def test_transposed_operands(transpose_b: bool) -> None:
    b = random(2, 40, 8) if transpose_b else random(2, 8, 40)
    matmul(
        [2, 8, "M"], list(b.shape), [40], [2, "M", 40],
        [random(2, 8, 5), b, random(40)], WIDEST, transpose_a=True, transpose_b=transpose_b, constant_b=transpose_b,
    )  # fmt: skip


def test_one_row_and_empty_batches() -> None:
    matmul(["B", 24], [24, 100], None, ["B", 100], [random(1, 24), random(24, 100)], WIDEST, constant_b=True)
    matmul(["B", 24], [24, 100], None, ["B", 100], [random(0, 24), random(24, 100)], WIDEST, constant_b=True)
    matmul([2, "M", "K"], [2, "K", "N"], None, [2, "M", "N"], [random(2, 3, 0), random(2, 0, 4)], WIDEST)
