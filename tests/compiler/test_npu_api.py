"""The Python API: Riallto's examples on one column with the right pixels, and call graphs that no graph can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from example_files import load_example
from neuc.backends.npu.build import build
from neuc.backends.npu.known_machines import find_machine
from neuc.compiler import npu
from neuc.errors import Error
from neuc.runtime.npu.simulator import with_depths

LINES, WIDTH = 12, 16
COLUMN = "npu-xdna1-1col"
RIALLTO = load_example("npu/riallto.py")


def _edges(x: np.ndarray) -> np.ndarray:
    """The picture's edges, computed on the whole picture at once."""
    gray = ((x[..., 0] * 9798.0 + x[..., 1] * 19235.0 + x[..., 2] * 3735.0 + 2**14) // 2**15).astype(int)
    padded = np.pad(gray, 1, mode="edge")
    sums = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    edges = np.where(np.clip(sums, 0, 255) > 20, 255, 0)
    return np.minimum(x // 4 + edges[..., None], 255).astype(np.uint8)


def _thresholds(x: np.ndarray) -> np.ndarray:
    y = np.minimum(x, 200)
    y = np.where(y > 40, y, 0)
    return np.where(y > 100, 255, 0).astype(np.uint8)


def _colours(x: np.ndarray) -> np.ndarray:
    import colorsys

    out = np.zeros_like(x)
    for place in np.ndindex(*x.shape[:2]):
        r, g, b = (int(v) for v in x[place][:3])
        hue = colorsys.rgb_to_hsv(r, g, b)[0] * 6 * 43
        if max(r, g, b) == min(r, g, b):
            hue = 0
        near = min(abs(hue - edge) for edge in (20, 140, 190, 0, 255))
        if near < 2:  # integer sextants and thirds of 43 round apart from the real formula: such pixels prove nothing
            out[place] = 1
        elif hue <= 20 or 140 <= hue <= 190:
            out[place] = x[place]
    return out


EXPECTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pass-through": lambda x: x,
    "inverse": lambda x: 255 - x,
    "threshold-pipeline": _thresholds,
    "edge-detect": _edges,
    "colour-detect": _colours,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_riallto_examples_on_one_column(name: str):
    app, image = RIALLTO.applications(LINES, WIDTH)[name]
    compiled = app.compile({"x": image}, {"y": ("u8", image.shape)}, COLUMN)
    assert {node.tile[0] for node in compiled.design.nodes if node.tile} == {0}
    run = compiled.run({"x": image})
    np.testing.assert_array_equal(run.outputs["y"], compiled.reference({"x": image})["y"])
    expected = EXPECTED[name](image)
    sure = np.ones_like(image, bool) if name != "colour-detect" else expected != 1
    assert sure.mean() > 0.3
    np.testing.assert_array_equal(run.outputs["y"][sure], expected[sure])
    assert run.cycles > 0


def test_edge_detect_deadlocks_where_the_picture_cannot_wait_for_its_edges():
    """The filter needs two lines before its first; with one buffer the overlay keeps the second from ever coming."""
    app, image = RIALLTO.applications(LINES, WIDTH)["edge-detect"]
    design = with_depths(app.trace({"x": ("u8", image.shape)}, {"y": ("u8", image.shape)}, COLUMN), {"x_0": 1})
    with pytest.raises(Error, match="overlay waits for") as caught:
        build(design, find_machine(COLUMN), deepen=False)
    assert caught.value.code == "NEUC-E679"
    built = build(design, find_machine(COLUMN))
    assert built.verdict.cure == {"x_0": 2}
    assert built.design.channel("x_0").depth == 2


def test_colour_detect_shares_memory_for_its_third_input():
    app, image = RIALLTO.applications(LINES, WIDTH)["colour-detect"]
    compiled = app.compile({"x": image}, {"y": ("u8", image.shape)}, COLUMN)
    assert {"red_0", "blue_0"} & set(compiled.design.shared)


def test_run_time_parameters_change_the_program():
    class Threshold(npu.App):
        def __init__(self) -> None:
            self.k = npu.Kernel("threshold", params={"threshold": 100, "max": 255, "kind": 0}, rtp=["threshold"])

        def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
            for row in range(len(x)):
                y[row] = self.k(x[row])

    x = np.arange(64, dtype=np.uint8).reshape(4, 16) * 4
    compiled = Threshold().compile({"x": x}, {"y": ("u8", x.shape)})
    assert [p.value for p in compiled.design.params] == [100]
    for value in (100, 200):
        params = {"threshold": value} if value != 100 else None
        got, meant = compiled.run({"x": x}, params=params).outputs["y"], compiled.reference({"x": x}, params=params)
        np.testing.assert_array_equal(got, np.where(x > value, 255, 0))
        np.testing.assert_array_equal(meant["y"], got)
    with pytest.raises(Error, match=r"treshold=3 is no value of a run-time parameter \(hint: it has threshold\)"):
        compiled.run({"x": x}, params={"treshold": 3})


class _Difference(npu.App):
    """Two inputs that must not be taken for each other."""

    def __init__(self) -> None:
        self.k = npu.Kernel(_difference)

    def callgraph(self, a: npu.HostArray, b: npu.HostArray, y: npu.HostArray) -> None:
        for row in range(len(a)):
            y[row] = self.k(a[row], b[row])


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a - b


def test_inputs_go_by_their_names_in_any_order():
    nine, two = np.full((2, 8), 9, np.uint8), np.full((2, 8), 2, np.uint8)
    compiled = _Difference().compile({"b": two, "a": nine}, {"y": ("u8", nine.shape)})
    assert np.all(compiled.run({"a": nine, "b": two}).outputs["y"] == 7)
    assert np.all(compiled.reference({"a": nine, "b": two})["y"] == 7)
    for inputs in ({"a": nine}, {"a": nine, "c": two}):
        with pytest.raises(Error, match="callgraph of _Difference takes a, b, y; inputs and outputs are a") as caught:
            _Difference().compile(inputs, {"y": ("u8", nine.shape)})
        assert caught.value.code == "NEUC-E685"


def test_one_firing_gives_several_tokens_of_an_output_and_depths_are_the_users():
    def halves(row: np.ndarray) -> list[np.ndarray]:
        return [row[:8], row[8:]]

    class Halves(npu.App):
        def __init__(self) -> None:
            self.k = npu.Kernel(halves, produce=[[2]], depths=[4])

        def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
            for row in range(len(x)):
                half = self.k(npu.pass_through(x[row], depth=3))
                y[2 * row] = half
                y[2 * row + 1] = half

    x = np.arange(64, dtype=np.uint8).reshape(4, 16)
    compiled = Halves().compile({"x": x}, {"y": ("u8", (8, 8))})
    assert (compiled.design.channel("k_0").depth, compiled.design.links[0].depth) == (4, 3)
    np.testing.assert_array_equal(compiled.run({"x": x}).outputs["y"], x.reshape(8, 8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cycles": [1, 2, 3], "consume": [[1, 1]]}, "consume=.* makes no sense with 3 phases"),
        ({"produce": [[-1]]}, "produce=.* makes no sense with 1 phases"),
        ({"state_bytes": -5}, "state_bytes=-5"),
        ({"depths": [0]}, r"depths=\(0,\)"),
    ],
)
def test_rates_memory_and_depths_make_sense(given: dict[str, Any], message: str):
    with pytest.raises(Error, match=message) as caught:
        npu.Kernel("copy", **given)
    assert caught.value.code == "NEUC-E680"


def test_what_a_behaviour_gives_is_checked():
    class Floats(_Wrong):
        def __init__(self) -> None:
            super().__init__(_floats)
            self.a = npu.Kernel(lambda x: x * 0.5, name="half")

    def _floats(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
        y[0] = app.a(x[0])

    with pytest.raises(Error, match="kernel half: output 0 is an array of float64, which no core makes"):
        Floats().trace({"x": ("u8", (4, 16))}, {"y": ("u8", (4, 16))})


class _Wrong(npu.App):
    def __init__(self, body: Callable[..., None]) -> None:
        self.a = npu.Kernel("copy")
        self.b = npu.Kernel("copy")
        self.body = body

    def callgraph(self, x: npu.HostArray, y: npu.HostArray) -> None:
        self.body(self, x, y)


def _two_sources(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = app.a(x[0])
    y[1] = app.a(app.b(x[1]))


def _unused(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    app.b(x[0])
    y[0] = app.a(x[0])


def _no_row(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = app.a(x[99])


def _reads_output(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = app.a(y[0])


def _nothing(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    app.a(x[0])


def _unwritten(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[1] = app.a(x[0])


def _twice(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    for row in (0, 1, 2, 3, 2):
        y[row] = app.a(x[row])


def _steered(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    if x[0] > 3:
        y[0] = app.a(x[0])


def _sliced(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = app.a(x[0:2])  # type: ignore[index]


def _odd_split(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    npu.split(x[0], 3)


def _no_token(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = 5  # type: ignore[assignment]


def _same_name(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = npu.Kernel("copy", name="a")(app.a(x[0]))


def _same_tile(app: _Wrong, x: npu.HostArray, y: npu.HostArray) -> None:
    y[0] = npu.join(*npu.split(x[0], 2, name="tile"), name="tile")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (_no_token, "row 0 of y is given a int"),
        (_same_name, "two kernels are called a"),
        (_same_tile, "two memory tiles are called tile"),
        (_two_sources, "called on tokens of other sources"),
        (_unused, "output 0 of b is never used"),
        (_no_row, "x has no row 99"),
        (_reads_output, "y is an output"),
        (_nothing, "no output is assigned"),
        (_odd_split, "has no 3 equal parts"),
        (_unwritten, "rows 0, 2, 3 of y are never assigned"),
        (_twice, "row 2 of y is assigned twice"),
        (_steered, "a token of x has no value in a call graph: data cannot steer it"),
        (_sliced, "rows have whole numbers"),
    ],
)
def test_what_is_no_graph_is_refused(body: Callable[..., None], message: str):
    with pytest.raises(Error, match=message) as caught:
        _Wrong(body).trace({"x": ("u8", (4, 16))}, {"y": ("u8", (4, 16))})
    assert caught.value.code == "NEUC-E685"


def test_unknown_functions_are_named():
    with pytest.raises(Error, match="no kernel function 'blur'"):
        npu.Kernel("blur")


@pytest.mark.parametrize(
    ("params", "rtp", "message"),
    [
        ({"thr": 1}, (), "kernel threshold has no parameter 'thr'"),
        ({"max": 1}, (), "kernel threshold lacks parameter 'threshold'"),
        ({"threshold": 0.5}, (), "threshold=0.5 makes no sense"),
        ({"threshold": 1, "kind": 5}, (), "kind=5 makes no sense"),
        ({"threshold": 1}, ("max",), "rtp='max' has no value"),
    ],
)
def test_parameters_of_library_functions_are_checked(params: dict[str, int], rtp: tuple[str, ...], message: str):
    with pytest.raises(Error, match=message) as caught:
        npu.Kernel("threshold", params=params, rtp=rtp)
    assert caught.value.code == "NEUC-E680"


@pytest.mark.parametrize(("given", "message"), [([[1, 2]], "is a list"), (np.zeros((4, 16)), "array of float64")])
def test_inputs_are_arrays_of_types_that_cores_take(given: np.ndarray, message: str):
    with pytest.raises(Error, match=f"input 'x' .*{message}") as caught:
        _Wrong(_nothing).compile({"x": given}, {"y": ("u8", (4, 16))})
    assert caught.value.code == "NEUC-E311"


def test_an_application_compiled_for_speed_is_faster_and_gives_the_same_pixels():
    app, image = RIALLTO.applications(LINES, WIDTH)["edge-detect"]
    plain, fast = (app.compile({"x": image}, {"y": ("u8", image.shape)}, COLUMN, fastest=f) for f in (False, True))
    first, second = plain.run({"x": image}), fast.run({"x": image})
    np.testing.assert_array_equal(first.outputs["y"], second.outputs["y"])
    assert second.cycles < 0.6 * first.cycles, "the picture no longer waits for its edges"


@pytest.mark.parametrize("cycles", [-1, float("nan"), 1.5, (), (3, -1)])
def test_cycles_are_whole_numbers(cycles: int):
    with pytest.raises(Error, match="kernel invert: cycles=") as caught:
        npu.Kernel("invert", cycles=cycles)
    assert caught.value.code == "NEUC-E680"
