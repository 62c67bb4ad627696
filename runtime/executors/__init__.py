"""Executors of program segments, found by the segment's kind: built in, or from the group ``neuc.executors``."""

from __future__ import annotations

import importlib
from typing import cast

from neuc.errors import Error
from neuc.runtime.executors.base import Executor, ExecutorFactory, Setting
from neuc.runtime.executors.host import HostExecutor
from neuc.runtime.executors.native import NativeExecutor
from neuc.runtime.program import Segment

ENTRY_POINT_GROUP = "neuc.executors"


def _npu(name: str, segment: Segment, setting: Setting) -> Executor:
    from neuc.runtime.npu.executor import NpuExecutor  # seldom needed

    return NpuExecutor(name, segment, setting)


def _npu_rows(name: str, segment: Segment, setting: Setting) -> Executor:
    from neuc.runtime.npu.row_executor import RowExecutor  # seldom needed

    return RowExecutor(name, segment, setting)


_BUILT_IN: dict[str, ExecutorFactory] = {
    "native": NativeExecutor,
    "host": HostExecutor,
    "npu": _npu,
    "npu-rows": _npu_rows,
}


def executor_factory(kind: str) -> ExecutorFactory:
    """What makes executors of this kind of segment.

    Raises:
        Error: nothing is registered for it.
    """
    built_in = _BUILT_IN.get(kind)
    if built_in is not None:
        return built_in
    metadata = importlib.import_module("importlib.metadata")  # slow to import, and seldom needed
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP, name=kind):
        return cast(ExecutorFactory, entry.load())
    raise Error(
        "NEUC-E317",
        f"nothing here can run a segment of kind '{kind[:80]}'",
        hint="install the package that provides it, or update neuc",
    )
