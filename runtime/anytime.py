"""Anytime inference: spiking networks that stop for each sample as soon as its answer is clear.

Programs are those of the pass `expose-spike-state`, which run some steps at a time and hand their state over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuc.errors import Error, Exit
from neuc.runtime.session import Session

Array: TypeAlias = NDArray[np.generic]
_OWN = ("ticks", "fresh", "first")
_DTYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int8)": np.int8}
_BOUNDS = 256
"""Bounds that calibration tries."""


@dataclass(frozen=True)
class Exits:
    """What a run gave.

    Attributes:
        outputs: the first output [N, classes], each sample's at the step it stopped.
        steps: i64 [N], after how many steps that was.
        most: T, the most steps.
    """

    outputs: Array
    steps: NDArray[np.int64]
    most: int

    def distribution(self) -> dict[int, float]:
        """The share of samples that stopped, by step."""
        found, counts = np.unique(self.steps, return_counts=True)
        return {int(step): float(count) / len(self.steps) for step, count in zip(found, counts, strict=True)}

    def text(self) -> str:
        """The distribution for people."""
        shares = ", ".join(f"{100 * share:.1f} % at {step}" for step, share in self.distribution().items())
        return f"steps: {float(self.steps.mean()):.2f} of {self.most} on average; {shares}"


class Anytime:
    """Runs a program a few steps at a time, and leaves out samples whose largest output is ahead far enough."""

    def __init__(self, session: Session, *, bound: float = np.inf, chunk: int = 1) -> None:
        """Prepare a program.

        Args:
            session: a session, as `neuc.load` gives, of a program with the fact `spike_state`; no path.
            bound: a sample stops when its largest output is so much above the second largest; see `calibrate`.
            chunk: steps between two looks.

        Raises:
            Error: NEUC-E544, the program cannot stop early, or the arguments make no sense.
        """
        if not isinstance(session, Session):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass paths
            raise _misused(f"{type(session).__name__} is no session", 'write Anytime(neuc.load("steps.neuc"))')
        fact = session.manifest.get("spike_state")
        if not isinstance(fact, Mapping):
            raise _refused("its manifest has no spike_state", "compile it with the pass expose-spike-state")
        known = cast("Mapping[str, object]", fact)
        self._states = dict(cast("Mapping[str, str]", known["states"]))
        self.most = int(cast(int, known["steps"]))
        self._start, self._placed = int(cast(int, known.get("start", 0))), bool(known.get("placed", False))
        if chunk not in range(1, self.most + 1) or np.isnan(bound):
            if chunk not in range(1, self.most + 1):
                raise _misused(f"chunks of {chunk} steps", f"give a whole number, 1 to {self.most}")
            raise _misused("a bound of nan", "give a number, or let calibrate find one")
        self._session, self.bound, self._chunk = session, float(bound), chunk
        inputs = {spec.name: spec for spec in session.get_inputs()}
        self._inputs = [name for name in inputs if name not in self._states and name not in _OWN]
        self._shapes = {name: inputs[name] for name in self._states}
        self._outputs = [spec.name for spec in session.get_outputs()]

    def run(self, inputs: Mapping[str, ArrayLike]) -> Exits:
        """Run until every sample is clear, or the most steps; not before the first step that a delayed read-out counts.

        A rate encoder draws its numbers by a sample's place in the batch: with one, samples that have stopped run on
        with those behind them that have not, and only those behind the last of these are left out.

        Args:
            inputs: [N, …] by name, without states: arrays of the program's types, f64 arrays or lists of numbers.

        Raises:
            Error: NEUC-E544, inputs are no mapping, are missing, are no arrays, differ in N, or hold NaN or infinity.
        """
        arrays = self._arrays(inputs)
        count = self._samples(arrays)
        left, waiting = np.arange(count), np.ones(count, np.bool_)
        steps = np.zeros(count, np.int64)
        outputs: Array | None = None
        states = self._begin(count)
        for done in range(0, self.most, self._chunk):
            now = min(self._chunk, self.most - done)
            found = self._step({name: array[left] for name, array in arrays.items()}, states, done, now)
            answer = found[self._outputs[0]]
            outputs = np.empty((count, *answer.shape[1:]), answer.dtype) if outputs is None else outputs
            still = waiting[left]
            outputs[left[still]], steps[left[still]] = answer[still], done + now
            if done + now > self._start:
                waiting[left] &= margins(answer) < self.bound
            going = waiting[left]
            if not going.any():
                break
            if self._placed:
                going[: np.flatnonzero(going)[-1]] = True
            left = left[going]
            states = {name: np.ascontiguousarray(found[after][going]) for name, after in self._states.items()}
        assert outputs is not None
        return Exits(outputs, steps, self.most)

    def calibrate(self, inputs: Mapping[str, ArrayLike], *, agreement: float = 0.995) -> float:
        """Set the smallest bound with which at least so many samples give the answer of all steps; the bound.

        Args:
            inputs: as of `run`; some hundred samples like those to come.
            agreement: the share, 0 to 1.

        Raises:
            Error: NEUC-E544, the share makes no sense, inputs are missing, are no arrays, or differ in N.
        """
        if not 0 <= agreement <= 1:
            raise _misused(f"an agreement of {agreement}", "give a share of the samples, 0 to 1")
        arrays = self._arrays(inputs)
        count = self._samples(arrays)
        states, ahead, named = self._begin(count), list[NDArray[np.float64]](), list[NDArray[np.intp]]()
        for done in range(0, self.most, self._chunk):
            now = min(self._chunk, self.most - done)
            found = self._step(arrays, states, done, now)
            none_yet = done + now <= self._start
            ahead.append(np.full(count, -1.0) if none_yet else margins(found[self._outputs[0]]))
            named.append(found[self._outputs[0]].argmax(axis=1))
            states = {name: found[after] for name, after in self._states.items()}
        margin, answers = np.stack(ahead), np.stack(named)
        margin[-1] = np.inf
        self.bound = np.inf
        seen = np.concatenate(ahead[:-1] or ahead)
        ordered: NDArray[np.float64] = np.sort(seen[seen >= 0])
        for place in np.linspace(0, len(ordered) - 1, _BOUNDS if len(ordered) else 0).astype(np.int64):
            bound = float(ordered[place])
            stops = (margin >= bound).argmax(axis=0)
            same = np.count_nonzero(answers[stops, np.arange(count)] == answers[-1])
            if same >= agreement * count:
                self.bound = bound
                break
        return self.bound

    def _arrays(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Inputs as arrays; what is none yet, or f64, gets the program's type."""
        if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass lists
            names = ", ".join(f"{name!r}: samples" for name in self._inputs)
            raise _misused(f"inputs are {type(inputs).__name__}, not named", f"give a mapping: run({{{names}}})")
        types = {spec.name: _DTYPES.get(spec.type) for spec in self._session.get_inputs()}
        return {name: _array(name, given, types.get(name)) for name, given in inputs.items()}

    def _samples(self, inputs: Mapping[str, Array]) -> int:
        wanted = ", ".join(self._inputs)
        if sorted(inputs) != sorted(self._inputs):
            raise _misused(f"inputs are {', '.join(inputs) or 'none'}, the program's are {wanted}", f"give {wanted}")
        sizes = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
        empty = [name for name, size in sizes.items() if size == 0]
        if empty:
            raise _misused(
                f"input {empty[0]} holds no samples", "give an array whose first axis is samples, at least one"
            )
        if len(set(sizes.values())) != 1:
            found = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise _misused(f"inputs differ in samples: {found}", "give equally many of each")
        return next(iter(sizes.values()))

    def _begin(self, count: int) -> dict[str, Array]:
        """States to be overwritten: the program begins anew."""
        return {
            name: np.zeros([size if isinstance(size, int) else count for size in spec.shape], _DTYPES[spec.type])
            for name, spec in self._shapes.items()
        }

    def _step(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array], done: int, count: int
    ) -> dict[str, Array]:
        feed = {
            **inputs,
            **states,
            "ticks": np.zeros(count, np.int8),
            "fresh": np.array(done == 0),
            "first": np.array(done, np.int64),
        }
        return dict(zip(self._outputs, self._session.run(None, feed), strict=True))


