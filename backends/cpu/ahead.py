"""Object code that is begun as soon as a kernel is built, beside the lowering of the rest of its module.

LLVM works outside Python's lock, lowering is Python: on two cores most of LLVM's time disappears. Which kernels there
are is `lowering.py`'s affair, how one becomes object code `codegen.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

from xdsl.dialects import llvm

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.runtime.cpu_features import available_cpus


class Objects:
    """Object code of kernels, in the making on all CPUs but the caller's.

    A kernel must not change after `begin`: passes that come after `lower-to-cpu` place and order launches only.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max(1, available_cpus() - 1), "kernels")
        self._begun: dict[llvm.FuncOp, Future[bytes]] = {}

    def begin(self, kernel: llvm.FuncOp, isa: Isa) -> None:
        """Have `kernel` compiled, once."""
        if kernel not in self._begun:
            self._begun[kernel] = self._pool.submit(compile_object, kernel, isa)

    def finish(self, kernels: Sequence[llvm.FuncOp], isa: Isa) -> list[bytes]:
        """The object of each kernel; the caller compiles, too, as long as there are any that nobody has begun."""
        for kernel in kernels:
            self.begin(kernel, isa)
        own = {
            kernel: compile_object(kernel, isa)
            for kernel in reversed(kernels)  # the other threads come from the front
            if self._begun[kernel].cancel()
        }
        return [own[kernel] if kernel in own else self._begun[kernel].result() for kernel in kernels]

    def close(self) -> None:
        """Leave out what has not been begun, and wait for the rest."""
        self._pool.shutdown(cancel_futures=True)


_active: ContextVar[Objects | None] = ContextVar("objects", default=None)


@contextmanager
def objects_ahead() -> Iterator[Objects]:
    """What kernels are compiled in from here to the end of the block: the surrounding block's, if there is one."""
    surrounding = _active.get()
    if surrounding is not None:
        yield surrounding
        return
    objects = Objects()
    token = _active.set(objects)
    try:
        yield objects
    finally:
        _active.reset(token)
        objects.close()


def begin(kernel: llvm.FuncOp, isa: Isa) -> None:
    """Have `kernel` compiled ahead, if anybody is going to ask for it."""
    if (objects := _active.get()) is not None:
        objects.begin(kernel, isa)
