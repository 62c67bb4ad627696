"""Object code begun while a module is lowered is what compiling at the end gives, made once for each kernel."""

from __future__ import annotations

import pytest
from xdsl.dialects import llvm

from neuc.backends.cpu import ahead
from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.ternary_quantize import AbsMaxPartsKernel, QuantizePartsKernel, TernaryQuantizeKernel

ISA = Isa.portable()


@pytest.fixture
def kernels() -> list[llvm.FuncOp]:
    """Three kernels."""
    return [AbsMaxPartsKernel().build(ISA), QuantizePartsKernel().build(ISA), TernaryQuantizeKernel().build(ISA)]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[llvm.FuncOp]:
    """Every kernel that is compiled, in any order."""
    seen: list[llvm.FuncOp] = []

    def record(kernel: llvm.FuncOp, isa: Isa) -> bytes:
        seen.append(kernel)
        return compile_object(kernel, isa)

    monkeypatch.setattr(ahead, "compile_object", record)
    return seen


def test_objects_begun_ahead_are_taken(kernels: list[llvm.FuncOp], compiled: list[llvm.FuncOp]) -> None:
    with ahead.objects_ahead() as outer:
        for kernel in kernels[:2]:
            ahead.begin(kernel, ISA)
            ahead.begin(kernel, ISA)
        with ahead.objects_ahead() as inner:
            assert inner is outer
            made = inner.finish(kernels, ISA)
    assert made == [compile_object(kernel, ISA) for kernel in kernels]
    assert sorted(map(id, compiled)) == sorted(map(id, kernels))


def test_outside_of_a_block_nothing_is_begun(kernels: list[llvm.FuncOp], compiled: list[llvm.FuncOp]) -> None:
    ahead.begin(kernels[0], ISA)
    with ahead.objects_ahead():
        pass
    ahead.begin(kernels[0], ISA)
    assert not compiled


def test_a_kernel_that_does_not_compile_is_said_when_it_is_asked_for(
    kernels: list[llvm.FuncOp], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kernel: llvm.FuncOp, isa: Isa) -> bytes:
        raise RuntimeError(kernel.sym_name.data)

    monkeypatch.setattr(ahead, "compile_object", refuse)
    with ahead.objects_ahead() as objects:
        objects.begin(kernels[0], ISA)
        with pytest.raises(RuntimeError, match=kernels[0].sym_name.data):
            objects.finish(kernels[:1], ISA)
