"""What the command line writes: errors, notes and tables, and when to use colour.

stdout carries the product only; everything here but `product` and `product_json` writes to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from neuc.errors import Error, NodeRef

_SHOWN_NODES = 6


def wants_colour() -> bool:
    """Whether stderr is a terminal that wants decoration: not with NO_COLOR or CI, not when piped."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and not os.environ.get("CI")


_quiet = False


def quiet(wanted: bool) -> None:
    """Leave notes out from now on: ``neuc -q``."""
    global _quiet
    _quiet = wanted


def is_quiet() -> bool:
    """Whether stderr is for errors only."""
    return _quiet


def note(text: str) -> None:
    """One line of progress or information on stderr."""
    if not _quiet:
        say(text)


def say(text: str) -> None:
    """One line on stderr, quiet or not."""
    print(text, file=sys.stderr)


def progress(text: str) -> None:
    """A line of progress, for people watching a terminal only."""
    if wants_colour():
        note(text)


def product(text: str) -> None:
    """The result of a command, on stdout."""
    with _writing():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


def product_piece(text: str) -> None:
    """A piece of the result of a command that people want to read as it comes, on stdout."""
    with _writing():
        sys.stdout.write(text)
        sys.stdout.flush()


def flush() -> None:
    """Write what stdout still holds back."""
    with _writing():
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_stdout()
        reason = error.strerror or str(error)
        raise Error("NEUC-E005", f"cannot write to stdout: {reason}", hint="make room, or write elsewhere") from error


def drop_stdout() -> None:
    """Send what is still to be written nowhere, or the interpreter complains about it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def product_json(value: object) -> None:
    """The result of a command as JSON, on stdout."""
    product(json.dumps(value, indent=2, ensure_ascii=False))


def render_error(error: Error) -> str:
    """An error as text: one line, the nodes grouped by cause, the hint."""
    lines = [f"error[{error.code}]: {error.message}"]
    lines += _node_lines(error.nodes)
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def show_error(error: Error) -> None:
    """Write `error` to stderr."""
    text = render_error(error)
    if wants_colour():
        head, _, rest = text.partition(":")
        text = f"\033[1;31m{head}\033[0m:{rest}"
    say(text)


def _node_lines(nodes: Sequence[NodeRef]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        cause = ", ".join(part for part in (node.op_type, node.reason) if part) or node.noun
        groups.setdefault((cause, node.noun), []).append(node.name)
    width = max((len(cause) for cause, _ in groups), default=0)
    lines: list[str] = []
    for (cause, noun), names in groups.items():
        shown = ", ".join(names[:_SHOWN_NODES])
        if len(names) > _SHOWN_NODES:
            shown += f" and {len(names) - _SHOWN_NODES} more"
        count = f"{len(names)} {noun}" + ("s" if len(names) != 1 else "")
        lines.append(f"  {cause:<{width}}  {count:<8} {shown}")
    return lines


def set_up_logging(quiet: bool) -> None:
    """Logging to stderr: warnings, or what ``NEUC_LOGS="+passes,-import"`` asks for."""
    root = logging.getLogger("neuc")
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.ERROR if quiet else logging.WARNING)
    for entry in os.environ.get("NEUC_LOGS", "").split(","):
        name = entry.strip()
        if name[:1] in "+-" and len(name) > 1:
            level = logging.DEBUG if name[0] == "+" else logging.CRITICAL
            logging.getLogger(f"neuc.{name[1:]}").setLevel(level)
