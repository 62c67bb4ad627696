"""The child process that converts a trained network with SpikingJelly 2 and says which classes it names at each T.

Runs in the Python of an environment with spikingjelly 2.0.0 and torch, so it imports nothing of neuc; the folder
`examples/spiking` must be on its path. It reads one request, a JSON object, from standard input:

    {"network": "fashion_cnn", "parameters": "fashion_cnn.npz", "images": "images.npz", "ann": "ann.npz",
     "steps": [1, 2, 4, 32], "pieces": [["99.9%", 0, "a.npz"], ["LTB", 2, "b.npz"]]}

`images.npz` holds `test` f32 [N, 1, H, W] and, for each seed, `calibration_<seed>`. A piece is a recipe, a seed, and
the file that is written as soon as it is done: `classes` int8 [steps, N] and `facts`, a JSON object with versions and
spikes per neuron and step, or with `error`, why it failed; then it has no classes. `ann.npz` gets `logits` f32 [N, 10]
of the float network.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import NETWORKS
from spikingjelly.activation_based import ann2snn, functional, neuron
from torch import Tensor, nn
from train import load_parameters

BATCH = 200

Batches = Iterable[tuple[Tensor, Tensor]]
RATE_RECIPES: dict[str, Callable[[Batches], Any]] = {
    "max": lambda data: ann2snn.RateCodingRecipe(dataloader=data, mode="max"),
    "99.9%": lambda data: ann2snn.RateCodingRecipe(dataloader=data, mode="99.9%"),
    "99.9% half": lambda data: ann2snn.RateCodingRecipe(
        dataloader=data, mode="99.9%", neuron_factory=lambda _scale: neuron.HalfThresholdIFNode()
    ),
    "99.9% half channel": lambda data: ann2snn.RateCodingRecipe(
        dataloader=data, mode="99.9%", half_threshold=True, channel_wise=True
    ),
    "LTB": lambda data: ann2snn.LocalThresholdBalancingRecipe(dataloader=data),
}
"""For networks with ReLU. Half: potentials start at half the threshold. Channel: a threshold for each channel."""
STA = "STA spiking encoder"
"""For Transformers: spikes behind layer norm, GELU and attention. Converted anew for each T, which is part of it, and
shown the image in the first step alone, as in SpikingJelly's own example."""


class Shown:
    """Counts the spikes of every neuron layer that runs, between two calls of `rate`."""

    def __init__(self, network: nn.Module) -> None:
        self.spikes = self.chances = 0
        for module in network.modules():
            if isinstance(module, neuron.BaseNode) or "Encoder" in type(module).__name__:
                module.register_forward_hook(self._count)

    def _count(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.spikes += int((output != 0).sum())
        self.chances += output.numel()

    def rate(self) -> float:
        """Spikes per neuron and step."""
        return self.spikes / max(1, self.chances)


def converted(network: nn.Module, recipe: str, calibration: Tensor, steps: int) -> nn.Module:
    """The spiking network that a recipe makes; labels are not looked at by any."""
    batches = [(part, torch.zeros(len(part))) for part in calibration.split(BATCH)]
    if recipe == STA:
        made = ann2snn.STATransformerRecipe(dataloader=batches, time_steps=steps, mode="spiking_encoder")
    else:
        made = RATE_RECIPES[recipe](batches)
    snn = ann2snn.Converter(recipe=made).convert(copy.deepcopy(network)).eval()
    functional.set_step_mode(snn, "s")
    return snn


def classes_at(snn: nn.Module, images: Tensor, steps: list[int]) -> np.ndarray:
    """Classes [steps, N]: the argmax of the outputs summed over the first T steps, for each T of `steps`."""
    found = []
    for batch in images.split(BATCH):
        functional.reset_net(snn)
        total, at = torch.zeros(len(batch), 10), []
        for step in range(1, max(steps) + 1):
            total = total + snn(batch)
            if step in steps:
                at.append(total.argmax(1))
        found.append(torch.stack(at))
    return torch.cat(found, 1).numpy()


def classes_after(snn: nn.Module, images: Tensor, steps: int) -> np.ndarray:
    """Classes [1, N] of the outputs summed over `steps` steps, of which only the first has the image."""
    functional.set_step_mode(snn, "m")
    found = []
    for batch in images.split(BATCH):
        functional.reset_net(snn)
        sequence = torch.zeros(steps, *batch.shape)
        sequence[0] = batch
        found.append(snn(sequence).sum(0).argmax(1))
    return torch.cat(found)[None].numpy()


def predictions(
    network: nn.Module, recipe: str, calibration: Tensor, images: Tensor, steps: list[int]
) -> tuple[np.ndarray, float]:
    """Classes [steps, N], and spikes per neuron and step."""
    if recipe != STA:
        snn = converted(network, recipe, calibration, max(steps))
        shown = Shown(snn)
        return classes_at(snn, images, steps), shown.rate()
    rows = []
    for step in steps:
        snn = converted(network, recipe, calibration, step)
        shown = Shown(snn)
        rows.append(classes_after(snn, images, step))
    return np.concatenate(rows), shown.rate()


def write_piece(
    network: nn.Module, recipe: str, calibration: Tensor, test: Tensor, steps: list[int], path: Path
) -> None:
    """One piece, whole or not at all."""
    facts: dict[str, Any] = {"spikingjelly": version("spikingjelly"), "torch": torch.__version__}
    arrays: dict[str, np.ndarray] = {}
    try:
        classes, facts["rate"] = predictions(network, recipe, calibration, test, steps)
        arrays["classes"] = classes.astype(np.int8)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        facts["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, facts=np.array(json.dumps(facts)), **arrays)  # pyright: ignore[reportArgumentType]
    part.replace(path)


def main() -> None:
    """One request."""
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    request = json.load(sys.stdin)
    with torch.no_grad():
        network = load_parameters(NETWORKS[request["network"]](), Path(request["parameters"]))
        with np.load(request["images"]) as arrays:
            images = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        test = images["test"]
        np.savez(request["ann"], logits=torch.cat([network(part) for part in test.split(BATCH)]).numpy())
        for recipe, seed, path in request["pieces"]:
            begin = time.process_time()
            write_piece(network, recipe, images[f"calibration_{seed}"], test, request["steps"], Path(path))
            print(
                f"{request['network']} {recipe} {seed}: {time.process_time() - begin:.0f} s",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    main()
