"""Predictions written as regions: gradients against differences, the shorthand, native code, text, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from neuc import energy
from neuc.compiler.energy.expressions import Expression
from neuc.errors import Error

STEP = 1e-6
DIFFERENCE = 1e-6
"""Central differences of a smooth f64 function at a step of 1e-6: the step squared, and rounding of 1e-16 over it."""
NATIVE = 2e-5
"""f32 sums of up to a hundred products of size 1, in another order than f64's."""

IMAGE = (2, 5, 4)


def some(*shape: int) -> np.ndarray:
    """Numbers that are the same each time."""
    return np.random.default_rng(shape).normal(0, 0.5, shape)


Function = Callable[..., Expression]


def powers(z: Expression) -> Expression:
    """Of small numbers, so that a flow stays finite."""
    return z**2 + z**7 * z**6.0 + (z**3 + 1.5) ** 0.5 + (z**4 + 1) ** -3 + z**5 - z**1


FUNCTIONS: dict[str, tuple[tuple[int, ...], Function]] = {
    "tanh": ((4,), lambda z: z.tanh() @ some(4, 3) + some(3)),
    "scalars": ((4,), lambda z: (z.sigmoid() * z.sin() - (z * z + 1.5).log()) / ((-z).exp() + z.cos().abs() + 1.0)),
    "clip": ((4,), lambda z: z.relu().minimum(0.7) * (z * z + 0.1).sqrt() + z.clip(-0.3, 0.4)),
    "skip": ((4,), lambda z: (z.tanh() @ some(4, 4)).relu() + z),
    "conv": (IMAGE, lambda z: z.relu().conv(some(3, 2, 3, 2), some(3), stride=(2, 1), padding=1)),
    "groups": (IMAGE, lambda z: z.conv(some(4, 1, 2, 2), dilation=2, groups=2).tanh().mean(1)),
    "max": (IMAGE, lambda z: z.max_pool((3, 2), stride=(2, 1), padding=1) * 2.0),
    "mean": (IMAGE, lambda z: z.mean_pool(2, stride=1, padding=1).sum(0)),
    "moves": (IMAGE, lambda z: z.transpose(2, 0, 1)[::-1, :, 1:4].reshape(8, 3)),
    "join": (IMAGE, lambda z: z.joined(z.tanh(), axis=1).reshape(-1) * 0.5),
    "quotients": ((4,), lambda z: 1 / (1 + z * z) + some(4) / (z.exp() + 2.0)),
    "powers": ((4,), lambda z: powers(z.tanh())),
    "rows": (IMAGE, lambda z: z @ some(4, 6) + some(5, 1)),
}


def shape_of(name: str) -> tuple[int, ...]:
    """What a function of the list gives."""
    found: list[tuple[int, ...]] = []
    model = energy.Model()

    def look(z: Expression) -> Expression:
        out = FUNCTIONS[name][1](z)
        found.append(out.shape)
        raise LookupError

    with pytest.raises(LookupError):
        model.prediction(model.real(1), look, model.real(*FUNCTIONS[name][0]))
    return found[0]


def program(names: list[str], *, precise: bool = False, steps: int = 0, product: bool = False) -> energy.Program:
    """One model of these functions, every second one a product, after some steps."""
    model, results = energy.Model(precise=precise), dict[str, energy.Variable]()
    for number, name in enumerate(names):
        shape, function = FUNCTIONS[name]
        x, z = model.real(*shape_of(name), name=f"{name}_x"), model.real(*shape, name=f"{name}_z")
        model.prediction(x, function, z, precision=1.5, product=product != bool(number % 2))
        model.quad(z, 0.5)
        model.quad(x, 0.25)
        results |= {f"last_{name}_x": x, f"last_{name}_z": z}
    state = model.state("batch")
    if steps:
        state = state.relax("flow", steps, dt=0.05)
    return model.program(energy=state.energy(), **{result: state[v] for result, v in results.items()})


