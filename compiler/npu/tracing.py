"""Tracing an application's call graph into a dataflow graph: every call of a kernel is a firing of one core.

The same kernel called on row after row is one node; what differs from call to call is only which row. Memory-tile
operations (`memory_tiles.py`) become links. What a fixed graph cannot be is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from neuc.errors import Error
from neuc.runtime.npu.program import (
    DTYPES,
    Channel,
    Design,
    HostBuffer,
    Link,
    Param,
    Port,
    Step,
    Transfer,
    Wait,
)
from neuc.runtime.npu.program import Kernel as KernelNode

if TYPE_CHECKING:
    from neuc.compiler.npu.api import Kernel

_SHOWN = 4
DEPTH = 2
"""Buffers of a channel, and of a memory tile, that nobody asked for other: one is filled while the other is read."""
_NAMES = {str(dtype): name for name, dtype in DTYPES.items() if name != "bf16"}


@dataclass(frozen=True, eq=False)
class Token:
    """One token in a call graph: whose output it is. It has no value yet, so that nothing can be computed of it."""

    tracer: Tracer
    source: str
    output: int
    dtype: str
    shape: tuple[int, ...]

    def _no_value(self, *_: object) -> NoReturn:
        raise Error(
            "NEUC-E685",
            f"a token of {self.source} has no value in a call graph: data cannot steer it",
            hint="compute and compare in a kernel; only kernels, split, join and pass_through take tokens",
        )

    __bool__ = __int__ = __index__ = __getitem__ = _no_value
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _no_value
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _no_value


@dataclass(frozen=True)
class HostArray:
    """An input or output of the application; ``x[row]`` is a token, ``y[row] = token`` stores one."""

    tracer: Tracer
    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> Token:
        self._check(row, "input")
        return self.tracer.read(self, row)

    def __setitem__(self, row: int, token: Token | tuple[Token, ...]) -> None:
        self._check(row, "output")
        if isinstance(token, tuple):
            raise Error(
                "NEUC-E685",
                f"row {row} of {self.name} is given the {len(token)} outputs of a kernel",
                hint="a row takes one: assign them apart",
            )
        if not isinstance(token, Token):
            raise Error(
                "NEUC-E685",
                f"row {row} of {self.name} is given a {type(token).__name__}",
                hint=f"a row takes a kernel's result: {self.name}[{row}] = kernel(x[{row}])",
            )
        if (token.dtype, token.shape) != (self.dtype, self.shape[1:]):
            raise Error(
                "NEUC-E685",
                f"rows of {self.name} are {self.dtype} {list(self.shape[1:])}, got {token.dtype} {list(token.shape)}",
                hint="give the output the shape its kernel makes",
            )
        self.tracer.write(self, row, token)

    def _check(self, row: int, role: str) -> None:
        if self.role != role:
            raise Error(
                "NEUC-E685", f"{self.name} is an {self.role} of the application", hint="read inputs, assign outputs"
            )
        if not isinstance(row, int | np.integer):
            raise Error("NEUC-E685", f"{self.name}[{row!r}]: rows have whole numbers", hint=f"{self.name}[0]")
        if not 0 <= row < self.shape[0]:
            raise Error("NEUC-E685", f"{self.name} has no row {row}", hint=f"rows are 0 to {self.shape[0] - 1}")


@dataclass
class _Node:
    """A kernel or link being traced: who feeds each input, and the types of its outputs."""

    kernel: Kernel | None
    mode: str
    sources: tuple[tuple[str, int], ...]
    outputs: list[tuple[str, tuple[int, ...]]]
    tokens: list[tuple[str, tuple[int, ...]]] = field(default_factory=list[tuple[str, tuple[int, ...]]])
    depth: int = DEPTH

    @property
    def depths(self) -> tuple[int, ...]:
        """Buffers of each output's channel; () for the usual number. A memory tile's are its own."""
        return () if self.kernel is None else tuple(self.kernel.depths)


class Tracer:
    """Collects calls; `design` makes the graph of them."""

    def __init__(self, name: str, machine: str) -> None:
        self.name, self.machine = name, machine
        self.arrays: dict[str, HostArray] = {}
        self.nodes: dict[str, _Node] = {}
        self.reads: dict[str, list[int]] = {}
        self.writes: dict[str, list[int]] = {}
        self.results: dict[str, tuple[str, int]] = {}

    def array(self, name: str, dtype: str, shape: tuple[int, ...], role: str) -> HostArray:
        """Declare an input or output."""
        if dtype not in DTYPES or len(shape) < 1 or min(shape) < 1:
            raise Error(
                "NEUC-E685",
                f"{name}: {dtype} {list(shape)} is no array of rows",
                hint=f"element types: {', '.join(DTYPES)}",
            )
        self.arrays[name] = HostArray(self, name, dtype, shape, role)
        return self.arrays[name]

    def read(self, array: HostArray, row: int) -> Token:
        """A row of an input."""
        rows = self.reads.setdefault(array.name, [])
        if not rows or rows[-1] != row:
            rows.append(row)
        return Token(self, array.name, 0, array.dtype, array.shape[1:])

    def write(self, array: HostArray, row: int, token: Token) -> None:
        """Store a token as a row of an output."""
        source = (token.source, token.output)
        if self.results.setdefault(array.name, source) != source:
            raise Error("NEUC-E685", f"{array.name} gets rows of two kernels", hint="join them in a memory tile first")
        rows = self.writes.setdefault(array.name, [])
        if row in rows:
            raise Error("NEUC-E685", f"row {row} of {array.name} is assigned twice", hint="assign each row once")
        rows.append(row)

    def fire(self, kernel: Kernel, tokens: tuple[Token, ...]) -> Token | tuple[Token, ...]:
        """One call of a kernel."""
        name = kernel.name or kernel.function_name
        if name not in self.nodes:
            zeros = [
                [np.zeros(t.shape, DTYPES[t.dtype]) for _ in range(_most(kernel, i))] for i, t in enumerate(tokens)
            ]
            outputs = [_type_of(name, i, array) for i, array in enumerate(kernel.outputs_for(zeros))]
            self.nodes[name] = _Node(kernel, "", (), outputs)
        elif self.nodes[name].kernel is not kernel:
            what = "two kernels" if self.nodes[name].kernel is not None else "a kernel and a memory tile"
            raise Error("NEUC-E685", f"{what} are called {name}", hint="give one of them another name: name=...")
        return self._connect(name, tokens, f"kernel {name}")

    def link(
        self, name: str, mode: str, tokens: tuple[Token, ...], outputs: list[tuple[str, tuple[int, ...]]], depth: int
    ) -> Token | tuple[Token, ...]:
        """One use of a memory tile with so many buffers."""
        if depth < 1:
            raise Error("NEUC-E685", f"memory tile {name}: depth={depth} makes no sense", hint="give a depth from 1")
        node = self.nodes.setdefault(name, _Node(None, mode, (), outputs, depth=depth))
        if (node.mode, node.outputs, node.depth) != (mode, outputs, depth):
            hint = "give one of them another name: name=..."
            raise Error("NEUC-E685", f"two memory tiles are called {name}, or a kernel is", hint=hint)
        return self._connect(name, tokens, f"memory tile {name}")

    def _connect(self, name: str, tokens: tuple[Token, ...], what: str) -> Token | tuple[Token, ...]:
        node = self.nodes[name]
        sources = tuple((token.source, token.output) for token in tokens)
        types = [(token.dtype, token.shape) for token in tokens]
        if not node.sources:
            node.sources, node.tokens = sources, types
        elif node.sources != sources or node.tokens != types:
            raise Error(
                "NEUC-E685",
                f"{what} is called on tokens of other sources than before",
                hint="make a second kernel for it",
            )
        made = tuple(Token(self, name, i, dtype, shape) for i, (dtype, shape) in enumerate(node.outputs))
        return made[0] if len(made) == 1 else made

    def design(self) -> Design:
        """The graph of all calls."""
        if not self.results:
            raise Error("NEUC-E685", f"{self.name}: no output is assigned", hint="y[row] = kernel(x[row])")
        consumers: dict[tuple[str, int], list[str]] = {}
        for name, node in self.nodes.items():
            for source in node.sources:
                consumers.setdefault(source, []).append(name)
        for array, source in self.results.items():
            consumers.setdefault(source, []).append(f"{array}_out")
        channels, inputs, outputs = self._channels(consumers)
        self._check_written()
        kernels: list[KernelNode] = []
        links: list[Link] = []
        sizes = {channel.name: channel.nbytes for channel in channels}
        for name, node in self.nodes.items():
            if node.kernel is not None:
                kernels.append(_kernel(name, node.kernel, inputs[name], outputs[name]))
            else:
                parts = outputs[name] if node.mode == "split" else inputs[name]
                offsets = (
                    [sum(sizes[p] for p in parts[:i]) for i in range(len(parts))]
                    if node.mode in ("split", "join")
                    else []
                )
                ends = (tuple(inputs[name]), tuple(outputs[name]))
                links.append(Link(name, node.mode, *ends, tuple(offsets), depth=node.depth))
        ports = [Port(f"{a}_in", f"{a}_0", "in") for a in self.reads if (a, 0) in consumers]
        ends = {c: channel.name for channel in channels for c in channel.consumers}
        ports += [Port(f"{a}_out", ends[f"{a}_out"], "out") for a in self.results]
        params = [Param(rtp, k.name, int(k.params[rtp])) for k in kernels for rtp in self._rtp(k.name)]  # type: ignore[arg-type]
        buffers = [HostBuffer(a.name, a.dtype, a.shape, a.role) for a in self.arrays.values()]
        return Design(
            self.name,
            self.machine,
            tuple(kernels),
            tuple(channels),
            tuple(links),
            tuple(ports),
            tuple(buffers),
            tuple(params),
            tuple(self._sequence()),
        )

    def _check_written(self) -> None:
        """Every row of every output is assigned."""
        for array in self.arrays.values():
            written = set(self.writes.get(array.name, ()))
            missing = [row for row in range(array.shape[0]) if array.role == "output" and row not in written]
            if missing:
                more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
                rows = f"row{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing[:_SHOWN]))}{more}"
                raise Error(
                    "NEUC-E685",
                    f"{rows} of {array.name} {'are' if len(missing) > 1 else 'is'} never assigned",
                    hint=f"assign all {array.shape[0]} rows, or make the output smaller",
                )

    def _rtp(self, name: str) -> tuple[str, ...]:
        kernel = self.nodes[name].kernel
        return tuple(kernel.rtp) if kernel is not None else ()

    def _channels(
        self, consumers: dict[tuple[str, int], list[str]]
    ) -> tuple[list[Channel], dict[str, list[str]], dict[str, list[str]]]:
        inputs: dict[str, list[str]] = {name: [""] * len(node.sources) for name, node in self.nodes.items()}
        outputs: dict[str, list[str]] = {name: [] for name in self.nodes}
        channels: list[Channel] = []
        for name, node in self.nodes.items():
            if node.depths and len(node.depths) != len(node.outputs):
                why = f"{name} has {len(node.outputs)} outputs, depths for {len(node.depths)}"
                raise Error("NEUC-E685", why, hint="give a depth for each output")
            for i in range(len(node.outputs)):
                if (name, i) not in consumers:
                    raise Error("NEUC-E685", f"output {i} of {name} is never used", hint="use it, or take it out")
        for (source, index), users in sorted(consumers.items()):
            array = self.arrays.get(source)
            dtype, shape = (array.dtype, array.shape[1:]) if array is not None else self.nodes[source].outputs[index]
            producer = f"{source}_in" if array is not None else source
            if any(user not in self.nodes for user in users) and len(users) > 1:
                raise Error(
                    "NEUC-E685", f"{source} goes to the host and to a kernel", hint="copy it with a kernel first"
                )
            depths = () if array is not None else self.nodes[source].depths
            depth = depths[index] if depths else DEPTH
            channel = Channel(f"{source}_{index}", producer, tuple(dict.fromkeys(users)), dtype, shape, depth)
            channels.append(channel)
            if array is None:
                outputs[source].append(channel.name)
            for user in dict.fromkeys(users):
                if user in self.nodes:
                    for place, wanted in enumerate(self.nodes[user].sources):
                        if wanted == (source, index):
                            inputs[user][place] = channel.name
        return channels, inputs, outputs

    def _sequence(self) -> list[Step]:
        steps: list[Step] = []
        for name, rows in self.reads.items():
            steps += [
                Transfer(f"{name}_in", name, offset, sizes, strides)
                for offset, sizes, strides in _runs(self.arrays[name], rows)
            ]
        for name, rows in self.writes.items():
            steps += [
                Transfer(f"{name}_out", name, offset, sizes, strides)
                for offset, sizes, strides in _runs(self.arrays[name], rows)
            ]
        return _interleaved(steps) + [Wait(f"{name}_out") for name in self.writes]


def _interleaved(steps: list[Step]) -> list[Step]:
    """Ports in turn, so that no queue of tasks fills while another port waits."""
    by_port: dict[str, list[Step]] = {}
    for step in steps:
        assert isinstance(step, Transfer)
        by_port.setdefault(step.port, []).append(step)
    longest = max(map(len, by_port.values()), default=0)
    return [queue[i] for i in range(longest) for queue in by_port.values() if i < len(queue)]


def _type_of(kernel: str, output: int, array: object) -> tuple[str, tuple[int, ...]]:
    """Element type and shape of what a kernel's behaviour gave."""
    if not isinstance(array, np.ndarray) or str(array.dtype) not in _NAMES:
        got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        hint = f"give arrays of {', '.join(_NAMES)}: .astype(numpy.uint8)"
        raise Error("NEUC-E680", f"kernel {kernel}: output {output} is {got}, which no core makes", hint=hint)
    return _NAMES[str(array.dtype)], tuple(array.shape)


def _most(kernel: Kernel, index: int) -> int:
    return max(kernel.consume[index]) if kernel.consume else 1


def _kernel(name: str, kernel: Kernel, inputs: list[str], outputs: list[str]) -> KernelNode:
    cycles = (kernel.cycles,) if isinstance(kernel.cycles, int) else tuple(kernel.cycles)
    ones = (1,) * len(cycles)
    consume = tuple(map(tuple, kernel.consume)) if kernel.consume else tuple(ones for _ in inputs)
    produce = tuple(map(tuple, kernel.produce)) if kernel.produce else tuple(ones for _ in outputs)
    tile, params = kernel.tile, dict(kernel.params)
    return KernelNode(
        name,
        kernel.function_name,
        tuple(inputs),
        tuple(outputs),
        consume,
        produce,
        cycles,
        params,
        kernel.state_bytes,
        4096,
        tile,
        tile is not None,
    )


def _runs(array: HostArray, rows: list[int]) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Rows as few transfers as there are runs of neighbouring rows: (offset, sizes, strides) in elements."""
    size = prod(array.shape[1:])
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([row, row + 1])
    return [(begin * size, ((end - begin) * size,), (1,)) for begin, end in runs]
