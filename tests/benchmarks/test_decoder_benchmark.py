"""The decoder benchmark: which builds it refuses, how engines answer, what it makes of rounds. Nothing is timed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import decoder
import decoder_models
import energy
import engines
import limits
import pytest
from limits import Spread

SYSTEM = (
    "AVX = 1 | AVX2 = 1 | AVX_VNNI = {vnni} | AVX512 = {wide} | AVX512_VBMI = {wide} | AVX512_VNNI = {wide} | "
    "F16C = 1 | FMA = 1 |"
)

WORKER = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "load":
        answer = {"system": "AVX2 = 1 | FMA = 1 | F16C = 1 | AVX512 = 0 | AVX_VNNI = 0", "got": request}
    elif request["op"] == "prefill":
        answer = {"seconds": request["tokens"] / 1000 / request["threads"]}
    elif request["tokens"] == 13:
        answer = {"error": "thirteen"}
    elif request["tokens"] == 14:
        sys.exit("last words")
    else:
        answer = {"seconds": request["tokens"] / 10 / request["threads"]}
    print(json.dumps(answer), flush=True)
"""

TOML = """
[[engine]]
name = "twice as fast"
kind = "neuc"
model = "m.bin"
chunk = 64

[[engine]]
name = "peer"
kind = "llama_cpp"
model = "m.bin"
head = "Q6_K"
environment = { PEER_LIBRARY = "$HERE/lib.so" }
tables = ["avx2"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "m.bin").write_bytes(bytes(2_000_000))
    (tmp_path / "engines.toml").write_text(TOML)
    monkeypatch.setattr(engines, "HERE", tmp_path)
    monkeypatch.setattr(engines, "WORKERS", {"neuc": "worker.py", "llama_cpp": "worker.py"})
    return tmp_path


def test_peers_are_refused_for_what_their_build_lacks_or_has_too_much() -> None:
    def why(table: str, *, wide: int, vnni: int = 0, kind: str = "llama_cpp") -> str | None:
        spec = engines.EngineSpec("x", kind, Path("m"), ())
        return engines.refusal(spec, SYSTEM.format(wide=wide, vnni=vnni), engines.TABLES[table])

    assert why("avx512", wide=1, vnni=1) is None
    assert "without AVX512, AVX512_VBMI, AVX512_VNNI" in str(why("avx512", wide=0))
    assert why("avx2", wide=0) is None
    assert "with AVX512" in str(why("avx2", wide=1))
    assert "with AVX_VNNI" in str(why("avx2", wide=0, vnni=1))
    assert why("avx512", wide=0, kind="neuc") is None


def test_a_flag_that_is_not_mentioned_counts_as_missing() -> None:
    spec = engines.EngineSpec("x", "llama_cpp", Path("m"), ())
    assert "without AVX2, FMA, F16C" in str(engines.refusal(spec, "NEON = 1", engines.TABLES["avx2"]))


def test_specs_name_files_beside_the_toml(folder: Path) -> None:
    ours, peer = engines.read_specs(folder / "engines.toml")
    assert ours.model == folder / "m.bin"
    assert ours.python == sys.executable
    assert ours.options == {"chunk": 64}
    assert set(ours.tables) == {"native", "avx512", "avx2"}
    assert peer.environment == {"PEER_LIBRARY": f"{folder}/lib.so"}
    assert (peer.head, peer.tables) == ("Q6_K", ("avx2",))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[[engine]]\nname = 'a'\nkind = 'gguf'\nmodel = 'm'", "gguf"),
        ("[[engine]]\nname = 'a'\nkind = 'neuc'", "model"),
        ("engine = 1", "TypeError"),
        ("[", "TOMLDecodeError"),
    ],
)
def test_incomplete_specs_are_refused_in_words(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(SystemExit, match=word):
        engines.read_specs(tmp_path / "e.toml")


def test_engines_answer_are_stopped_between_requests_and_end(folder: Path) -> None:
    spec = engines.read_specs(folder / "engines.toml")[0]
    engine = engines.Engine(spec, 2, engines.TABLES["avx2"], folder / "log")
    try:
        assert engine.facts["got"] == {
            "op": "load", "model": str(folder / "m.bin"), "threads": 2, "capacity": engines.CAPACITY, "chunk": 64
        }  # fmt: skip
        assert engine.weight_bytes == 2_000_000
        assert engine.request(op="prefill", tokens=100, threads=2) == {"seconds": 0.05}
        pid = engine._child.pid
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)  # returns once it is stopped
        with pytest.raises(SystemExit, match="thirteen"):
            engine.request(op="decode", tokens=13, threads=1, context=0)
        assert engine._child.returncode == -signal.SIGKILL
    finally:
        engine.close()


def test_the_last_words_of_an_engine_that_dies_are_shown(folder: Path) -> None:
    spec = engines.read_specs(folder / "engines.toml")[0]
    engine = engines.Engine(spec, 1, engines.TABLES["avx2"], folder / "log")
    with pytest.raises(SystemExit, match=r"(?s)twice as fast: it ended.*last words"):
        engine.request(op="decode", tokens=14, threads=1, context=0)


def test_ratios_are_taken_within_rounds(folder: Path) -> None:
    ours, peer = engines.read_specs(folder / "engines.toml")
    running = [engines.Engine(spec, 1, engines.TABLES["avx2"], folder / "log") for spec in (ours, peer)]
    try:
        samples: decoder.Samples = {
            # A machine twice as slow in every other round, and neuc 1.5 times as fast in each.
            ("twice as fast", "decode", 1): [15.0, 30.0, 15.0],
            ("peer", "decode", 1): [10.0, 20.0, 10.0],
            ("twice as fast", "pp128", 1): [200.0, 200.0, 200.0],
            ("peer", "pp128", 1): [100.0, 100.0, 100.0],
            (decoder.READ, "1", 1): [0.02, 0.03, 0.04],
            (decoder.READ, "8", 1): [0.05, 0.06, 0.07],
            (decoder.PEAK, "avx512", 1): [500.0],
            (decoder.PEAK, "amx", 1): [4000.0],
        }
        printed = "\n".join(decoder.table_lines(samples, running, "decode", 1))
        prompts = "\n".join(decoder.table_lines(samples, running, "pp128", 1))
    finally:
        for engine in running:
            engine.close()
    assert "| peer | Q6_K | 10.0 (10.0..18.0) | 0.0 | 33 % | 1.50 (1.50..1.50) |" in printed
    assert printed.index("| twice as fast |") < printed.index("| peer |")
    assert "| engine | head | tokens/s | GOPS | of avx512 | of amx | twice as fast / it |" in prompts
    assert "| twice as fast |  | 200.0 (200.0..200.0) | 834 | 167 % | 21 % |  |" in prompts
    assert (
        "registers (avx512) 500 (500..500) GOPS, dot products of tiles (amx) 4000"
        in decoder.limit_lines(samples, [1])[0]
    )


def test_operations_of_a_shape_are_those_of_its_matrices() -> None:
    shape = decoder_models.SHAPES["tiny"]
    matrices = [t.shape for t in decoder_models._tensors(shape, "i2_s", "f16", 0) if len(t.shape) == 2]
    assert shape.ternary_weights == sum(rows * columns for rows, columns in matrices) - shape.vocab * shape.hidden


def test_every_table_has_the_peaks_of_registers_and_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "present_dot_products", lambda: list(limits.DOT_PRODUCTS))
    monkeypatch.setattr(engines, "present_dot_products", lambda: list(limits.DOT_PRODUCTS))
    assert engines.native_table().peaks == ["avx512", "amx"]
    assert engines.TABLES["avx512"].peaks == ["avx512", "amx"]
    assert engines.TABLES["avx2"].peaks == ["avx2", "avx512", "amx"]


def test_limits_are_those_of_the_better_number_of_streams() -> None:
    samples: decoder.Samples = {
        (decoder.READ, "1", 2): [9.0],
        (decoder.READ, "8", 2): [12.0],
        (decoder.READ, "8", 1): [99.0],
    }
    assert decoder.read_limit(samples, 2) == Spread(12.0, 12.0, 12.0)


def _domain(powercap: Path, number: str, name: str, energy_uj: int) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    return folder


def test_energy_follows_packages_and_memory_past_the_end_of_a_counter(tmp_path: Path) -> None:
    package = _domain(tmp_path, "0", "package-0", 999_000_000)
    core = _domain(tmp_path, "0:0", "core", 5)
    memory = _domain(tmp_path, "0:1", "dram", 1_000_000)
    counter = energy.EnergyCounter(tmp_path)
    (package / "energy_uj").write_text("2000000")
    (core / "energy_uj").write_text("900000000")
    (memory / "energy_uj").write_text("1500000")
    assert counter.joules() == pytest.approx(3.0 + 0.5)
    assert counter.joules() == pytest.approx(3.0 + 0.5)


def test_without_a_counter_energy_is_not_measured_and_the_model_says_it_is_one(tmp_path: Path) -> None:
    counter = energy.EnergyCounter(tmp_path / "none")
    assert counter.joules() is None
    text = "\n".join(energy.energy_lines(counter, {}, {"engine": 800_000_000}))
    assert "not measured" in text
    assert "MODEL, not a measurement" in text
    assert "16.0 mJ" in text


def test_a_history_line_is_json(folder: Path) -> None:
    run = argparse.Namespace(engines=[], samples={("peer", "decode", 1): [1.0]}, joules={})
    line = json.dumps(decoder.record(run, argparse.Namespace(table="avx2"), 0.5))  # pyright: ignore[reportArgumentType]
    assert json.loads(line)["samples"] == [{"name": "peer", "work": "decode", "threads": 1, "values": [1.0]}]
