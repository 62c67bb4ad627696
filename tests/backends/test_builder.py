"""The kernel builder, its translation to LLVM and the object cache, on every instruction set this CPU runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llvmlite.binding import ffi
from xdsl.context import Context
from xdsl.dialects import builtin, llvm
from xdsl.parser import Parser

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu import codegen
from neuc.backends.cpu.builder import KernelBuilder, f32, f64, i8, i16, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.target import isa_from_text, isa_text
from neuc.errors import InternalError

ISAS = pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(codegen.CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def scale_kernel(isa: Isa, name: str = "scale") -> llvm.FuncOp:
    """y[i] = x[i] * s + 1 for i in the range, with a masked tail."""
    b = KernelBuilder(name, isa)
    x, y, s = b.arg_ptr(0), b.arg_ptr(1), b.splat(b.arg_f32(2), b.lanes)
    with b.loop(b.begin, b.end, b.lanes) as loop:
        mask = b.mask_below(b.end - loop.i, b.lanes)
        v = b.masked_load(b.elem(x, loop.i, f32), b.vtype(), mask)
        b.masked_store(b.fma(v, s, b.const(1.0, b.vtype())), b.elem(y, loop.i, f32), mask)
    return b.finish()


@ISAS
@pytest.mark.parametrize("split", [1, 3])
def test_masked_tails_write_nothing_else(isa: Isa, split: int) -> None:
    x = np.linspace(-3, 5, 37, dtype=np.float32)
    y, whole = guarded(np.zeros(37, np.float32))
    run_kernel(scale_kernel(isa), isa, [x, y, 2.0], 37, threads_split=split)
    np.testing.assert_allclose(y, x * 2 + 1, rtol=1e-6)
    assert_guards(whole)


@ISAS
def test_loops_carry_values_and_run_zero_times(isa: Isa) -> None:
    b = KernelBuilder("sums", isa)
    out = b.arg_ptr(0)
    for slot, (lo, hi) in enumerate([(b.begin, b.end), (b.end, b.begin), (b.i64(0), b.i64(4))]):
        with b.loop(lo, hi, init=[b.i64(100), b.i64(1)]) as loop:
            total, product = loop.carried
            loop.yield_([total + loop.i, product * 2])
        for k, value in enumerate(loop.results):
            b.store(value, b.elem(out, 2 * slot + k, i64))
    got = np.zeros(6, np.int64)
    run_kernel(b.finish(), isa, [got], 5)
    assert got.tolist() == [110, 32, 100, 1, 106, 16]


@ISAS
def test_conditionals_nest_and_yield(isa: Isa) -> None:
    b = KernelBuilder("conditionals", isa)
    out = b.arg_ptr(0)
    with b.loop(b.begin, b.end) as loop:
        with b.if_(b.icmp("slt", loop.i, 2)) as f:
            with b.if_(b.icmp("eq", loop.i, 0)) as g:
                g.yield_([b.i64(10)])
            with g.else_():
                g.yield_([b.i64(11)])
            f.yield_(g.results)
        with f.else_():
            f.yield_([loop.i * 100])
        b.store(f.results[0], b.elem(out, loop.i, i64))
        with b.if_(b.icmp("eq", loop.i, 3)):
            b.store(b.i64(-1), b.elem(out, loop.i, i64))
        with b.if_(b.icmp("ne", loop.i, 4)) as h:
            pass
        with h.else_():
            b.store(b.i64(-2), b.elem(out, loop.i, i64))
    got = np.zeros(6, np.int64)
    run_kernel(b.finish(), isa, [got], 6)
    assert got.tolist() == [10, 11, 200, -1, -2, 500]


@ISAS
def test_lane_operations(isa: Isa) -> None:
    b = KernelBuilder("lanes", isa)
    x, out = b.arg_ptr(0), b.arg_ptr(1)
    v = b.load(x, vec(f32, 4))
    results = [b.reduce_add(v), b.reduce_max(v), b.reduce_min(v), b.extract(v, 2)]
    results += [b.extract(b.shuffle(v, b.insert(v, b.f32(9.0), 1), [3, 5, 0, 1]), lane) for lane in (0, 1)]
    results.append(b.extract(b.slice(b.concat(v, -v), 3, 2), 1))
    results.append(b.reduce_add(b.select(b.fcmp("olt", v, 0.0), b.const(1.0, v.type), v)))
    for slot, value in enumerate(results):
        b.store(value, b.elem(out, slot, f32))
    ints = b.load(b.arg_ptr(2), vec(i32, 4))
    results = [b.reduce_add(ints), b.reduce_max(ints), b.reduce_min(ints), b.extract(b.max(ints, 0), 3)]
    for slot, value in enumerate(results):
        b.store(value, b.elem(b.arg_ptr(3), slot, i32))
    got, ints_got = np.zeros(8, np.float32), np.zeros(4, np.int32)
    arrays = [np.array([1, -2, 4, 8], np.float32), got, np.array([5, -7, 3, -1], np.int32), ints_got]
    run_kernel(b.finish(), isa, [*arrays], 1)
    assert got.tolist() == [11, 8, -2, 4, 8, 9, -1, 14]
    assert ints_got.tolist() == [0, 5, -7, 0]


@ISAS
def test_casts(isa: Isa) -> None:
    b = KernelBuilder("casts", isa)
    x = b.load(b.arg_ptr(0), vec(f32, 4))
    u = b.load(b.arg_ptr(1), vec(i8, 4))
    outs = [
        b.fptosi_sat(x, i32),
        b.fptosi_sat(x, i8),
        b.uitofp(u, f32),
        b.sitofp(u, f32),
        b.zext(u, i16),
        b.sext(u, i16),
        b.trunc(b.sext(u, i32) * 3, i16),
        b.fpext(x, f64),
        b.bitcast(x, vec(i32, 4)),
    ]
    for slot, value in enumerate(outs):
        b.store(value, b.ptr(b.arg_ptr(2), 32 * slot))
    given = np.array([1.9, -1.9, 1e20, np.nan], np.float32)
    small = np.array([0, 1, 200, 255], np.uint8)
    raw = np.zeros((9, 32), np.uint8)
    run_kernel(b.finish(), isa, [given, small, raw], 1)
    signed = small.view(np.int8)
    assert raw[0, :16].view(np.int32).tolist() == [1, -1, 2**31 - 1, 0]
    assert raw[1, :4].view(np.int8).tolist() == [1, -1, 127, 0]
    np.testing.assert_array_equal(raw[2, :16].view(np.float32), small)
    np.testing.assert_array_equal(raw[3, :16].view(np.float32), signed)
    np.testing.assert_array_equal(raw[4, :8].view(np.int16), small)
    np.testing.assert_array_equal(raw[5, :8].view(np.int16), signed)
    np.testing.assert_array_equal(raw[6, :8].view(np.int16), signed.astype(np.int16) * 3)
    np.testing.assert_array_equal(raw[7].view(np.float64), given.astype(np.float64))
    np.testing.assert_array_equal(raw[8, :16].view(np.float32), given)


def test_float_max_gives_the_second_operand_for_nan() -> None:
    isa = runnable_isas()[0]
    b = KernelBuilder("nans", isa)
    x, y = b.load(b.arg_ptr(0), vec(f32, 4)), b.load(b.arg_ptr(1), vec(f32, 4))
    b.store(b.max(x, y), b.arg_ptr(2))
    b.store(b.min(x, y), b.ptr(b.arg_ptr(2), 16))
    got = np.zeros(8, np.float32)
    x, y = np.array([1, np.nan, 1, 3], np.float32), np.array([2, 1, np.nan, 2], np.float32)
    run_kernel(b.finish(), isa, [x, y, got], 1)
    np.testing.assert_array_equal(got, [2, 1, np.nan, 3, 1, 1, np.nan, 2])


@ISAS
def test_kernel_text_is_the_llvm_dialect(isa: Isa) -> None:
    function = scale_kernel(isa)
    codegen.verify(function)
    text = str(builtin.ModuleOp([function]))
    context = Context()
    context.load_dialect(builtin.Builtin)
    context.load_dialect(llvm.LLVM)
    module = Parser(context, text).parse_module()
    module.verify()
    assert str(module) == text
    assert codegen.llvm_ir(module, isa) == codegen.llvm_ir(function, isa)


def test_object_is_cached_and_the_cache_is_used(own_cache: Path) -> None:
    isa = runnable_isas()[0]
    code = codegen.compile_object(scale_kernel(isa), isa)
    (entry,) = own_cache.rglob("*.o")
    assert entry.read_bytes() == code
    entry.write_bytes(b"from the cache")
    assert codegen.compile_object(scale_kernel(isa), isa) == b"from the cache"
    assert codegen.compile_object(scale_kernel(isa), isa, cache=False) == code
    codegen.compile_object(scale_kernel(Isa.scalar()), Isa.scalar())
    assert len(list(own_cache.rglob("*.o"))) == 2


def test_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv(codegen.CACHE_VARIABLE, str(blocked))
    isa = Isa.scalar()
    assert codegen.compile_object(scale_kernel(isa), isa).startswith(b"\x7fELF")


def test_bad_llvm_names_the_kernel() -> None:
    b = KernelBuilder("broken", Isa.scalar())
    b.intrinsic("llvm.fabs.f32", f32, [b.f32(1.0)] * 2)
    with pytest.raises(InternalError, match="broken"):
        codegen.compile_object(b.finish(), Isa.scalar())


def test_outside_calls_are_refused() -> None:
    b = KernelBuilder("needs_libm", Isa.scalar())
    x = b.load(b.arg_ptr(0), f32)
    b.store(b.intrinsic("llvm.sin.f32", f32, [x]), b.arg_ptr(0))
    with pytest.raises(InternalError, match="needs_libm on scalar would call sinf"):
        codegen.compile_object(b.finish(), Isa.scalar())


def test_mixed_types_are_refused() -> None:
    b = KernelBuilder("mixed", Isa.scalar())
    with pytest.raises(InternalError, match="f32 and i64"):
        _ = b.f32(1.0) + b.i64(1)


def test_isa_select_takes_the_widest_that_fits() -> None:
    every = {*Isa.avx512().features, "avx512vnni", "sse2"}
    assert Isa.select(every, "x86_64").name == "avx512"
    assert Isa.select(every, "x86_64").has_vnni
    assert not Isa.select(every, "x86_64").has_vbmi
    assert Isa.select(every - {"avx512dq"}, "x86_64").name == "avx2"
    assert Isa.select({*every, "avxvnni"} - {"avx512dq"}, "x86_64") == Isa.avx2(("avxvnni",))
    assert Isa.select(every - {"fma"}, "x86_64").name == "portable"
    assert Isa.select({*every, "clzero"}, "x86_64") == replace(Isa.select(every, "x86_64"), fetch_order="lines")
    assert Isa.select(set(Isa.sse4().features), "x86_64") == Isa.sse4()
    assert Isa.select({"neon"}, "aarch64") == Isa.portable("aarch64")
    assert Isa.select({"neon", "dotprod"}, "aarch64") == Isa.neon()


def test_isa_text_reads_back() -> None:
    isas = [Isa.avx512(("avx512vnni", "gfni")), Isa.avx2(("avxvnni",)), Isa.avx2(), Isa.sse4(), Isa.neon()]
    isas += [replace(isa, fetch_order="lines") for isa in isas[:3]]
    for isa in [*isas, Isa.portable("x86_64"), Isa.portable("aarch64"), Isa.scalar("x86_64")]:
        assert isa_from_text(isa_text(isa)) == isa


def test_spec_names_differ_with_every_field() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Spec(KernelSpec):
        family = "k_test"
        n: int
        slope: float = 0.5
        sizes: tuple[int, ...] = ()

        def build(self, isa: Isa) -> llvm.FuncOp:
            return scale_kernel(isa, self.name)

    specs = [Spec(1), Spec(-1), Spec(1, 0.25), Spec(1, -0.5), Spec(1, sizes=(1, 2)), Spec(1, sizes=(12,))]
    assert len({spec.name for spec in specs}) == len(specs)


def test_threads_that_compile_at_once_get_what_one_gets() -> None:
    isa = runnable_isas()[0]
    kernels = [scale_kernel(isa, f"scale{number}") for number in range(12)]
    alone = [codegen.compile_object(kernel, isa, cache=False) for kernel in kernels]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda kernel: codegen.compile_object(kernel, isa, cache=False), kernels * 4))
    assert together == alone * 4


def test_llvm_is_entered_without_llvmlites_lock() -> None:
    """With the lock kernels compile all the same, but one after the other: an llvmlite that hides it should be seen."""
    locked = ffi.lib.LLVMPY_TargetMachineEmitToMemory
    assert codegen._without_lock(locked) is not locked
