"""The support check: what becomes of every operation of a model, exactly or not at all, and why.

No rule is an approximation: what would be one (an average where a maximum stands) is refused instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from neuc.compiler.signature import entry_of
from neuc.compiler.snn.recipes import Recipe
from neuc.dialects.dense import PoolOp
from neuc.dialects.locations import node_names
from neuc.errors import Error, NodeRef
from neuc.passes.analysis.neuron_sites import CLIP, IDENTITY, site_of
from neuc.passes.analysis.spiking_roles import Role, roles
from neuc.passes.lower_onnx_to_dense import lowering_reason

EXACT, UNSUPPORTED = "exact", "unsupported"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one operation.

    Attributes:
        nodes: the model's nodes it comes from.
        op: the operation.
        role: what it does in the spiking network.
        verdict: `exact`: in the limit of many steps (a neuron's rate is what it has to be, an operation on means is the
            model's); or `unsupported`.
        reason: why, in a sentence.
    """

    nodes: tuple[str, ...]
    op: str
    role: str
    verdict: str
    reason: str


def check(module: ModuleOp, recipe: Recipe) -> list[Verdict]:
    """The verdict on every operation of a marked module that depends on its inputs."""
    block = entry_of(module).body.block
    return [_verdict(op, role, recipe) for op, role in roles(block).items() if role is not Role.CONSTANT]


def refuse_unsupported(verdicts: list[Verdict], recipe: Recipe, name: str) -> None:
    """Refuse a model with operations that have no spiking form, or none that would spike.

    Raises:
        Error: NEUC-E524, with all of them; NEUC-E525, it has no neurons.
    """
    bad = [v for v in verdicts if v.verdict == UNSUPPORTED]
    if bad:
        refs = tuple(NodeRef(next(reversed(v.nodes), v.op), v.op, v.reason) for v in bad)
        hint = "recipe c carries any function in expectation" if recipe.binary else "see the reasons above"
        raise Error(
            "NEUC-E524", f"{name}: recipe {recipe.name} has no form of {len(bad)} operations", hint=hint, nodes=refs
        )
    if not any(v.role == Role.NEURON.value for v in verdicts):
        raise Error(
            "NEUC-E525",
            f"{name} has no activation that can become neurons: nothing would spike",
            hint="ReLU and clip become neurons; recipes b and c put some before every product behind another function",
        )


def _verdict(op: Operation, role: Role, recipe: Recipe) -> Verdict:
    kind = op.name.removeprefix("dense.")
    word, reason = _judge(op, role, recipe)
    return Verdict(node_names(op), kind, role.value, word, reason)


def _judge(op: Operation, role: Role, recipe: Recipe) -> tuple[str, str]:
    match role:
        case Role.NEURON:
            return _neuron(op, recipe)
        case Role.SYNAPSE:
            return EXACT, "weights meet spikes in each step"
        case Role.LINEAR:
            return EXACT, "affine: the same on each step's spikes or currents"
        case Role.ANALOG:
            return EXACT, "depends on the input alone: computed once, a constant current"
        case Role.READ_OUT:
            return EXACT, "behind all neurons: computed on the estimates at the end"
        case Role.MAX_POOL:
            assert isinstance(op, PoolOp)
            if any(d != 1 for d in op.dilations.get_values()) and recipe.binary:
                return UNSUPPORTED, "dilated max-pooling has no spiking form"
            return EXACT, "the maximum of summed currents, sent as what it changes by"
        case Role.FUNCTION if recipe.binary:
            return UNSUPPORTED, "not affine between neurons: binary spikes have no form of it"
        case Role.FUNCTION:
            return EXACT, "a function of the mean so far, sent as what its answer changes by: no multiply-free form"
        case _:
            reason = lowering_reason(op) or "neither affine nor a function of means"
            return UNSUPPORTED, reason


def _neuron(op: Operation, recipe: Recipe) -> tuple[str, str]:
    site = site_of(op)
    assert site is not None
    if site.kind == IDENTITY:
        return EXACT, "neurons with spikes of both signs, put in so that the product behind sees spikes"
    if site.kind == CLIP:
        if recipe.coding == "rate":
            return EXACT, f"a rate saturates at one spike a step: thresholds of at most {site.bound:g}"
        return EXACT, f"the mean input is clipped to {site.bound:g} before the neurons"
    return EXACT, "ReLU: neurons whose spikes never sum below 0"
