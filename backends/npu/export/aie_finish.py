"""The core of a product that finishes its tile, in MLIR: its own buffers, the requantisation, or the sums' way out.

Sums and the parameter block stand in buffers of the core's tile, as object FIFOs carry only what travels. What words
the block holds says `runtime/npu/requantize.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from neuc.backends.npu.export.aie_float_finish import FLOATS, float_buffers, float_sums
from neuc.backends.npu.export.aie_residual import residual_tokens
from neuc.backends.npu.export.aie_rows import ROWS, row_buffers
from neuc.backends.npu.export.aie_types import memref
from neuc.runtime.npu.program import Channel, Kernel
from neuc.runtime.npu.requantize import MOST, parameter_bytes
from neuc.runtime.npu.residual import RESIDUAL_WORDS

PREFIX = "finished_"
"""What the functions of such kernels begin with."""
_HEADER, _TABLE = 66, 2
"""Words before a stage's columns, and before its table."""


def buffers(kernel: Kernel, channels: Mapping[str, Channel]) -> dict[str, str]:
    """Buffers on the core's tile by name, with their types: of kernels that finish products, or reduce rows."""
    if kernel.function in ROWS:
        return row_buffers(kernel)
    if not kernel.function.startswith(PREFIX):
        return {}
    if kernel.function == FLOATS:
        return float_buffers(kernel, channels)
    sums = with_sums(kernel, channels)[kernel.outputs[0]]
    found = {f"sums_{kernel.name}": memref(sums)}
    if parameter_phases(kernel):
        found[f"block_{kernel.name}"] = f"memref<{parameter_bytes(sums.shape[1], MOST)}xi8>"
    return found


def with_sums(kernel: Kernel, channels: Mapping[str, Channel]) -> dict[str, Channel]:
    """The channels, C's carrying sums as they are on the core."""
    name = kernel.outputs[0]
    if kernel.function == FLOATS:
        return {**channels, name: float_sums(kernel, channels)}
    return {**channels, name: replace(channels[name], dtype="i32")}


def sum_pieces(kernel: Kernel) -> int:
    """Tokens in which sums leave."""
    return kernel.phases - sum(kernel.consume[0])


def parameter_phases(kernel: Kernel) -> int:
    """Firings that take parameters; 0 for sums that leave as they are."""
    found = kernel.params.get("parameters", 0)
    return found if isinstance(found, int) else 0


def take_parameters(kernel: Kernel, channels: Mapping[str, Channel], element: str) -> list[str]:
    """Copy the token `element`, number %token, behind those before it, as far as the block has room."""
    channel = channels[kernel.inputs[1]]
    (rows, width), size = channel.shape, parameter_bytes(channels[kernel.outputs[0]].shape[1], MOST)
    return [
        f"%prows = arith.constant {rows} : index",
        f"%pwidth = arith.constant {width} : index",
        f"%psize = arith.constant {size} : index",
        f"%ptoken = arith.constant {prod(channel.shape)} : index",
        "%pbegin = arith.muli %token, %ptoken : index",
        "scf.for %pr = %c0 to %prows step %c1 {",
        "  scf.for %pc = %c0 to %pwidth step %c1 {",
        "    %pline = arith.muli %pr, %pwidth : index",
        "    %pin = arith.addi %pline, %pc : index",
        "    %pplace = arith.addi %pbegin, %pin : index",
        "    %pfits = arith.cmpi ult, %pplace, %psize : index",
        "    scf.if %pfits {",
        f"      %pbyte = memref.load {element}[%pr, %pc] : {memref(channel)}",
        f"      memref.store %pbyte, %block_{kernel.name}[%pplace] : memref<{size}xi8>",
        "    }",
        "  }",
        "}",
    ]


