"""neuc: compile neural networks to machines that avoid multiply-heavy, fetch-everything computing.

Importing this package loads nothing heavy; ``compile`` and ``load`` import what they need on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from neuc.errors import Error, InternalError

if TYPE_CHECKING:
    from neuc.compiler import energy, npu
    from neuc.compiler.analog.in_array import train_in_array
    from neuc.compiler.analog.torch_noise import noise_model
    from neuc.compiler.api import Compiled, compile
    from neuc.compiler.snn.convert import convert_to_snn
    from neuc.compiler.snn.model import SpikingModel
    from neuc.runtime.generation import Decoder, load_decoder
    from neuc.runtime.sampling import Sampling
    from neuc.runtime.session import Session, load

__version__ = "0.1.0"

__all__ = [
    "Compiled",
    "Decoder",
    "Error",
    "InternalError",
    "Sampling",
    "Session",
    "SpikingModel",
    "__version__",
    "compile",
    "convert_to_snn",
    "energy",
    "load",
    "load_decoder",
    "noise_model",
    "npu",
    "train_in_array",
]

_LAZY = {
    "Compiled": "neuc.compiler.api",
    "Decoder": "neuc.runtime.generation",
    "Sampling": "neuc.runtime.sampling",
    "Session": "neuc.runtime.session",
    "SpikingModel": "neuc.compiler.snn.model",
    "compile": "neuc.compiler.api",
    "convert_to_snn": "neuc.compiler.snn.convert",
    "load": "neuc.runtime.session",
    "load_decoder": "neuc.runtime.generation",
    "noise_model": "neuc.compiler.analog.torch_noise",
    "train_in_array": "neuc.compiler.analog.in_array",
}


def __getattr__(name: str) -> object:
    """Resolve a public name on first use."""
    if name in ("energy", "npu"):
        return import_module(f"neuc.compiler.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'neuc' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion offers: the public names, loaded or not, and none of what this file imports."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))})
