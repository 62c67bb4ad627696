"""The executor of native segments: caches op tables and working memory per set of sizes, and hands jobs to the pool."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from neuc.errors import Error, Exit, InternalError
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.executors.loops import run_out
from neuc.runtime.executors.plan import Memory, Plan, SegmentCode, Table
from neuc.runtime.profile import Event
from neuc.runtime.program import NativeSegment, Segment

MAX_PLANS = 32
"""Sets of sizes whose op tables are kept; the least recently used goes first."""


class NativeExecutor:
    """Runs compiled kernels. Any number of threads may call `run`; each call has its own table and memory.

    The free lists and the plan cache need no lock: each operation on them is one that CPython makes atomic. So a fork
    in the middle of a call leaves nothing locked in the child.
    """

    def __init__(self, name: str, segment: Segment, setting: Setting) -> None:
        if not isinstance(segment, NativeSegment):
            raise InternalError(f"segment {name} is not native")
        self._code = SegmentCode(name, segment, setting)
        self._setting = setting
        self._plans: OrderedDict[tuple[int, ...], Plan] = OrderedDict()
        self._memories: list[Memory] = []

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Run on ``inputs`` and return all outputs; see `neuc.runtime.executors.base.Executor`."""
        plan = self._plan(inputs, symbols)
        results = self._results(plan, outputs)
        if len(plan.launches):
            table = self._take_table(plan.tables, plan)
            table.place(inputs, results)
            self._launch(table)
            plan.tables.append(table)
        return results

    def prepare(
        self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]
    ) -> tuple[list[Array], Callable[[], None]]:
        """Check once what `run` checks each time; see `neuc.runtime.executors.base.PreparingExecutor`."""
        plan = self._plan(inputs, symbols)
        results = self._results(plan, outputs)
        if not len(plan.launches):
            return results, _nothing
        given = list(inputs)
        tables: list[Table] = []

        def call() -> None:
            try:
                table = tables.pop()
            except IndexError:  # the first call, or one while another is running
                table = self._take_table([], plan)
                table.place(given, results)
            self._launch(table)
            tables.append(table)

        return results, call

    def _results(self, plan: Plan, outputs: Sequence[Array | None]) -> list[Array]:
        """The bound arrays, and new ones where nothing is bound."""
        results = [
            np.empty(shape, spec.dtype) if given is None else given
            for given, shape, spec in zip(outputs, plan.output_shapes, self._code.outputs)
        ]
        self._check_results(plan, results, outputs)
        return results

    def _launch(self, table: Table) -> None:
        plan, pool = table.plan, self._setting.pool
        memory = self._take_memory(plan.nbytes)
        table.use(memory)
        (pool.run_alone if plan.threads == 1 else pool.run)(table.job)
        if table.trace is not None:
            self._record(table)
        self._memories.append(memory)

    def _plan(self, inputs: Sequence[Array], symbols: Mapping[str, int]) -> Plan:
        code = self._code
        sizes = {name: symbols[name] for name in code.segment.symbols if name in symbols}
        if len(sizes) < len(code.segment.symbols):
            for shape, array in zip(code.inputs, inputs):
                shape.bind(array.shape, sizes)
            sizes = {name: sizes[name] for name in code.segment.symbols if name in sizes}
        key = tuple(sizes.values())
        plan = self._plans.get(key)
        if plan is None or len(key) < len(code.segment.symbols):
            plan = self._plans[key] = Plan(run_out(code, sizes), sizes)
            while len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        else:
            with contextlib.suppress(KeyError):  # another thread may just have dropped it
                self._plans.move_to_end(key)
        for index, (array, shape, want) in enumerate(zip(inputs, plan.input_shapes, code.inputs)):
            flags = array.flags
            fits = array.shape == shape and array.dtype == want.dtype
            if not (fits and flags.c_contiguous and flags.aligned):
                raise Error(
                    "NEUC-E316",
                    f"segment '{code.name}' expects {want.spec.dtype}{list(shape)} as input {index}, "
                    f"but got {array.dtype}{list(array.shape)}",
                    hint="the part before it gave something else than its model promised",
                )
        return plan

    def _check_results(self, plan: Plan, results: Sequence[Array], bound: Sequence[Array | None]) -> None:
        """Kernels write blindly: what the caller bound must have exactly the right place for it."""
        for array, given, shape, want in zip(results, bound, plan.output_shapes, self._code.outputs):
            if given is not None and (array.shape != shape or array.dtype != want.dtype):
                raise Error(
                    "NEUC-E312",
                    f"an array of {array.dtype}{list(array.shape)} is bound to an output that is "
                    f"{want.spec.dtype}{list(shape)} for these inputs",
                    hint="bind an array of that type and shape, or none",
                    exit_code=Exit.USAGE,
                )

    def _take_memory(self, nbytes: int) -> Memory:
        try:
            memory = self._memories.pop()
        except IndexError:
            return Memory(nbytes)
        return memory if memory.nbytes >= nbytes else Memory(nbytes)

    def _take_table(self, tables: list[Table], plan: Plan) -> Table:
        try:
            return tables.pop()
        except IndexError:
            return Table(plan, trace=self._setting.profile is not None)

    def _record(self, table: Table) -> None:
        profile, trace = self._setting.profile, table.trace
        if profile is None or trace is None:
            return
        plan = table.plan
        code = plan.code
        events: list[Event] = []
        for row, launch in enumerate(plan.launches.tolist()):
            label, kernel = code.labels[launch]
            details = {"segment": code.name, "kernel": kernel}
            for thread in range(plan.threads):
                begin, end, units = (int(value) for value in trace[row, thread])
                if end:
                    events.append(Event(label, "native", begin, end, thread, {**details, "work": units}))
        trace[:] = 0
        profile.add(events)


def _nothing() -> None:
    """The run of a segment that has nothing to do."""