def give_sums(kernel: Kernel, channels: Mapping[str, Channel], element: str) -> list[str]:
    """Bytes of the sums' rows that token number %token carries, lowest byte first."""
    out, sums = channels[kernel.outputs[0]], with_sums(kernel, channels)[kernel.outputs[0]]
    m, n = out.shape
    return [
        f"%qrows = arith.constant {m // sum_pieces(kernel)} : index",
        f"%qn = arith.constant {n} : index",
        "%qbytes = arith.constant 4 : index",
        "%qbits = arith.constant 8 : i32",
        "%qfirst = arith.muli %token, %qrows : index",
        "scf.for %qi = %c0 to %qrows step %c1 {",
        "  scf.for %qj = %c0 to %qn step %c1 {",
        "    %qrow = arith.addi %qfirst, %qi : index",
        f"    %qsum = memref.load %sums_{kernel.name}[%qrow, %qj] : {memref(sums)}",
        "    scf.for %qb = %c0 to %qbytes step %c1 {",
        "      %qb32 = arith.index_cast %qb : index to i32",
        "      %qshift = arith.muli %qb32, %qbits : i32",
        "      %qmoved = arith.shrui %qsum, %qshift : i32",
        "      %qbyte = arith.trunci %qmoved : i32 to i8",
        "      %qline = arith.muli %qi, %qn : index",
        "      %qelement = arith.addi %qline, %qj : index",
        "      %qstart = arith.muli %qelement, %qbytes : index",
        "      %qplace = arith.addi %qstart, %qb : index",
        "      %qto = arith.divui %qplace, %qn : index",
        "      %qat = arith.remui %qplace, %qn : index",
        f"      memref.store %qbyte, {element}[%qto, %qat] : {memref(out)}",
        "    }",
        "  }",
        "}",
    ]


def requantize(kernel: Kernel, channels: Mapping[str, Channel], element: str) -> list[str]:
    """Codes of all sums, stage after stage, into the token `element`."""
    out, sums = channels[kernel.outputs[0]], with_sums(kernel, channels)[kernel.outputs[0]]
    (m, n), stages = out.shape, kernel.params.get("stages", 1)
    size = parameter_bytes(n, MOST)
    block, words = f"memref<{size}xi8>", f"memref<{size // 4}xi32>"
    lines = [
        f"%words = memref.view %block_{kernel.name}[%c0][] : {block} to {words}",
        f"%rm = arith.constant {m} : index",
        f"%rn = arith.constant {n} : index",
        *(f"%k{value} = arith.constant {value} : index" for value in (2, 3, 4, _HEADER, 128)),
        *(f"%l{value} = arith.constant {value} : i64" for value in (0, 1, 32)),
        "%less = arith.constant -1 : i64",
        "%one32 = arith.constant 1 : i32",
        "%none32 = arith.constant 0 : i32",
        f"%begin = arith.constant {RESIDUAL_WORDS if residual_tokens(kernel) else 0} : index",
        "scf.for %ri = %c0 to %rm step %c1 {",
        "  scf.for %rj = %c0 to %rn step %c1 {",
        f"    %sum = memref.load %sums_{kernel.name}[%ri, %rj] : {memref(sums)}",
        "    %x0 = arith.extsi %sum : i32 to i64",
    ]
    assert isinstance(stages, int)
    base = "%begin"
    for stage in range(stages):
        made = _stage(str(stage), base, f"%x{stage}", f"%x{stage + 1}", f"%block_{kernel.name}", block, words)
        lines += [f"    {line}" for line in made]
        base = f"%end{stage}"
    return [
        *lines,
        f"    %code = arith.trunci %x{stages} : i64 to i8",
        f"    memref.store %code, {element}[%ri, %rj] : {memref(out)}",
        "  }",
        "}",
    ]


