"""How a child process of a benchmark answers over its pipe; see `engines.py`. Standard library only.

Requests and answers are JSON, a line each: `load`, then operations of what the worker made of the first, such as
`prefill` and `decode`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

_COPY_OF_STDOUT = 1


class Session(Protocol):
    """A loaded model, with a method for each operation."""

    def facts(self) -> dict[str, Any]:
        """What is printed about it."""
        ...


def serve(
    load: Callable[[dict[str, Any]], Session],
    failure: type[Exception],
    operations: tuple[str, ...] = ("prefill", "decode"),
) -> None:
    """Answer requests until the pipe closes; what libraries print goes to the error stream.

    Args:
        load: a session for a request.
        failure: what an answer tells instead of ending the process.
        operations: methods of the session that requests may name; their other fields are its arguments.
    """
    answers = os.fdopen(os.dup(_COPY_OF_STDOUT), "w")
    os.dup2(2, _COPY_OF_STDOUT)
    session: Session | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "load":
                session = load(request)
                answer = session.facts()
            elif session is None:
                answer = {"error": "no model is loaded"}
            elif (operation := request.pop("op")) in operations:
                answer = getattr(session, operation)(**request)
            else:
                answer = {"error": f"no operation {operation!r}"}
        except failure as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
