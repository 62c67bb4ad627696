"""What aihwkit 1.2 and badcrossbar 1.1 compute, for tests to compare with; writes the .npz files beside it.

Needs an environment of its own, on Python 3.12: aihwkit 1.2.0 with torch, and badcrossbar without its dependencies.
"""

# Runs in an environment of its own, with the packages that pyright does not find here.
# pyright: reportMissingImports=false, reportArgumentType=false
from __future__ import annotations

from pathlib import Path

import badcrossbar
import numpy as np
import torch
from aihwkit.inference import PCMLikeNoiseModel, ReRamWan2022NoiseModel
from aihwkit.inference.noise.hermes import HermesNoiseModel
from aihwkit.nn import AnalogLinear
from aihwkit.simulator.configs import InferenceRPUConfig, SingleRPUConfig
from aihwkit.simulator.configs.devices import LinearStepDevice
from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType
from aihwkit.simulator.tiles import AnalogTile

HERE = Path(__file__).parent
ROWS, COLUMNS, SAMPLES = 96, 80, 250
LEVELS, DRAWS = (0.1, 0.3, 0.6, 0.8, 1.0), 200_000
TIMES = (0.0, 3600.0, 86400.0, 2592000.0, 31536000.0)
PULSED = {"soft-bounds": (1.0, 1.0, 0.0, True), "linear": (0.3, 0.6, 0.2, False)}
"""Slopes up and down, smaller down steps, whether noise is relative to the present step."""
CASES: dict[str, dict[str, object]] = {
    "converters": {"out_bound": 12.0},
    "wires": {"out_bound": 12.0, "ir_drop": 1.0, "ir_drop_g_ratio": 1 / 0.35 / 1e-4},
    "constant range": {
        "noise_management": NoiseManagementType.CONSTANT,
        "nm_thres": 1.5,
        "inp_res": 254,
        "out_bound": 10.0,
    },
    "iterative bound management": {"bound_management": BoundManagementType.ITERATIVE, "out_bound": 2.0},
}


def tiles() -> dict[str, np.ndarray]:
    """Deterministic forward passes: DAC, products, wires, ADC."""
    torch.manual_seed(0)
    weights = (torch.randn(COLUMNS, ROWS) * 0.3).clamp(-1, 1)
    x = torch.randn(SAMPLES, ROWS)
    found = {"weights": weights.numpy(), "x": x.numpy()}
    for name, settings in CASES.items():
        config = InferenceRPUConfig()
        config.forward.bound_management = BoundManagementType.NONE
        config.forward.out_noise = 0.0
        for key, value in settings.items():
            setattr(config.forward, key, value)
        layer = AnalogLinear(ROWS, COLUMNS, bias=False, rpu_config=config)
        layer.set_weights(weights)
        layer.eval()
        with torch.no_grad():
            found[name] = layer(x).numpy()
    return found


def wires() -> dict[str, np.ndarray]:
    """Output currents of random crossbars with wire resistance."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for rows, columns, ohms in ((8, 8, 1.0), (16, 5, 2.5), (24, 40, 0.35)):
        conductance = 25e-6 * np.clip(rng.random((rows, columns)), 0.01, 1)
        volts = 0.2 * rng.random((rows, 3))
        solved = badcrossbar.compute(volts, 1 / conductance, ohms, node_voltages=False, all_currents=False)
        name = f"{rows}x{columns}"
        found |= {
            f"{name} g": conductance,
            f"{name} v": volts,
            f"{name} i": solved.currents.output,
            f"{name} r": np.array(ohms),
        }
    return found


def samples() -> dict[str, np.ndarray]:
    """Mean and standard deviation of conductances: [level, time, 2] for each noise model, µS."""
    torch.manual_seed(1)
    models = {
        "pcm": (PCMLikeNoiseModel(g_max=25.0), TIMES),
        "hermes1": (HermesNoiseModel(num_devices=1), TIMES),
        "hermes2": (HermesNoiseModel(num_devices=2), TIMES),
        "reram": (ReRamWan2022NoiseModel(g_max=40.0), (1.0, 86400.0, 172800.0)),
    }
    found: dict[str, np.ndarray] = {}
    for name, (model, times) in models.items():
        g_max = float(model.g_converter.g_max)
        rows: list[list[tuple[float, float]]] = []
        for level in LEVELS:
            target = torch.full((DRAWS,), level * g_max)
            programmed = model.apply_programming_noise_to_conductance(target)
            exponents = model.generate_drift_coefficients(target)
            # The ReRAM model draws around its targets at each time.
            base = target if name == "reram" else programmed
            aged = [model.apply_drift_noise_to_conductance(base, exponents, time) for time in times]
            rows.append([(float(g.mean()), float(g.std())) for g in aged])
        found[name] = np.array(rows)
        found[f"{name} targets"] = np.array(LEVELS) * g_max
        found[f"{name} times"] = np.array(times)
    return found


def pulses() -> dict[str, np.ndarray]:
    """Weights after ten pulsed updates, of devices that are all alike: [repeat, outputs, inputs] for each kind."""
    torch.manual_seed(2)
    lines, repeats = 24, 40
    x, d = torch.linspace(0.2, 1, lines)[None], torch.linspace(-1, 1, lines)[None]
    found: dict[str, np.ndarray] = {}
    for name, (up, down, up_down, multiplicative) in PULSED.items():
        device = LinearStepDevice(
            dw_min=0.01,
            dw_min_std=0.3,
            up_down=up_down,
            w_min=-0.6,
            w_max=0.8,
            gamma_up=up,
            gamma_down=down,
            mult_noise=multiplicative,
            mean_bound_reference=False,
            **dict.fromkeys(("dw_min_dtod", "up_down_dtod", "w_min_dtod", "w_max_dtod"), 0.0),
        )
        rows: list[np.ndarray] = []
        for _ in range(repeats):
            tile = AnalogTile(lines, lines, SingleRPUConfig(device=device))
            tile.set_weights(torch.full((lines, lines), 0.1))
            tile.set_learning_rate(0.05)
            for _ in range(10):
                tile.update(x, d)
            rows.append(tile.get_weights()[0].numpy())
        found[name] = np.stack(rows).astype(np.float16)
    return found


if __name__ == "__main__":
    np.savez_compressed(HERE / "aihwkit_pulses.npz", **pulses())
    np.savez_compressed(HERE / "aihwkit_devices.npz", **samples())
    np.savez_compressed(HERE / "aihwkit_tiles.npz", **tiles())
    np.savez_compressed(HERE / "badcrossbar.npz", **wires())
