"""What an executor of program segments is, and what it is given; executors themselves live beside this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.native.pool import Pool
from neuc.runtime.profile import Profile
from neuc.runtime.program import Segment

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Setting:
    """What segments of a session share.

    Attributes:
        pool: the threads to run on.
        kernels: addresses of native kernels by name.
        weights: read-only arrays by key.
        hosts: ONNX bytes by member path.
        profile: where to record times, if wanted.
        keep: objects that must live as long as the session, such as loaded code.
    """

    pool: Pool
    kernels: Mapping[str, int]
    weights: Mapping[str, Array]
    hosts: Mapping[str, bytes]
    profile: Profile | None = None
    keep: tuple[object, ...] = field(default=(), repr=False)


class Executor(Protocol):
    """Runs one segment. Calls may come from several threads at once."""

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Run on ``inputs`` and return all outputs.

        Args:
            inputs: C-contiguous arrays, in the segment's order.
            symbols: sizes already known from the program's inputs.
            outputs: for each output an array to fill and return, or None to make a new one.
        """
        ...


@runtime_checkable
class PreparingExecutor(Executor, Protocol):
    """An executor that can do the checks of a run ahead."""

    def prepare(
        self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]
    ) -> tuple[list[Array], Callable[[], None]]:
        """The arrays that will hold the outputs, and a call that runs the segment on what is in ``inputs`` then.

        Arguments are those of `run`; the arrays are kept.
        """
        ...


class ExecutorFactory(Protocol):
    """Makes the executor of a segment; third parties register one in the entry-point group ``neuc.executors``."""

    def __call__(self, name: str, segment: Segment, setting: Setting) -> Executor:
        """``name`` is the segment's, for messages."""
        ...
