"""The synthetic event camera and the network that is streamed its events: what is sent, and that no state is lost."""

from __future__ import annotations

from pathlib import Path

import event_camera
import numpy as np
import pytest
from event_camera import FRAME_US, FRAMES, SENSOR, THRESHOLD, address, counts, events
from event_program import PARAMETERS, SPIKES, STATES, event_program, packets, start
from image_sets import digits

import neuc
from neuc.compiler.driver import write_module
from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret

TOLERANCE = 1e-3
"""Of outputs of size 10 that 200 spikes of 128 neurons make: f32 sums of some 10^4 terms of size 0.01."""


def _image() -> np.ndarray:
    """A digit of 8x8, blown up to 28x28."""
    return np.pad(np.kron(digits().test_images[0, 0], np.ones((3, 3), np.float32)), 2)


def test_events_come_in_order_and_are_counted() -> None:
    image = _image()
    made = events(image)
    assert len(made) > 500
    assert (np.diff(made["t"]) >= 0).all()
    assert made["t"].max() < FRAMES * FRAME_US
    assert set(made["p"].tolist()) == {0, 1}
    found = np.bincount(address(made), minlength=2 * SENSOR * SENSOR)
    assert np.array_equal(found, counts(image[None])[0])


def test_brightness_can_be_rebuilt_from_events() -> None:
    """What events a pixel sent, times the threshold, is how its brightness changed, but for less than a threshold."""
    image = _image()
    signed = event_camera.changes(image[None]).astype(np.float64).sum(0)[0]
    first, last = (np.log(event_camera.shown(image[None], frame)[0] + event_camera.DARK) for frame in (0, FRAMES))
    assert np.abs(last - first - THRESHOLD * signed).max() < THRESHOLD * (1 + 1e-5)


def test_nothing_moves_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_camera, "CORNERS", np.full((4, 2), 2.5))
    assert len(events(_image())) == 0


def _reference(recording: np.ndarray) -> dict[str, np.ndarray]:
    """Event after event in numpy: signed neurons that fire from 3/4 on, and take back no more than they sent."""
    with np.load(PARAMETERS / "events_mlp.npz") as arrays:
        hidden, out, largest = (arrays[name].astype(np.float32) for name in ("hidden", "out", "largest"))
    unit = (largest / SPIKES).astype(np.float32)
    weights, state = hidden / unit[:, None], start()
    for where in address(recording):
        m = state["membrane"] + weights[:, where]
        s = np.where(m >= 0.75, 1, np.where((m <= -0.75) & (state["sent"] >= 1), -1, 0)).astype(np.float32)
        state = {"membrane": m - s, "sent": state["sent"] + s, "output": state["output"] + s @ (out * unit).T}
    return state


@pytest.mark.parametrize("size", [1, 7])
def test_state_goes_from_packet_to_packet(size: int) -> None:
    recording = events(_image())[:196]  # whole packets: in steps without an event neurons may fire what is left
    module, store = event_program(size)
    state = start()
    for packet in packets(recording, size):
        assert packet.sum() <= size
        state = dict(zip(STATES, interpret(module, [packet, *state.values()], store), strict=True))
    expected = _reference(recording)
    assert np.abs(expected["sent"]).sum() > 20, "nothing fires"
    assert np.array_equal(state["sent"], expected["sent"])
    np.testing.assert_allclose(state["output"], expected["output"], atol=TOLERANCE)


@pytest.mark.slow
def test_compiled_code_is_streamed_the_same(tmp_path: Path) -> None:
    recording = events(_image())[:200]
    context = new_context()
    module, context.weights = event_program(1)
    write_module(tmp_path / "events.mlir", module, context)
    session = neuc.compile(tmp_path / "events.mlir", target="cpu-spike").session()
    state, names = start(), [f"next_{name}" for name in STATES]
    for packet in packets(recording, 1):
        state = dict(zip(STATES, session.run(names, {"events": packet, **state}), strict=True))  # pyright: ignore[reportGeneralTypeIssues]
    expected = _reference(recording)
    assert np.array_equal(state["sent"], expected["sent"])
    np.testing.assert_allclose(state["output"], expected["output"], atol=TOLERANCE)  # pyright: ignore[reportArgumentType, reportCallIssue]
