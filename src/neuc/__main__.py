"""``python -m neuc``: the command line."""

from neuc.compiler.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
