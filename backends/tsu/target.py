"""The target tsu-sim: models of spins on a sampling chip, simulated by the CPU's samplers with the chip's sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.passes import ModulePass

from neuc.backends.paradigm_target import ParadigmTarget, option_error
from neuc.backends.tsu.machines import MACHINES
from neuc.backends.tsu.place import PlaceTsu

OPTIONS = {
    "machine": f"{' or '.join(MACHINES)} (default z1)",
    "chain": "coupling of the cells that stand for one spin (default: from the model's)",
    "grid": "rows x columns in place of the machine's, as 70x70",
}
_LARGEST = 1 << 14


def place(options: Mapping[str, str]) -> Sequence[ModulePass]:
    """Passes of target tsu-sim."""
    machine = options.get("machine", "z1")
    if machine not in MACHINES:
        raise option_error("tsu-sim", "machine", machine, f"machines: {', '.join(MACHINES)}")
    try:
        chain = float(options.get("chain", "0"))
    except ValueError:
        chain = -1.0
    if not 0.0 <= chain < float("inf"):
        raise option_error("tsu-sim", "chain", options["chain"], "a number above 0")
    rows = columns = 0
    if "grid" in options:
        parts = options["grid"].split("x")
        if len(parts) != 2 or not all(p.isdecimal() and 1 <= int(p) <= _LARGEST for p in parts):
            raise option_error("tsu-sim", "grid", options["grid"], "rows and columns, as 70x70")
        rows, columns = map(int, parts)
    return [PlaceTsu(machine, rows, columns, chain)]


TARGETS = (
    ParadigmTarget(
        "tsu-sim",
        "sampling chips of spins on a grid, simulated, with a ledger of energies",
        f"{__name__}:place",
        OPTIONS,
        host="cpu-relax",
        networks=False,
    ),
)
