"""`neuc doctor`: what this machine can do, and whether neuc, or an artifact's kernels, work on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from neuc.compiler.cli import arguments, console
from neuc.errors import Error, Exit, InternalError

if TYPE_CHECKING:
    from neuc.backends.cpu.isa import Isa
    from neuc.runtime.program import Program
    from neuc.runtime.self_check import Outcome

_VERSIONED = ("neuc", "numpy", "onnx", "onnxruntime", "onnxscript", "llvmlite", "xdsl")
_WIDEST = 60
"""Columns of names; longer ones push their outcome to the right."""
_TOLERANCE = 1e-4
"""Relative error of a float dot product of 64 elements summed in another order stays far below this."""


@click.command("doctor")
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@arguments.json_option
def doctor_command(artifact: Path | None, as_json: bool) -> int:
    """Show CPU features, the instruction set chosen, versions and the cache; compile and run small models, and try a
    kernel of every encoding and instruction set this CPU has. With ARTIFACT, try that artifact's kernels.
    """
    from neuc.backends.cpu.target import host_isa, isa_text
    from neuc.runtime.cache import cache_dir
    from neuc.runtime.cpu_features import available_cpus, host_cpu_name, host_features

    facts: dict[str, object] = {
        "python": f"{platform.python_version()} ({platform.machine()} {platform.system()})",
        "cpu": host_cpu_name(),
        "cpus for this process": available_cpus(),
        "instruction set chosen": isa_text(host_isa()),
        "features": sorted(host_features()),
        "narrowed by": os.environ.get("NEUC_CPU_FEATURES", "") or "nothing",
        "cache": str(cache_dir()),
        "versions": {name: _version(name) for name in _VERSIONED},
    }
    if artifact is None:
        checks = {name: _check(name, run) for name, run in (_self_tests() | _kernel_tests()).items()}
        checks["cache is writable"] = _check("cache", _cache_writable)
    else:
        checks = _artifact_checks(artifact)
    healthy = all(outcome == "ok" or outcome.startswith("ok,") for outcome in checks.values())
    if as_json:
        console.product_json({**facts, "checks": checks, "healthy": healthy})
    else:
        rows = [(key, _text(value)) for key, value in facts.items() if key != "features"]
        rows += [(key, value) for key, value in checks.items()]
        width = min(_WIDEST, max(len(key) for key, _ in rows))
        console.product("\n".join(f"{key:<{width}}  {value}" for key, value in rows))
        console.product("healthy" if healthy else "NOT healthy")
    return Exit.OK if healthy else Exit.FAULT


def _self_tests() -> dict[str, Callable[[], None]]:
    from neuc.backends.paradigm_target import ParadigmTarget
    from neuc.compiler.universe import targets

    found: dict[str, Callable[[], None]] = {}
    for name, target in targets().items():
        if isinstance(target, ParadigmTarget) and not target.networks:
            continue
        deviation = target.deviation if isinstance(target, ParadigmTarget) else 0.0
        found[f"compile and run on {name}"] = partial(_self_test, name, deviation)
    return found


def _kernel_tests() -> dict[str, Callable[[], None]]:
    from neuc.backends.cpu.encodings import CPU_ENCODINGS
    from neuc.backends.cpu.kernel_samples import host_isas
    from neuc.backends.cpu.target import isa_text

    return {
        f"{kind} kernel on {isa_text(isa)}": lambda kind=kind, isa=isa: _kernel_test(isa, kind)
        for isa in host_isas()
        for kind in CPU_ENCODINGS
    }


def _kernel_test(isa: Isa, kind: str) -> None:
    """A product of this encoding, against numpy."""
    from neuc.backends.cpu.kernel_samples import sample

    made = sample(isa, kind)
    problems = [o.problem for o in _outcomes(made.program, made.kernels, made.weights, isa.features, isa.arch)]
    if any(problems):
        raise InternalError("; ".join(filter(None, problems)))


def _artifact_checks(path: Path) -> dict[str, str]:
    """The outcome of each check of an artifact, by the node whose kernel it is.

    Raises:
        Error: the file is no sound artifact, or its code does not run here.
    """
    from neuc.runtime.artifact import Artifact

    arguments.require_file(path)
    artifact = Artifact.open(path)
    found = _outcomes(artifact.program, artifact.kernels, artifact.weights, artifact.features, artifact.architecture)
    if not found:
        return {"kernels with checks": "ok, there are none: no layer is ternary"}
    checks: dict[str, str] = {}
    for outcome in found:
        name = outcome.check.label or "unnamed"
        while name in checks:
            name += "'"
        problem = f"FAILED: {outcome.problem}, " if outcome.problem else "ok, "
        checks[name] = problem + outcome.kernel
    return checks


def _outcomes(
    program: Program,
    kernels: Mapping[str, bytes],
    weights: Mapping[str, np.ndarray],
    features: Collection[str],
    architecture: str,
) -> list[Outcome]:
    from neuc.runtime.loader import load_kernels
    from neuc.runtime.self_check import run_checks

    code = load_kernels(kernels, program.kernels(), features=features, architecture=architecture)
    return run_checks(program, code.addresses, weights)


def _self_test(target: str, deviation: float) -> None:
    """A matrix product with bias and ReLU, against numpy: exactly representable when it is made ternary.

    `deviation` is what the target's machine takes results from the model's by nature.
    """
    import tempfile

    from onnx import TensorProto, helper, numpy_helper, save

    import neuc

    rng = np.random.default_rng(0)
    weight = rng.integers(-1, 2, (64, 32)).astype(np.float32) * 0.5
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Relu", ["m"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "self-test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    # Integers up to 127 quantise to themselves, so that ternary kernels must be as exact as float ones.
    x = rng.integers(-127, 128, (3, 64)).astype(np.float32)
    x[:, 0] = 127
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "self-test.onnx"
        save(model, path)
        compiled = neuc.compile(path, target=target, fallback="error")
        (got,) = compiled.session().run(None, {"x": x})
    expected = np.maximum(x @ weight, 0)
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not error <= _TOLERANCE + deviation:
        raise InternalError(f"results are off by {error:.2g} of their size")


def _cache_writable() -> None:
    from neuc.runtime.cache import cache_dir

    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".doctor-{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()


def _check(name: str, run: Callable[[], None]) -> str:
    console.progress(f"trying: {name}")
    start = time.perf_counter()
    try:
        run()
    except Error as error:
        return f"FAILED: {error}"
    except Exception as error:  # a broken installation fails in any way; the doctor's work is to say so
        return f"FAILED: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return f"ok, {time.perf_counter() - start:.2f} s"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
