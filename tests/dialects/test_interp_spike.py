"""The numpy meaning of `spike`, against loops over single neurons written here a second time."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.parser import Parser

from neuc.compiler.universe import DIALECTS, new_context
from neuc.dialects import spike
from neuc.dialects.interp.core import implementation_of, interpret
from neuc.dialects.interp.philox import philox, uniforms
from neuc.errors import Error

STEPS = 12
N = 5


def text_type(*shape: int | str, element: str = "f32") -> str:
    return f"tensor<{'x'.join(map(str, (*shape, element)))}>"


def run(text: str, *inputs: np.ndarray) -> list[np.ndarray]:
    context = new_context()
    module = Parser(context, text).parse_module()
    module.verify()
    return interpret(module, inputs, context.weights)


def neuron_trace(
    call: str, states: int, inputs: np.ndarray, parameters: list[np.ndarray], event: str = "binary"
) -> list[np.ndarray]:
    """Events and states (stacked over time) of one neuron operation fed with inputs [T, N]."""
    element = "i32" if inputs.dtype == np.int32 else "f32"
    row, events = text_type(N, element=element), text_type(N, element=f"!spike.event<{event}>")
    whole, several = text_type(len(inputs), N, element=element), ", ".join([row] * states)
    arguments = "".join(f", %p{i}: {text_type(*p.shape, element=element)}" for i, p in enumerate(parameters))
    names = ", ".join(f"%v{i}" for i in range(states))
    after = ", ".join(f"%w{i}" for i in range(states))
    types = ", ".join(f"{text_type(*p.shape, element=element)}" for p in parameters)
    stacked = [text_type(len(inputs), N, element=f"!spike.event<{event}>"), *[whole] * states]
    outs = ", ".join(f"%o{i}" for i in range(states + 1))
    finals = ", ".join(f"%f{i}" for i in range(states))
    text = f"""
    func.func @main(%x: {whole}, %zero: {row}{arguments}) -> ({", ".join(stacked)}) {{
      {outs}, {finals} = spike.loop scan(%x) init({", ".join(["%zero"] * states)}) : ({whole}), ({several})
          steps {len(inputs)} -> ({", ".join(stacked)}) {{
      ^step(%t: tensor<i64>, %i: {row}, {", ".join(f"%v{k}: {row}" for k in range(states))}):
        %s, {after} = {call.format(states=names)} : ({row}, {several}, {types}) -> ({events}, {several})
        spike.yield outputs(%s, {after}) states({after}) : ({events}, {several}), ({several})
      }}
      func.return {outs} : {", ".join(stacked)}
    }}"""
    return run(text, inputs, np.zeros(N, inputs.dtype), *parameters)


def currents(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 1.2, (STEPS, N)).astype(np.float32)


F = np.float32


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("fire", ["ge", "gt"])
def test_lif_is_the_textbook_recurrence(reset: str, fire: str) -> None:
    x, decay, theta = currents(), np.linspace(0.5, 1, N).astype(F), np.array(0.75, F)
    call = f"spike.lif(%i, {{states}}, %p0, %p1) {{{{reset = {reset}, fire = {fire}}}}}"
    events, potentials = neuron_trace(call, 1, x, [decay, theta])
    for n in range(N):
        v = F(0)
        for t in range(STEPS):
            u = decay[n] * v + x[t, n]
            fired = u >= theta if fire == "ge" else u > theta
            v = (u - theta if reset == "soft" else F(0)) if fired else u
            assert events[t, n] == fired
            assert potentials[t, n] == v


def test_fire_decides_what_is_exactly_at_the_threshold() -> None:
    x, theta = np.ones((1, N), F), np.array(1, F)
    ge, _ = neuron_trace("spike.if(%i, {states}, %p0)", 1, x, [theta])
    gt, _ = neuron_trace("spike.if(%i, {states}, %p0) {{fire = gt}}", 1, x, [theta])
    assert ge.all()
    assert not gt.any()


def test_a_reset_value_replaces_the_threshold_or_zero() -> None:
    x, theta, value = np.full((1, N), 2, F), np.array(1, F), np.array(0.25, F)
    _, soft = neuron_trace("spike.if(%i, {states}, %p0, %p1)", 1, x, [theta, value])
    _, hard = neuron_trace("spike.if(%i, {states}, %p0, %p1) {{reset = hard}}", 1, x, [theta, value])
    assert soft.tolist() == [[1.75] * N]
    assert hard.tolist() == [[0.25] * N]


@pytest.mark.parametrize("reads", ["new", "old"])
def test_cuba_lif_has_a_synapse_with_memory(reads: str) -> None:
    x, a, b, gain, theta = currents(), F(0.7), F(0.9), F(0.5), F(1)
    call = f"spike.cuba_lif(%i, {{states}}, %p0, %p1, %p2, %p3) {{{{reads = {reads}}}}}"
    events, synapses, potentials = neuron_trace(call, 2, x, [np.array(p) for p in (a, b, gain, theta)])
    for n in range(N):
        c = v = F(0)
        for t in range(STEPS):
            before, c = c, a * c + x[t, n]
            u = b * v + gain * (c if reads == "new" else before)
            fired = u >= theta
            v = u - theta if fired else u
            assert (events[t, n], synapses[t, n], potentials[t, n]) == (fired, c, v)


def test_an_adaptive_neuron_raises_its_threshold() -> None:
    x, parameters = currents(), [F(0.9), F(0.8), F(0.3), F(0.5)]
    events, potentials, adaptations = neuron_trace(
        "spike.adaptive(%i, {states}, %p0, %p1, %p2, %p3)", 2, x, [np.array(p) for p in parameters]
    )
    decay, forget, gain, theta = parameters
    for n in range(N):
        v = a = F(0)
        for t in range(STEPS):
            moved, u = theta + gain * a, decay * v + x[t, n]
            fired = u >= moved
            v, a = (u - moved if fired else u), forget * a + F(fired)
            assert (events[t, n], potentials[t, n], adaptations[t, n]) == (fired, v, a)


def test_an_alpha_neuron_answers_one_input_with_a_hump() -> None:
    x = np.zeros((STEPS, N), F)
    x[0] = 1
    parameters = [np.array(p, F) for p in (0.8, 0.5, 1.0, 10.0)]
    events, e, h = neuron_trace("spike.alpha(%i, {states}, %p0, %p1, %p2, %p3)", 2, x, parameters)
    potential = (e - h)[:, 0]
    expected = [0.8**t - 0.5**t for t in range(STEPS)]
    np.testing.assert_allclose(potential, expected, rtol=1e-5, atol=1e-6)  # STEPS roundings of 6e-8
    assert not events.any()
    low = [*parameters[:3], np.array(0.25, F)]
    events, e, h = neuron_trace("spike.alpha(%i, {states}, %p0, %p1, %p2, %p3)", 2, x, low)
    assert events[1].all()
    np.testing.assert_allclose((e - h)[1], 0.3 - 0.25, atol=1e-6)


def test_integers_are_exact_and_decays_are_in_4096ths() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-1000, 2000, (STEPS, N)).astype(np.int32)
    decay, theta = np.array(3686, np.int32), np.array(1500, np.int32)
    events, potentials = neuron_trace("spike.lif(%i, {states}, %p0, %p1)", 1, x, [decay, theta])
    for n in range(N):
        v = 0
        for t in range(STEPS):
            u = int(v * 3686 / 4096) + int(x[t, n])  # int() cuts towards 0
            v = u - 1500 if u >= 1500 else u
            assert (int(events[t, n]), int(potentials[t, n])) == (u >= 1500, v)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_multi_threshold_sends_the_largest_level_that_fires(whole: bool, relu: bool) -> None:
    rng = np.random.default_rng(5)
    dtype, scale = (np.int32, 40) if whole else (F, 1)
    x = (rng.uniform(-6, 8, (STEPS, N)) * scale).astype(dtype)
    unit = np.array(scale, dtype)
    flag = "relu" if relu else "fire_at = 0.75"
    events, membranes, outputs = neuron_trace(
        f"spike.multi_threshold(%i, {{states}}, %p0) {{{{{flag}}}}}", 2, x, [unit], "graded, 3"
    )
    for n in range(N):
        m = c = dtype(0)
        for t in range(STEPS):
            m = m + x[t, n]
            up = [k for k in range(3) if 4 * m >= 3 * scale * 2**k]
            down = [k for k in range(3) if 4 * m <= -3 * scale * 2**k and (not relu or c >= scale * 2**k)]
            event = 2 ** max(up) if up else -(2 ** max(down)) if down else 0
            m, c = dtype(m - event * scale), dtype(c + event * scale)
            assert (events[t, n], membranes[t, n], outputs[t, n]) == (event, m, c)
    if relu:
        assert outputs.min() >= 0


def test_differential_coding_converges_and_falls_silent() -> None:
    """A constant input, sent as a change in step 0: the mean output becomes ReLU of it, then nothing is sent."""
    event, row = "!spike.event<graded, 6>", text_type(N)
    text = f"""
    func.func @main(%x: {row}, %zero: {row}, %unit: tensor<f32>) -> (tensor<40x{N}x{event}>, {row}) {{
      %none = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
      %one = store.constant value dense<1.0> : tensor<f32> : tensor<f32>
      %all, %m, %c, %i, %o = spike.loop scan() init(%zero, %zero, %x, %zero) : (), ({row}, {row}, {row}, {row})
          steps 40 -> (tensor<40x{N}x{event}>) {{
      ^step(%t: tensor<i64>, %m0: {row}, %c0: {row}, %i0: {row}, %o0: {row}):
        %s, %m1, %c1, %i1, %o1 = spike.differential(%zero, %m0, %c0, %i0, %o0, %t, %unit) {{relu}}
            : ({row}, {row}, {row}, {row}, {row}, tensor<i64>, tensor<f32>)
              -> (tensor<{N}x{event}>, {row}, {row}, {row}, {row})
        spike.yield outputs(%s) states(%m1, %c1, %i1, %o1) : (tensor<{N}x{event}>), ({row}, {row}, {row}, {row})
      }}
      func.return %all, %o : tensor<40x{N}x{event}>, {row}
    }}"""
    x, unit = np.array([-1.5, -0.1, 0.3, 1.0, 1.9], F), F(2 / 32)
    events, means = run(text, x, np.zeros(N, F), np.array(unit))
    # What is left in a membrane is below 3/4 of the smallest level, and the mean divides it by the steps it grew over.
    assert np.abs(means - np.maximum(x, 0)).max() < unit
    assert np.count_nonzero(events[20:]) < np.count_nonzero(events[:20])


def test_expectation_is_exact_for_any_function() -> None:
    row = text_type(N)
    loop = """
    func.func @main(%x: {whole}, %zero: {row}) -> ({whole}, {row}) {{
      %y, %total, %last = spike.loop scan(%x) init(%zero, %zero) : ({whole}), ({row}, {row})
          steps {steps} -> ({whole}) {{
      ^step(%t: tensor<i64>, %i: {row}, %a: {row}, %l: {row}):
        %r, %a1, %l1 = spike.expectation(%i, %a, %l, %t) {{form = {form}}}
            : ({row}, {row}, {row}, tensor<i64>) -> ({row}, {row}, {row}) {{
        ^f(%mean: {row}):
          %f = dense.softmax(%mean) {{axis = 0}} : ({row}) -> {row}
          spike.yield outputs(%f) states() : ({row}), ()
        }}
        spike.yield outputs(%r) states(%a1, %l1) : ({row}), ({row}, {row})
      }}
      func.return %y, %total : {whole}, {row}
    }}"""
    x = currents(9)
    fill = {"whole": text_type(STEPS, N), "row": row, "steps": STEPS}

    def softmax(v: np.ndarray) -> np.ndarray:
        return np.exp(v) / np.exp(v).sum()

    rate, _ = run(loop.format(form="rate", **fill), x, np.zeros(N, F))
    np.testing.assert_allclose(rate.mean(axis=0), softmax(x.mean(axis=0)), atol=1e-5)  # STEPS roundings of t·6e-8
    changes, mean = run(loop.format(form="differential", **fill), x, np.zeros(N, F))
    weights = (1 / np.arange(1, STEPS + 1))[:, None]
    np.testing.assert_allclose((changes * weights).sum(axis=0), softmax((x * weights).sum(axis=0)), atol=1e-5)
    np.testing.assert_allclose(mean, (x * weights).sum(axis=0), atol=1e-5)


EVENTS = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]], np.int8)


def test_linear_of_events_adds_rows() -> None:
    weight = np.arange(15, dtype=np.int8).reshape(3, N)
    types = f"tensor<2x{N}x!spike.event<binary>>, tensor<3x{N}xi8>, tensor<3xi32>"
    arguments = ", ".join(f"%a{i}: {t}" for i, t in enumerate(types.split(", ")))
    text = f"""
    func.func @main({arguments}) -> tensor<2x3xi32> {{
      %y = spike.linear(%a0, %a1, %a2) : ({types}) -> tensor<2x3xi32>
      func.return %y : tensor<2x3xi32>
    }}"""
    (y,) = run(text, EVENTS, weight, np.array([100, 0, -7], np.int32))
    assert y.tolist() == [[1 + 2 + 4 + 100, 6 + 7 + 9, 11 + 12 + 14 - 7], [100, 5, 10 - 7]]
    with pytest.raises(Error, match="not all of it are binary events"):
        run(text, EVENTS * 2, weight, np.zeros(3, np.int32))
    with pytest.raises(Error, match="float32"):
        run(text, EVENTS.astype(F), weight, np.zeros(3, np.int32))


@pytest.mark.parametrize("group", [1, 2])
def test_conv_is_the_sum_over_taps(group: int) -> None:
    rng = np.random.default_rng(group)
    x = rng.integers(-2, 3, (2, 4, 6, 5)).astype(np.int8)
    x[np.abs(x) > 1] = 0
    w, b = rng.integers(-9, 9, (6, 4 // group, 3, 2)).astype(np.int8), rng.integers(-9, 9, 6).astype(np.int32)
    props = f"{{strides = [2, 1], pads = [1, 0, 1, 1], dilations = [1, 2], group = {group}}}"
    types = f"tensor<2x4x6x5x!spike.event<signed>>, tensor<6x{4 // group}x3x2xi8>, tensor<6xi32>"
    arguments = ", ".join(f"%a{i}: {t}" for i, t in enumerate(types.split(", ")))
    (y,) = run(
        f"""func.func @main({arguments}) -> tensor<2x6x3x4xi32> {{
          %y = spike.conv(%a0, %a1, %a2) {props} : ({types}) -> tensor<2x6x3x4xi32>
          func.return %y : tensor<2x6x3x4xi32>
        }}""",
        x,
        w,
        b,
    )
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 1)]).astype(int)
    for n, m, i, j in np.ndindex(y.shape):
        first = m // (6 // group) * (4 // group)
        taps = [padded[n, first + c, 2 * i + p, j + 2 * q] * int(w[m, c, p, q]) for c, p, q in np.ndindex(w.shape[1:])]
        assert y[n, m, i, j] == sum(taps) + b[m]


def test_max_pool_in_time_sums_up_to_the_maximum_of_the_sums() -> None:
    x = np.random.default_rng(2).integers(-5, 6, (STEPS, 1, 2, 4, 4)).astype(np.int32)
    one, out = "tensor<1x2x4x4xi32>", "tensor<1x2x2x2xi32>"
    (y, _) = run(
        f"""func.func @main(%x: tensor<{STEPS}x1x2x4x4xi32>, %z: {one}) -> (tensor<{STEPS}x1x2x2x2xi32>, {one}) {{
          %y, %s = spike.loop scan(%x) init(%z) : (tensor<{STEPS}x1x2x4x4xi32>), ({one}) steps {STEPS}
              -> (tensor<{STEPS}x1x2x2x2xi32>) {{
          ^step(%t: tensor<i64>, %i: {one}, %s: {one}):
            %p, %s1 = spike.max_pool(%i, %s) {{kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]}}
                : ({one}, {one}) -> ({out}, {one})
            spike.yield outputs(%p) states(%s1) : ({out}), ({one})
          }}
          func.return %y, %s : tensor<{STEPS}x1x2x2x2xi32>, {one}
        }}""",
        x,
        np.zeros((1, 2, 4, 4), np.int32),
    )
    total = x.sum(axis=0).reshape(1, 2, 2, 2, 2, 2)
    assert (y.sum(axis=0) == total.max(axis=(3, 5))).all()


def test_philox_gives_the_published_words() -> None:
    """The known answers that come with the reference implementation (Random123, kat_vectors)."""
    zeros, ones = np.zeros((1, 4), np.uint32), np.full((1, 4), 0xFFFFFFFF, np.uint32)
    assert [hex(w) for w in philox(zeros, (0, 0))[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    key = (0xFFFFFFFF, 0xFFFFFFFF)
    assert [hex(w) for w in philox(ones, key)[0]] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


def test_uniforms_do_not_depend_on_how_many_are_drawn() -> None:
    assert (uniforms(7, 3, 11) == uniforms(100, 3, 11)[:7]).all()
    assert not (uniforms(100, 3, 11) == uniforms(100, 4, 11)).all()
    assert not (uniforms(100, 3, 11) == uniforms(100, 3, 12)).all()
    many = uniforms(20000, 0, 1)
    assert 0 <= many.min()
    assert many.max() < 1
    # Six standard deviations of a mean of 20000 uniforms.
    assert abs(many.mean() - 0.5) < 6 * (1 / 12 / 20000) ** 0.5


def coded(call: str, steps: int, x: np.ndarray, state: str = "") -> np.ndarray:
    row, events = text_type(*x.shape), f"tensor<{len(x)}x!spike.event<binary>>"
    (s,) = run(
        f"""func.func @main(%x: {row}) -> tensor<{steps}x{len(x)}x!spike.event<binary>> {{
          %s = spike.loop scan() init() : (), () steps {steps} -> (tensor<{steps}x{len(x)}x!spike.event<binary>>) {{
          ^step(%t: tensor<i64>):
            %e = {call} : ({row}, tensor<i64>) -> {events}
            spike.yield outputs(%e) states() : ({events}), ()
          }}
          func.return %s : tensor<{steps}x{len(x)}x!spike.event<binary>>
        }}""",
        x,
    )
    return s


def test_latency_coding_spikes_once_and_stronger_inputs_first() -> None:
    s = coded("spike.encode_latency(%x, %t) {steps = 5}", 5, np.array([1.5, 1, 0.75, 0.3, 0.01, 0, -1], F))
    assert s.sum(axis=0).tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert s.argmax(axis=0)[:5].tolist() == [0, 0, 1, 3, 4]


def test_rate_coding_spikes_at_the_rate() -> None:
    x = np.array([0, 0.1, 0.5, 0.9, 1], F)
    s = coded("spike.encode_rate(%x, %t) {seed = 5}", 2000, x)
    assert s[:, 0].sum() == 0
    assert s[:, 4].all()
    # Six standard deviations of the mean of 2000 coins.
    assert (np.abs(s.mean(axis=0) - x) <= 6 * np.sqrt(x * (1 - x) / 2000)).all()


def test_every_operation_has_a_meaning() -> None:
    meant = {op.name for op in DIALECTS["spike"]().operations if implementation_of(op.__new__(op)) is not None}
    assert meant == {op.name for op in spike.Spike.operations} - {"spike.yield"}


def test_a_delay_hands_on_what_came_d_steps_ago() -> None:
    x = currents(4)
    row, ring = text_type(N), text_type(3, N)
    (y, _) = run(
        f"""func.func @main(%x: {text_type(STEPS, N)}, %z: {ring}) -> ({text_type(STEPS, N)}, {ring}) {{
          %y, %r = spike.loop scan(%x) init(%z) : ({text_type(STEPS, N)}), ({ring}) steps {STEPS}
              -> ({text_type(STEPS, N)}) {{
          ^step(%t: tensor<i64>, %i: {row}, %r: {ring}):
            %late, %r1 = spike.delay(%i, %r) : ({row}, {ring}) -> ({row}, {ring})
            spike.yield outputs(%late) states(%r1) : ({row}), ({ring})
          }}
          func.return %y, %r : {text_type(STEPS, N)}, {ring}
        }}""",
        x,
        np.zeros((3, N), F),
    )
    assert (y[:3] == 0).all()
    assert (y[3:] == x[:-3]).all()


def test_read_outs_count_from_their_start_and_note_the_first_spike() -> None:
    events = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.int8)
    whole, row = "tensor<4x3x!spike.event<binary>>", "tensor<3x!spike.event<binary>>"
    (count, first) = run(
        f"""func.func @main(%s: {whole}, %n: tensor<3xi32>, %f: tensor<3xi32>) -> (tensor<3xi32>, tensor<3xi32>) {{
          %c, %g = spike.loop scan(%s) init(%n, %f) : ({whole}), (tensor<3xi32>, tensor<3xi32>) steps 4 -> () {{
          ^step(%t: tensor<i64>, %e: {row}, %a: tensor<3xi32>, %b: tensor<3xi32>):
            %a1 = spike.accumulate(%e, %a, %t) {{start = 1}} : ({row}, tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
            %b1 = spike.first_spike(%e, %b, %t) : ({row}, tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
            spike.yield outputs() states(%a1, %b1) : (), (tensor<3xi32>, tensor<3xi32>)
          }}
          func.return %c, %g : tensor<3xi32>, tensor<3xi32>
        }}""",
        events,
        np.zeros(3, np.int32),
        np.full(3, 99, np.int32),
    )
    assert count.tolist() == [2, 2, 0]
    assert first.tolist() == [1, 0, 99]


def test_delta_modulation_follows_its_input() -> None:
    x, row, events = (
        np.linspace(0, 2, STEPS).astype(F)[:, None] * np.array([1, -1], F),
        text_type(2),
        "!spike.event<signed>",
    )
    (s, reference) = run(
        f"""func.func @main(%x: {text_type(STEPS, 2)}, %r: {row}, %h: tensor<f32>)
            -> ({text_type(STEPS, 2, element=events)}, {row}) {{
          %s, %q = spike.loop scan(%x) init(%r) : ({text_type(STEPS, 2)}), ({row}) steps {STEPS}
              -> ({text_type(STEPS, 2, element=events)}) {{
          ^step(%t: tensor<i64>, %i: {row}, %r0: {row}):
            %e, %r1 = spike.encode_delta(%i, %r0, %h)
                : ({row}, {row}, tensor<f32>) -> ({text_type(2, element=events)}, {row})
            spike.yield outputs(%e) states(%r1) : ({text_type(2, element=events)}), ({row})
          }}
          func.return %s, %q : {text_type(STEPS, 2, element=events)}, {row}
        }}""",
        x,
        np.zeros(2, F),
        np.array(0.25, F),
    )
    assert (s[:, 0] >= 0).all()
    assert (s[:, 1] == -s[:, 0]).all()
    assert (np.abs(reference - x[-1]) < 0.25).all()


def test_ternary_weights_give_scaled_sums_of_trits() -> None:
    context = new_context()
    rng = np.random.default_rng(8)
    trits, scales = rng.integers(-1, 2, (1, 3, N)).astype(np.int8), np.array([[[0.5], [1.0], [2.0]]], F)
    entries = [(context.weights.add(name, array), array) for name, array in (("t", trits), ("s", scales))]
    (t, _), (s, _) = entries
    sha = context.weights.sha
    events, weight = f"tensor<2x{N}x!spike.event<binary>>", f"!ternary.trits<3 x {N}, scale = row, planes = 1>"
    text = f"""
    func.func @main(%e: {events}) -> tensor<2x3xf32> {{
      %w = ternary.weight trits "{t}" sha "{sha(t)[:12]}" scales "{s}" sha "{sha(s)[:12]}" : {weight}
      %y = spike.linear(%e, %w) : ({events}, {weight}) -> tensor<2x3xf32>
      func.return %y : tensor<2x3xf32>
    }}"""
    module = Parser(context, text).parse_module()
    module.verify()
    (y,) = interpret(module, [EVENTS], context.weights)
    assert (y == (EVENTS.astype(int) @ trits[0].T.astype(int)) * scales[0, :, 0]).all()


def test_sums_of_windows_count_events() -> None:
    x = np.random.default_rng(6).integers(0, 2, (1, 2, 4, 5)).astype(np.int8)
    (y,) = run(
        """func.func @main(%s: tensor<1x2x4x5x!spike.event<binary>>) -> tensor<1x2x2x3xi32> {
          %y = spike.sum_pool(%s) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 1]}
            : (tensor<1x2x4x5x!spike.event<binary>>) -> tensor<1x2x2x3xi32>
          func.return %y : tensor<1x2x2x3xi32>
        }""",
        x,
    )
    padded = np.pad(x, [(0, 0), (0, 0), (0, 0), (0, 1)]).astype(int)
    assert (y == padded.reshape(1, 2, 2, 2, 3, 2).sum(axis=(3, 5))).all()
