"""Hand-written programs for runtime tests: tiny kernels in LLVM IR, and programs that launch them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from neuc.runtime.native.llvm import compile_baseline
from neuc.runtime.program import (
    ArenaBuffer,
    BufferArg,
    F32Arg,
    InputBuffer,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OutputBuffer,
    Program,
    ScheduleStep,
    WeightBuffer,
)

_LOOP = """
define void @{name}(ptr %args, i64 %begin, i64 %end, ptr %scratch) {{
{prelude}
entry:
  %a.at = getelementptr i64, ptr %args, i64 0
  %a = load ptr, ptr %a.at
  %b.at = getelementptr i64, ptr %args, i64 1
  %b = load ptr, ptr %b.at
  %c.at = getelementptr i64, ptr %args, i64 2
  %c = load ptr, ptr %c.at
  %factor = load float, ptr %c.at
  %modulus = load i64, ptr %c.at
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %x.at = getelementptr float, ptr %a, i64 %i
  %x = load float, ptr %x.at
{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""

# The thread that begins at 0 comes late: some tenths of a millisecond.
_LATE = """
  %word = alloca i64
  %first = icmp eq i64 %begin, 0
  br i1 %first, label %wait, label %entry
wait:
  %turn = phi i64 [ 0, %0 ], [ %following, %wait ]
  store volatile i64 %turn, ptr %word
  %following = add i64 %turn, 1
  %again = icmp ult i64 %following, 200000
  br i1 %again, label %wait, label %entry
"""

_BODIES = {
    # args: x, out, f32 factor
    "k_scale": """
  %y = fmul float %x, %factor
  %y.at = getelementptr float, ptr %b, i64 %i
  store float %y, ptr %y.at""",
    # args: x, out, f32 factor: k_scale, but the thread that begins at 0 is late
    "k_late": """
  %y = fmul float %x, %factor
  %y.at = getelementptr float, ptr %b, i64 %i
  store float %y, ptr %y.at""",
    # args: x, weight, out, modulus: out[i] = x[i] + weight[i % modulus]
    "k_add": """
  %n.at = getelementptr i64, ptr %args, i64 3
  %n = load i64, ptr %n.at
  %j = urem i64 %i, %n
  %w.at = getelementptr float, ptr %b, i64 %j
  %w = load float, ptr %w.at
  %y = fadd float %x, %w
  %y.at = getelementptr float, ptr %c, i64 %i
  store float %y, ptr %y.at""",
    # args: x, out, n: out[i] = x[n - 1 - i]: reads what other threads wrote, so a missing barrier shows
    "k_reverse": """
  %last = sub i64 %modulus, 1
  %j = sub i64 %last, %i
  %r.at = getelementptr float, ptr %a, i64 %j
  %r = load float, ptr %r.at
  %y.at = getelementptr float, ptr %b, i64 %i
  store float %r, ptr %y.at""",
    # args: x, out (int64), anything: out[i] = address of the scratch memory; the thread that begins at 0 is late
    "k_where": """
  %address = ptrtoint ptr %scratch to i64
  %y.at = getelementptr i64, ptr %b, i64 %i
  store i64 %address, ptr %y.at""",
}


@lru_cache(maxsize=1)
def kernels() -> Mapping[str, bytes]:
    """Object code of all test kernels."""
    return {name: compile_baseline(llvm_text(name)) for name in _BODIES}


def llvm_text(name: str) -> str:
    """A test kernel as LLVM IR."""
    prelude = _LATE if name in ("k_late", "k_where") else "br label %entry"
    return _LOOP.format(name=name, prelude=prelude, body=_BODIES[name])


WIDTH = 5
BIAS = np.array([0.5, -1.0, 2.0, 0.25, -8.0], np.float32)


def chain(rounds: int = 3, grain: int = 1) -> Program:
    """y[B, 5] = x · 2^rounds reversed ``rounds`` times in flat order, plus a bias; sizes symbolic in B."""
    n = f"B*{WIDTH}"
    buffers = (
        InputBuffer(0),
        ArenaBuffer(0, f"{n}*4"),
        ArenaBuffer(f"({n}*4+63)//64*64", f"{n}*4"),
        WeightBuffer("bias"),
        OutputBuffer(0),
    )
    launches: list[Launch] = []
    source = BufferArg(0)
    for _ in range(rounds):
        launches.append(Launch("k_scale", (source, BufferArg(1), F32Arg(2.0)), n, grain, "double"))
        launches.append(Launch("k_reverse", (BufferArg(1), BufferArg(2), IntArg(n)), n, grain, "flip"))
        source = BufferArg(2)
    launches.append(Launch("k_add", (source, BufferArg(3), BufferArg(4), IntArg(WIDTH)), n, grain, "bias"))
    io = IoSpec("float32", ("B", WIDTH))
    segment = NativeSegment(("B",), f"({n}*4+63)//64*64 + {n}*4", 64, (io,), (io,), buffers, tuple(launches))
    return Program(
        (IoSpec("float32", ("B", WIDTH), "x"),),
        (IoSpec("float32", ("B", WIDTH), "y"),),
        {"seg0": segment},
        (ScheduleStep("seg0", ("x",), ("y",)),),
    )


def chain_expected(x: np.ndarray, rounds: int = 3) -> np.ndarray:
    """What `chain` computes; exact, because scaling by 2 is."""
    flat = x.reshape(-1) * np.float32(2.0**rounds)
    flat = flat[::-1] if rounds % 2 else flat
    return flat.reshape(x.shape) + BIAS


def chain_weights() -> dict[str, np.ndarray]:
    """Weights of `chain`."""
    return {"bias": BIAS}
