"""NIR's neurons in steps of dt: forward Euler on their equations, as the `spike` operations that compute them.

Each returns the operations' numbers, in float64 until they are rounded once to f32. For I' = −I/τ_s + w·S/τ_s and
v' = (v_leak − v + R·I)/τ_m: decays are 1 − dt/τ, inputs are weighted dt·w/τ_s and dt·R/τ_m. A neuron fires above its
threshold (`fire = gt`), and its membrane reads the synaptic current of the same step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.compiler.importers.nir.graph import Node
from neuc.errors import Error

Array = np.ndarray


@dataclass(frozen=True)
class Membrane:
    """A neuron in discrete time.

    Attributes:
        op: name of the `spike` operation, without the dialect.
        gain: what its input is multiplied by first.
        offset: what is added to that in each step.
        parameters: operands of the operation behind its states.
        states: what its states begin with.
        soft: whether a spike takes something off; None for what does not spike.
        rest: what has to be added to its potential to get NIR's (not 0 where the operation's 0 is the leak).
    """

    op: str
    gain: Array
    offset: Array
    parameters: tuple[Array, ...]
    states: tuple[Array, ...]
    soft: bool | None
    rest: Array


def membrane(node: Node, dt: float, reset: str) -> Membrane:
    """A neuron in steps of `dt` seconds; `reset`: how resets to 0 are meant, as `NirOptions` has it.

    Raises:
        Error: NEUC-E502, a time constant that is not positive or shorter than a step; NEUC-E504, a soft reset to
            something other than 0.
    """
    zero = np.zeros(())
    match node.kind:
        case "I":
            return Membrane("integrator", dt * node.numbers("r"), zero, (), (_start(node),), None, zero)
        case "IF":
            soft, taken = _reset(node, reset, zero, np.ones(()))
            start = _start(node)
            parameters = (node.numbers("v_threshold"), *taken)
            return Membrane("if", dt * node.numbers("r"), zero, parameters, (start,), soft, zero)
        case "LI" | "LIF":
            share = _share(node, "tau", dt)
            gain, offset = share * node.numbers("r"), share * node.numbers("v_leak")
            if node.kind == "LI":
                return Membrane("li", gain, offset, (1 - share,), (_start(node),), None, zero)
            soft, taken = _reset(node, reset, zero, 1 - share)
            parameters = (1 - share, node.numbers("v_threshold"), *taken)
            return Membrane("lif", gain, offset, parameters, (_start(node),), soft, zero)
        case _:
            return _cuba(node, dt, reset)


def _cuba(node: Node, dt: float, reset: str) -> Membrane:
    """A neuron with a synapse; its potential counts from the leak, which the operation does not have."""
    synapse, share, rest = _share(node, "tau_syn", dt), _share(node, "tau_mem", dt), node.numbers("v_leak")
    weight = node.numbers("w_in") if "w_in" in node.fields else np.ones(())
    gain, zero = synapse * weight, np.zeros(())
    parameters = (1 - synapse, 1 - share, share * node.numbers("r"))
    if node.kind == "CubaLI":
        return Membrane("cuba_li", gain, zero, parameters, (zero, _start(node) - rest), None, rest)
    soft, taken = _reset(node, reset, rest, 1 - share)
    theta = node.numbers("v_threshold")
    if soft and not taken and rest.any():
        taken = (theta,)
    return Membrane(
        "cuba_lif", gain, zero, (*parameters, theta - rest, *taken), (zero, _start(node) - rest), soft, rest
    )


def _share(node: Node, name: str, dt: float) -> Array:
    """dt/τ, the part of the way to its end that a step takes."""
    tau = node.numbers(name)
    if (tau <= 0).any():
        raise _bad(node, f"{name} is not positive", "time constants are in seconds")
    share = dt / tau
    if (share > 1).any():
        raise _bad(node, f"{name} = {tau.min():g} s is shorter than a step of {dt:g} s", "take a smaller --dt")
    return share


def _start(node: Node) -> Array:
    """The potential it begins with: NIR has none, our own metadata may."""
    return np.asarray(node.metadata.get("v0", 0.0), np.float64)


def _reset(node: Node, meant: str, rest: Array, decay: Array) -> tuple[bool, tuple[Array, ...]]:
    """Whether the reset is soft, and the reset value if it is not what the operation takes by itself.

    snnTorch takes the threshold off one step later, after the decay: then θ/decay is what goes off before it.
    """
    value = node.numbers("v_reset") if "v_reset" in node.fields else np.zeros(())
    how = node.metadata.get("reset")
    if how not in (None, "subtract", "zero", "hard"):
        raise _bad(node, f"its metadata has reset = {how!r}", "it is subtract or zero")
    read_soft = how is None and meant != "file" and not value.any()
    if read_soft and meant == "snntorch":
        if (decay == 0).any():
            raise _bad(node, "nothing is left of its potential after a step", "use --reset subtract")
        return True, (node.numbers("v_threshold") / decay,)
    if how == "subtract" or read_soft:
        if value.any():
            raise Error(
                "NEUC-E504",
                f"{node.kind} {node.name} resets by subtraction, but to v_reset = {value.reshape(-1)[0]:g}",
                hint="give v_reset 0 with reset = subtract",
                nodes=[node.ref],
            )
        taken = node.metadata.get("reset_value")
        return True, () if taken is None else (np.asarray(taken, np.float64),)
    target = value - rest
    return False, (target,) if target.any() else ()


def _bad(node: Node, what: str, hint: str) -> Error:
    return Error("NEUC-E502", f"{node.kind} {node.name}: {what}", hint=hint, nodes=[node.ref])


def delay_steps(node: Node, dt: float, notes: list[str]) -> Array:
    """A delay in steps, rounded to the nearest."""
    exact = node.numbers("delay") / dt
    steps = np.rint(exact).astype(np.int64)
    if (steps < 0).any() or (steps > MOST_DELAY).any():
        raise _bad(node, f"a delay of {exact.max():g} steps", f"delays are 0 to {MOST_DELAY} steps; see --dt")
    if (np.abs(exact - steps) > 1e-3).any():
        notes.append(f"Delay {node.name}: rounded to whole steps of {dt:g} s")
    return steps


MOST_DELAY = 1 << 16
