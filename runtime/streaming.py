"""Event streams: a spiking program that keeps its state between calls, fed with events as cameras give them.

Events come in address-event representation: arrays of times, columns, rows and polarities, or one structured array with
fields t, x, y, p as `tonic` has them. Times are in any unit; `step` is in the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit
from neuc.runtime.session import Session

Array: TypeAlias = NDArray[np.generic]

MOST_STEPS = 1 << 20
"""Steps that one call may span: a wrong clock would ask for all memory."""


class EventStream:
    """Runs a program on a stream of events, a piece at a time, with the state of the network in between.

    The program's first input holds events int8 [T, 1, P, H, W] (P polarities) or [T, 1, N]; T is a symbol, or a number
    of steps that each call is cut into. Its other inputs are states, which the outputs named in `states` replace after
    each call. A run in pieces gives what one long run gives.

    Example::

        stream = EventStream(session, step=1000, states={"v0": "v0_out", "counts_in": "counts"})
        for packet in camera:
            outputs = stream.push(packet["t"], packet["x"], packet["y"], packet["p"])
    """

    def __init__(
        self,
        session: Session,
        *,
        step: float,
        states: Mapping[str, str],
        initial: Mapping[str, Array] | None = None,
        start: float | None = None,
    ) -> None:
        """Prepare a stream.

        Args:
            session: the loaded program.
            step: how long a time step is, in the events' unit of time.
            states: for each state input the output that has its next value.
            initial: states at the beginning; zeros where nothing is given.
            start: when the first step begins; by default with the first event.

        Raises:
            Error: NEUC-E540, the program is not one that streams, or the arguments do not fit it.
        """
        inputs = {spec.name: spec for spec in session.get_inputs()}
        outputs = {spec.name: spec for spec in session.get_outputs()}
        self._session, self._states = session, dict(states)
        names = [name for name in inputs if name not in states]
        if len(names) != 1:
            raise _refused(f"the program has {len(names)} inputs that are no states: {', '.join(names) or 'none'}")
        for name, after in states.items():
            if name not in inputs or after not in outputs:
                raise _refused(f"there is no input {name!r} or no output {after!r}")
        self._name, spec = names[0], inputs[names[0]]
        if spec.type != "tensor(int8)" or len(spec.shape) not in (3, 5):
            held = f"{spec.type} {spec.shape}"
            raise _refused(f"input {spec.name!r} is {held}, should be int8 [T, 1, P, H, W] or [T, 1, N]")
        if not step > 0 or not np.isfinite(step):
            raise _refused(f"a step of {step} makes no sense")
        self._cut = spec.shape[0] if isinstance(spec.shape[0], int) else None
        self._shape = tuple(_size(size) for size in spec.shape[1:])
        if start is not None and not np.isfinite(start):
            raise _refused(f"a start at {start} makes no sense")
        if unknown := sorted(set(initial or {}) - set(states)):
            raise _refused(f"{unknown[0]!r} has a first value, but is no state")
        self._step, self._start = float(step), start
        self._values: dict[str, Array] = {}
        for name in states:
            given = (initial or {}).get(name)
            self._values[name] = _zeros(inputs[name].type, inputs[name].shape) if given is None else given
        self._waiting = np.zeros((0, int(np.prod(self._shape))), np.int8)
        self._done = 0

    @property
    def steps(self) -> int:
        """Steps that have run."""
        return self._done

    @property
    def state(self) -> Mapping[str, Array]:
        """The state after the last step that ran, by the name of its input."""
        return dict(self._values)

    def push(
        self, t: Array, x: Array, y: Array | None = None, p: Array | None = None, *, until: float | None = None
    ) -> list[dict[str, Array]]:
        """Take events, and run all steps that are over: those before the newest event's, or before `until`.

        Args:
            t: times [n], ascending.
            x: columns [n], or numbers of neurons for programs of [T, 1, N].
            y: rows [n].
            p: polarities [n], 0 … P-1.
            until: no event before this time will come any more.

        Returns:
            The outputs by name of each run that was made: none while no step is over, one, or as many as it takes where
            T is fixed.

        Raises:
            Error: NEUC-E541, events out of range, out of order, or of steps that have run already.
        """
        places = self._places(x, y, p, len(t))
        if len(t) == 0 and until is None:
            return []
        times = np.asarray(t, np.float64)
        if len(times) and (not np.isfinite(times).all() or (np.diff(times) < 0).any()):
            raise _bad_events("times are not ascending")
        if until is not None and not np.isfinite(until):
            raise _bad_events(f"until={until} is no time")
        if self._start is None:
            self._start = float(times[0]) if len(times) else float(until or 0)
        steps = self._step_of(times)
        if len(steps) and steps[0] < 0:
            raise _bad_events(f"an event at {times[0]} belongs to a step that has run already")
        over = int(steps[-1]) if len(steps) else 0
        if until is not None:
            over = max(0, int(self._step_of(np.array([until]))[0]))
            if len(steps) and steps[-1] >= over:
                raise _bad_events(f"an event at {times[-1]} is not before until={until}")
        needed = max(over, len(self._waiting), int(steps[-1]) + 1 if len(steps) else 0)
        if needed > MOST_STEPS:
            raise _bad_events(f"{needed} steps of {self._step} at once; the limit is {MOST_STEPS}")
        frames = np.zeros((needed, int(np.prod(self._shape))), np.int8)
        frames[: len(self._waiting)] = self._waiting
        frames[steps, places] = 1
        runs = over - over % (self._cut or 1)
        self._waiting = frames[runs:]
        return self.run(frames[:runs].reshape(runs, *self._shape))

    def _step_of(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which steps times belong to, counted from the first that has not run."""
        assert self._start is not None
        return np.floor((times - self._start) / self._step).astype(np.int64) - self._done

    def run(self, frames: Array) -> list[dict[str, Array]]:
        """Run on events int8 [T, 1, …] that are in steps already; the outputs as of `push`.

        Raises:
            Error: NEUC-E541, T is fixed, and the steps are no multiple of it.
        """
        found: list[dict[str, Array]] = []
        cut = self._cut or max(1, len(frames))
        if len(frames) % cut:
            raise _bad_events(f"{len(frames)} steps for a program that takes {cut} at a time")
        for first in range(0, len(frames), cut):
            names = [spec.name for spec in self._session.get_outputs()]
            feed = {self._name: np.ascontiguousarray(frames[first : first + cut]), **self._values}
            outputs: dict[str, Array] = dict(zip(names, self._session.run(None, feed), strict=True))
            self._values = {name: outputs[after] for name, after in self._states.items()}
            self._done += cut
            found.append(outputs)
        return found

    def _places(self, x: Array, y: Array | None, p: Array | None, count: int) -> NDArray[np.int64]:
        """Where in a step's events each one lies."""
        given = {"x": (x, self._shape[-1])}
        if len(self._shape) == 4:
            given = {"p": (p, self._shape[1]), "y": (y, self._shape[2]), **given}
        place = np.zeros(count, np.int64)
        for name, (values, size) in given.items():
            if values is None:
                raise _bad_events(f"the program has rows and polarities, but there is no {name}")
            numbers = np.asarray(values)
            whole = numbers.dtype.kind in "iub" or not count
            if not whole or numbers.shape != (count,) or (count and (numbers.min() < 0 or numbers.max() >= size)):
                raise _bad_events(f"{name} should be {count} whole numbers from 0 to {size - 1}")
            place = place * size + numbers.astype(np.int64)
        return place


def _size(size: int | str | None) -> int:
    if not isinstance(size, int):
        raise _refused(f"dimension {size!r} of the events is no number: streams are of one sample and a known size")
    return size


def _zeros(kind: str, shape: Sequence[int | str | None]) -> Array:
    dtypes = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int8)": np.int8}
    if kind not in dtypes:
        raise _refused(f"states hold {kind}, should be float, int32 or int8")
    return np.zeros([_size(size) for size in shape], dtypes[kind])


def _refused(what: str) -> Error:
    hint = "compile a program with events int8 [T, 1, …] as its first input and its states as inputs and outputs"
    return Error("NEUC-E540", f"this program does not stream: {what}", hint=hint, exit_code=Exit.USAGE)


def _bad_events(what: str) -> Error:
    hint = "give ascending times, and columns, rows and polarities within the sensor"
    return Error("NEUC-E541", f"events: {what}", hint=hint, exit_code=Exit.USAGE)
