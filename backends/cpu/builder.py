"""`KernelBuilder`: writes one kernel as an ``llvm.func`` of xDSL's llvm dialect.

It knows the calling convention (`neuc.backends.cpu.kernels.base`) and how to spell instructions; what a
kernel computes is the kernels' business, and turning the function into machine code `codegen`'s.

Instructions which xDSL's llvm dialect lacks, or allows on scalars only (vector ``fcmp`` and ``select``,
``extractelement``, ``uitofp``, ``fptosi``, ``fptoui``), are written as ``llvm.call_intrinsic`` of names that
start with ``llvm.neuc.``: the text stays plain llvm dialect, and `codegen` knows the names.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu.emitter import Emitter, Operand, Val
from neuc.backends.cpu.emitter_flow import If, Loop
from neuc.backends.cpu.irtypes import (
    FLOAT_PROPS,
    NO_FLAGS,
    NOT_ATOMIC,
    elem_of,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i32_array,
    i64,
    i64_attr,
    is_float,
    lanes_of,
    mangle,
    ptr,
    text_attr,
    vec,
    with_elem,
)

__all__ = [
    "If",
    "KernelBuilder",
    "Loop",
    "Operand",
    "Val",
    "elem_of",
    "f16",
    "f32",
    "f64",
    "i1",
    "i8",
    "i16",
    "i32",
    "i64",
    "is_float",
    "lanes_of",
    "mangle",
    "ptr",
    "vec",
    "with_elem",
]

_NO_BUNDLES = i32_array(())


class KernelBuilder(Emitter):
    """Builds ``void name(ptr args, i64 begin, i64 end, ptr scratch)``; `finish` gives the function.

    Methods emit where the builder stands and return `Val`. Constants and argument loads are emitted once, at
    the head of the function, whatever place first asks for them.
    """

    # ---------------------------------------------------------------- loops and conditionals

    @contextmanager
    def loop(self, lo: Operand, hi: Operand, step: Operand = 1, init: Sequence[Val] = ()) -> Generator[Loop]:
        """``with b.loop(0, n, init=[acc]) as l``: see `Loop`."""
        loop = Loop(self, lo, hi, step, init)
        yield loop
        loop.close()

    @contextmanager
    def if_(self, cond: Val) -> Generator[If]:
        """``with b.if_(c) as f: ... f.yield_([x])``, then ``with f.else_(): ...``: see `If`."""
        branch = If(self, cond)
        yield branch
        branch.close()

    # ---------------------------------------------------------------- memory

    def ptr(self, base: Val, byte_offset: Operand) -> Val:
        """``base + byte_offset``."""
        return self.elem(base, byte_offset, i8)

    def number_of(self, address: Val) -> Val:
        """An address as an i64."""
        return self.emit(llvm.PtrToIntOp, (address.ssa,), i64, {})

    def store(self, value: Val, address: Val, align: int = 1) -> None:
        """Store a scalar or vector."""
        props: dict[str, Attribute] = {"ordering": NOT_ATOMIC, "alignment": i64_attr(align)}
        op = llvm.StoreOp.create(operands=(value.ssa, address.ssa), properties=props)
        self.block.add_op(op)

    def mask_below(self, count: Val, lanes: int) -> Val:
        """Lane i is set where ``i < count`` (an i64; negative counts as zero)."""
        if lanes == 1:
            return self.icmp("slt", self.i64(0), count)
        few = self.min(count, self.i64(lanes))
        return self.icmp("slt", self.vec_const(range(lanes), i32), self.splat(self.trunc(few, i32), lanes))

    def masked_load(self, address: Val, type_: Attribute, mask: Val, passthru: Val | None = None) -> Val:
        """Load the lanes of the mask; the others come from ``passthru`` (zero) and are not touched."""
        rest = self.zero(type_) if passthru is None else passthru
        if lanes_of(type_) == 1:
            with self.if_(mask) as f:
                f.yield_([self.load(address, type_)])
            with f.else_():
                f.yield_([rest])
            return f.results[0]
        name = f"llvm.masked.load.{mangle(type_)}.p0"
        return self.intrinsic(name, type_, [address, mask, rest])

    def masked_store(self, value: Val, address: Val, mask: Val) -> None:
        """Store the lanes of the mask."""
        if value.lanes == 1:
            with self.if_(mask):
                self.store(value, address)
            return
        name = f"llvm.masked.store.{mangle(value.type)}.p0"
        self.intrinsic(name, None, [value, address, mask])

    # ---------------------------------------------------------------- arithmetic

    def udiv(self, x: Val, y: Operand) -> Val:
        """Unsigned division."""
        return self.binary("udiv", x, y)

    def urem(self, x: Val, y: Operand) -> Val:
        """Unsigned remainder."""
        return self.binary("urem", x, y)

    def sdiv(self, x: Val, y: Operand) -> Val:
        """Signed division, towards zero."""
        return self.binary("sdiv", x, y)

    def srem(self, x: Val, y: Operand) -> Val:
        """Signed remainder, with the sign of the dividend."""
        return self.binary("srem", x, y)

    def fma(self, x: Val, y: Val, z: Val) -> Val:
        """``x * y + z``, rounded once where the machine has it in one instruction, else twice."""
        return self.intrinsic(f"llvm.fmuladd.{mangle(x.type)}", x.type, [x, y, z])

    def abs(self, x: Val) -> Val:
        """Absolute value of floats."""
        return self.intrinsic(f"llvm.fabs.{mangle(x.type)}", x.type, [x])

    def sqrt(self, x: Val) -> Val:
        """Square root, correctly rounded."""
        return self.intrinsic(f"llvm.sqrt.{mangle(x.type)}", x.type, [x])

    def copysign(self, x: Val, sign: Val) -> Val:
        """The magnitude of ``x`` with the sign of ``sign``."""
        return self.intrinsic(f"llvm.copysign.{mangle(x.type)}", x.type, [x, sign])

    def fcmp(self, predicate: str, x: Operand, y: Operand) -> Val:
        """Compare floats: o.. is false and u.. true when either is NaN (oeq one olt ole ogt oge ord, u.., uno)."""
        x, y = self._pair(x, y)
        if lanes_of(x.type) > 1:
            return self.intrinsic(f"llvm.neuc.fcmp.{predicate}", with_elem(x.type, i1), [x, y])
        code = i64_attr(llvm.FCmpPredicateFlag(predicate).to_int())
        return self.emit(llvm.FCmpOp, (x.ssa, y.ssa), i1, {"predicate": code, **FLOAT_PROPS})

    def select(self, cond: Val, x: Operand, y: Operand) -> Val:
        """``cond ? x : y``, lane by lane when ``cond`` is a vector."""
        x, y = self._pair(x, y)
        if cond.lanes > 1:
            return self.intrinsic("llvm.neuc.select", x.type, [cond, x, y])
        return self.emit(llvm.SelectOp, (cond.ssa, x.ssa, y.ssa), x.type, FLOAT_PROPS)

    def min(self, x: Operand, y: Operand) -> Val:
        """Signed minimum; of floats ``x < y ? x : y``: ``y`` when either is NaN."""
        x, y = self._pair(x, y)
        if is_float(x.type):
            return self.select(self.fcmp("olt", x, y), x, y)
        return self.intrinsic(f"llvm.smin.{mangle(x.type)}", x.type, [x, y])

    def max(self, x: Operand, y: Operand) -> Val:
        """Signed maximum; of floats ``x > y ? x : y``: ``y`` when either is NaN."""
        x, y = self._pair(x, y)
        if is_float(x.type):
            return self.select(self.fcmp("ogt", x, y), x, y)
        return self.intrinsic(f"llvm.smax.{mangle(x.type)}", x.type, [x, y])

    # ---------------------------------------------------------------- casts

    def zext(self, x: Val, elem: Attribute) -> Val:
        """Widen integers, filling with zeros."""
        return self.emit(llvm.ZExtOp, (x.ssa,), with_elem(x.type, elem), {})

    def sext(self, x: Val, elem: Attribute) -> Val:
        """Widen integers, filling with the sign."""
        return self.emit(llvm.SExtOp, (x.ssa,), with_elem(x.type, elem), {})

    def trunc(self, x: Val, elem: Attribute) -> Val:
        """Keep the low bits of integers."""
        return self.emit(llvm.TruncOp, (x.ssa,), with_elem(x.type, elem), {})

    def sitofp(self, x: Val, elem: Attribute) -> Val:
        """Signed integers to floats."""
        return self.emit(llvm.SIToFPOp, (x.ssa,), with_elem(x.type, elem), {})

    def uitofp(self, x: Val, elem: Attribute) -> Val:
        """Unsigned integers to floats."""
        return self.intrinsic("llvm.neuc.uitofp", with_elem(x.type, elem), [x])

    def fptosi(self, x: Val, elem: Attribute) -> Val:
        """Floats to signed integers, towards zero; the caller knows they fit."""
        return self.intrinsic("llvm.neuc.fptosi", with_elem(x.type, elem), [x])

    def fptosi_sat(self, x: Val, elem: Attribute) -> Val:
        """Floats to signed integers, towards zero, saturating; NaN gives 0."""
        to = with_elem(x.type, elem)
        return self.intrinsic(f"llvm.fptosi.sat.{mangle(to)}.{mangle(x.type)}", to, [x])

    def fpext(self, x: Val, elem: Attribute) -> Val:
        """Floats to wider floats."""
        return self.emit(llvm.FPExtOp, (x.ssa,), with_elem(x.type, elem), {})

    def fptrunc(self, x: Val, elem: Attribute) -> Val:
        """Floats to narrower floats."""
        return self.emit(llvm.FPTruncOp, (x.ssa,), with_elem(x.type, elem), {})

    def bitcast(self, x: Val, type_: Attribute) -> Val:
        """The same bits as another type of the same size."""
        return x if x.type == type_ else self.emit(llvm.BitcastOp, (x.ssa,), type_, {})

    # ---------------------------------------------------------------- lanes

    def splat(self, x: Val, lanes: int) -> Val:
        """One scalar in every lane."""
        if lanes == 1:
            return x
        type_ = vec(x.type, lanes)
        return self.shuffle(self.insert(self.undef(type_), x, 0), None, [0] * lanes)

    def insert(self, vector: Val, x: Val, lane: Operand) -> Val:
        """The vector with one lane replaced."""
        if vector.lanes == 1:
            return x
        index = self.as_val(lane, i64)
        return self.emit(llvm.InsertElementOp, (vector.ssa, x.ssa, index.ssa), vector.type, {})

    def extract(self, vector: Val, lane: Operand) -> Val:
        """One lane of a vector."""
        if vector.lanes == 1:
            return vector
        index = self.as_val(lane, i64)
        return self.intrinsic("llvm.neuc.extractelement", elem_of(vector.type), [vector, index])

    def shuffle(self, a: Val, other: Val | None, lanes: Sequence[int]) -> Val:
        """Pick lanes of ``a`` (0 .. n-1) and ``other`` (n .. 2n-1)."""
        second = self.undef(a.type) if other is None else other
        props: dict[str, Attribute] = {"mask": i32_array(tuple(lanes))}
        to = vec(elem_of(a.type), len(lanes))
        return self.emit(llvm.ShuffleVectorOp, (a.ssa, second.ssa), to, props)

    def concat(self, a: Val, other: Val) -> Val:
        """Two vectors as one of twice the lanes."""
        return self.shuffle(a, other, range(2 * a.lanes))

    def slice(self, a: Val, start: int, lanes: int) -> Val:
        """``lanes`` neighbouring lanes of a vector."""
        if lanes == 1:
            return self.extract(a, start)
        return self.shuffle(a, None, range(start, start + lanes))

    def reduce_add(self, x: Val) -> Val:
        """Sum of the lanes; floats as a balanced tree, the same on every run."""
        return self._reduce(x, "add", lambda a, c: a + c)

    def reduce_max(self, x: Val) -> Val:
        """Largest lane (signed; floats as `max`)."""
        return self._reduce(x, "smax", self.max)

    def reduce_min(self, x: Val) -> Val:
        """Smallest lane (signed; floats as `min`)."""
        return self._reduce(x, "smin", self.min)

    # ---------------------------------------------------------------- control and calls

    def intrinsic(self, name: str, result: Attribute | None, args: Iterable[Val]) -> Val:
        """Call any LLVM intrinsic by its full name; with ``result=None`` the value must not be used."""
        operands = tuple(a.ssa for a in args)
        props: dict[str, Attribute] = {
            "fastmathFlags": NO_FLAGS,
            "intrin": text_attr(name),
            "op_bundle_sizes": _NO_BUNDLES,
            "operandSegmentSizes": i32_array((len(operands), 0)),
        }
        op = llvm.CallIntrinsicOp.create(
            operands=operands, result_types=() if result is None else (result,), properties=props
        )
        self.block.add_op(op)
        return Val(self, op.results[0], result) if result is not None else self.args

    def _reduce(self, x: Val, name: str, combine: Callable[[Val, Val], Val]) -> Val:
        if x.lanes == 1:
            return x
        if not is_float(x.type):
            return self.intrinsic(f"llvm.vector.reduce.{name}.{mangle(x.type)}", elem_of(x.type), [x])
        while x.lanes > 1:
            half = x.lanes // 2
            x = combine(self.slice(x, 0, half), self.slice(x, half, half))
        return x