def _stage(t: str, base: str, x: str, y: str, block_name: str, block: str, words: str) -> list[str]:
    """Code `y` of the sum or code `x`; the stage's words begin at `base`, those of the next at %end."""

    def column(name: str, number: str) -> list[str]:
        """The word of column %rj in the row `number` of columns."""
        return [
            f"%{name}r{t} = arith.muli {number}, %rn : index",
            f"%{name}s{t} = arith.addi %first{t}, %{name}r{t} : index",
            f"%{name}p{t} = arith.addi %{name}s{t}, %rj : index",
            f"%{name}{t} = memref.load %words[%{name}p{t}] : {words}",
        ]

    def limit(name: str, number: str) -> list[str]:
        """A byte of the column's limits."""
        return [
            f"%{name}p{t} = arith.addi %limits{t}, {number} : index",
            f"%{name}b{t} = memref.load {block_name}[%{name}p{t}] : {block}",
            f"%{name}{t} = arith.extsi %{name}b{t} : i8 to i64",
        ]

    return [
        f"%many{t} = memref.load %words[{base}] : {words}",
        f"%corrections{t} = arith.index_cast %many{t} : i32 to index",
        f"%flagp{t} = arith.addi {base}, %c1 : index",
        f"%flags{t} = memref.load %words[%flagp{t}] : {words}",
        f"%first{t} = arith.addi {base}, %k{_HEADER} : index",
        *column("scale", "%c0"),
        *column("low32", "%c1"),
        *column("high32", f"%k{2}"),
        f"%limr{t} = arith.muli %k3, %rn : index",
        f"%lims{t} = arith.addi %first{t}, %limr{t} : index",
        f"%limw{t} = arith.addi %lims{t}, %rj : index",
        f"%limits{t} = arith.muli %limw{t}, %k4 : index",
        *limit("shift", "%c0"),
        *limit("zero", "%c1"),
        *limit("low", "%k2"),
        *limit("high", "%k3"),
        f"%scale64{t} = arith.extsi %scale{t} : i32 to i64",
        f"%scaled{t} = arith.muli {x}, %scale64{t} : i64",
        f"%upper{t} = arith.extsi %high32{t} : i32 to i64",
        f"%lifted{t} = arith.shli %upper{t}, %l32 : i64",
        f"%lower{t} = arith.extui %low32{t} : i32 to i64",
        f"%addend{t} = arith.ori %lifted{t}, %lower{t} : i64",
        f"%wide{t} = arith.addi %scaled{t}, %addend{t} : i64",
        f"%before{t} = arith.subi %shift{t}, %l1 : i64",
        f"%half{t} = arith.shli %l1, %before{t} : i64",
        f"%floor{t} = arith.shrsi %wide{t}, %shift{t} : i64",
        f"%odd{t} = arith.andi %floor{t}, %l1 : i64",
        f"%up{t} = arith.addi %wide{t}, %half{t} : i64",
        f"%less{t} = arith.subi %up{t}, %l1 : i64",
        f"%even{t} = arith.addi %less{t}, %odd{t} : i64",
        f"%near{t} = arith.shrsi %even{t}, %shift{t} : i64",
        f"%moved{t} = arith.addi %near{t}, %zero{t} : i64",
        f"%atleast{t} = arith.maxsi %moved{t}, %low{t} : i64",
        f"%plain{t} = arith.minsi %atleast{t}, %high{t} : i64",
        f"%corrected{t} = scf.for %e{t} = %c0 to %corrections{t} step %c1 iter_args(%acc{t} = %plain{t}) -> (i64) {{",
        f"  %twice{t} = arith.muli %e{t}, %k2 : index",
        f"  %place{t} = arith.addi %twice{t}, %k4 : index",
        *(f"  {line}" for line in column("begin", f"%place{t}")),
        f"  %after{t} = arith.addi %place{t}, %c1 : index",
        *(f"  {line}" for line in column("span", f"%after{t}")),
        f"  %begin64{t} = arith.extsi %begin{t} : i32 to i64",
        f"  %span64{t} = arith.extsi %span{t} : i32 to i64",
        f"  %far{t} = arith.subi {x}, %begin64{t} : i64",
        f"  %falls{t} = arith.cmpi slt, %span64{t}, %l0 : i64",
        f"  %sign{t} = arith.select %falls{t}, %less, %l1 : i64",
        f"  %length{t} = arith.muli %span64{t}, %sign{t} : i64",
        f"  %since{t} = arith.cmpi sge, %far{t}, %l0 : i64",
        f"  %until{t} = arith.cmpi slt, %far{t}, %length{t} : i64",
        f"  %inside{t} = arith.andi %since{t}, %until{t} : i1",
        f"  %change{t} = arith.select %inside{t}, %sign{t}, %l0 : i64",
        f"  %changed{t} = arith.addi %acc{t}, %change{t} : i64",
        f"  scf.yield %changed{t} : i64",
        "}",
        f"%number{t} = arith.index_cast %corrected{t} : i64 to index",
        f"%entry{t} = arith.addi %number{t}, %k128 : index",
        f"%tables{t} = arith.addi {base}, %k{_TABLE} : index",
        f"%tableb{t} = arith.muli %tables{t}, %k4 : index",
        f"%tablep{t} = arith.addi %tableb{t}, %entry{t} : index",
        f"%found{t} = memref.load {block_name}[%tablep{t}] : {block}",
        f"%found64{t} = arith.extsi %found{t} : i8 to i64",
        f"%has{t} = arith.andi %flags{t}, %one32 : i32",
        f"%looked{t} = arith.cmpi ne, %has{t}, %none32 : i32",
        f"{y} = arith.select %looked{t}, %found64{t}, %corrected{t} : i64",
        f"%pairs{t} = arith.muli %corrections{t}, %k2 : index",
        f"%rows{t} = arith.addi %pairs{t}, %k4 : index",
        f"%area{t} = arith.muli %rows{t}, %rn : index",
        f"%end{t} = arith.addi %first{t}, %area{t} : index",
    ]
