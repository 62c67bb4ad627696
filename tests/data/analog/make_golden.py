"""What aihwkit 1.2 and badcrossbar 1.1 compute, for tests to compare with; writes the .npz files beside it.

Needs an environment of its own, on Python 3.12: aihwkit 1.2.0 with torch, and badcrossbar without its dependencies.
"""

from __future__ import annotations

from pathlib import Path

import badcrossbar
import numpy as np
import torch
from aihwkit.nn import AnalogLinear
from aihwkit.simulator.configs import InferenceRPUConfig
from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

HERE = Path(__file__).parent
ROWS, COLUMNS, SAMPLES = 96, 80, 250
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


if __name__ == "__main__":
    np.savez_compressed(HERE / "aihwkit_tiles.npz", **tiles())
    np.savez_compressed(HERE / "badcrossbar.npz", **wires())
