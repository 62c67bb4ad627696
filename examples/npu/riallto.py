"""Riallto's example applications in neuc's dataflow API: pass-through, inverse, thresholds, edges, colours.

Each runs on one column of an XDNA array. `python examples/npu/riallto.py` simulates all of them and says how long the
array would take.
"""

from __future__ import annotations

import numpy as np

from neuc import npu

QUARTER, WHOLE = 1 << 12, 1 << 14
"""Weights of `add_weighted`, in units of 2^-14."""
LAPLACIAN = [0, 1, 0, 1, -4, 1, 0, 1, 0]


class PassThrough(npu.App):
    """Rows of an image through a memory tile and a core that copies them."""

    def __init__(self) -> None:
        self.copy = npu.Kernel("copy", cycles=120)

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(x)):
            y[row] = npu.pass_through(self.copy(x[row]))


class Inverse(npu.App):
    """255 - x, with four cores on a quarter of each row."""

    def __init__(self) -> None:
        self.kernels = [npu.Kernel("invert", cycles=60, name=f"invert{i}") for i in range(4)]

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(x)):
            parts = npu.split(x[row], 4)
            y[row] = npu.join(*(kernel(part) for kernel, part in zip(self.kernels, parts)))  # type: ignore[arg-type]


class ThresholdPipeline(npu.App):
    """Three thresholds one after the other, their limits being run-time parameters."""

    def __init__(self) -> None:
        for i, (limit, kind) in enumerate(((200, 2), (40, 3), (100, 0))):
            params = {"threshold": limit, "max": 255, "kind": kind}
            setattr(self, f"threshold{i}", npu.Kernel("threshold", cycles=90, params=params, name=f"threshold{i}"))

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(x)):
            token = x[row]
            for i in range(3):
                token = getattr(self, f"threshold{i}")(token)
            y[row] = token


class EdgeDetect(npu.App):
    """Grey, Laplacian over three lines, threshold, and the edges over the picture, which has to wait for them.

    Edges are white on a quarter of the picture's brightness.
    """

    def __init__(self, lines: int) -> None:
        self.gray = npu.Kernel("rgba2gray", cycles=160)
        rates = [2, *[1] * (lines - 2), 0]
        self.filter = npu.Kernel(
            "filter2d",
            cycles=[400] * lines,
            params={"weights": LAPLACIAN},
            consume=[rates],
            produce=[[1] * lines],
            state_bytes=4096,
        )
        self.threshold = npu.Kernel("threshold", cycles=90, params={"threshold": 20, "max": 255, "kind": 0})
        self.overlay = npu.Kernel("add_weighted", cycles=200, params={"alpha": QUARTER, "beta": WHOLE})

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(x)):
            y[row] = self.overlay(x[row], self.threshold(self.filter(self.gray(x[row]))))  # type: ignore[arg-type]


class ColourDetect(npu.App):
    """Two ranges of hue side by side; pixels in neither become black.

    The last kernel takes three inputs where a core has two DMA channels in: the placer puts it beside one of its
    sources, so that they share memory.
    """

    def __init__(self) -> None:
        self.hue = npu.Kernel("rgba2hue", cycles=300)
        self.red = npu.Kernel("in_range", cycles=80, params={"low": 0, "high": 20})
        self.blue = npu.Kernel("in_range", cycles=80, params={"low": 140, "high": 190})
        self.mask = npu.Kernel("mask", cycles=200)

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(x)):
            hue = self.hue(x[row])
            y[row] = self.mask(x[row], self.red(hue), self.blue(hue))  # type: ignore[arg-type]


def picture(lines: int, width: int, channels: int) -> np.ndarray:
    """A test picture: gradients, a disc and some noise; u8."""
    row, column = np.mgrid[0:lines, 0:width]
    disc = 200 * ((row - lines / 2) ** 2 + (column - width / 2) ** 2 < (min(lines, width) / 3) ** 2)
    noise = np.random.default_rng(0).integers(0, 20, (lines, width))
    planes = [row * 7 + noise, column * 3 + disc, disc + noise, 255 + 0 * row][:channels]
    image = np.stack([np.clip(plane, 0, 255).astype(np.uint8) for plane in planes], -1)
    return np.ascontiguousarray(image[..., 0] if channels == 1 else image)


def applications(lines: int, width: int) -> dict[str, tuple[npu.App, np.ndarray]]:
    """Every example with a picture of its kind."""
    grey, colour = picture(lines, width, 1), picture(lines, width, 4)
    return {
        "pass-through": (PassThrough(), grey),
        "inverse": (Inverse(), grey),
        "threshold-pipeline": (ThresholdPipeline(), grey),
        "edge-detect": (EdgeDetect(lines), colour),
        "colour-detect": (ColourDetect(), colour),
    }


def main() -> None:
    """Simulate every example on one column of XDNA1."""
    for name, (app, image) in applications(48, 64).items():
        compiled = app.compile({"x": image}, {"y": ("u8", image.shape)}, "npu-xdna1-1col")
        run = compiled.run({"x": image})
        same = np.array_equal(run.outputs["y"], compiled.reference({"x": image})["y"])
        verdict = "bit-exact" if same else "WRONG"
        print(f"{name:20} {run.seconds * 1e6:8.1f} us  {verdict}  {compiled.built.placement.summary()}")


if __name__ == "__main__":
    main()
