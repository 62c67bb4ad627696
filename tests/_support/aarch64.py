"""Link a cross-compiled kernel with ziglang and run it under qemu's user mode; for tests only.

The linked program is static and needs no C library: it reads its buffers from standard input, calls the kernel for
each range of work units, and writes the buffers back.
"""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects import llvm

from kernel_harness import slot
from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

_PAGE = 4096
_SCRATCH_FILL = 0xA5
_ROOM = 64 << 20
_HEADER = struct.Struct("<4q")
"""Bytes of the whole image, argument slots, ranges of units, offset of the scratch memory."""

# Slots hold offsets into the image where their flag says so; the driver turns these into addresses.
_DRIVER = """
typedef long i64;
extern void KERNEL(i64 *args, i64 begin, i64 end, char *scratch);
static char image[ROOM] __attribute__((aligned(4096)));
static i64 syscall3(i64 number, i64 a, i64 b, i64 c) {
  register i64 x8 __asm__("x8") = number;
  register i64 x0 __asm__("x0") = a;
  register i64 x1 __asm__("x1") = b;
  register i64 x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
static void whole(i64 number, i64 file, i64 size) {
  for (i64 done = 0, n; done < size; done += n)
    if ((n = syscall3(number, file, (i64)(image + done), size - done)) <= 0) syscall3(93, 1, 0, 0);
}
void _start(void) {
  i64 *header = (i64 *)image;
  whole(63, 0, 32);
  i64 size = header[0], slots = header[1], ranges = header[2], scratch = header[3];
  for (i64 done = 32, n; done < size; done += n)
    if ((n = syscall3(63, 0, (i64)(image + done), size - done)) <= 0) syscall3(93, 2, 0, 0);
  i64 *value = header + 4, *flag = value + slots, *range = flag + slots;
  for (i64 i = 0; i < slots; i++)
    if (flag[i]) value[i] += (i64)image;
  for (i64 i = 0; i < ranges; i++) KERNEL(value, range[2 * i], range[2 * i + 1], image + scratch);
  whole(64, 1, size);
  syscall3(93, 0, 0, 0);
}
"""


@cache
def _qemu() -> str | None:
    return shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


def require_aarch64() -> None:
    """Skip the test where ziglang or qemu's user mode is missing (`make test-slow` installs the former)."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the package ziglang")
    if _qemu() is None:
        pytest.skip("needs qemu-aarch64 (Debian: qemu-user-static)")


@cache
def _program(name: str, object_code: bytes) -> bytes:
    """The linked program around a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        driver, code, linked = (Path(folder) / name for name in ("driver.c", "kernel.o", "program"))
        driver.write_text(_DRIVER)
        code.write_bytes(object_code)
        defines = [f"-DKERNEL={name}", f"-DROOM={_ROOM}"]
        options = ["-target", "aarch64-linux-musl", "-nostdlib", "-static", "-O2", "-fno-builtin", *defines]
        command = [sys.executable, "-m", "ziglang", "cc", *options, str(driver), str(code), "-o", str(linked)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return linked.read_bytes()


def run_on_aarch64(
    kernel: KernelSpec | llvm.FuncOp,
    isa: Isa,
    args: Sequence[np.ndarray | int | float],
    work: int,
    *,
    threads_split: int = 1,
    scratch_bytes: int = 0,
) -> None:
    """As `kernel_harness.run_kernel`, in an emulated AArch64 process; arrays are written in place."""
    require_aarch64()
    function = kernel.build(isa) if isinstance(kernel, KernelSpec) else kernel
    name = function.sym_name.data
    linked = _program(name, compile_object(function, isa))
    cuts = [work * part // threads_split for part in range(threads_split + 1)]
    ranges = list(reversed(list(itertools.pairwise(cuts))))
    arrays: list[tuple[np.ndarray, int]] = []
    at = -(-(_HEADER.size + 16 * len(args) + 16 * len(ranges)) // _PAGE) * _PAGE
    values: list[int] = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            values.append(at)
            arrays.append((arg, at))
            at += -(-max(arg.nbytes, 1) // 64) * 64 + _PAGE
        else:
            values.append(slot(arg))
    scratch, size = at, at + scratch_bytes + _PAGE
    assert size <= _ROOM, "these buffers do not fit into the test program"
    image = np.full(size, _SCRATCH_FILL, np.uint8)
    flags = [int(isinstance(arg, np.ndarray)) for arg in args]
    flat = [*values, *flags, *itertools.chain.from_iterable(ranges)]
    head = _HEADER.pack(size, len(args), len(ranges), scratch) + struct.pack(f"<{len(flat)}q", *flat)
    image[: len(head)] = np.frombuffer(head, np.uint8)
    for array, place in arrays:
        image[place : place + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        program.write_bytes(linked)
        program.chmod(0o755)
        qemu = _qemu()
        assert qemu is not None
        done = subprocess.run([qemu, str(program)], input=image.tobytes(), capture_output=True, timeout=300)
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr.decode()[:200]}"
    result = np.frombuffer(done.stdout, np.uint8)
    assert (result[scratch + scratch_bytes :] == _SCRATCH_FILL).all(), "kernel wrote past its scratch memory"
    for array, place in arrays:
        array.reshape(-1).view(np.uint8)[:] = result[place : place + array.nbytes]
        assert (result[place + array.nbytes :][:64] == _SCRATCH_FILL).all(), "kernel wrote past its buffer"
