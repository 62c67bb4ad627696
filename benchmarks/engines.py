"""Engines under comparison: what a TOML file says of them, their child processes, and which builds are refused.

Each engine lives in a child process that stays loaded, so engines can take turns round by round. While one works, the
others are stopped by signal: no idle thread of theirs spins. Requests and answers are JSON, one line each:

    {"op": "load", "model": …, "threads": 2, "capacity": 1024, …}     -> {"system": "AVX512_VNNI = 1 | …"}
    {"op": "prefill", "tokens": 512, "threads": 1}                    -> {"seconds": 4.1}
    {"op": "decode", "context": 128, "tokens": 32, "threads": 1}      -> {"seconds": 1.2, "each": […]}

An answer with "error" ends the run. Nothing here knows how any engine works.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limits import AMX, best_dot_product, present_dot_products

from neuc.runtime.cpu_features import host_features

HERE = Path(__file__).parent
WORKERS = {
    "neuc": "neuc_worker.py",
    "llama_cpp": "llama_worker.py",
    "ik_llama_cpp": "llama_worker.py",
    "litespark": "litespark_worker.py",
    "ggml": "ggml_worker.py",
}
"""Kinds of engines and the child each runs in."""

CAPACITY = 1024
_FLAG = re.compile(r"\b([A-Z][A-Z0-9_]+) = ([01])\b")


@dataclass(frozen=True)
class Table:
    """One table of results: which instruction sets engines in it may have.

    Attributes:
        required: flags a peer's system information must show as 1.
        forbidden: flags it must not show as 1, since neuc does without in this table.
        neuc_features: what `NEUC_CPU_FEATURES` takes from neuc.
        peak: the key of `limits.DOT_PRODUCTS` of its widest vectors.
    """

    required: tuple[str, ...]
    forbidden: tuple[str, ...]
    neuc_features: str
    peak: str

    @property
    def peaks(self) -> list[str]:
        """Keys of `limits.DOT_PRODUCTS` that prompts are held against: the table's vectors, this machine's, its tiles.

        Every table has all of them, also those that neuc does without in it.
        """
        kept = {self.peak, best_dot_product(), AMX}
        return [name for name in reversed(present_dot_products()) if name in kept]


_AVX2 = ("AVX2", "FMA", "F16C")
_AVX512 = (*_AVX2, "AVX512", "AVX512_VBMI", "AVX512_VNNI")
TABLES = {
    "avx512": Table(_AVX512, (), "-amx-tile", "avx512"),
    "avx2": Table(_AVX2, ("AVX512", "AVX_VNNI"), "-avx512f,-avxvnni,-amx-tile", "avx2"),
}


def native_table() -> Table:
    """Everything this processor has, for neuc and for peers built here.

    That a build knows AMX is not asked for: ik_llama.cpp has no flag for it, and no peer multiplies ternary weights
    with it, so a native build is the best there is.
    """
    wide = host_features() >= {"avx512vl", "avx512vbmi", "avx512vnni"}
    return Table(_AVX512 if wide else _AVX2, (), "", best_dot_product())


@dataclass(frozen=True)
class EngineSpec:
    """One `[[engine]]` of the TOML file; paths are relative to the file.

    Attributes:
        name: what the table prints.
        kind: a key of `WORKERS`.
        model: the file it loads, whose size counts as what a token reads.
        tables: tables it takes part in.
        head: format of embedding and output matrix, which ratios are taken between equal ones of, too.
        python: the interpreter of the child; this one's by default.
        environment: variables of the child.
        options: further fields of the load request (`model_options`, `context_options`).
    """

    name: str
    kind: str
    model: Path
    tables: tuple[str, ...]
    head: str = ""
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict[str, str])
    options: dict[str, Any] = field(default_factory=dict[str, Any])


class Engine:
    """A child process with a loaded model."""

    def __init__(self, spec: EngineSpec, threads: int, table: Table, log: Path) -> None:
        self.spec = spec
        environment = os.environ | spec.environment
        if spec.kind == "neuc" and table.neuc_features:
            environment["NEUC_CPU_FEATURES"] = table.neuc_features
        command = [spec.python, str(HERE / WORKERS[spec.kind]), *([spec.kind] if spec.kind != "neuc" else [])]
        self._log = log
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("wb"), env=environment, text=True
        )
        request = {"op": "load", "model": str(spec.model), "threads": threads, "capacity": CAPACITY, **spec.options}
        self._send(request)
        self.facts = self._receive()
        self.system = str(self.facts["system"])
        self.weight_bytes = int(self.facts.get("weight_bytes", spec.model.stat().st_size))
        self._child.send_signal(signal.SIGSTOP)

    def request(self, **fields: Any) -> dict[str, Any]:
        """Let the child work on one request, alone.

        Raises:
            SystemExit: it failed or died; its last words are shown.
        """
        self._child.send_signal(signal.SIGCONT)
        try:
            self._send(fields)
            return self._receive()
        finally:
            self._child.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the child, stopped or not."""
        self._child.kill()
        self._child.wait()

    def _send(self, fields: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(fields) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            self._failed("it has ended")

    def _receive(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"it ended with {self._child.wait()}"}
        if "error" in answer:
            self._failed(str(answer["error"]))
        return answer

    def _failed(self, why: str) -> None:
        self.close()
        words = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{self.spec.name}: {why}\n{words}")


def read_specs(path: Path) -> list[EngineSpec]:
    """Engines of a TOML file.

    Raises:
        SystemExit: the file cannot be read, or an engine in it is incomplete or of an unknown kind.
    """
    try:
        entries = tomllib.loads(path.read_text())["engine"]
        return [_spec(entry, path.parent.resolve()) for entry in entries]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SystemExit(f"{path}: {type(error).__name__}: {error} (see benchmarks/peers.md for its form)") from None


def refusal(spec: EngineSpec, system: str, table: Table) -> str | None:
    """Why a peer's build may not be compared in this table, or None.

    Args:
        spec: the engine; neuc itself is not refused: it is told what it may use.
        system: the line the peer says of itself, flags as in ``AVX2 = 1``.
        table: what the table asks for.
    """
    if spec.kind == "neuc":
        return None
    flags = {name: value == "1" for name, value in _FLAG.findall(system)}
    if missing := [name for name in table.required if not flags.get(name)]:
        return f"built without {', '.join(missing)}, which neuc uses in this table"
    if extra := [name for name in table.forbidden if flags.get(name)]:
        return f"built with {', '.join(extra)}, which neuc does without in this table"
    return None


def _spec(entry: dict[str, Any], base: Path) -> EngineSpec:
    if entry["kind"] not in WORKERS:
        raise SystemExit(f"engine {entry['name']}: kind is {entry['kind']}, not one of {', '.join(WORKERS)}")
    environment = {name: value.replace("$HERE", str(base)) for name, value in entry.get("environment", {}).items()}
    options = {name: entry[name] for name in ("model_options", "context_options", "chunk") if name in entry}
    return EngineSpec(
        name=entry["name"],
        kind=entry["kind"],
        model=base / entry["model"],
        tables=tuple(entry.get("tables", ("native", *TABLES))),
        head=entry.get("head", ""),
        # Not resolved: a virtual environment's interpreter is a link, and is known by where it stands.
        python=str(base / entry["python"]) if "python" in entry else sys.executable,
        environment=environment,
        options=options,
    )
