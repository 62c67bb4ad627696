"""What sampling chips there are: a grid of spins, which neighbours each is wired to, and what operations cost.

Figures are published ones for designs, none measured on silicon; each names its source.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """Energy in joules for one node.

    Attributes:
        sample: one Gibbs update.
        read: its state read out.
        write: its couplings, field or clamped state written.
        source: where the figures are from.
    """

    sample: float
    read: float
    write: float
    source: str


@dataclass(frozen=True)
class Machine:
    """A chip.

    Attributes:
        name: what `machine=` calls it.
        rows: of its grid.
        columns: of its grid.
        rules: (a, b): a node at (x, y) is wired to those at (x+a, y+b), (x-b, y+a), (x-a, y-b) and (x+b, y-a). a + b is
            odd, so that the two colours of a checkerboard can be updated in turn.
        prices: energies.
        source: where the wiring is from.
    """

    name: str
    rows: int
    columns: int
    rules: tuple[tuple[int, int], ...]
    prices: Prices
    source: str

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """Where the neighbours of a node are."""
        return tuple(o for a, b in self.rules for o in ((a, b), (-b, a), (-a, -b), (b, -a)))

    @property
    def degree(self) -> int:
        """The most neighbours of a node."""
        return len(self.offsets)


_Z1 = Prices(
    7.09e-15, 1.692e-12, 153.6e-12, "SPICE figures of a Z1-class node before silicon (arXiv:2608.01615, table IV)"
)

MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        # The number of nodes is published, the shape of the grid is not: 576 x 468 has that many.
        Machine("z1", 576, 468, ((1, 0), (2, 1), (2, 3), (4, 1)), _Z1, "Z1, 269,568 nodes of degree 16"),
        Machine("g12", 70, 70, ((0, 1), (4, 1), (9, 10)), _Z1, "pattern G12 on a 70 x 70 grid (arXiv:2510.23972)"),
    )
}
