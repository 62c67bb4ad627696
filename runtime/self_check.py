"""Trying kernels before they are trusted: each check of a program runs once, on data whose result is known.

A kernel that computes something else on this processor (an instruction that behaves differently, an emulator's bug,
code or weights that were changed) must be told before there are results, not after.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.executors.base import Array
from neuc.runtime.executors.plan import address_of
from neuc.runtime.native.pool import aligned_bytes
from neuc.runtime.program import BufferArg, Check, F32Arg, IntArg, Launch, Program, WeightBuffer

_FILL = 0x5A
"""What memory holds before kernels write it."""

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

_passed: set[str] = set()
"""Programs of this process, by what their artifact is known by, that have passed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        check: the check.
        problem: how the result differs; empty if it does not.
    """

    check: Check
    problem: str

    @property
    def kernel(self) -> str:
        """The kernel it is about: the last it launches."""
        return self.check.launches[-1].kernel if self.check.launches else ""


def run_checks(program: Program, kernels: Mapping[str, int], weights: Mapping[str, Array]) -> list[Outcome]:
    """Run every check of a program.

    Args:
        program: the program.
        kernels: addresses of its kernels.
        weights: its weights, 64-byte aligned.

    Raises:
        Error: NEUC-E305, a check does not fit the weights it names.
    """
    return [Outcome(check, _run(check, kernels, weights)) for check in program.checks()]


def require_sound_kernels(
    program: Program, kernels: Mapping[str, int], weights: Mapping[str, Array], identity: str = ""
) -> None:
    """Run every check of a program, once in this process if it has an `identity`.

    Raises:
        Error: NEUC-E319, a kernel does not compute what it should; NEUC-E305 as for `run_checks`.
    """
    if identity and identity in _passed:
        return
    wrong = [outcome for outcome in run_checks(program, kernels, weights) if outcome.problem]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Error(
            "NEUC-E319",
            f"kernel {wrong[0].kernel[:100]}{more} computes wrong sums on this processor: {wrong[0].problem}",
            hint="compile with --target cpu-ref, and please report what `neuc doctor FILE` prints",
        )
    if identity:
        _passed.add(identity)


def _run(check: Check, kernels: Mapping[str, int], weights: Mapping[str, Array]) -> str:
    expected = weights[check.expected]
    buffers: list[Array] = []
    for buffer in check.buffers:
        if isinstance(buffer, WeightBuffer):
            buffers.append(weights[buffer.key])
        else:
            buffers.append(aligned_bytes(buffer.nbytes))
            buffers[-1].fill(_FILL)
    result = buffers[check.result]
    if expected.dtype != np.int32 or expected.ndim != 2 or 4 * _needed(check, expected) > result.nbytes:
        raise _damaged(f"a check expects '{check.expected[:100]}', which does not fit the result")
    scratch = aligned_bytes(check.scratch)
    for launch in check.launches:
        _launch(launch, buffers, kernels[launch.kernel], scratch)
    return _difference(expected, result[: result.nbytes // 4 * 4].view(np.int32), check.stride)


def _needed(check: Check, expected: Array) -> int:
    rows, columns = expected.shape
    return (rows - 1) * check.stride + columns if expected.size else 0


def _launch(launch: Launch, buffers: list[Array], kernel: int, scratch: NDArray[np.uint8]) -> None:
    slots = np.zeros(len(launch.args) + 1, np.int64)
    for number, arg in enumerate(launch.args):
        match arg:
            case BufferArg(index, offset):
                if int(offset) > buffers[index].nbytes:
                    raise _damaged(f"a check points outside buffer {index}")
                slots[number] = address_of(buffers[index]) + int(offset)
            case IntArg(value):
                slots[number] = int(value)
            case F32Arg(value):
                slots[number] = int(np.float32(value).view(np.uint32))
    _KERNEL(kernel)(address_of(slots), 0, int(launch.work), address_of(scratch))


def _damaged(message: str) -> Error:
    return Error("NEUC-E305", message, hint="the file is damaged; compile the model again")


def _difference(expected: Array, result: NDArray[np.int32], stride: int) -> str:
    for row, wanted in enumerate(expected):
        got = result[row * stride : row * stride + len(wanted)]
        wrong = np.flatnonzero(got != wanted)
        if len(wrong):
            at = int(wrong[0])
            return f"{len(wrong)} of {len(wanted)}, sum {at} is {got[at]} where {wanted[at]} is right"
    return ""
