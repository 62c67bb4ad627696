"""The digits perceptron trained in the array by aihwkit; started by `analog_training.py` with aihwkit's own Python.

    PYTHON analog_training_peer.py SETTINGS.json

SETTINGS holds what `analog_training.py` writes: samples, sizes and the cases. Prints one JSON line a case: accuracies
after each epoch of each seed, and CPU seconds.
"""

# Runs in an environment of its own, with the packages that pyright does not find here.
# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from aihwkit.nn import AnalogLinear
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import SingleRPUConfig, UnitCellRPUConfig
from aihwkit.simulator.configs.compounds import BufferedTransferCompound, TransferCompound
from aihwkit.simulator.configs.devices import LinearStepDevice, SoftBoundsReferenceDevice
from aihwkit.simulator.parameters.training import UpdateParameters
from torch import nn


def shared(numbers: dict[str, float]) -> dict[str, float | bool]:
    """What both of aihwkit's devices below call the same."""
    return {
        "dw_min": numbers["step"],
        "dw_min_dtod": numbers["step_dtod"],
        "dw_min_std": numbers["step_noise"],
        "up_down": numbers["up_down"],
        "up_down_dtod": numbers["up_down_dtod"],
        "w_min": numbers["w_min"],
        "w_max": numbers["w_max"],
        "w_min_dtod": numbers["bounds_dtod"],
        "w_max_dtod": numbers["bounds_dtod"],
        "mult_noise": bool(numbers["multiplicative"]),
    }


def device(numbers: dict[str, float]) -> LinearStepDevice:
    """Our device in aihwkit's words."""
    return LinearStepDevice(
        **shared(numbers),
        gamma_up=numbers["slope_up"],
        gamma_down=numbers["slope_down"],
        gamma_up_dtod=numbers["slope_dtod"],
        gamma_down_dtod=numbers["slope_dtod"],
        mean_bound_reference=False,
    )


def referenced(numbers: dict[str, float]) -> SoftBoundsReferenceDevice:
    """Soft bounds read against their symmetric points."""
    return SoftBoundsReferenceDevice(**shared(numbers), subtract_symmetry_point=True)


def config(rule: str, numbers: dict[str, float], exact: bool) -> SingleRPUConfig | UnitCellRPUConfig:
    """A configuration with exact forward and backward passes, or aihwkit's converters."""
    if rule == "sgd":
        made: SingleRPUConfig | UnitCellRPUConfig = SingleRPUConfig(device=device(numbers))
    else:
        kinds = [referenced(numbers), referenced(numbers)]
        common = {"unit_cell_devices": kinds, "transfer_every": 1, "units_in_mbatch": False, "fast_lr": 1.0}
        common |= {"scale_transfer_lr": True, "transfer_lr": 1.0, "scale_fast_lr": True}
        if rule == "tiki-taka":
            compound = TransferCompound(**common)
        else:
            once = UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)
            compound = BufferedTransferCompound(**common, momentum=0.0, forget_buffer=False, transfer_update=once)
        compound.transfer_forward.is_perfect = True
        made = UnitCellRPUConfig(device=compound)
    made.forward.is_perfect = made.backward.is_perfect = exact
    made.mapping.digital_bias = True
    return made


def curve(settings: dict, case: dict, seed: int) -> list[float]:
    """Accuracy after each epoch."""
    torch.manual_seed(seed)
    x, y, test_x, test_y = (torch.tensor(settings[name]) for name in ("x", "y", "test_x", "test_y"))
    layers: list[nn.Module] = []
    sizes = settings["sizes"]
    for inputs, outputs in pairwise(sizes):
        layers += [
            AnalogLinear(inputs, outputs, rpu_config=config(case["rule"], case["numbers"], case["exact"])),
            nn.ReLU(),
        ]
    model = nn.Sequential(*layers[:-1])
    optimizer = AnalogSGD(model.parameters(), lr=case["rate"])
    optimizer.regroup_param_groups(model)
    found: list[float] = []
    whole = len(x) // settings["batch"] * settings["batch"]
    for _ in range(settings["epochs"]):
        model.train()
        for chosen in torch.randperm(len(x))[:whole].split(settings["batch"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            found.append(float((model(test_x).argmax(1) == test_y).float().mean()))
    return found


def main() -> None:
    """Train all cases."""
    torch.set_num_threads(1)
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for case in settings["cases"]:
        begin = time.process_time()
        curves = [curve(settings, case, seed) for seed in range(settings["seeds"])]
        seconds = (time.process_time() - begin) / settings["seeds"]
        print(json.dumps({"curve": np.mean(curves, axis=0).tolist(), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
