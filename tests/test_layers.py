"""Imports go only down: compiler -> backends -> passes -> dialects; runtime needs none of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("compiler", "backends", "passes", "dialects", "runtime")

# Which parts of neuc each part may import.
ALLOWED = {
    "compiler": {"backends", "compiler", "dialects", "errors", "passes", "runtime"},
    "backends": {
        "backends",
        "dialects",
        "errors",
        "passes",
        "runtime.analog",  # device models and program schemas that simulators of the runtime share
        "runtime.cache",
        "runtime.cpu_features",
        "runtime.expr",
        "runtime.npu",  # machine models
        "runtime.program",
    },
    "passes": {"dialects", "errors", "passes"},
    "dialects": {"dialects", "errors"},
    "runtime": {"errors", "runtime"},
}
# Third-party packages each part may import when it is imported itself (not inside a function).
PACKAGES = {
    "runtime": {"llvmlite", "numpy"},
    "dialects": {"numpy", "onnx", "typing_extensions", "xdsl"},
    "passes": {"numpy", "typing_extensions", "xdsl"},
}
# numpy stands where arrays are what a file is about; onnx in the dialect generated from its schemas.
ONNX_ALLOWED = ("dialects/onnx",)


def _sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


def _imports(path: Path, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: Iterator[ast.AST] = _at_import(tree) if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            names = [alias.name for alias in node.names]
            if node.module == "neuc" or (node.module.count(".") == 1 and node.module.startswith("neuc.")):
                yield from ((f"{node.module}.{name}", node.lineno) for name in names)
            else:
                yield node.module, node.lineno


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: not function bodies, not type-checking blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


def _allowed(name: str, allowed: set[str]) -> bool:
    inner = name.removeprefix("neuc.")
    return any(inner == entry or inner.startswith(f"{entry}.") for entry in allowed)


@pytest.mark.parametrize("part", PARTS)
def test_imports_go_down(part: str):
    wrong: list[str] = []
    for path in _sources(part):
        for name, line in _imports(path):
            at = f"{path.relative_to(ROOT)}:{line}: imports {name}"
            if name.startswith("neuc.") and name != "neuc.__version__" and not _allowed(name, ALLOWED[part]):
                wrong.append(at)
            if name.partition(".")[0] in PARTS:
                wrong.append(f"{at}, which is neuc.{name} under another name")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", sorted(PACKAGES))
def test_only_known_packages_at_import(part: str):
    wrong: list[str] = []
    for path in _sources(part):
        for name, line in _imports(path, top_level=True):
            package = name.partition(".")[0]
            if package == "neuc" or package in sys.stdlib_module_names or package == "__future__":
                continue
            where = f"{path.relative_to(ROOT)}:{line}"
            onnx_here = any(where.startswith(prefix) for prefix in ONNX_ALLOWED)
            if package not in PACKAGES[part] or (package == "onnx" and not onnx_here):
                wrong.append(f"{where}: imports {name}")
    assert not wrong, "\n".join(wrong)


def _loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


def test_importing_neuc_loads_nothing_heavy():
    assert not _loaded_by("import neuc") & {"numpy", "onnx", "onnxruntime", "xdsl", "llvmlite", "click"}


def test_the_runtime_needs_no_compiler():
    loaded = _loaded_by("import neuc.runtime.session")
    assert not loaded & {"onnx", "onnxruntime", "xdsl", "click", "networkx"}
    script = "import neuc.runtime.session, sys; print(*[m for m in sys.modules if m.startswith('neuc.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    inside = {name.split(".")[1] for name in done.stdout.split()}
    assert inside <= {"errors", "runtime"}


def test_the_command_starts_without_the_compiler():
    loaded = _loaded_by("from neuc.compiler.cli import main\nmain(['--version'])")
    assert not loaded & {"numpy", "onnx", "onnxruntime", "xdsl", "llvmlite"}


def test_no_part_is_imported_under_its_bare_name():
    """Nothing in this test session may have found `compiler` & co. on the path."""
    assert not {part for part in PARTS if part in sys.modules}
