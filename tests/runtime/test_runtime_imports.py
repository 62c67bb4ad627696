"""The runtime stands alone: it must not pull in the compiler or its heavy dependencies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import runtime_programs

FORBIDDEN = [
    "xdsl",
    "onnx",
    "onnxruntime",
    "networkx",
    "rich",
    "click",
    "neuc.compiler",
    "neuc.passes",
    "neuc.dialects",
]


def modules_after(code: str) -> set[str]:
    """Names of all modules loaded after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    loaded = modules_after("import neuc.runtime")
    assert not {"numpy", "llvmlite", *FORBIDDEN} & loaded


def test_running_a_program_needs_numpy_and_llvmlite_only() -> None:
    support = str(Path(runtime_programs.__file__).parent)
    loaded = modules_after(
        f"import sys; sys.path.insert(0, {support!r})\n"
        "import numpy, runtime_programs as r, neuc.runtime\n"
        "s = neuc.runtime.Session.from_parts(r.chain(), r.kernels(), r.chain_weights(), threads=2)\n"
        "s.run(None, {'x': numpy.ones((3, 5), 'float32')})"
    )
    assert {"numpy", "llvmlite"} <= loaded
    assert not set(FORBIDDEN) & loaded


def test_completion_offers_the_public_names_and_loads_nothing() -> None:
    loaded = modules_after("import neuc\nprint(*dir(neuc))")
    import neuc

    assert set(neuc.__all__) <= loaded  # printed before the modules
    assert not {"numpy", "llvmlite", "neuc.runtime.session", *FORBIDDEN} & loaded
    plain = [name for name in dir(neuc) if not name.startswith("_")]
    assert plain == sorted(set(neuc.__all__) - {"__version__"})
    assert all(hasattr(neuc, name) for name in dir(neuc))
