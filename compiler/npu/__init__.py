"""`neuc.compiler.npu`: writing dataflow graphs in Python, compiling them for an array, and simulating them."""

from neuc.compiler.npu.api import App, Application, Kernel
from neuc.compiler.npu.memory_tiles import join, pass_through, split
from neuc.compiler.npu.tracing import HostArray, Token

__all__ = ["App", "Application", "HostArray", "Kernel", "Token", "join", "pass_through", "split"]
