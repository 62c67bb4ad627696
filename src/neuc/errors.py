"""The two exception families every part of neuc raises, and the exit codes they map to.

Standard library only: the runtime imports this too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Process exit codes of the ``neuc`` command."""

    OK = 0
    FAULT = 1
    USAGE = 2
    UNSUPPORTED = 3
    MISMATCH = 4
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True)
class NodeRef:
    """Where in the user's model something is: an ONNX node, or a tensor of a weight file.

    Attributes:
        name: node name, or ``Op#index`` when the model left it unnamed.
        op_type: ONNX operator type, with its domain when it is not the default one.
        reason: why this node is named here, empty if the message already says it.
        noun: what it is.
    """

    name: str
    op_type: str = ""
    reason: str = ""
    noun: str = "node"


class Error(Exception):
    """A fault of the model, the data, the environment or the call; shown without a traceback.

    Args:
        code: ``NEUC-Exxx``; ``neuc explain CODE`` prints the long form.
        message: one line that names the thing.
        hint: one line that says what to do.
        nodes: all offending ONNX nodes.
        exit_code: what the command line returns.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        nodes: Sequence[NodeRef] = (),
        exit_code: Exit = Exit.FAULT,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.nodes = tuple(nodes)
        self.exit_code = exit_code

    def __str__(self) -> str:
        text = f"[{self.code}] {self.message}"
        return f"{text} (hint: {self.hint})" if self.hint else text

    def to_json(self) -> dict[str, object]:
        """The error as plain data, for ``--json``."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": int(self.exit_code),
            "nodes": [{"name": n.name, "op_type": n.op_type, "reason": n.reason} for n in self.nodes],
        }


class InternalError(Exception):
    """A bug of ours; the command line saves a report with a reproducer and exits 70."""
