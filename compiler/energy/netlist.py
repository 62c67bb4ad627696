"""A resistor network of the `energy` dialect as a SPICE netlist, so that an independent simulator can check it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from neuc.compiler.energy.model import Model
from neuc.dialects import energy as e
from neuc.dialects.energy_types import Space, var_type
from neuc.dialects.store import constant_value
from neuc.errors import Error, Exit

Array = np.ndarray
_DIODE = 1e9
"""Siemens of a diode that conducts: voltages leave their box by this much less than they would."""
_VOLTAGE = re.compile(r"^v\(n(\d+)_(\d+)\)\s*=\s*([-+0-9.eE]+)", re.MULTILINE)


def netlist(model: Model, **clamped: ArrayLike) -> str:
    """The operating point of a resistor network in SPICE's language; prints the voltage of every free node.

    Nodes are ``n<variable>_<site>``. Clamped variables are voltage sources, `energy.resistor` resistors,
    `energy.linear` current sources, and a box is two ideal diodes, written as steep current sources.

    Args:
        model: real variables with resistor and linear terms.
        clamped: voltages of each clamped variable, as many as it has sites.

    Raises:
        Error: NEUC-E634, a model with other terms or variables, or voltages that are missing.
    """
    lines = ["* resistor network", ".options reltol=1e-9 abstol=1e-15 vntol=1e-12"]
    number = {variable.value: k for k, variable in enumerate(model.variables)}
    prints: list[str] = []
    for k, variable in enumerate(model.variables):
        owner = variable.value.owner
        assert isinstance(owner, e.VarOp)
        if var_type(variable.value).space is not Space.REAL:
            raise _refused(f"{variable.name} is {var_type(variable.value).space.value}", "real variables are voltages")
        sites = range(variable.type.sites)
        if owner.clamped:
            if variable.name not in clamped or np.size(clamped[variable.name]) != len(sites):
                raise _refused(f"{variable.name} needs {len(sites)} voltages", f"netlist(model, {variable.name}=…)")
            volts = np.asarray(clamped[variable.name], np.float64).reshape(-1).tolist()
            lines += [f"V{k}_{i} n{k}_{i} 0 {volts[i]!r}" for i in sites]
            continue
        prints += [f"print v(n{k}_{i})" for i in sites]
        for name, bound, sense in (
            ("lo", variable.type.box[0], "{b}-V({n})"),
            ("hi", variable.type.box[1], "V({n})-{b}"),
        ):
            if np.isfinite(bound):
                for i in sites:
                    excess = sense.format(n=f"n{k}_{i}", b=repr(float(bound)))
                    ends = f"0 n{k}_{i}" if name == "lo" else f"n{k}_{i} 0"
                    lines.append(f"B{name}{k}_{i} {ends} I={_DIODE!r}*max(0,{excess})")
    made = model.model().owner
    assert isinstance(made, e.ModelOp)
    for count, term in enumerate(made.terms):
        match term.owner:
            case e.ResistorOp() as op:
                g = _array(model, op.g)
                x, y = number[op.x], number[op.y]
                for i, j in zip(*np.nonzero(g), strict=True):
                    lines.append(f"R{count}_{i}_{j} n{x}_{i} n{y}_{j} {1.0 / float(g[i, j])!r}")
            case e.LinearOp() as op:
                for i, amperes in enumerate(_array(model, op.b).reshape(-1)):
                    lines.append(f"I{count}_{i} 0 n{number[op.x]}_{i} {float(amperes)!r}")
            case e.CostOp():
                pass
            case _ as op:
                raise _refused(f"a netlist has no {getattr(op, 'name', 'such term')}", "resistor and linear terms")
    return "\n".join([*lines, ".control", "set numdgt=12", "op", *prints, "quit", ".endc", ".end", ""])


def read_voltages(model: Model, answer: str) -> Mapping[str, Array]:
    """The voltages that SPICE printed, f64 [sites] by the name of each free variable.

    Raises:
        Error: NEUC-E634, voltages are missing.
    """
    found = {(int(k), int(i)): float(v) for k, i, v in _VOLTAGE.findall(answer)}
    voltages: dict[str, Array] = {}
    for k, variable in enumerate(model.variables):
        owner = variable.value.owner
        if isinstance(owner, e.VarOp) and not owner.clamped:
            missing = [i for i in range(variable.type.sites) if (k, i) not in found]
            if missing:
                raise _refused(f"SPICE printed no voltage of {variable.name}[{missing[0]}]", "look at what it printed")
            voltages[variable.name] = np.array([found[k, i] for i in range(variable.type.sites)])
    return voltages


def _array(model: Model, value: object) -> Array:
    array = constant_value(value, model.context.weights)  # pyright: ignore[reportArgumentType]
    if array is None:
        raise _refused("a conductance is an input of the program", "constants have a value to write down")
    return array.astype(np.float64)


def _refused(what: str, hint: str) -> Error:
    return Error("NEUC-E634", what, hint=hint, exit_code=Exit.USAGE)
