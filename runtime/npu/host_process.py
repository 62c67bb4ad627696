"""The host working through its sequence: queueing tasks on shim channels, waiting for them, setting parameters."""

from __future__ import annotations

from collections.abc import Callable

from neuc.runtime.npu.clockwork import Process
from neuc.runtime.npu.processes import PortState, Task
from neuc.runtime.npu.program import SetParam, Step, Transfer
from neuc.runtime.npu.world import World


class HostProcess:
    """The host's sequence, step by step: queues tasks on ports, waits for them, sets parameters."""

    def __init__(self, steps: tuple[Step, ...], world: World, queue: Callable[[Transfer], Task]) -> None:
        self.name = "host"
        self.world, self._steps, self._queue = world, steps, queue
        self.ports: dict[str, PortState] = {}
        self.set_param: Callable[[SetParam], None] = lambda _: None
        self._next = 0
        self._busy = False

    @property
    def done(self) -> bool:
        """Whether every step is done."""
        return self._next == len(self._steps)

    def poke(self) -> None:
        """Do the next step if it can be done."""
        if self._busy or self.done:
            return
        step = self._steps[self._next]
        if isinstance(step, SetParam):
            self.set_param(step)
            return self._pause(self.world.machine.host.get("rtp_ns_per_word", 0.0) * 1e-9 * self.world.machine.clock_hz)
        port = self.ports[step.port]
        if isinstance(step, Transfer):
            if len(port.tasks) >= port.depth:
                return
            port.tasks.append(self._queue(step))
            assert port.flow is not None
            port.flow.poke()
            return self._pause(self.world.timing("task_push"))
        if not port.tasks:
            self._pause(0.0)

    def _pause(self, cycles: float) -> None:
        self._busy = True
        self.world.clock.after(cycles, self._go_on)

    def _go_on(self) -> None:
        self._busy = False
        self._next += 1
        self.poke()

    def blocked_on(self) -> list[tuple[str, Process]]:
        """The port whose tasks have to end first."""
        if self.done:
            return []
        step = self._steps[self._next]
        assert not isinstance(step, SetParam)
        flow = self.ports[step.port].flow
        assert flow is not None
        what = "room in the queue of" if isinstance(step, Transfer) else "the tasks on"
        return [(f"{what} {step.port}", flow)]
