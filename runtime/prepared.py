"""Runs that are checked once and called often: `PreparedRun`, and which bound arrays may share memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from neuc.errors import Error, Exit
from neuc.runtime.executors.base import Array
from neuc.runtime.executors.plan import address_of
from neuc.runtime.program import NativeSegment, OutputBuffer, Program


class PreparedRun:
    """A run of a session on bound arrays; calling it reads the inputs as they are then and writes the outputs again.

    Attributes:
        outputs: the program's outputs by name: the bound arrays, and for the rest arrays that every call reuses.
    """

    def __init__(self, outputs: Mapping[str, Array], steps: Sequence[Callable[[], None]]) -> None:
        self.outputs = outputs
        self._steps = tuple(steps)

    def __call__(self) -> None:
        """Run once."""
        for step in self._steps:
            step()


def in_place_pairs(program: Program) -> frozenset[tuple[str, str]]:
    """(input, output) of a program that may be the same array.

    The segment that makes the output says so, and no other step reads the input.
    """
    readers = [name for step in program.schedule for name in step.inputs]
    inputs = {spec.name for spec in program.inputs if readers.count(spec.name) == 1}
    pairs: set[tuple[str, str]] = set()
    for step in program.schedule:
        segment = program.segments[step.segment]
        if isinstance(segment, NativeSegment):
            pairs.update(
                (step.inputs[buffer.over], step.outputs[buffer.index])
                for buffer in segment.buffers
                if isinstance(buffer, OutputBuffer) and buffer.over is not None
            )
    return frozenset(pair for pair in pairs if pair[0] in inputs)


def check_overlaps(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array | None], in_place: Iterable[tuple[str, str]]
) -> None:
    """Refuse outputs that share memory with an input or with each other, but for pairs that may be one array.

    Raises:
        Error: NEUC-E312, an output overlaps something else.
    """
    allowed = frozenset(in_place)
    spans = [(address_of(array), array.nbytes, name, False) for name, array in inputs.items()]
    spans += [(address_of(array), array.nbytes, name, True) for name, array in outputs.items() if array is not None]
    spans = sorted(span for span in spans if span[1])
    reach: list[tuple[int, int, str, bool]] = []
    for span in spans:
        begin, nbytes, name, written = span
        reach = [other for other in reach if other[0] + other[1] > begin]
        for start, size, other, also in reach:
            pair = (other, name) if written else (name, other)
            same = (start, size) == (begin, nbytes) and written != also and pair in allowed
            if (written or also) and not same:
                raise Error(
                    "NEUC-E312",
                    f"'{other}' and '{name}' are bound to memory that overlaps, and the program writes it",
                    hint="bind arrays of their own; only some outputs may be the very array of an input",
                    exit_code=Exit.USAGE,
                )
        reach.append(span)
