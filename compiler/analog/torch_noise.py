"""Training for analog devices: a PyTorch module that computes with the weights and noise of a crossbar target.

Every forward pass draws another chip: weights are programmed and aged by the target's device model, outputs get its
converters' noise. Gradients pass as if nothing had happened (straight through). torch is an optional extra.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import choose_target
from neuc.errors import Error, Exit
from neuc.passes.crossbar_layers import balanced
from neuc.passes.insert_converters import InsertConverters
from neuc.passes.map_to_crossbar import MapToCrossbar
from neuc.runtime.analog.photonic import PhotonicChip
from neuc.runtime.analog.tiles import Chip, check_time

_DAY = 86400.0


def noise_model(module: Any, target: str = "xbar-pcm", *, time: float = _DAY, seed: int = 0) -> Any:
    """A ``torch.nn.Module`` that computes what `module` would on a crossbar target, for noise-aware training.

    It shares the parameters of `module`, so train it and then export or compile `module` itself. ``Linear`` and
    ``Conv1d`` … ``Conv3d`` layers are simulated: programming, drift with compensation of its mean, read noise, stuck
    devices, and noise of output converters; rounding of converters is left out.

    Args:
        module: the network.
        target: a crossbar target with its options, such as ``xbar-pcm{tile=256x256}``.
        time: age of the devices, seconds.
        seed: the first draw; each forward pass takes the next.

    Raises:
        Error: NEUC-E659, torch is missing, `module` is no module, or the target is no crossbar; NEUC-E644, the time
            makes no sense.
    """
    try:
        torch: Any = import_module("torch")
    except ImportError as error:
        raise Error("NEUC-E659", "noise models need PyTorch", hint="pip install torch") from error
    if not isinstance(module, torch.nn.Module):
        raise Error("NEUC-E659", f"{type(module).__name__} is no torch module", hint="pass a torch.nn.Module")
    check_time(time)
    return _wrapper_class(torch)(module, TileNoise.of(target, time, seed))


@dataclass(frozen=True)
class NoiseReport:
    """How noise moves the accuracy of a network.

    Attributes:
        digital: share of samples named rightly without noise.
        analog: the same on simulated devices, one number a draw.
    """

    digital: float
    analog: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over draws."""
        return statistics.fmean(self.analog)

    def __str__(self) -> str:
        """One line, for people."""
        spread = f" ± {statistics.stdev(self.analog):.2%}" if len(self.analog) > 1 else ""
        moved = f"{100 * (self.mean - self.digital):+.2f} points, {len(self.analog)} draws"
        return f"digital {self.digital:.2%}, on devices {self.mean:.2%}{spread} ({moved})"


