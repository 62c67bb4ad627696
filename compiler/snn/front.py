"""From a model to a marked module: dense operations whose activations are sites of neurons, without any data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from neuc.compiler import universe
from neuc.compiler.driver import Driver
from neuc.compiler.signature import signature_of
from neuc.compiler.snn.recipes import Recipe
from neuc.compiler.source import read_model
from neuc.dialects import spike
from neuc.dialects.context import NeucContext
from neuc.errors import Error
from neuc.passes.mark_neurons import MarkNeurons
from neuc.runtime.program import IoSpec

PASSES = (
    "fold-batch-norm",
    "lower-onnx-to-dense",
    "fuse-layer-norm",
    "fold-into-matmul",
    "fuse-maps",
    "expand-activations",
    "pool-before-activation",
)
"""What runs before neurons are marked."""


@dataclass(frozen=True)
class Marked:
    """A model ready for calibration.

    Attributes:
        name: what to call it.
        dense: the float network, without marks.
        module: the marked module; calibration changes it.
        context: the context and weights of both.
        inputs, outputs: the model's signature.
        after: the node behind which spiking begins; everywhere if it is empty.
    """

    name: str
    dense: ModuleOp
    module: ModuleOp
    context: NeucContext
    inputs: tuple[IoSpec, ...]
    outputs: tuple[IoSpec, ...]
    after: str = ""

    def remarked(self, recipe: Recipe) -> Marked:
        """The same model marked for another recipe."""
        module = self.dense.clone()
        MarkNeurons(recipe.name, self.after, recipe.group).apply(self.context, module)
        module.verify()
        return dataclasses.replace(self, module=module)


def mark(
    model: object,
    recipe: Recipe,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    example_inputs: tuple[object, ...] | None = None,
    after: str | None = None,
) -> Marked:
    """Read a model and mark its neurons.

    Args:
        model: what `neuc.compile` takes but decoders: the path of an ONNX file or of IR, a proto, a torch module.
        recipe: which neurons.
        shapes: shapes of inputs by name.
        example_inputs: arguments to trace a torch module with.
        after: the node behind which spiking begins.

    Raises:
        Error: the model cannot be read; NEUC-E524, it is a decoder, or spiking already; NEUC-E527, no such node.
    """
    source = read_model(model, shapes, example_inputs)
    if source.is_decoder:
        raise Error("NEUC-E524", f"{source.name} is a decoder", hint="its cache has no spiking form; convert encoders")
    if any(isinstance(op, spike.LoopOp) for op in source.module.walk()):
        hint = "convert the float network that it was made from"
        raise Error("NEUC-E524", f"{source.name} is a spiking network already", hint=hint)
    driver = Driver(source.module, source.context)
    driver.run([universe.PASSES[name]()() for name in PASSES])
    inputs, outputs = signature_of(driver.module)
    module = driver.module
    start = Marked(source.name, module, module, source.context, tuple(inputs), tuple(outputs), after or "")
    return start.remarked(recipe)
