"""Energy of counted operations, from published tables: what arithmetic would take, and nothing else.

Memory, wires and idling are left out, which usually take most; processor time is never turned into joules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules of one operation.

    Attributes:
        name: how it is called in tables.
        source: where the figures stand.
        mac: a multiplication and an addition.
        ac: an addition.
    """

    name: str
    source: str
    mac: float
    ac: float

    def picojoules(self, macs: float, acs: float) -> float:
        """Of so many operations."""
        return macs * self.mac + acs * self.ac


HOROWITZ = "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, 45 nm, 0.9 V"
JOUPPI = "N. P. Jouppi et al., Ten lessons from three generations shaped Google's TPUv4i, ISCA 2021, table 2, 7 nm"
ENERGY_TABLES = (
    EnergyTable("45 nm f32", HOROWITZ, mac=3.7 + 0.9, ac=0.9),
    EnergyTable("45 nm int8", f"{HOROWITZ}; int8 products, int32 sums", mac=0.2 + 0.1, ac=0.1),
    EnergyTable("7 nm f32", JOUPPI, mac=1.31 + 0.38, ac=0.38),
    EnergyTable("7 nm int8", f"{JOUPPI}; int8 products, int32 sums", mac=0.07 + 0.03, ac=0.03),
)
