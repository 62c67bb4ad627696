"""The core of a product in MLIR: a tile of C is held while tiles of A and B pass.

Packed ternary weights are decoded here, four codes a byte; bf16 products add in float32, k ascending, as the simulator
does. mlir-aie's own kernel (mm.cc) is not called: for int8 it takes m and n of whole 16 and k of whole 8 only, one size
an object file, and operands in blocks (4 x 8 by 8 x 8 on AIE2, 8 x 8 by 8 x 8 on AIE2P), where tokens lie row by row.
"""

from __future__ import annotations

from collections.abc import Mapping

from neuc.backends.npu.export.aie_types import extension, memref
from neuc.runtime.npu.program import Channel, Kernel

PRODUCTS = ("gemm", "ternary_gemm", "bf16_gemm", "finished_gemm", "finished_ternary_gemm", "finished_bf16_gemm")


def zero(kernel: Kernel, channels: Mapping[str, Channel], c: str) -> list[str]:
    """What clears the tile `c` of C before the first step."""
    channel = channels[kernel.outputs[0]]
    element, value = ("f32", "0.0") if channel.dtype == "f32" else ("i32", "0")
    m, n = channel.shape
    return [
        f"%z = arith.constant {value} : {element}",
        f"%zm = arith.constant {m} : index",
        f"%zn = arith.constant {n} : index",
        "scf.for %zi = %c0 to %zm step %c1 {",
        "  scf.for %zj = %c0 to %zn step %c1 {",
        f"    memref.store %z, {c}[%zi, %zj] : {memref(channel)}",
        "  }",
        "}",
    ]


def step(kernel: Kernel, channels: Mapping[str, Channel], a: str, b: str, c: str) -> list[str]:
    """C += A·B for one step, in loops."""
    left, right, out = (channels[name] for name in (*kernel.inputs, *kernel.outputs))
    (m, k), n = left.shape, out.shape[1]
    lines = [f"%n{axis} = arith.constant {size} : index" for axis, size in zip("mnk", (m, n, k))]
    ternary = kernel.function.endswith("ternary_gemm")
    element = "f32" if kernel.function.endswith("bf16_gemm") else "i32"
    if ternary:
        lines += [
            "%four = arith.constant 4 : index",
            "%two = arith.constant 2 : i8",
            "%mask = arith.constant 3 : i8",
            "%one = arith.constant 1 : i32",
        ]
    lines += [
        "scf.for %i = %c0 to %nm step %c1 {",
        "  scf.for %j = %c0 to %nn step %c1 {",
        f"    %old = memref.load {c}[%i, %j] : {memref(out)}",
        f"    %sum = scf.for %k = %c0 to %nk step %c1 iter_args(%acc = %old) -> ({element}) {{",
        f"      %x = memref.load {a}[%i, %k] : {memref(left)}",
    ]
    body = _ternary(b, right) if ternary else _bf16(b, right) if element == "f32" else _int8(b, left, right)
    lines += [f"      {line}" for line in body]
    return [
        *lines,
        f"      scf.yield %next : {element}",
        "    }",
        f"    memref.store %sum, {c}[%i, %j] : {memref(out)}",
        "  }",
        "}",
    ]


def _ternary(b: str, channel: Channel) -> list[str]:
    """Four codes a byte, the first in the lowest bits; a weight is its code less one."""
    return [
        "%byte = arith.divui %j, %four : index",
        "%place = arith.remui %j, %four : index",
        f"%codes = memref.load {b}[%k, %byte] : {memref(channel)}",
        "%short = arith.index_cast %place : index to i8",
        "%shift = arith.muli %short, %two : i8",
        "%moved = arith.shrui %codes, %shift : i8",
        "%code = arith.andi %moved, %mask : i8",
        "%wide = arith.extui %code : i8 to i32",
        "%weight = arith.subi %wide, %one : i32",
        "%xw = arith.extsi %x : i8 to i32",
        "%product = arith.muli %xw, %weight : i32",
        "%next = arith.addi %acc, %product : i32",
    ]


def _int8(b: str, left: Channel, right: Channel) -> list[str]:
    return [
        f"%y = memref.load {b}[%k, %j] : {memref(right)}",
        f"%xw = arith.{extension(left)} %x : i8 to i32",
        f"%yw = arith.{extension(right)} %y : i8 to i32",
        "%product = arith.muli %xw, %yw : i32",
        "%next = arith.addi %acc, %product : i32",
    ]


def _bf16(b: str, channel: Channel) -> list[str]:
    return [
        f"%y = memref.load {b}[%k, %j] : {memref(channel)}",
        "%xw = arith.extf %x : bf16 to f32",
        "%yw = arith.extf %y : bf16 to f32",
        "%product = arith.mulf %xw, %yw : f32",
        "%next = arith.addf %acc, %product : f32",
    ]
