"""Learning curves of training in the array on digits, beside aihwkit's with the same devices and rules.

    python benchmarks/analog_training.py [--seeds 3] [--epochs 12] [--peer PYTHON] [--json training.json]

PYTHON is that of an environment with aihwkit 1.2 (Python 3.12). Both sides have exact forward and backward passes, but
for the case with converters, digital biases, batches of 10, the same devices and rules of pulses; devices, first
weights and order of samples are drawn by each for itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from analog_digits import digits

from neuc.compiler.analog.array_products import ArrayConverters
from neuc.compiler.analog.in_array import train_in_array
from neuc.runtime.analog.pulsed_devices import PULSED_DEVICES

SIZES, BATCH, RATE = (64, 48, 10), 10, 0.1
CONVERTED = ", converters"
CASES = (
    ("sgd", "constant"),
    ("sgd", "soft-bounds"),
    ("tiki-taka", "soft-bounds"),
    ("tiki-taka-2", "soft-bounds"),
    ("sgd", "ecram"),
    ("sgd", f"ecram{CONVERTED}"),
)
"""Rules, and devices: with `CONVERTED`, products go through converters of 7 and 9 bits with noise."""


@dataclass(frozen=True)
class Curve:
    """One rule on one device: mean accuracy after each epoch, CPU seconds a training, by whom."""

    who: str
    rule: str
    device: str
    accuracies: list[float]
    seconds: float


def ours(seeds: int, epochs: int) -> list[Curve]:
    """The curves of neuc."""
    data, found = digits(), list[Curve]()
    for rule, device in CASES:
        begin = time.process_time()
        runs = [
            train_in_array(
                SIZES,
                data.x,
                data.y,
                test=(data.test_x, data.test_y),
                rule=rule,
                device=device.removesuffix(CONVERTED),
                converters=ArrayConverters() if device.endswith(CONVERTED) else None,
                epochs=epochs,
                batch=BATCH,
                rate=RATE,
                seed=seed,
            )
            for seed in range(seeds)
        ]
        curve = np.mean([run.accuracies for run in runs], axis=0).tolist()
        found.append(Curve("neuc", rule, device, curve, (time.process_time() - begin) / seeds))
        print(_line(found[-1]), flush=True)
    return found


def theirs(python: str, seeds: int, epochs: int) -> list[Curve]:
    """The curves of aihwkit."""
    data, found = digits(), list[Curve]()
    settings: dict[str, object] = {name: np.asarray(getattr(data, name)).tolist() for name in vars(data)}
    settings |= {"sizes": SIZES, "batch": BATCH, "epochs": epochs, "seeds": seeds}
    settings["cases"] = [
        {
            "rule": rule,
            "rate": RATE,
            "numbers": asdict(PULSED_DEVICES[device.removesuffix(CONVERTED)]),
            "exact": not device.endswith(CONVERTED),
        }
        for rule, device in CASES
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        script = Path(__file__).with_name("analog_training_peer.py")
        with subprocess.Popen([python, str(script), str(path)], stdout=subprocess.PIPE, text=True) as peer:
            assert peer.stdout is not None
            for (rule, device), line in zip(CASES, peer.stdout):
                row = json.loads(line)
                found.append(Curve("aihwkit", rule, device, row["curve"], row["seconds"]))
                print(_line(found[-1]), flush=True)
    if len(found) != len(CASES):
        raise SystemExit(f"{python} answered {len(found)} of {len(CASES)} cases")
    return found


def _line(curve: Curve) -> str:
    shown = " ".join(f"{100 * a:.1f}" for a in curve.accuracies)
    return f"{curve.who:8} {curve.rule:12} {curve.device:12} {curve.seconds:6.1f} CPU s  {shown}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--peer", help="Python with aihwkit 1.2")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    curves = ours(arguments.seeds, arguments.epochs)
    if arguments.peer:
        curves += theirs(arguments.peer, arguments.seeds, arguments.epochs)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(curve) for curve in curves], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
