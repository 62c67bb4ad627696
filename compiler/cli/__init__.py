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
    if argv is not None:
        from neuc.compiler.cli.app import run

        return run(argv)
    import gc

    # IR is many small, long-lived objects: at its usual pace Python spends a fifth of a compile looking for garbage.
    gc.set_threshold(300_000, 50, 100)
    try:
        from neuc.compiler.cli.app import leave, run

        status = run()
    except KeyboardInterrupt:  # before `run` could see to it
        import os
        import sys

        from neuc.errors import Exit

        sys.stderr.write("interrupted\n")
        os._exit(Exit.INTERRUPTED)
    leave(status)
