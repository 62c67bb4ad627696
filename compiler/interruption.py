"""Ctrl-C, remembered: an extension module that is just being imported can swallow the exception that it raises.

Standard library only, for the command line and for what writes its files.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_seen = threading.Event()


@contextmanager
def watched() -> Iterator[None]:
    """Note every Ctrl-C of the block, besides raising KeyboardInterrupt; outside the main thread do nothing."""
    _seen.clear()
    default = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or default is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default)


def _note(number: int, frame: FrameType | None) -> None:
    _seen.set()
    signal.default_int_handler(number, frame)


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed in the last watched block."""
    return _seen.is_set()


def check() -> None:
    """Raise the KeyboardInterrupt that someone swallowed."""
    if _seen.is_set():
        raise KeyboardInterrupt
