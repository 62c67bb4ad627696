"""The spiking benchmarks' statistics, records and tables, on made-up results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spiking_page
import spiking_records
from spiking_energy import ENERGY_TABLES
from spiking_records import Record


def test_intervals_hold_the_mean_and_shrink_with_images() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = (spiking_records.interval(rng.normal(0.3, 1, count)) for count in (100, 10_000))
    for low, high in (wide, narrow):
        assert low < 0.3 < high
    # 95 % of a normal mean lie within 1.96 standard errors.
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 / 100, rel=0.15)
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])
    assert spiking_records.interval(np.zeros(50)) == (0.0, 0.0)


def test_the_newest_record_of_a_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert spiking_records.newest(path) == {}
    for value in (1, 2):
        spiking_records.add("x", {"value": value}, path)
    spiking_records.add("y", {"value": 3}, path)
    found = spiking_records.newest(path)
    assert (found["x"]["value"], found["y"]["value"]) == (2, 3)
    assert len(path.read_text().splitlines()) == 3
    assert found["x"]["cpu"]


def _cell(step: int, accuracy: float, gap: float, lead: float) -> Record:
    around = {name: [value - 0.001, value + 0.001] for name, value in (("gap_interval", gap), ("lead_interval", lead))}
    return {"T": step, "accuracy": accuracy, "spread": 0.004, "seeds": 3, "gap": gap, "lead": lead, **around}


RECORD: Record = {
    "date": "2026-01-01", "cpu": "some CPU", "network": "net", "images": 2000, "ann": 0.9,
    "recipes": {
        "a": [_cell(4, 0.88, -0.02, -0.01), _cell(8, 0.894, -0.006, 0.02), _cell(16, 0.9, 0.0, 0.0)],
        "b": [_cell(4, 0.896, -0.004, 0.05)],
    },
    "peers": {"LTB": [{"T": 4, "accuracy": 0.89, "spread": 0.0, "seeds": 3, "gap": -0.01, "gap_interval": [0, 0]}]},
}  # fmt: skip


def test_groups_are_judged_by_the_same_goal() -> None:
    record = {**RECORD, "recipes": {"a2": [_cell(8, 0.897, -0.003, 0.0)]}}
    text = spiking_page.groups({"groups/net": record, "accuracy/net": RECORD})
    (row,) = text.splitlines()[4:]
    assert row.startswith("| net | 8 | 90.00 | 89.70 ±0.20 | -0.30 |")
    assert row.endswith("| yes |")
    assert spiking_page.groups({}) == "No records yet."


def test_goals_look_at_the_steps_that_a_recipe_is_allowed() -> None:
    text = spiking_page.goals({"accuracy/net": RECORD})
    a, b = (line.split(" | ") for line in text.splitlines()[2:])
    assert a[:4] == ["| net", "a", "8", "-0.60"]
    assert a[5:] == ["**no**", "8", "4 |"]  # better at 8, worse at 4; 16 is undecided
    assert b[5:] == ["yes", "4", "– |"]


def test_accuracy_tables_show_every_recipe_of_both_tools() -> None:
    text = spiking_page.accuracy({"accuracy/net": RECORD})
    assert "| neuc a | 88.00 ±0.20 | 89.40 ±0.20 | 90.00 ±0.20 |" in text
    assert "| SpikingJelly LTB | 89.00 |  |  |" in text
    assert "float network 90.00 % of 2,000 test images" in text


def test_models_stand_by_steps_and_older_records_without_steps_do_not() -> None:
    made: Record = {"date": "2026-01-01", "cpu": "some CPU", "model": "net", "inputs": "16 voices", "calibration": 8}
    measured = {"recipe": "b", "error": 0.02, "correlation": 0.9, "agreement": 0.5, "spikes": 1.0}
    records: dict[str, Record] = {f"models/net/b/{t}": {**made, **measured, "T": t} for t in (16, 8)}
    records["models/net/a/8"] = {**made, "recipe": "a", "T": 8, "refused": "no form of it"}
    records["models/net"] = {**made, "rows": []}
    rows = [line.split(" | ") for line in spiking_page.models(records).splitlines()[4:]]
    assert [row[3:5] for row in rows] == [["a", "8"], ["b", "8"], ["b", "16"]]
    assert rows[0][5] == "refused: no form of it"
    assert rows[1][5:] == ["0.020", "0.9000", "50 %", "1.00 |"]


def test_all_tables_of_the_page_have_their_marks() -> None:
    page = (Path(spiking_page.PAGE)).read_text(encoding="utf-8")
    filled = spiking_page.filled(page, {"accuracy/net": RECORD})
    assert "### net:" in filled
    assert spiking_page.filled(filled, {"accuracy/net": RECORD}) == filled
    untouched = [part.split("begin -->")[0] for part in page.split("end -->")]
    assert [part.split("begin -->")[0] for part in filled.split("end -->")] == untouched


def test_multiplying_takes_more_than_adding() -> None:
    assert all(table.mac > table.ac > 0 and table.source for table in ENERGY_TABLES)
    assert len({table.source.split(",")[0] for table in ENERGY_TABLES}) >= 2  # of different authors
    assert ENERGY_TABLES[0].picojoules(2, 3) == pytest.approx(2 * 4.6 + 3 * 0.9)


def test_speeds_are_compared_with_the_best_other_engine() -> None:
    def row(engine: str, batch: int, rate: float, accuracy: float | None) -> Record:
        return {"engine": engine, "T": 4, "batch": batch, "rate": rate, "median": 1 / rate, "accuracy": accuracy}

    rows = [
        row(engine, batch, rate * batch, accuracy)
        for batch in (1, 100)
        for engine, rate, accuracy in (
            ("neuc, recipe a", 5000.0, 0.898),
            ("Slow", 100.0, 0.897),
            ("Quick", 250.0, 0.899),
            ("torch ANN", 9000.0, None),
        )
    ]
    record: Record = {
        "date": "2026-01-01", "cpu": "some CPU", "network": "net", "images": 2000, "ann": 0.9, "steps": [1, 4],
        "missed": {"Norse": 0.85}, "rows": rows,
    }  # fmt: skip
    text = spiking_page.speed({"speed/net": record})
    ours, _, quick, ann = (
        line for line in text.splitlines() if line.startswith(("| neuc", "| Slow", "| Quick", "| torch"))
    )
    assert ours.count("20.0 ×") == 2
    assert "×" not in quick + ann
    assert "| – | 90.00 |" in ann
    assert "Norse (85.00 % at best)" in text
    assert "T ≤ 4" in text
