"""How a child process of the decoder benchmark answers over its pipe; see `engines.py`. Standard library only.

Requests and answers are JSON, a line each: `load`, then `prefill` and `decode`, of what the worker made of the first.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

_COPY_OF_STDOUT = 1


class Session(Protocol):
    """A loaded model."""

    def facts(self) -> dict[str, Any]:
        """What is printed about it."""
        ...

    def prefill(self, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of `tokens` tokens from an empty cache."""
        ...

    def decode(self, context: int, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of `tokens` tokens after `context` tokens."""
        ...


def serve(load: Callable[[dict[str, Any]], Session], failure: type[Exception]) -> None:
    """Answer requests until the pipe closes; what libraries print goes to the error stream.

    Args:
        load: a session for a request.
        failure: what an answer tells instead of ending the process.
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
            elif request["op"] == "prefill":
                answer = session.prefill(request["tokens"], request["threads"])
            else:
                answer = session.decode(request["context"], request["tokens"], request["threads"])
        except failure as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
