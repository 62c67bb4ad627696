"""Every form a placed design can be written in, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from neuc.backends.npu.export.aie_places import placed
from neuc.backends.npu.export.dot import to_dot
from neuc.backends.npu.export.generic_aie import checkable, irdl_text, to_generic
from neuc.backends.npu.export.mlir_aie import VERSIONS, to_mlir_aie
from neuc.backends.npu.export.page import to_page
from neuc.backends.npu.export.riallto_json import to_riallto
from neuc.backends.npu.export.svg import to_svg
from neuc.errors import Error, Exit
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.program_json import design_to_json
from neuc.runtime.npu.simulator import Run, simulate

_Writer = Callable[[Design, Machine], str]


def _timed(design: Design, machine: Machine) -> Run:
    """A run of tokens without values: how long it takes depends on no value."""
    return simulate(design, machine, {}, values=False, trace=True)


def _trace(design: Design, machine: Machine) -> str:
    trace = _timed(design, machine).trace
    assert trace is not None
    return json.dumps(trace.to_json())


_PLACED = ("svg", "html", "trace")
"""Forms that show tiles and take any kernel."""
FORMS: Mapping[str, tuple[str, _Writer]] = {
    "svg": ("picture of the array: kernels, buffers, routes", to_svg),
    "html": ("page with the picture and a timeline", lambda d, m: to_page(d, m, _timed(d, m))),
    "trace": ("timeline for Perfetto or chrome://tracing", _trace),
    "dot": ("graph for Graphviz", lambda d, _: to_dot(d)),
    "json": ("everything, for other tools", lambda d, _: json.dumps(design_to_json(d))),
    "riallto": ("Riallto's metadata", lambda d, _: json.dumps(to_riallto(d), indent=1)),
    **{
        f"mlir-aie-{v}": (f"text for mlir-aie {v}", lambda d, m, v=v: to_mlir_aie(d, m, v))  # type: ignore[misc]
        for v in VERSIONS
    },
    "generic": ("MLIR's generic form of the aie dialect", to_generic),
    "checkable": ("the same as mlir-opt checks it against form irdl", lambda d, m: checkable(to_generic(d, m))),
    "irdl": ("description of the aie operations that are written", lambda _, __: irdl_text()),
}
"""Name to what it is and what writes it."""


def export(design: Design, machine: Machine, form: str) -> str:
    """The design in a form of `FORMS`.

    Raises:
        Error: NEUC-E683, there is no such form, or it cannot hold this design; NEUC-E678, its places are wrong.
    """
    if form not in FORMS:
        hint = f"forms: {', '.join(FORMS)}"
        raise Error("NEUC-E683", f"no form {form!r} to export", hint=hint, exit_code=Exit.USAGE)
    return FORMS[form][1](placed(design, machine) if form in _PLACED else design, machine)
