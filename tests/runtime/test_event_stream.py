"""Event streams: pieces give what one long run gives, and events that make no sense are refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.builtin import f32

from kernel_harness import runnable_isas
from neuc.dialects import dense, spike
from neuc.dialects.dims import DimLike
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.runtime.session import Session
from neuc.runtime.streaming import EventStream
from spiking_programs import Network, added, session

POLARITIES, HEIGHT, WIDTH, CLASSES = 2, 4, 5, 7
STATES = {"x1": "y0", "x2": "y1", "x3": "y2"}


def program(steps: DimLike) -> Session:
    """Events [T, 1, 2, 4, 5] and three states -> the states; leaky neurons, then counts of what they send."""
    rng, store = np.random.default_rng(0), WeightStore()
    inputs = POLARITIES * HEIGHT * WIDTH
    events = tensor_type(spike.BINARY, [steps, 1, POLARITIES, HEIGHT, WIDTH])
    sizes = [[1, 12], [1, CLASSES], [1, CLASSES]]
    net = Network([events, *(tensor_type(f32, size) for size in sizes)], store)
    # Multiples of 1/64: sums are exact, so that it does not matter which steps stand in a frame together.
    shapes = ((12, inputs), (CLASSES, 12))
    weights = [net.constant((rng.integers(-99, 100, shape) / 64).astype(np.float32)) for shape in shapes]
    decay, threshold = net.constant(np.full(1, 0.9, np.float32)), net.constant(np.ones(1, np.float32))
    loop = spike.LoopOp([net.inputs[0]], net.inputs[1:], steps, [])
    body, after = loop.body.block, []
    x = added(body, dense.ReshapeOp(loop.slices[0], tensor_type(spike.BINARY, [1, inputs]))).results[0]
    for place, weight in enumerate(weights):
        current = added(body, spike.LinearOp(x, weight)).results[0]
        neuron = added(body, spike.LifOp(current, [loop.states[place]], [decay, threshold]))
        after.append(neuron.results[1])
        x = neuron.results[0]
    after.append(added(body, spike.AccumulateOp(x, loop.states[2])).results[0])
    body.add_op(spike.YieldOp([], after))
    net.add(loop)
    return session(net.function(list(loop.final)), store, runnable_isas()[0])


Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def events(count: int, seconds: float = 1.0) -> Events:
    """Random events: t, x, y, p."""
    rng = np.random.default_rng(count)
    t = np.sort(rng.random(count) * seconds)
    return t, rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count), rng.integers(0, POLARITIES, count)


def binned(given: Events, step: float, steps: int) -> np.ndarray:
    """The events in steps, int8 [T, 1, 2, 4, 5]."""
    t, x, y, p = given
    frames = np.zeros((steps, 1, POLARITIES, HEIGHT, WIDTH), np.int8)
    frames[np.floor(t / step).astype(int), 0, p, y, x] = 1
    return frames


@pytest.mark.parametrize("steps", ["T", 4])
def test_packets_of_any_size_give_what_one_run_gives(steps: DimLike) -> None:
    given = events(400)
    frames = binned(given, 0.025, 40)
    with program(steps) as compiled:
        whole = EventStream(compiled, step=0.025, states=STATES, start=0.0)
        whole.run(frames)
        for cuts in ((0, 400), (0, 1, 2, 150, 399, 400)):
            stream = EventStream(compiled, step=0.025, states=STATES, start=0.0)
            for first, last in itertools.pairwise(cuts):
                stream.push(*(part[first:last] for part in given))
            stream.push(*(part[:0] for part in given), until=1.0)
            assert stream.steps == 40
            for name, value in whole.state.items():
                np.testing.assert_array_equal(stream.state[name], value)
        assert whole.state["x3"].any()


def test_silence_runs_too() -> None:
    with program("T") as compiled:
        stream = EventStream(compiled, step=1.0, states=STATES, initial={"x1": np.ones((1, 12), np.float32)}, start=0.0)
        nothing = tuple(part[:0] for part in events(1))
        assert stream.push(*nothing) == []
        stream.push(*nothing, until=3.0)
        assert stream.steps == 3
        assert stream.state["x1"].max() < 1


BAD: dict[str, Callable[[Events], tuple[object, ...]]] = {
    "order": lambda e: (e[0][::-1].copy(), *e[1:]),
    "column": lambda e: (e[0], e[1] + WIDTH, e[2], e[3]),
    "polarity": lambda e: (*e[:3], e[3] - 1),
    "no rows": lambda e: (e[0], e[1], None, e[3]),
    "length": lambda e: (e[0], e[1][:-1], e[2], e[3]),
    "fraction": lambda e: (e[0], e[1] + 0.5, *e[2:]),
    "no column": lambda e: (e[0], e[1] * np.nan, *e[2:]),
    "nan": lambda e: (e[0] * np.nan, *e[1:]),
    "clock": lambda e: (e[0] * 1e12, *e[1:]),
}


@pytest.mark.parametrize("name", BAD)
def test_events_that_make_no_sense(name: str) -> None:
    with program("T") as compiled:
        stream = EventStream(compiled, step=0.1, states=STATES, start=0.0)
        with pytest.raises(Error, match="E541"):
            stream.push(*BAD[name](events(9)))  # pyright: ignore[reportArgumentType]
        stream.push(*events(9), until=1.0)
        with pytest.raises(Error, match="has run already"):
            stream.push(*events(9))


def test_programs_that_do_not_stream() -> None:
    with program("T") as compiled:
        for states in ({}, {"x1": "y0", "x2": "y1", "x9": "y2"}):
            with pytest.raises(Error, match="does not stream"):
                EventStream(compiled, step=0.1, states=states)
        with pytest.raises(Error, match="'x9' has a first value"):
            EventStream(compiled, step=0.1, states=STATES, initial={"x9": np.zeros(1, np.float32)})
        with pytest.raises(Error, match="start at nan"):
            EventStream(compiled, step=0.1, states=STATES, start=float("nan"))
        with pytest.raises(Error, match="until=inf"):
            EventStream(compiled, step=0.1, states=STATES).push(*events(9), until=float("inf"))
        with pytest.raises(Error, match="step"):
            EventStream(compiled, step=0.0, states=STATES)
