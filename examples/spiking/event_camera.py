"""A synthetic event camera: images that move in front of a sensor whose pixels report changes of brightness.

No recording of a real camera is in any package, so this is a simulation and says so. A pixel remembers a logarithm of
brightness and sends an event for each `THRESHOLD` by which it has changed since (P. Lichtsteiner, C. Posch, T.
Delbruck, 2008), without noise or a refractory time. Images go around a triangle in three legs of 100 ms, as in N-MNIST
(G. Orchard et al., 2015).
"""

from __future__ import annotations

import numpy as np

SENSOR = 34
"""Pixels of a side."""
POLARITIES = 2
"""Events of pixels that got darker (0) and brighter (1)."""
THRESHOLD = 0.5
"""Change of ln(brightness + `DARK`) that makes an event."""
DARK = 0.1
FRAMES = 60
FRAME_US = 5_000
CORNERS = np.array([[0.0, 0.0], [3.0, 6.0], [6.0, 0.0], [0.0, 0.0]])
"""Where the image's corner is on the sensor at 0, 100, 200 and 300 ms."""
EVENT = np.dtype([("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.int8)])
"""One event: microseconds, column, row, polarity; the fields that `tonic` and AER files have."""


def shown(images: np.ndarray, frame: int) -> np.ndarray:
    """What the sensor sees: images f32 [N, 28, 28] at their place in a frame, bilinear; f32 [N, SENSOR, SENSOR]."""
    at = frame / FRAMES * (len(CORNERS) - 1)
    leg = min(int(at), len(CORNERS) - 2)
    y, x = CORNERS[leg] + (at - leg) * (CORNERS[leg + 1] - CORNERS[leg])
    seen = np.zeros((len(images), SENSOR + 1, SENSOR + 1), np.float32)
    size, top, left = images.shape[-1], int(y), int(x)
    for dy, wy in ((0, 1 - y % 1), (1, y % 1)):
        for dx, wx in ((0, 1 - x % 1), (1, x % 1)):
            seen[:, top + dy : top + dy + size, left + dx : left + dx + size] += np.float32(wy * wx) * images
    return seen[:, :SENSOR, :SENSOR]


def changes(images: np.ndarray) -> np.ndarray:
    """Signed numbers of events i8 [FRAMES, N, SENSOR, SENSOR] in each frame."""
    level = np.log(shown(images, 0) + np.float32(DARK))
    made = np.zeros((FRAMES, *level.shape), np.int8)
    for frame in range(1, FRAMES + 1):
        steps = np.trunc((np.log(shown(images, frame) + np.float32(DARK)) - level) / np.float32(THRESHOLD))
        level += steps * np.float32(THRESHOLD)
        made[frame - 1] = steps
    return made


def counts(images: np.ndarray) -> np.ndarray:
    """How many events of each polarity each pixel sends, f32 [N, POLARITIES · SENSOR · SENSOR]."""
    made = np.zeros((len(images), POLARITIES, SENSOR, SENSOR), np.float32)
    for part in np.array_split(np.arange(len(images)), max(1, len(images) // 500)):
        signed = changes(images[part])
        made[part, 0], made[part, 1] = -np.minimum(signed, 0).sum(0), np.maximum(signed, 0).sum(0)
    return made.reshape(len(images), -1)


def events(image: np.ndarray, seed: int = 0) -> np.ndarray:
    """The events of one image f32 [28, 28] in order of time, `EVENT` [M]; within a frame times are random."""
    signed = changes(image[None])[:, 0]
    frame, y, x = np.nonzero(signed)
    times = np.abs(signed[frame, y, x])
    made = np.zeros(int(times.sum()), EVENT)
    for name, values in (("x", x), ("y", y), ("p", signed[frame, y, x] > 0)):
        made[name] = np.repeat(values, times)
    rng = np.random.default_rng(seed)
    made["t"] = FRAME_US * np.repeat(frame, times) + rng.integers(0, FRAME_US, len(made))
    return made[np.argsort(made["t"], kind="stable")]


def address(made: np.ndarray) -> np.ndarray:
    """Which input each event is of, i64 [M]: polarity, row, column in row-major order."""
    return (made["p"].astype(np.int64) * SENSOR + made["y"]) * SENSOR + made["x"]
