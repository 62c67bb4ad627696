"""The report of a bug of ours: traceback, versions, the command and, from the pass driver, a reproducer.

Reports go to the user's cache folder and are never sent anywhere.
"""

from __future__ import annotations

import platform
import shlex
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from neuc.runtime.cache import cache_dir

_KEPT_REPORTS = 20
_VERSIONED = ("neuc", "xdsl", "onnx", "onnxruntime", "llvmlite", "numpy")


def save_report(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write the report of `error` and return its folder; the oldest reports make room."""
    home = cache_dir() / "crashes"
    folder = home / f"{time.strftime('%Y%m%d-%H%M%S')}-{abs(hash(str(error))) % 10**6:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "traceback.txt").write_text(
        "".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace"
    )
    lines = [f"command: neuc {shlex.join(arguments)}", f"python: {platform.python_version()}"]
    lines += [f"machine: {platform.machine()} {platform.system()}"]
    lines += [f"{name}: {_version(name)}" for name in _VERSIONED]
    module_text = getattr(error, "module_text", "")
    pipeline = getattr(error, "pipeline", "")
    if isinstance(module_text, str) and module_text:
        (folder / "reproducer.mlir").write_text(module_text, encoding="utf-8")
        lines.append(f"reproduce: neuc opt reproducer.mlir -p {shlex.quote(str(pipeline))}")
    (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    _drop_oldest(home)
    return folder


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _drop_oldest(home: Path) -> None:
    reports = sorted((p for p in home.iterdir() if p.is_dir()), key=lambda p: p.name)
    for old in reports[:-_KEPT_REPORTS]:
        for file in old.iterdir():
            file.unlink(missing_ok=True)
        old.rmdir()
