"""Lines of a core's body in `arith`, `scf` and `memref`, with names that no other line of the body has."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Body:
    """Lines in the making; %c0 and %c1 are there."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0
        self._names = 0

    def name(self, kind: str) -> str:
        """A name that begins so, without its %."""
        self._names += 1
        return f"{kind}{self._names}"

    def let(self, text: str) -> str:
        """A line that names its result."""
        result = f"%{self.name('r')}"
        self.do(f"{result} = {text}")
        return result

    def do(self, text: str) -> None:
        """A line."""
        self.lines.append("  " * self._depth + text)

    def loop(self, begin: str, end: str) -> str:
        """The head of a loop; the name of its number."""
        number = f"%{self.name('i')}"
        self.do(f"scf.for {number} = {begin} to {end} step %c1 {{")
        self._depth += 1
        return number

    def over(self, shape: Sequence[int]) -> list[str]:
        """Heads of loops over all places of a token, the last index fastest; their numbers."""
        ends = [self.index(size) for size in shape]
        return [self.loop("%c0", end) for end in ends]

    def end(self, loops: int = 1) -> None:
        """The end of so many loops."""
        for _ in range(loops):
            self._depth -= 1
            self.do("}")

    def open(self, head: str) -> None:
        """The head of a block."""
        self.do(head)
        self._depth += 1

    def otherwise(self) -> None:
        """The end of a branch and the beginning of the other."""
        self._depth -= 1
        self.open("} else {")

    def either(self, condition: str, kind: str, made: Callable[[], str], other: str) -> str:
        """What `made` writes and names where a condition holds, and otherwise `other`."""
        name = f"%{self.name('r')}"
        self.open(f"{name} = scf.if {condition} -> ({kind}) {{")
        self.do(f"scf.yield {made()} : {kind}")
        self.otherwise()
        self.do(f"scf.yield {other} : {kind}")
        self.end()
        return name

    def index(self, number: int) -> str:
        """A constant index."""
        return self.let(f"arith.constant {number} : index")

    def word(self, number: int) -> str:
        """A constant of 32 bits."""
        return self.let(f"arith.constant {number} : i32")

    def words(self, operation: str, *values: str) -> str:
        """An operation of `arith` on words of 32 bits."""
        return self.let(f"arith.{operation} {', '.join(values)} : i32")

    def compare(self, relation: str, a: str, b: str) -> str:
        """Whether words of 32 bits are so."""
        return self.let(f"arith.cmpi {relation}, {a}, {b} : i32")

    def select(self, condition: str, yes: str, no: str) -> str:
        """One word of 32 bits or another."""
        return self.let(f"arith.select {condition}, {yes}, {no} : i32")
