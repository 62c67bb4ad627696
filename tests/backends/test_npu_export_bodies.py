"""Bodies of exported cores, run: the simulator's bits, for every function that has one."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from aie_bodies import Core
from example_files import load_example
from neuc.backends.npu.curves import fit_curve
from neuc.backends.npu.emit_rows import row_program
from neuc.backends.npu.export.aie_pixels import PIXELS
from neuc.backends.npu.export.generic_aie import to_generic
from neuc.backends.npu.known_machines import find_machine
from neuc.dialects.interp.npu_functions import MEANINGS
from neuc.errors import Error
from neuc.runtime.npu.functions import FUNCTIONS
from neuc.runtime.npu.program import DTYPES, Design, ParamValue
from neuc.runtime.npu.rows import RowPlan, with_tokens
from npu_designs import one_kernel

MACHINE = find_machine("npu-xdna1-1col")
ROW = (37,)
PIXEL = (*ROW, 4)


CASES: list[tuple[str, list[tuple[int, ...]], tuple[int, ...], str, dict[str, ParamValue]]] = [
    *(("copy", [(3, 5)], (3, 5), dtype, {}) for dtype in ("u8", "i16", "i32", "f32", "bf16")),
    *(("invert", [ROW], ROW, dtype, {}) for dtype in ("u8", "i32")),
    *(("add", [ROW] * 2, ROW, dtype, {}) for dtype in ("u8", "i8", "i32", "f32")),
    *((name, [ROW] * 2, ROW, "u8", {}) for name in ("and", "or")),
    *(("threshold", [ROW], ROW, "u8", {"threshold": 100, "max": 200, "kind": kind}) for kind in range(5)),
    ("threshold", [ROW], ROW, "u8", {"threshold": 7}),
    ("in_range", [ROW], ROW, "u8", {"low": 20, "high": 190}),
    ("in_range", [ROW], ROW, "u8", {"low": -3, "high": 400}),
    ("rgba2gray", [(1500, 4)], (1500,), "u8", {}),
    ("gray2rgba", [ROW], PIXEL, "u8", {}),
    ("rgba2hue", [(900, 4)], (900,), "u8", {}),
    ("add_weighted", [ROW] * 2, ROW, "u8", {"alpha": 9000, "beta": -4000, "gamma": 30}),
    ("add_weighted", [PIXEL, ROW], PIXEL, "u8", {"alpha": 1 << 12, "beta": 1 << 14}),
    ("mask", [PIXEL, ROW, ROW], PIXEL, "u8", {}),
    ("mask", [PIXEL, ROW], PIXEL, "u8", {}),
]


def _tokens(design: Design, seed: int) -> dict[str, list[np.ndarray]]:
    """As many random tokens of each input as a period takes; some bytes are 0, some pixels grey."""
    random = np.random.default_rng(seed)
    kernel, found = design.kernels[0], {}
    for name, rates in zip(kernel.inputs, kernel.consume):
        channel = design.channel(name)
        dtype, size = DTYPES[channel.dtype], (sum(rates), *channel.shape)
        if channel.dtype == "f32":
            values = random.standard_normal(size).astype(np.float32)
        else:
            values = np.frombuffer(random.bytes(prod(size) * dtype.itemsize), dtype).reshape(size).copy()
            values[random.random(size) < 0.3] = 0
        found[name] = list(values)
    return found


def _unsigned(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind == "f" else x.view(f"u{x.itemsize}")


@pytest.mark.parametrize(("function", "inputs", "output", "dtype", "params"), CASES)
def test_bodies_give_the_functions_bits(
    function: str,
    inputs: list[tuple[int, ...]],
    output: tuple[int, ...],
    dtype: str,
    params: dict[str, ParamValue],
):
    design = one_kernel(function, inputs, output, dtype, params)
    core = Core(to_generic(design, MACHINE), "k")
    for seed in range(2):
        tokens = _tokens(design, seed)
        given = core.fire({name: [_unsigned(t) for t in queue] for name, queue in tokens.items()})
        wanted = FUNCTIONS[function](params, 0, list(tokens.values()), {})[0][0]
        meant = MEANINGS[function](dict(params), 0, list(tokens.values()), {})[0][0]
        np.testing.assert_array_equal(given["y"][0], _unsigned(np.asarray(wanted)))
        np.testing.assert_array_equal(meant, wanted)


def test_every_function_with_a_body_is_run_here():
    assert {case[0] for case in CASES} == set(PIXELS)


@pytest.mark.parametrize("lines", [2, 3, 7])
def test_a_filter_keeps_its_lines_over_frames(lines: int):
    weights = [1, -2, 3, 0, 5, -6, 7, -8, 2]
    consume = (2, *[1] * (lines - 2), 0)
    design = one_kernel("filter2d", [ROW], ROW, "u8", {"weights": weights}, consume)
    core = Core(to_generic(design, MACHINE), "k")
    state: dict[str, np.ndarray] = {}
    for frame in range(2):
        queue = _tokens(design, frame)["a"]
        given = core.fire({"a": queue})["y"]
        rest = list(queue)
        for phase, rate in enumerate(consume):
            taken, rest = rest[:rate], rest[rate:]
            wanted = FUNCTIONS["filter2d"]({"weights": weights}, phase, [taken], state)[0][0]
            np.testing.assert_array_equal(given[phase], wanted)
    with pytest.raises(Error, match="2, 1, …, 0 lines") as caught:
        to_generic(one_kernel("filter2d", [ROW], ROW, "u8", {"weights": weights}, (1, 1)), MACHINE)
    assert caught.value.code == "NEUC-E683"


@pytest.mark.parametrize("kind", range(5))
def test_run_time_parameters_are_read_at_every_firing(kind: int):
    first: dict[str, ParamValue] = {"threshold": 100, "max": 255, "kind": 0}
    design = one_kernel("threshold", [ROW], ROW, "u8", first, rtp=("kind", "threshold"))
    core = Core(to_generic(design, MACHINE), "k")
    queue = _tokens(design, 0)["a"]
    for limit in (10, 180):
        core.buffers["rtp_k"][:2] = kind, limit
        given = core.fire({"a": queue})["y"][0]
        wanted = FUNCTIONS["threshold"]({"threshold": limit, "max": 255, "kind": kind}, 0, [queue], {})[0][0]
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize(("function", "k", "width"), [("gemm", 6, 10), ("ternary_gemm", 5, 3), ("bf16_gemm", 6, 10)])
def test_products_add_their_steps(function: str, k: int, width: int):
    """Tiles that mlir-aie's own kernel would not take: m 4, n 10."""
    steps, dtype = 3, "bf16" if function == "bf16_gemm" else "i8"
    n = width * 4 if function == "ternary_gemm" else width
    random = np.random.default_rng(0)
    if dtype == "bf16":
        a, b = (
            (random.standard_normal((steps, *s)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            for s in ((4, k), (k, n))
        )
    else:
        a = random.integers(-128, 128, (steps, 4, k), np.int8)
        b = random.integers(-128, 128, (steps, k, n), np.int8)
    if function == "ternary_gemm":
        b = random.choice(
            np.array([[i | j << 2 | i << 4 | j << 6 for i in range(3)] for j in range(3)], np.uint8).ravel(),
            (steps, k, width),
        )
    types = ("i8", "u8", "i32") if function == "ternary_gemm" else (dtype, dtype, "f32" if dtype == "bf16" else "i32")
    shapes = ((4, k), b.shape[1:], (4, n))
    design = one_kernel(function, [shapes[0], shapes[1]], shapes[2])
    kernel = replace(
        design.kernels[0],
        consume=((1,) * steps,) * 2,
        produce=((*(0,) * (steps - 1), 1),),
        cycles=(9,) * steps,
        params={"steps": steps},
    )
    channels = tuple(replace(c, dtype=t) for c, t in zip(design.channels, types))
    core = Core(to_generic(replace(design, kernels=(kernel,), channels=channels), MACHINE), "k")
    given = core.fire({"a": [_unsigned(t) for t in a], "b": [_unsigned(t) for t in b]})["y"]
    state: dict[str, np.ndarray] = {}
    wanted = [FUNCTIONS[function]({"steps": steps}, i, [[a[i]], [b[i]]], state) for i in range(steps)][-1][0][0]
    np.testing.assert_array_equal(given[0], _unsigned(np.asarray(wanted)))


def test_riallto_applications_run_as_exported():
    """Every row of every core of the two pipelines whose cores once were Python functions."""
    riallto = load_example("npu/riallto.py")
    applications = riallto.applications(6, 32)
    for name in ("edge-detect", "colour-detect"):
        app, image = applications[name]
        compiled = app.compile({"x": image}, {"y": ("u8", image.shape)}, MACHINE.name)
        text, design = compiled.export("generic"), compiled.design
        queues = {"x_0": list(image)}
        waiting = list(design.kernels)
        while waiting:
            kernel = next(k for k in waiting if all(c in queues for c in k.inputs))
            waiting.remove(kernel)
            core, taken = Core(text, kernel.name), {c: list(queues[c]) for c in kernel.inputs}
            while any(taken.values()):
                counts = {c: sum(rates) for c, rates in zip(kernel.inputs, kernel.consume)}
                given = core.fire({c: taken[c][:count] for c, count in counts.items()})
                taken = {c: taken[c][count:] for c, count in counts.items()}
                for channel, tokens in given.items():
                    queues.setdefault(channel, []).extend(tokens)
        result = np.stack(queues[next(p.channel for p in design.ports if p.direction == "out")])
        np.testing.assert_array_equal(result, compiled.run({"x": image}).outputs["y"])


def _parameters(n: int, corrections: int, more: bool, random: np.random.Generator) -> np.ndarray:
    """A stage's words: a table, multipliers, addends, limits and corrections of n columns."""
    words = [np.array([corrections, 1 + 2 * more], np.int32)]
    words.append(np.frombuffer(random.integers(-128, 128, 256, np.int8).tobytes(), np.int32))
    words.append(random.integers(1 << 20, 1 << 24, n, np.int32))
    words.append(np.frombuffer(random.integers(-(1 << 33), 1 << 33, n).tobytes(), np.int32).reshape(n, 2).T.ravel())
    limits = np.stack([np.full(n, 30), random.integers(-9, 9, n), np.full(n, -100), np.full(n, 90)], 1)
    words.append(np.frombuffer(limits.astype(np.int8).tobytes(), np.int32))
    for _ in range(corrections):
        words += [random.integers(-3000, 3000, n, np.int32), random.integers(-4000, 4000, n, np.int32)]
    return np.concatenate(words)


@pytest.mark.parametrize(("stages", "corrections"), [(1, 0), (1, 2), (2, 1)])
def test_codes_are_made_as_the_functions_make_them(stages: int, corrections: int):
    random, (m, k, n), steps = np.random.default_rng(1), (4, 16, 8), 2
    words = np.concatenate([_parameters(n, corrections, i + 1 < stages, random) for i in range(stages)])
    tokens = -(-words.nbytes // (k * n))
    block = np.zeros(tokens * k * n, np.int8)
    block[: words.nbytes] = np.frombuffer(words.tobytes(), np.int8)
    a = random.integers(-128, 128, (steps, m, k), np.int8)
    b = np.concatenate([random.integers(-128, 128, (steps, k, n), np.int8), block.reshape(tokens, k, n)])
    params: dict[str, ParamValue] = {"steps": steps, "parameters": tokens, "stages": stages}
    design = one_kernel("finished_gemm", [(m, k), (k, n)], (m, n), "i8", params)
    phases = steps + tokens
    kernel = replace(
        design.kernels[0],
        consume=((*(1,) * steps, *(0,) * tokens), (1,) * phases),
        produce=((*(0,) * (phases - 1), 1),),
        cycles=(9,) * phases,
    )
    core = Core(to_generic(replace(design, kernels=(kernel,)), MACHINE), "k")
    given = core.fire({"a": [t.view(np.uint8) for t in a], "b": [t.view(np.uint8) for t in b]})["y"][0]
    state: dict[str, np.ndarray] = {}
    taken = [[[a[phase]] if phase < steps else [], [b[phase]]] for phase in range(phases)]
    wanted = [FUNCTIONS["finished_gemm"](params, phase, taken[phase], state) for phase in range(phases)][-1][0][0]
    np.testing.assert_array_equal(given, wanted.view(np.uint8))
    assert len(np.unique(given)) > 4


def _lines() -> list[Design]:
    curve = fit_curve(np.tanh)
    assert curve is not None
    size = (len(curve.words),)
    plans = [
        RowPlan("chain", 2, 1, 64, 50, "curve 0 0; mul 2 1; constant 0.5; max 3 4", size),
        RowPlan("softmax", 1, 2, 64, 50, curves=size),
        RowPlan("layer_norm", 1, 2, 64, 50, eps=1e-5),
    ]
    machine = find_machine("npu-xdna1")
    return [with_tokens(row_program("npu-xdna1", p), p, machine, 1, [curve.words] * len(p.curves)) for p in plans]


@pytest.mark.parametrize("design", _lines(), ids=["chain", "softmax", "layer_norm"])
def test_bodies_on_lines_round_as_the_functions_do(design: Design):
    kernel = design.kernels[0]
    channel = design.channel(kernel.inputs[0])
    numbers = np.random.default_rng(3).standard_normal(channel.shape).astype(np.float32)
    token = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    given = Core(to_generic(design, find_machine("npu-xdna1")), kernel.name).fire({channel.name: [token]})
    wanted = FUNCTIONS[kernel.function](kernel.params, 0, [[token]], {})[0][0]
    np.testing.assert_array_equal(given[kernel.outputs[0]][0], wanted)
