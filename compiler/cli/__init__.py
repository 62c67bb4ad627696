"""The `neuc` command. One file a command; `app.py` finds and runs them; `console.py` prints.

`main` is imported on use, so that the package costs nothing to import.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: arguments without the program's name; those of the process by default.
    """
    from neuc.compiler.cli.app import leave_interrupted, run
    from neuc.errors import Exit

    status = run(argv)
    if argv is None and status == Exit.INTERRUPTED:
        leave_interrupted()
    return status
