"""xDSL's exceptions as `neuc.Error`s that name file and line, and modules read from and checked as text.

Nothing here prints: the command line renders errors.
"""

from __future__ import annotations

import re
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.utils.exceptions import (
    AlreadyRegisteredConstructException,
    ArgSpecParseError,
    ParseError,
    UnregisteredConstructException,
    VerifyException,
)

from neuc.dialects.context import NeucContext
from neuc.dialects.locations import node_names
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit, NodeRef

WEIGHTS_SUFFIX = ".weights.safetensors"
_UNKNOWN_OPERATION = re.compile(r"Operation (\S+) is not registered")
SHARED_WEIGHTS = "weights.safetensors"
"""Name of a weight store for all ``.mlir`` files of a folder, as ``--dump-ir`` writes it."""


def weights_path(path: Path) -> Path:
    """Where the weights of the module in `path` lie: ``F.mlir`` has ``F.weights.safetensors``."""
    return path.with_name(path.name.removesuffix(".mlir") + WEIGHTS_SUFFIX)


def load_weights_beside(path: Path) -> WeightStore:
    """The weight store beside an ``.mlir`` file: its own, the folder's, or an empty one if there is none."""
    for beside in (weights_path(path), path.with_name(SHARED_WEIGHTS)):
        if beside.exists():
            return WeightStore.load(beside)
    return WeightStore()


def parse_module(text: str, context: NeucContext, name: str, *, first_line: int = 1) -> ModuleOp:
    """Parse `text` and verify it.

    Raises:
        Error: NEUC-E250 for text that does not parse, NEUC-E251 for a module that does not verify; both with the line.
    """
    if not text.strip():
        raise Error("NEUC-E250", f"{name} is empty", hint="a module without operations is `builtin.module {}`")
    try:
        module = Parser(context, text, name).parse_module()
    except ParseError as error:
        line, column = _position(error, text)
        where = f"{name}:{line + first_line - 1}:{column}"
        raise Error("NEUC-E250", f"{where}: {_first_line(error.msg)}") from error
    except (UnregisteredConstructException, AlreadyRegisteredConstructException, ValueError) as error:
        raise Error("NEUC-E250", f"{name}: {_first_line(str(error))}") from error
    except VerifyException as error:
        # Types and attributes check themselves while they are parsed, before any operation exists to point at.
        raise Error("NEUC-E251", f"{name}: {_first_line(str(error))}") from error
    verify_module(module, name=name, text=text, first_line=first_line)
    return module


def _position(error: ParseError, text: str) -> tuple[int, int]:
    """Line and column of what is wrong: xDSL points behind the name of an unknown operation, even to the next line."""
    named = _UNKNOWN_OPERATION.match(error.msg)
    start = -1 if named is None else text.rfind(named[1], 0, error.span.start)
    if start >= 0:
        return text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    at = error.span.get_location()
    return at.line, at.col


def verify_module(module: ModuleOp, *, name: str, text: str = "", first_line: int = 1) -> None:
    """Verify `module`.

    Raises:
        Error: NEUC-E251, naming the operation, its line in `text` if given, and the ONNX nodes it came from.
    """
    try:
        module.verify()
    except (VerifyException, ValueError) as error:
        culprit = _failing_operation(module)
        where = name
        if culprit is not None:
            line = _line_of(culprit, module, text)
            where = f"{name}:{line + first_line - 1}: {culprit.name}" if line else f"{name}: {culprit.name}"
        nodes = () if culprit is None else tuple(NodeRef(node, culprit.name) for node in node_names(culprit))
        raise Error("NEUC-E251", f"{where}: {_verdict(error)}", nodes=nodes) from error


def pipeline_error(spec: str, error: ArgSpecParseError | ValueError) -> Error:
    """The error for a pass pipeline that cannot be read or has options a pass does not take."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    detail = lines[-1].strip(" ^") if isinstance(error, ArgSpecParseError) and lines else _first_line(str(error))
    return Error(
        "NEUC-E003",
        f"pass pipeline {spec!r}: {detail}",
        hint="write 'pass{option=value other=value},pass2'; `neuc passes` lists options",
        exit_code=Exit.USAGE,
    )


def _failing_operation(module: ModuleOp) -> Operation | None:
    """The innermost first operation whose own verifier fails."""
    for operation in module.walk():
        try:
            operation.verify(verify_nested_ops=False)
        except (VerifyException, ValueError):
            return operation
    return None


def _line_of(culprit: Operation, module: ModuleOp, text: str) -> int:
    """The line of `culprit` in the text `module` was parsed from, 0 when it cannot be told.

    The parser keeps no positions; but operations of one name stand in the text in the order of a walk.
    """
    index = 0
    for operation in module.walk():
        if operation is culprit:
            break
        index += operation.name == culprit.name
    pattern = re.compile(rf'^[^/\n]*?(?<![\w.$"#!@])"?{re.escape(culprit.name)}"?(?![\w.$])', re.MULTILINE)
    found = list(pattern.finditer(text))
    return text.count("\n", 0, found[index].end()) + 1 if index < len(found) else 0


def _verdict(error: Exception) -> str:
    return _first_line(str(error)).removeprefix("Operation does not verify: ")


def _first_line(message: str) -> str:
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    return lines[0] if lines else "no further detail"
