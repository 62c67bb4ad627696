"""A crossbar as a SPICE netlist, for checks by an independent simulator; parsing its answer."""

from __future__ import annotations

import re

import numpy as np

from neuc.errors import Error
from neuc.runtime.analog.devices import Floats
from neuc.runtime.analog.wires import check_network

_CURRENT = re.compile(r"i\(vo(\d+)\)\s*=\s*([-+0-9.eE]+)")
_LEAST_OHMS = 1e-12
"""SPICE has no resistors of 0 ohms; this is far below what its tolerances see."""


def netlist(conductance: Floats, r_word: float, r_bit: float, voltages: Floats) -> str:
    """The operating point of a crossbar, in SPICE's language; prints one current for each output.

    Nodes: ``w<row>_<column>`` on word lines, ``b<row>_<column>`` on bit lines; a 0 V source ``vo<column>`` at the foot
    of each bit line measures its current.

    Args:
        conductance: siemens, [rows, columns]; a device of 0 is left out.
        r_word: ohms of one word-line segment.
        r_bit: ohms of one bit-line segment.
        voltages: volts of the drivers, [rows].

    Raises:
        Error: NEUC-E646, the network makes no sense.
    """
    check_network(conductance, r_word, r_bit)
    rows, columns = conductance.shape
    if voltages.shape != (rows,):
        raise Error("NEUC-E646", f"{len(voltages)} voltages for {rows} rows", hint="give one voltage for each row")
    if not np.isfinite(voltages).all():
        raise Error("NEUC-E646", "a driver's voltage is NaN or infinite", hint="give volts")
    word, bit = max(r_word, _LEAST_OHMS), max(r_bit, _LEAST_OHMS)
    lines = [f"crossbar {rows} x {columns}"]
    for i in range(rows):
        lines.append(f"V{i} s{i} 0 DC {voltages[i]:.17g}")
        for j in range(columns):
            left = f"w{i}_{j - 1}" if j else f"s{i}"
            below = f"b{i + 1}_{j}" if i + 1 < rows else f"o{j}"
            lines.append(f"RW{i}_{j} {left} w{i}_{j} {word:.17g}")
            if conductance[i, j] > 0:
                lines.append(f"RD{i}_{j} w{i}_{j} b{i}_{j} {1 / conductance[i, j]:.17g}")
            lines.append(f"RB{i}_{j} b{i}_{j} {below} {bit:.17g}")
    lines += [f"VO{j} o{j} 0 DC 0" for j in range(columns)]
    lines += [".options reltol=1e-9 abstol=1e-18 vntol=1e-12 gmin=1e-18", ".control", "set numdgt=12", "op"]
    lines += [f"print i(vo{j})" for j in range(columns)]
    return "\n".join([*lines, ".endc", ".end"]) + "\n"


def printed_currents(output: str, columns: int) -> Floats:
    """The currents, in ampere, that ngspice printed for a `netlist`.

    Raises:
        Error: NEUC-E647, not all of them are there.
    """
    found = {int(number): float(value) for number, value in _CURRENT.findall(output)}
    if set(found) != set(range(columns)):
        raise Error(
            "NEUC-E647",
            f"the simulator printed {len(found)} of {columns} currents",
            hint="run the netlist by hand (`ngspice -b FILE`) and read its messages",
        )
    return np.array([found[j] for j in range(columns)])