class TileNoise:
    """What a target makes of weight matrices, draw after draw."""

    def __init__(
        self, chip: Chip | PhotonicChip, mapping: MapToCrossbar, converters: InsertConverters, time: float, seed: int
    ) -> None:
        self.chip = chip
        self.rows, self.columns, self.scaling = mapping.rows, mapping.columns, mapping.scaling
        self.compensation = mapping.compensation
        self.out_noise = converters.out_noise
        self.time = time
        self.seed = seed

    @staticmethod
    def of(target: str, time: float, seed: int) -> TileNoise:
        """The noise of a target.

        Raises:
            Error: NEUC-E659, it is no crossbar target; or an option makes no sense.
        """
        passes = choose_target(CompileOptions(target=target)).placing()
        mapping = next((p for p in passes if isinstance(p, MapToCrossbar)), None)
        converters = next((p for p in passes if isinstance(p, InsertConverters)), None)
        chip = next((c for p in passes if isinstance(c := getattr(p, "chip", None), Chip | PhotonicChip)), None)
        if mapping is None or converters is None or chip is None:
            hint = "use xbar-pcm, xbar-reram or another crossbar target"
            raise Error("NEUC-E659", f"target {target} has no analog noise", hint=hint, exit_code=Exit.USAGE)
        return TileNoise(chip, mapping, converters, time, seed)

    def held(self, weights: np.ndarray, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """What devices hold of a matrix f32 [outputs, inputs], and the scale of each output's converter noise.

        Args:
            weights: what they are asked for.
            layer: which layer, so that layers draw apart.
        """
        matrix = weights.T.astype(np.float64)
        found, scales = np.empty_like(matrix), np.zeros(matrix.shape[1])
        for row, rows in balanced(matrix.shape[0], self.rows):
            for column, columns in balanced(matrix.shape[1], self.columns):
                place = slice(row, row + rows), slice(column, column + columns)
                largest = np.max(np.abs(matrix[place]), axis=0 if self.scaling == "column" else None, initial=0)
                scale = np.broadcast_to(np.maximum(largest, 1e-12), columns)
                part = matrix[place] / scale
                tile = self.chip.program(part, layer << 20 | row << 10 | column, self.seed)
                now = tile.weights(self.time)
                found[place] = now * scale * self._compensation(part, now)
                # Each tile converts its part of the sum, so the variances of tiles add up.
                scales[place[1]] += scale**2
        return found.T.astype(np.float32), (self.out_noise * np.sqrt(scales)).astype(np.float32)

    def _compensation(self, wanted: np.ndarray, held: np.ndarray) -> np.ndarray:
        if self.compensation == "none":
            return np.ones(1)
        axis = 0 if self.compensation == "column" else None
        return np.mean(np.abs(wanted), axis=axis) / np.maximum(np.mean(np.abs(held), axis=axis), 1e-4)


def _wrapper_class(torch: Any) -> Any:
    layers = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)

    class NoiseModel(torch.nn.Module):  # pyright: ignore[reportUntypedBaseClass] - torch is optional
        """A network on noisy devices; see `noise_model`."""

        def __init__(self, module: Any, noise: TileNoise) -> None:
            super().__init__()
            self.module = module
            self.noise = noise
            self.simulated = [name for name, layer in module.named_modules() if isinstance(layer, layers)]

        def accuracy(self, x: Any, labels: Any, draws: int = 10) -> NoiseReport:
            """How many of the samples x [N, …] with classes `labels` [N] are named rightly, without and with noise.

            Args:
                x: samples.
                labels: classes.
                draws: programmings of the devices, the next ones.

            Raises:
                Error: NEUC-E659, there are no samples, labels are of another number, or there is no draw.
            """
            if draws < 1 or not len(x) or len(x) != len(labels):
                what = f"{draws} draws of {len(x)} samples with {len(labels)} labels"
                raise Error(
                    "NEUC-E659", f"{what} make no accuracy", hint="give one draw or more, a label for each sample"
                )
            training = self.training
            self.eval()
            with torch.no_grad():

                def share(network: Any) -> float:
                    return float((network(x).argmax(-1) == labels).float().mean())

                found = NoiseReport(share(self.module), tuple(share(self) for _ in range(draws)))
            self.train(training)
            return found

        def forward(self, *inputs: Any) -> Any:
            """The network's output on the next draw of the devices."""
            replaced: dict[str, Any] = {}
            hooks: list[Any] = []
            generator = torch.Generator().manual_seed(self.noise.seed)
            for index, name in enumerate(self.simulated):
                layer = self.module.get_submodule(name)
                weight = layer.weight
                matrix = weight.detach().cpu().numpy().reshape(weight.shape[0], -1)
                held, std = self.noise.held(matrix, index)
                moved = torch.from_numpy(held).reshape(weight.shape).to(weight) - weight.detach()
                replaced[f"{name}.weight" if name else "weight"] = weight + moved
                hooks.append(layer.register_forward_hook(_converter_noise(torch, std, generator)))
            self.noise.seed += 1
            try:
                return torch.func.functional_call(self.module, replaced, inputs)
            finally:
                for hook in hooks:
                    hook.remove()

    return NoiseModel


def _converter_noise(torch: Any, std: np.ndarray, generator: Any) -> Any:
    """A hook that adds the noise of output converters, in units of each sample's largest input."""

    def add(layer: Any, inputs: Any, output: Any) -> Any:
        x = inputs[0].detach()
        conv = not isinstance(layer, torch.nn.Linear)
        axes = tuple(range(1, x.dim())) if conv else (-1,)
        alpha = x.abs().amax(dim=axes, keepdim=True)
        shape = (1, -1, *[1] * (output.dim() - 2)) if conv else (-1,)
        noise = torch.randn(output.shape, generator=generator).to(output)
        return output + noise * torch.from_numpy(std).to(output).reshape(shape) * alpha

    return add
