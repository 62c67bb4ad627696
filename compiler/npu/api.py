"""`neuc.npu`: dataflow applications in Python, in the manner of Riallto.

A `Kernel` is a library function or a Python function that says what a core computes; an `App` calls kernels on rows of
its inputs in `callgraph`. Called with shapes it is traced into a graph; the graph is compiled for an array and
simulated, bit for bit, against the behavioural functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuc.backends.npu.build import Built, build
from neuc.backends.npu.export.forms import export
from neuc.backends.npu.export.page import to_page
from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.compiler.npu.tracing import HostArray, Token, Tracer
from neuc.dialects.interp.npu import run_graph
from neuc.errors import Error, Exit
from neuc.runtime.npu.functions import FUNCTIONS, Array, Function, State, Tokens
from neuc.runtime.npu.program import DTYPES, Design, ParamValue, SetParam
from neuc.runtime.npu.simulator import Run, simulate

PARAMETERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(("copy", "invert", "add", "or", "and", "mask", "rgba2gray", "gray2rgba", "rgba2hue"), ((), ())),
    "threshold": (("threshold",), ("max", "kind")),
    "in_range": (("low", "high"), ()),
    "filter2d": (("weights",), ()),
    "add_weighted": (("alpha", "beta"), ("gamma",)),
}
"""Of library functions for pictures: the parameters they need, and those that may be left out."""
Behaviour = Callable[..., "Array | list[Array] | tuple[Array | list[Array], ...]"]


@dataclass
class Kernel:
    """What one core does with the tokens of its inputs.

    Args:
        function: the name of a library function (`neuc.runtime.npu.functions`), or a Python function from token arrays
            to one array, or a tuple of arrays (several outputs), its behavioural model. Where ``produce`` asks an
            output for other than one token, that output is a list of arrays.
        cycles: of one firing, or one number a phase.
        params: the library function's parameters.
        rtp: names of those that the host may change while the program runs.
        consume: tokens taken a phase, for each input; 1 of each by default.
        produce: tokens given a phase, for each output.
        tile: (column, row), if the user wants to choose it.
        state_bytes: what the kernel keeps in the core's memory from firing to firing.
        depths: buffers of each output's channel; 2 by default.
        name: unique in its app; the attribute's that holds the kernel, or the function's, if left out.
    """

    function: str | Behaviour
    cycles: int | Sequence[int] = 100
    params: Mapping[str, ParamValue] = field(default_factory=dict[str, ParamValue])
    rtp: Sequence[str] = ()
    consume: Sequence[Sequence[int]] | None = None
    produce: Sequence[Sequence[int]] | None = None
    tile: tuple[int, int] | None = None
    state_bytes: int = 0
    name: str = ""
    depths: Sequence[int] = ()

    def __post_init__(self) -> None:
        if isinstance(self.function, str) and self.function not in FUNCTIONS:
            hint = f"library functions: {', '.join(sorted(FUNCTIONS))}; or pass a Python function"
            raise Error("NEUC-E680", f"no kernel function {self.function!r}", hint=hint, exit_code=Exit.USAGE)
        self._check_parameters()
        times: list[object] = list(self.cycles) if isinstance(self.cycles, Sequence) else [self.cycles]
        if not times or not all(isinstance(time, int) and time >= 0 for time in times):
            raise Error(
                "NEUC-E680",
                f"kernel {self.function_name}: cycles={self.cycles} makes no sense",
                hint="give a whole number from 0, or one for each phase",
                exit_code=Exit.USAGE,
            )
        self._check_rates()

    def _check_rates(self) -> None:
        """Rates have a number for each phase; memory and depths are no negative numbers."""
        what = f"kernel {self.function_name}"
        for name, rates in (("consume", self.consume), ("produce", self.produce)):
            for port in rates or ():
                if len(port) != self.phases or any(count < 0 for count in port):
                    why = f"{what}: {name}={rates!r} makes no sense with {self.phases} phases"
                    cure = "give for each port one number of tokens, from 0, for each phase of cycles"
                    raise Error("NEUC-E680", why, hint=cure, exit_code=Exit.USAGE)
        if self.state_bytes < 0 or any(depth < 1 for depth in self.depths):
            why = f"{what}: state_bytes={self.state_bytes} and depths={tuple(self.depths)} make no sense"
            raise Error("NEUC-E680", why, hint="bytes from 0, depths from 1", exit_code=Exit.USAGE)

    def _check_parameters(self) -> None:
        """A library function has the parameters it needs, and no others."""
        name, what = self.function_name, f"kernel {self.function_name}"
        for rtp in self.rtp:
            if not isinstance(self.params.get(rtp), int):
                cure = "give its first value in params, a whole number"
                raise Error("NEUC-E680", f"{what}: rtp={rtp!r} has no value", hint=cure, exit_code=Exit.USAGE)
        if not isinstance(self.function, str) or name not in PARAMETERS:
            return
        needed, optional = PARAMETERS[name]
        known = [*needed, *optional]
        takes = f"it takes {', '.join(known) or 'none'}" + (f"; {', '.join(optional)} may be left out" * bool(optional))
        unknown = [key for key in self.params if key not in known]
        if unknown:
            raise Error("NEUC-E680", f"{what} has no parameter {unknown[0]!r}", hint=takes, exit_code=Exit.USAGE)
        missing = [key for key in needed if key not in self.params]
        if missing:
            raise Error("NEUC-E680", f"{what} lacks parameter {missing[0]!r}", hint=takes, exit_code=Exit.USAGE)
        for key, value in self.params.items():
            if not isinstance(value, list if key == "weights" else int) or (key == "kind" and value not in range(5)):
                wanted = {"weights": "a list of 9 whole numbers", "kind": "0 to 4"}.get(key, "a whole number")
                why = f"{what}: {key}={value!r} makes no sense"
                raise Error("NEUC-E680", why, hint=f"give {wanted}", exit_code=Exit.USAGE)

    @property
    def function_name(self) -> str:
        """The name the graph gives the function."""
        return self.function if isinstance(self.function, str) else self.function.__name__

    @property
    def phases(self) -> int:
        """Phases of one period."""
        return 1 if isinstance(self.cycles, int) else len(self.cycles)

    def call(self) -> Function:
        """The function in the form the simulator takes."""
        if isinstance(self.function, str):
            return FUNCTIONS[self.function]
        behaviour = self.function

        def run(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
            result = behaviour(*(token for port in tokens for token in port), **params)
            ports = result if isinstance(result, tuple) else (result,)
            return [port if isinstance(port, list) else [port] for port in ports]

        return run

    def outputs_for(self, tokens: list[list[Array]]) -> list[Array]:
        """One token of each output for zeros at the inputs: what shapes and element types they have."""
        given: list[Array] = []
        state: State = {}
        for phase in range(self.phases):
            taken = [port[: self.consume[i][phase]] if self.consume else port[:1] for i, port in enumerate(tokens)]
            results = self.call()(self.params, phase, taken, state)
            given = [port[0] for port in results if port] or given
        return given

    def __call__(self, *tokens: Token | tuple[Token, ...]) -> Token | tuple[Token, ...]:
        """In `callgraph`: fire the kernel on these tokens."""
        given = [token for token in tokens if isinstance(token, Token)]
        if not given or len(given) < len(tokens):
            raise Error(
                "NEUC-E685",
                f"kernel {self.function_name} takes rows or tokens of a callgraph",
                hint="index inputs: x[row]",
            )
        # pyright knows this file by two names.
        return given[0].tracer.fire(self, tuple(given))  # pyright: ignore[reportArgumentType]


class App:
    """A dataflow application: subclasses make kernels in ``__init__`` and call them in ``callgraph``.

    ``callgraph(self, x, …, y, …)`` gets inputs and outputs by these names and assigns rows:
    ``y[row] = kernel(x[row])``.
    """

    def callgraph(self, *arrays: Any, **_: Any) -> None:
        """Subclasses say here how rows run through kernels."""
        raise Error("NEUC-E685", f"{type(self).__name__} has no callgraph", hint="define callgraph(self, x, y)")

    def trace(
        self,
        inputs: Mapping[str, tuple[str, Sequence[int]]],
        outputs: Mapping[str, tuple[str, Sequence[int]]],
        machine: str = "npu-xdna1",
    ) -> Design:
        """The graph of this application for arrays of these (element type, shape).

        Raises:
            Error: NEUC-E685, the call graph uses kernels in a way no fixed graph can; NEUC-E672, its parts disagree.
        """
        tracer = Tracer(type(self).__name__.lower(), machine)
        arrays = [tracer.array(name, dtype, tuple(shape), "input") for name, (dtype, shape) in inputs.items()]
        arrays += [tracer.array(name, dtype, tuple(shape), "output") for name, (dtype, shape) in outputs.items()]
        for attribute, value in vars(self).items():
            if isinstance(value, Kernel):
                value.name = value.name or attribute
        self._bind(arrays)
        return checked(tracer.design())

    def _bind(self, arrays: Sequence[HostArray]) -> None:
        """Call `callgraph` with arrays by the names of its parameters; in order where it has none (``*arrays``)."""
        parameters = inspect.signature(self.callgraph).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            self.callgraph(*arrays)
            return
        given = {array.name: array for array in arrays}
        known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        wrong = [name for name in given if name not in known and not open_ended]
        missing = [name for name in needed if name not in given]
        if wrong or missing:
            raise Error(
                "NEUC-E685",
                f"callgraph of {type(self).__name__} takes {', '.join(known)}; inputs and outputs are "
                + ", ".join(given),
                hint="name inputs and outputs as callgraph does",
                exit_code=Exit.USAGE,
            )
        self.callgraph(**given)

    def functions(self) -> dict[str, Function]:
        """Python behaviours of this application's kernels, by function name."""
        kernels = [value for value in vars(self).values() if isinstance(value, Kernel)]
        return {k.function_name: k.call() for k in kernels if not isinstance(k.function, str)}

    def compile(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, tuple[str, Sequence[int]]],
        machine: str = "npu-xdna1",
        *,
        fastest: bool = False,
    ) -> Application:
        """Trace for arrays like these, place, route and check.

        With `fastest`, depths of channels are not those written down, but the smallest with which the application is as
        fast as memory permits.
        """
        design = self.trace({n: (_dtype_of(n, a), a.shape) for n, a in inputs.items()}, outputs, machine)
        return Application(build(design, find_machine(machine), fastest=fastest), self.functions())


