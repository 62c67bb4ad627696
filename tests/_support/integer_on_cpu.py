"""A graph-level module whose layers are integers, on the CPU's own kernels: what arrays have to equal bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuc.compiler import program
from neuc.compiler.driver import Driver
from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import choose_target, float_passes, partition_pass


def on_the_cpu(driver: Driver, target: str, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of the driver's module, with the layers that `target` recognises as integers and no array."""
    options, cpu = CompileOptions(target=target), choose_target(CompileOptions(target="cpu"))
    driver.run([*float_passes(options, choose_target(options)), partition_pass(options, cpu)])
    driver.reach("paradigm")
    driver.run(cpu.passes())
    session = program.build(driver.module, driver.context).session(threads=None, profile=False)
    return [np.asarray(output) for output in session.run(None, dict(feed))]
