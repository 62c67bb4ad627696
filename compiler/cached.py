"""Compiling a file through the cache: a hit costs a hash and a copy, and imports no compiler."""

from __future__ import annotations

import time
from pathlib import Path

from neuc.compiler.cache import Entry, entry_for, is_large
from neuc.compiler.options import CompileOptions
from neuc.compiler.report import Report


def compile_file(
    model: Path, output: Path, options: CompileOptions, *, verify: int = 0, use_cache: bool = True
) -> Report:
    """Compile `model` to the artifact `output`.

    Args:
        model: any file an importer knows.
        output: the artifact to write.
        options: what to compile for.
        verify: on how many inputs to compare the result with onnxruntime; 0 for none.
        use_cache: take the result from the cache if it is there, and keep it there if not.

    Raises:
        Error: whatever is wrong with the model, the options or the place to write to.
    """
    start = time.perf_counter()
    if not use_cache or is_large(model):
        return _compile(model, output, options, verify, None)
    entry = _entry(model, options, verify)
    kept = entry.report()
    if kept is None:
        return _compile(model, output, options, verify, entry)
    entry.copy_to(output)
    report = Report.from_json(kept)
    report.cached = True
    report.steps, report.seconds = [], time.perf_counter() - start
    return report


def compile_into_cache(model: Path, options: CompileOptions) -> Path:
    """The artifact of `model` within the cache, compiled if it is not there yet."""
    entry = _entry(model, options, 0)
    if entry.report() is None:
        from neuc.compiler.api import compile_model

        compiled = compile_model(model, options)
        entry.folder.mkdir(parents=True, exist_ok=True)
        compiled.save(entry.artifact)
        entry.describe(compiled.report.to_json(), compiled.external)
    return entry.artifact


def _compile(model: Path, output: Path, options: CompileOptions, verify: int, entry: Entry | None) -> Report:
    start = time.perf_counter()
    from neuc.compiler.api import compile_model

    loading = time.perf_counter() - start
    compiled = compile_model(model, options, verify=verify)
    compiled.report.count("load the compiler", loading)
    compiled.save(output)
    if entry is not None:
        entry.fill(output, compiled.report.to_json(), compiled.external)
    return compiled.report


def _entry(model: Path, options: CompileOptions, verify: int) -> Entry:
    inputs = [] if options.calib is None else [options.calib]
    weights = model.with_name(model.name.removesuffix(".mlir") + ".weights.safetensors")
    if model.suffix == ".mlir" and weights.exists():
        inputs.append(weights)
    return entry_for(model, {**options.to_json(), "verify": verify}, inputs)
