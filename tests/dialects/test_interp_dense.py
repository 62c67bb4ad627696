"""The numpy meaning of `dense`, against plain loops and textbook formulas written here a second time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.parser import Parser

from neuc.compiler.universe import new_context
from neuc.dialects.interp.core import interpret
from neuc.dialects.interp.scalar import erf
from neuc.errors import Error, InternalError

# f32 arithmetic against f64 loops: at most about 100 roundings of 6e-8 each, on results of size 1 to 10.
TOLERANCE = 1e-5


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def run(body: str, types: str, *inputs: np.ndarray) -> list[np.ndarray]:
    """Interpret a function `types` whose arguments are %a0, %a1 …; `body` ends in func.return."""
    args, _, results = types.partition(" -> ")
    names = ", ".join(f"%a{i}: {t}" for i, t in enumerate(args.split("; ")))
    context = new_context()
    module = Parser(context, f"func.func @main({names}) -> {results} {{\n{body}\n}}").parse_module()
    module.verify()
    return interpret(module, inputs, context.weights)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def tensor(*shape: int, element: str = "f32") -> str:
    return f"tensor<{'x'.join(map(str, (*shape, element)))}>"


def test_erf_is_right_to_f32() -> None:
    x = np.concatenate([np.linspace(-6, 6, 4001), [0.0, -0.0, 1e-20, np.inf, -np.inf]]).astype(np.float32)
    exact = np.array([math.erf(v) for v in x.astype(np.float64)])
    np.testing.assert_array_max_ulp(erf(x), exact.astype(np.float32), maxulp=1)
    assert np.isnan(erf(np.array([np.nan], np.float32)))[0]


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    ("strides", "pads", "dilations"), [((1, 1), (0, 0, 0, 0), (1, 1)), ((2, 3), (1, 0, 2, 1), (2, 1))]
)
def test_conv_is_the_sum_over_taps(
    group: int, strides: tuple[int, int], pads: tuple[int, ...], dilations: tuple[int, int]
) -> None:
    x, w, bias = random(2, 4, 7, 8), random(6, 4 // group, 3, 2), random(6)
    out = [
        (x.shape[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (w.shape[2 + i] - 1) - 1) // strides[i] + 1
        for i in range(2)
    ]
    expected = np.zeros((2, 6, *out))
    for n, m, p, q, c, k, r in itertools.product(*map(range, (2, 6, *out, 4 // group, 3, 2))):
        i, j = p * strides[0] + k * dilations[0] - pads[0], q * strides[1] + r * dilations[1] - pads[1]
        if 0 <= i < 7 and 0 <= j < 8:
            expected[n, m, p, q] += float(x[n, m // (6 // group) * (4 // group) + c, i, j]) * float(w[m, c, k, r])
    expected = np.maximum(expected + bias[:, None, None], 0)
    result = tensor(2, 6, *out)
    types = f"{tensor(*x.shape)}, {tensor(*w.shape)}, {tensor(6)}"
    (y,) = run(
        f"""%y = dense.conv(%a0, %a1, %a2) {{strides = {list(strides)}, pads = {list(pads)},
            dilations = {list(dilations)}, group = {group}, activation = #dense.activation<relu>}}
            : ({types}) -> {result}
        func.return %y : {result}""",
        f"{types.replace(', ', '; ')} -> {result}",
        x,
        w,
        bias,
    )
    close(y, expected)


@pytest.mark.parametrize("include", [False, True])
def test_pool_averages_what_is_there(include: bool) -> None:
    x = random(1, 2, 7)
    # ceil_mode: 7 + 1 before, stride 3, kernel 3: windows begin at -1, 2, 5; the last one hangs over by one.
    expected = np.zeros((1, 2, 3))
    for i, begin in enumerate((-1, 2, 5)):
        inside = x[0, :, max(begin, 0) : min(begin + 3, 7)].astype(np.float64)
        expected[0, :, i] = inside.sum(-1) / (3 if include and begin < 0 else inside.shape[-1])
    word = ", count_include_pad" if include else ""
    (y,) = run(
        f"""%y = dense.pool(%a0) {{kind = avg, kernel = [3], strides = [3], pads = [1, 0], dilations = [1]{word}}}
            : (tensor<1x2x7xf32>) -> tensor<1x2x3xf32>
        func.return %y : tensor<1x2x3xf32>""",
        "tensor<1x2x7xf32> -> tensor<1x2x3xf32>",
        x,
    )
    close(y, expected)


def test_max_pool_never_picks_padding() -> None:
    (y,) = run(
        """%y = dense.pool(%a0) {kind = max, kernel = [3], strides = [2], pads = [1, 1], dilations = [1]}
            : (tensor<1x1x4xf32>) -> tensor<1x1x2xf32>
        func.return %y : tensor<1x1x2xf32>""",
        "tensor<1x1x4xf32> -> tensor<1x1x2xf32>",
        np.array([[[-5, -3, -4, -9]]], np.float32),
    )
    np.testing.assert_array_equal(y, [[[-3, -3]]])


def test_matmul_transposes_scales_adds_and_activates() -> None:
    a, b, bias = random(3, 1, 5, 4), random(2, 6, 5), random(6)
    (y,) = run(
        f"""%y = dense.matmul(%a0, %a1, %a2)
            {{transpose_a, transpose_b, alpha = 0.5, activation = #dense.activation<tanh>}}
            : ({tensor(3, 1, 5, 4)}, {tensor(2, 6, 5)}, {tensor(6)}) -> {tensor(3, 2, 4, 6)}
        func.return %y : {tensor(3, 2, 4, 6)}""",
        f"{tensor(3, 1, 5, 4)}; {tensor(2, 6, 5)}; {tensor(6)} -> {tensor(3, 2, 4, 6)}",
        a,
        b,
        bias,
    )
    expected = np.tanh(0.5 * np.einsum("xokm,ynk->xymn", a, b) + bias)
    close(y, expected)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("relu", lambda v: max(v, 0.0)),
        ("clip, -1.0, 0.5", lambda v: min(max(v, -1.0), 0.5)),
        ("leaky_relu, 0.25", lambda v: v if v >= 0 else 0.25 * v),
        ("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
        ("tanh", math.tanh),
        ("gelu", lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2))),
        ("gelu_tanh", lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))),
        ("silu", lambda v: v / (1 + math.exp(-v))),
        ("hardsigmoid, 0.2, 0.4", lambda v: min(max(0.2 * v + 0.4, 0.0), 1.0)),
        ("hardswish", lambda v: v * min(max(v / 6 + 0.5, 0.0), 1.0)),
    ],
)
def test_activation(text: str, function: Callable[[float], float]) -> None:
    a = np.linspace(-8, 8, 65, dtype=np.float32).reshape(65, 1)
    (y,) = run(
        f"""%y = dense.matmul(%a0, %a1) {{activation = #dense.activation<{text}>}}
            : (tensor<65x1xf32>, tensor<1x1xf32>) -> tensor<65x1xf32>
        func.return %y : tensor<65x1xf32>""",
        "tensor<65x1xf32>; tensor<1x1xf32> -> tensor<65x1xf32>",
        a,
        np.ones((1, 1), np.float32),
    )
    # Five roundings, and 1 + erf cancels for large negative v: absolute error of a few f32 units of 8.
    np.testing.assert_allclose(y[:, 0], np.array([function(float(v)) for v in a[:, 0]]), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("log", [False, True])
def test_softmax(log: bool) -> None:
    x = random(3, 4, 5) * 50
    word = ", log" if log else ""
    (y,) = run(
        f"""%y = dense.softmax(%a0) {{axis = 1{word}}} : ({tensor(3, 4, 5)}) -> {tensor(3, 4, 5)}
        func.return %y : {tensor(3, 4, 5)}""",
        f"{tensor(3, 4, 5)} -> {tensor(3, 4, 5)}",
        x,
    )
    exact = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    close(y, np.log(exact) if log else exact)


@pytest.mark.parametrize("rms", [False, True])
def test_layer_norm_over_the_last_two_axes(rms: bool) -> None:
    x, scale, bias = random(3, 4, 5), random(4, 5), random(5)
    word = ", rms" if rms else ""
    types = f"{tensor(3, 4, 5)}, {tensor(4, 5)}, {tensor(5)}"
    (y,) = run(
        f"""%y = dense.layer_norm(%a0, %a1, %a2) {{axis = 1, eps = 0.01{word}}} : ({types}) -> {tensor(3, 4, 5)}
        func.return %y : {tensor(3, 4, 5)}""",
        f"{types.replace(', ', '; ')} -> {tensor(3, 4, 5)}",
        x,
        scale,
        bias,
    )
    expected = np.empty((3, 4, 5))
    for i, rows in enumerate(x.astype(np.float64)):
        centred = rows if rms else rows - rows.mean()
        expected[i] = centred / math.sqrt((centred**2).mean() + 0.01) * scale + bias
    close(y, expected)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_slice_takes_what_numpy_takes(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    starts, sizes, steps = [], [], []
    for dim in shape:
        picked = range(dim)[:: data.draw(st.sampled_from([1, 2, -1, -2]))]
        starts.append(picked.start)
        steps.append(picked.step)
        sizes.append(len(picked))
    x = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    (y,) = run(
        f"""%y = dense.slice(%a0) {{starts = [{", ".join(f'"{s}"' for s in starts)}], steps = {steps}}}
            : ({tensor(*shape, element="i64")}) -> {tensor(*sizes, element="i64")}
        func.return %y : {tensor(*sizes, element="i64")}""",
        f"{tensor(*shape, element='i64')} -> {tensor(*sizes, element='i64')}",
        x,
    )
    np.testing.assert_array_equal(y, x[tuple(slice(None, None, s) for s in steps)])


MOVEMENT = """
  %d = dense.dims() {exprs = ["B + 1", "B*3"]} : () -> tensor<2xi64>
  %t = dense.transpose(%a0) {perm = [1, 0]} : (Bx3) -> 3xB
  %r = dense.reshape(%t) : (3xB) -> FLAT
  %p = dense.pad(%r) {pads = [1, 2], value = 7.0} : (FLAT) -> PADDED
  %g = dense.gather(%p, %a1) {axis = 0} : (PADDED, tensor<2x1xi64>) -> tensor<2x1xi8>
  %b = dense.broadcast(%g) : (tensor<2x1xi8>) -> 2xB
  %e = dense.pad(%a0) {pads = [0, 2, 0, 1], mode = reflect} : (Bx3) -> Bx6
  %c = dense.concat(%a0, %b) {axis = 1} : (Bx3, 2xB) -> JOINED
  func.return %d, %p, %c, %e : tensor<2xi64>, PADDED, JOINED, Bx6"""
ALIASES = {
    "Bx3": 'tensor<?x3xi8, #store.dims<"B", "3">>',
    "3xB": 'tensor<3x?xi8, #store.dims<"3", "B">>',
    "2xB": 'tensor<2x?xi8, #store.dims<"2", "B">>',
    "Bx6": 'tensor<?x6xi8, #store.dims<"B", "6">>',
    "FLAT": 'tensor<?xi8, #store.dims<"3*B">>',
    "PADDED": 'tensor<?xi8, #store.dims<"3*B + 3">>',
    "JOINED": 'tensor<?x?xi8, #store.dims<"B", "B + 3">>',
}


def spelled_out(text: str) -> str:
    for alias, type_ in ALIASES.items():
        text = text.replace(alias, type_)
    return text


def test_movement_keeps_every_element() -> None:
    results = run(
        spelled_out(MOVEMENT),
        spelled_out("Bx3; tensor<2x1xi64> -> (tensor<2xi64>, PADDED, JOINED, Bx6)"),
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.array([[1], [-3]]),
    )
    expected = [
        [3, 6],
        [7, 0, 3, 1, 4, 2, 5, 7, 7],
        [[0, 1, 2, 0, 0], [3, 4, 5, 5, 5]],
        [[2, 1, 0, 1, 2, 1], [5, 4, 3, 4, 5, 4]],
    ]
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_reductions_over_no_elements_are_identities() -> None:
    kinds = ("sum", "prod", "max", "min")
    body = "\n".join(
        f"%{k} = dense.reduce(%a0) {{kind = {k}, axes = [1]}} : (tensor<1x0xf32>) -> tensor<1xf32>" for k in kinds
    )
    returned = f"func.return {', '.join(f'%{k}' for k in kinds)} : {', '.join(['tensor<1xf32>'] * 4)}"
    results = run(
        f"{body}\n{returned}", f"tensor<1x0xf32> -> ({', '.join(['tensor<1xf32>'] * 4)})", np.zeros((1, 0), np.float32)
    )
    assert [float(r[0]) for r in results] == [0.0, 1.0, -np.inf, np.inf]


def test_arg_reduce_ties() -> None:
    x = np.array([[1, 3, 3, 0, 0]], np.float32)
    both = "tensor<1x1xi64>, tensor<1xi64>"
    first, last = run(
        f"""%f = dense.arg_reduce(%a0) {{kind = max, axis = 1, keepdims}} : (tensor<1x5xf32>) -> tensor<1x1xi64>
        %l = dense.arg_reduce(%a0) {{kind = min, axis = 1, select_last}} : (tensor<1x5xf32>) -> tensor<1xi64>
        func.return %f, %l : {both}""",
        f"tensor<1x5xf32> -> ({both})",
        x,
    )
    assert first.tolist() == [[1]]
    assert last.tolist() == [4]


def test_map_broadcasts_and_compares() -> None:
    (y,) = run(
        """%y = dense.map(%a0, %a1) : (tensor<2x1xf32>, tensor<3xf32>) -> tensor<2x3xf32> {
        ^bb0(%p: f32, %q: f32):
          %less = arith.cmpf olt, %p, %q : f32
          %half = arith.constant 0.5 : f32
          %h = arith.mulf %q, %half : f32
          %s = arith.select %less, %p, %h : f32
          dense.yield %s : f32
        }
        func.return %y : tensor<2x3xf32>""",
        "tensor<2x1xf32>; tensor<3xf32> -> tensor<2x3xf32>",
        np.array([[1], [5]], np.float32),
        np.array([2, 4, 8], np.float32),
    )
    assert y.tolist() == [[1, 1, 1], [1, 2, 5]]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm_is_the_recurrence(direction: str) -> None:
    ways, steps, batch, width, hidden = 1 + (direction == "bidirectional"), 4, 2, 3, 5
    shapes = [(steps, batch, width), (ways, 20, width), (ways, 20, hidden), (ways, 40)] + [(ways, batch, hidden)] * 2
    arrays = [random(*s, seed=i) for i, s in enumerate(shapes)]
    types, state = ", ".join(tensor(*s) for s in shapes), tensor(ways, batch, hidden)
    results = f"({tensor(steps, ways, batch, hidden)}, {state}, {state})"
    y, h, c = run(
        f"""%y, %h, %c = dense.lstm({", ".join(f"%a{i}" for i in range(6))}) {{hidden = 5, direction = {direction}}}
            : ({types}) -> {results}
        func.return %y, %h, %c : {results[1:-1]}""",
        f"{types.replace(', ', '; ')} -> {results}",
        *arrays,
    )
    x, w, r, b, h0, c0 = (a.astype(np.float64) for a in arrays)
    for way, n in itertools.product(range(ways), range(batch)):
        hidden_state, cell = h0[way, n], c0[way, n]
        order = range(steps)[::-1] if direction == "reverse" or way else range(steps)
        for t in order:
            gate = w[way] @ x[t, n] + r[way] @ hidden_state + b[way, :20] + b[way, 20:]
            i, o, f = (1 / (1 + np.exp(-gate[k : k + 5])) for k in (0, 5, 10))
            cell = f * cell + i * np.tanh(gate[15:])
            hidden_state = o * np.tanh(cell)
            close(y[t, way, n], hidden_state)
        close(h[way, n], hidden_state)
        close(c[way, n], cell)


CALLS = """
func.func @main(%x: tensor<?xf32, #store.dims<"N">>) -> tensor<?xf32, #store.dims<"N">> {
  %y = func.call @seg0(%x) : (tensor<?xf32, #store.dims<"N">>) -> tensor<?xf32, #store.dims<"N">>
  func.return %y : tensor<?xf32, #store.dims<"N">>
}
func.func @seg0(%x: tensor<?xf32, #store.dims<"N">>) -> tensor<?xf32, #store.dims<"N">> {
  %y = "test.double"(%x) : (tensor<?xf32, #store.dims<"N">>) -> tensor<?xf32, #store.dims<"N">>
  func.return %y : tensor<?xf32, #store.dims<"N">>
}
"""


def test_calls_fallback_and_observe() -> None:
    context = new_context(allow_unregistered=True)
    module, seen = Parser(context, CALLS).parse_module(), list[str]()
    x = np.ones(3, np.float32)

    def observe(op: object, results: list[np.ndarray]) -> None:
        seen.append(getattr(op, "name", ""))

    (y,) = interpret(
        module, [x], context.weights, fallback=lambda op, args, env: [args[0] * env.symbols["N"]], observe=observe
    )
    assert y.tolist() == [3, 3, 3]
    assert len(seen) == 2
    with pytest.raises(InternalError, match="no interpreter"):
        interpret(module, [x], context.weights)
    with pytest.raises(InternalError, match=r"its type says \[N\]"):
        interpret(module, [x], context.weights, fallback=lambda op, args, env: [args[0][:1]])


def test_wrong_inputs_are_named() -> None:
    context = new_context(allow_unregistered=True)
    module = Parser(context, CALLS).parse_module()
    with pytest.raises(Error, match=r"NEUC-E210.*shape \[2, 2\]"):
        interpret(module, [np.ones((2, 2), np.float32)], context.weights)
    with pytest.raises(Error, match="takes 1 inputs, got 0"):
        interpret(module, [], context.weights)
    with pytest.raises(Error, match="no function 'other'"):
        interpret(module, [], context.weights, entry="other")