def _array(name: str, given: ArrayLike, dtype: type[np.generic] | None) -> Array:
    """An input as an array; what is none yet, or f64, gets the program's type, if that holds its numbers."""
    if isinstance(given, np.ndarray) and given.dtype != np.float64:
        return _finite(name, cast(Array, given))
    try:
        found = _finite(name, np.asarray(given))
        with np.errstate(over="ignore"):
            made = found if dtype is None else found.astype(dtype)
    except (TypeError, ValueError) as error:
        hint = "give arrays, or lists of equally long lists of numbers"
        raise _misused(f"input {name} is no array: {error}", hint) from error
    if made.dtype.kind == "i" and (made != found).any():
        raise _misused(f"input {name} has numbers that {made.dtype} does not hold", f"give an array of {made.dtype}")
    return _finite(name, made)


def _finite(name: str, array: Array) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _misused(f"input {name} holds NaN or infinity", "give finite numbers: a margin of NaN is never clear")
    return array


def margins(outputs: Array) -> NDArray[np.float64]:
    """How far the largest of [N, classes] is above the second largest."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise _refused(f"outputs of shape {list(outputs.shape)} have no two classes", "early exits are for classifiers")
    top = np.sort(outputs.astype(np.float64), axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def _refused(what: str, hint: str) -> Error:
    return Error("NEUC-E544", f"this program cannot stop early: {what}", hint=hint, exit_code=Exit.USAGE)


def _misused(what: str, hint: str) -> Error:
    return Error("NEUC-E544", f"early exits: {what}", hint=hint, exit_code=Exit.USAGE)