def feeds(names: list[str], chains: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {f"{n}_{v}": shape_of(n) if v == "x" else FUNCTIONS[n][0] for n in names for v in "xz"}
    return {name: rng.normal(size=(chains, *shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_step_of_the_flow_is_the_difference_quotient(name: str, product: bool) -> None:
    still, moved = (program([name], precise=True, steps=n, product=product) for n in (0, 1))
    at, rng = feeds([name], 2), np.random.default_rng(3)
    after = moved.interpret(**at)
    for variable, x in at.items():
        way = rng.normal(size=x.shape)
        ends = [still.interpret(**{**at, variable: x + s * STEP * way}).energy for s in (1, -1)]
        slope = (-(after[f"last_{variable}"] - x) / 0.05 * way).reshape(2, -1).sum(1)
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * STEP), rtol=DIFFERENCE, atol=DIFFERENCE)


@pytest.mark.parametrize(
    "names",
    [["skip", "max"], ["quotients", "powers"], pytest.param([*FUNCTIONS], marks=pytest.mark.slow)],
    ids=["some", "quotients", "all"],
)
def test_generated_code_flows_as_the_interpreter_does(names: list[str]) -> None:
    made, at = program(names, steps=3), feeds(names, 19)
    expected, found = made.interpret(**at), made.run(**at)
    for result, values in expected.items():
        scale = max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(found[result], values, atol=NATIVE * scale, err_msg=result)


PARAMETERS = {"w": (4, 3), "b": (3,), "kernel": (3, 2, 2, 2), "shift": (3,), "gain": (2, 5, 1), "mix": (3, 4)}
VARIABLES = {"x": (3,), "z": (4,), "image": IMAGE, "seen": (3, 1, 3)}


def learner(*, precise: bool, moved: dict[str, np.ndarray]) -> energy.Program:
    """Slopes by matrices of rows and of images, a kernel, biases, and what maps multiply with."""
    model = energy.Model(precise=precise)
    x, z, image, seen = (model.real(*shape, name=name) for name, shape in VARIABLES.items())
    constants = {n: model.constant(n, some(*shape) + moved.get(n, 0.0)) for n, shape in PARAMETERS.items()}
    w, b, kernel, shift, gain, mix = constants.values()
    model.prediction(x, lambda h: (h.tanh() @ w + b).relu(), z, precision=0.7)
    model.prediction(seen, lambda i: i.max_pool((2, 1)).conv(kernel, shift).sigmoid(), image)
    model.prediction(image, lambda h: h.reshape(1, 1, 4) * gain, z)
    model.prediction(image, lambda i: i[:, :, :3] @ mix, image, product=True)
    state = model.state("batch")
    slopes = state.gradient(*constants.values())
    return model.program(energy=state.energy(), **dict(zip(constants, slopes)))


def test_slopes_by_parameters_are_differences_and_native_ones_equal_them() -> None:
    rng = np.random.default_rng(11)
    at = {name: rng.normal(size=(5, *shape)) for name, shape in VARIABLES.items()}
    expected = learner(precise=True, moved={}).interpret(**at)
    for name, shape in PARAMETERS.items():
        way = rng.normal(size=shape)
        ends = [learner(precise=True, moved={name: s * STEP * way}).interpret(**at).energy.mean() for s in (1, -1)]
        np.testing.assert_allclose((expected[name] * way).sum(), (ends[0] - ends[1]) / (2 * STEP), rtol=DIFFERENCE * 10)
    found = learner(precise=False, moved={}).run(**at)
    for result, values in expected.items():
        np.testing.assert_allclose(found[result], values, atol=NATIVE * max(1.0, np.abs(values).max()), err_msg=result)


def test_the_shorthand_is_the_region_of_its_formula() -> None:
    found: list[np.ndarray] = []
    for region in (False, True):
        model = energy.Model(precise=True)
        x, z = model.real(3, name="x"), model.real(4, name="z")
        if region:
            model.prediction(x, lambda h: h @ some(4, 3) + some(3), model.rho(z, "tanh"), precision=2.0)
        else:
            model.predict(x, some(4, 3).T, model.rho(z, "tanh"), some(3), precision=2.0)
        settled = model.state("batch").relax("flow", 5, dt=0.1)
        at = {"x": some(6, 3), "z": some(6, 4)}
        found.append(model.program(last=settled[z], energy=settled.energy()).interpret(**at).last)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


def test_the_text_reads_back_and_can_be_edited() -> None:
    made, at = program(["tanh"]), feeds(["tanh"], 2)
    assert made.edited(made.text()).text() == made.text()
    changed = made.edited(made.text().replace("math.tanh", "math.sin"))
    assert not np.allclose(changed.interpret(**at).energy, made.interpret(**at).energy)
    with pytest.raises(Error, match=r"math.exp2 has no derivative here"):
        made.edited(made.text().replace("math.tanh", "math.exp2"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z @ some(3, 3), r"E614.*@ of shapes \[4\] and \[3, 3\]"),
        (lambda z: z + some(3), r"E614.*of shapes \[4\] and \[3\]"),
        (lambda z: z, r"E614.*gives shape \[4\], x has shape \[3\]"),
        (3, r"E614.*function of a prediction is 3"),
        (lambda z, y: z, r"E614.*missing 1 required positional"),
        (lambda z: some(4, 4).T @ z, r"E614.*right factor of @"),
        (lambda z: np.tanh(z), r"E614.*numpy takes an expression"),
        (lambda z: np.sum(z), r"E614.*numpy's sum"),
        (lambda z: z if z > 0 else z * 2, r"E614.*compares"),
        (lambda z: z if z == 0 else z * 2, r"E614.*compares"),
        (lambda z: z if z else z * 2, r"E614.*branches"),
        (lambda z: z.sum(), r"E614.*sum of shape \[4\] over no axis"),
        (lambda z: z.mean(3), r"E614.*mean of shape \[4\] over axis 3"),
        (lambda z: z.softmax(), r"E614.*there is no softmax"),
        (lambda z: z % 2, r"E614.*unsupported operand"),
        (lambda z: z**0.3, r"E614.*power 0.3"),
        (lambda z: z ** some(4), r"E614.*an array as a power"),
        (lambda z: z.transpose(1, 0), r"E614.*index out of range"),
        (lambda z: z[0], r"E614.*one slice an axis"),
        (lambda z: z + "a", r"E614.*is a str"),
        (lambda z: 1.0, r"E614.*gives no expression"),
        (lambda z: z.conv(some(3, 2, 2)), r"E614.*conv of shapes"),
        (lambda z: z.max_pool(2), r"E614.*pool"),
    ],
)
def test_functions_that_do_not_fit(function: Function, message: str) -> None:
    model = energy.Model()
    with pytest.raises(Error, match=message):
        model.prediction(model.real(3), function, model.real(4))


def test_predictions_read_variables_and_parameters() -> None:
    model = energy.Model()
    with pytest.raises(Error, match=r"E614.*reads a ndarray"):
        model.prediction(model.real(3), lambda z: z, some(3))  # pyright: ignore[reportArgumentType]