@dataclass(frozen=True)
class Application:
    """A compiled application: its program and how it was placed."""

    built: Built
    functions: Mapping[str, Function]

    @property
    def design(self) -> Design:
        """The placed and routed program."""
        return self.built.design

    def run(self, inputs: Mapping[str, Array], *, params: Mapping[str, int] | None = None, trace: bool = False) -> Run:
        """Simulate on `inputs`.

        Args:
            inputs: an array for each input, of the shape and element type that was compiled for.
            params: values of run-time parameters (a kernel's ``rtp``) by name, set before the first transfer.
            trace: keep a timeline (`Run.trace`).

        Raises:
            Error: NEUC-E679, a deadlock, with who waits for whom; NEUC-E311 and E686, inputs do not fit; NEUC-E680,
                there is no such run-time parameter.
        """
        for name, array in inputs.items():
            _dtype_of(name, array)
        design, machine = self._with_params(params or {}), find_machine(self.design.machine)
        run = simulate(design, machine, inputs, functions=self.functions, trace=trace)
        if run.deadlock is not None:
            raise Error("NEUC-E679", f"{self.design.name} deadlocks: {run.deadlock}", hint="deepen the channels named")
        return run

    def _with_params(self, params: Mapping[str, int]) -> Design:
        """The program with the host setting these run-time parameters first."""
        known = [param.name for param in self.design.params]
        for name, value in params.items():
            if name not in known or not isinstance(value, int | np.integer):
                why = f"{self.design.name}: {name}={value!r} is no value of a run-time parameter"
                cure = f"it has {', '.join(known) or 'none: name parameters in rtp= of a kernel'}"
                raise Error("NEUC-E680", why, hint=cure, exit_code=Exit.USAGE)
        steps = tuple(SetParam(name, int(value)) for name, value in params.items())
        return replace(self.design, sequence=(*steps, *self.design.sequence))

    def export(self, form: str) -> str:
        """The program as text, in a form of `backends/npu/export/forms.py`: svg, mlir-aie-1.4, riallto, html and more.

        Raises:
            Error: NEUC-E683, there is no such form, or it cannot hold this program.
        """
        return export(self.design, find_machine(self.design.machine), form)

    def page(self, inputs: Mapping[str, Array]) -> str:
        """An HTML page of a run on `inputs`: the array, a timeline, and what moved."""
        return to_page(self.design, find_machine(self.design.machine), self.run(inputs, trace=True))

    def reference(self, inputs: Mapping[str, Array], *, params: Mapping[str, int] | None = None) -> dict[str, Array]:
        """What the reference interpreter gives: no time, no bounds. Arguments are those of `run`."""
        own = {name: _meaning(call) for name, call in self.functions.items()}
        graph = graph_of(self._with_params(params or {}))
        return dict(run_graph(graph, {k: np.asarray(v) for k, v in inputs.items()}, own))


def _dtype_of(name: str, array: object) -> str:
    named = {str(dtype): name for name, dtype in DTYPES.items() if name != "bf16"}
    if isinstance(array, np.ndarray) and str(array.dtype) in named:
        return named[str(array.dtype)]
    got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
    hint = f"numpy.asarray({name}, numpy.uint8); element types: {', '.join(named)}"
    raise Error("NEUC-E311", f"input '{name}' is {got}, which no core takes", hint=hint, exit_code=Exit.USAGE)


def _meaning(call: Function):
    return lambda params, phase, tokens, state: call(params, phase, tokens, state)
