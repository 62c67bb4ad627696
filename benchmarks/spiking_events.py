"""A synthetic event camera, streamed event by event through compiled code that keeps its state between calls.

    python benchmarks/spiking_events.py [--recordings 200]

Each call brings one event. Accuracy is that of the outputs so far, at several times of a recording. The float network
of the same weights sees all events of a recording at once. The result goes to the history that `spiking_page.py` reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from spiking_records import Record, add, interval

import neuc
from neuc.compiler.driver import write_module
from neuc.compiler.universe import new_context

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "spiking"))

from event_camera import counts, events
from event_program import PARAMETERS, STATES, event_program, packets, start
from image_sets import fashion

TIMES_MS = (25, 50, 100, 200, 300)


def session(packet: int) -> neuc.Session:
    """The compiled network for packets of so many events."""
    context = new_context()
    module, context.weights = event_program(packet)
    with tempfile.TemporaryDirectory() as folder:
        write_module(Path(folder) / "events.mlir", module, context)
        return neuc.compile(Path(folder) / "events.mlir", target="cpu-spike").session()


def streamed(network: neuc.Session, recording: np.ndarray) -> np.ndarray:
    """Classes i64 [times] after each of `TIMES_MS`, events going in one by one."""
    state, made, names = start(), [], [f"next_{name}" for name in STATES]
    times = np.append(recording["t"], np.iinfo(np.int64).max)
    for event, later in zip(packets(recording, 1), times[1:], strict=True):
        state = dict(zip(STATES, network.run(names, {"events": event, **state}), strict=True))
        while len(made) < len(TIMES_MS) and later >= 1_000 * TIMES_MS[len(made)]:
            made.append(int(state["output"].argmax()))
    return np.array(made)


def float_classes(images: np.ndarray) -> np.ndarray:
    """What the float network says to all events of recordings, i64 [N]."""
    with np.load(PARAMETERS / "events_mlp.npz") as arrays:
        hidden, out = (arrays[name].astype(np.float32) for name in ("hidden", "out"))
    return (np.maximum(counts(images) @ hidden.T, 0) @ out.T).argmax(1)


def measure(recordings: int) -> Record:
    """Stream the first test images."""
    images = fashion()
    labels = images.test_labels[:recordings]
    network = session(1)
    made = [events(image) for image in images.test_images[:recordings, 0]]
    right = np.stack([streamed(network, recording) for recording in made]) == labels[:, None]
    exact = float_classes(images.test_images[:recordings, 0]) == labels
    rows = []
    for at, time in enumerate(TIMES_MS):
        so_far = np.mean([np.count_nonzero(recording["t"] < 1_000 * time) for recording in made])
        rows.append({"ms": time, "events": float(so_far), "accuracy": float(right[:, at].mean())})
    gap = right[:, -1].astype(float) - exact
    low, high = interval(gap)
    about = (
        f"{recordings} recordings of moving Fashion-MNIST test images, simulated, one event a call. The float network "
        f"names {100 * exact.mean():.1f} % rightly from all events; the spiking one is {100 * gap.mean():+.1f} points "
        f"from it after the last event (95 % interval {100 * low:+.1f} … {100 * high:+.1f})."
    )
    return {"about": about, "recordings": recordings, "float": float(exact.mean()), "rows": rows}


def main() -> None:
    """Measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--recordings", type=int, default=200)
    add("events/moving_fashion", measure(options.parse_args().recordings))


if __name__ == "__main__":
    main()
