"""The core of a 3 x 3 filter in MLIR: it keeps three lines in its tile's memory, and ends a frame without a new one.

Lines are copied out of their FIFO at once, so that no element is held from firing to firing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from neuc.backends.npu.export.aie_pixels import Pixels
from neuc.runtime.npu.program import Kernel

FILTER = "filter2d"
_ABOVE, _HERE, _BELOW = "%c0", "%c1", "%below"


def filter_buffer(kernel: Kernel, width: int) -> dict[str, str]:
    """The three lines, by name, with their type."""
    return {f"lines_{kernel.name}": f"memref<3x{width}xi8>"}


class Filter(Pixels):
    """The lines of a frame's phases.

    Args:
        acquire: (port, element) to the lines that acquire a token of the input or output.
        release: port to the line that releases it.
    """

    acquire: Callable[[str, str], list[str]]
    release: Callable[[str], str]

    def frame(self) -> None:
        """All phases of a period.

        Raises:
            Error: NEUC-E683, other tokens or rates than a filter's.
        """
        width = self.ends[-1].shape[-1]
        self.wants([(width,)] * 2)
        rates, given = self.kernel.consume[0], self.kernel.produce[0]
        if rates[0] != 2 or any(rate not in (0, 1) for rate in rates[1:]) or any(rate != 1 for rate in given):
            raise self.error("a filter takes 2, 1, …, 0 lines of a frame, and gives one a phase")
        weights = self.kernel.params.get("weights")
        if not isinstance(weights, list) or len(weights) != 9:
            raise self.error("it has no 9 weights")
        self._kind = f"memref<3x{width}xi8>"
        self._width = self.index(width)
        self.do(f"{_BELOW} = arith.constant 2 : index")
        self._last = self.index(width - 1)
        self._weights = [self.word(weight) for weight in weights]
        self._take()
        self._shift()
        self._shift()
        self._take()
        self._give()
        for rate, phases in groupby(rates[1:]):
            self.loop("%c0", self.index(len(list(phases))))
            self._shift()
            if rate:
                self._take()
            self._give()
            self.end()

    def _line(self, row: str, column: str) -> str:
        return self.let(f"memref.load %lines_{self.kernel.name}[{row}, {column}] : {self._kind}")

    def _keep(self, value: str, row: str, column: str) -> None:
        self.do(f"memref.store {value}, %lines_{self.kernel.name}[{row}, {column}] : {self._kind}")

    def _acquired(self, port: str) -> None:
        element = f"%{self.name('e')}"
        for line in self.acquire(port, element):
            self.do(line)
        self.operands = [element, element]

    def _take(self) -> None:
        """A line of the input becomes the lowest."""
        self._acquired("Consume")
        column = self.loop("%c0", self._width)
        self._keep(self.load(0, [column]), _BELOW, column)
        self.end()
        self.do(self.release("Consume"))

    def _shift(self) -> None:
        """Lines go up by one; the lowest stays, too."""
        column = self.loop("%c0", self._width)
        self._keep(self._line(_HERE, column), _ABOVE, column)
        self._keep(self._line(_BELOW, column), _HERE, column)
        self.end()

    def _give(self) -> None:
        """A line of the output; columns beyond the borders are those of the border."""
        self._acquired("Produce")
        column = self.loop("%c0", self._width)
        before = self.let(f"arith.subi {self.let(f'arith.maxsi {column}, %c1 : index')}, %c1 : index")
        after = self.let(f"arith.minsi {self.let(f'arith.addi {column}, %c1 : index')}, {self._last} : index")
        total = self.word(0)
        for i, row in enumerate((_ABOVE, _HERE, _BELOW)):
            for j, place in enumerate((before, column, after)):
                pixel = self.let(f"arith.extui {self._line(row, place)} : i8 to i32")
                total = self.words("addi", total, self.words("muli", pixel, self._weights[3 * i + j]))
        self.store_byte(self.clipped(total), [column])
        self.end()
        self.do(self.release("Produce"))
