"""Writes the tables of docs/spiking.md from the newest records of the spiking benchmarks, after measuring if asked to.

    python benchmarks/spiking_page.py                                   # from records alone
    python benchmarks/spiking_page.py --measure --peers ENV/bin/python  # everything anew: hours on two cores

Each table stands between two marks of the page; what is said around them is written by people, from the figures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from page_marks import filled as between_marks
from spiking_records import HISTORY, Record, newest

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "spiking.md"
GOALS = {"a": 8, "a2": 8, "b": 4, "c": 4}
"""T within which a recipe has to come within `ALLOWED` of the float network."""
ALLOWED = 0.005
SCRIPTS = (
    "spiking_accuracy.py",
    "spiking_blocks.py",
    "spiking_models.py",
    "spiking_events.py",
    "spiking_equal.py",
)
WITH_PEERS = ("spiking_accuracy.py", "spiking_equal.py")

Records = dict[str, Record]


def where(records: list[Record]) -> str:
    """When and on what machine records were made."""
    dates = sorted({record["date"] for record in records})
    cpus = sorted({record["cpu"] for record in records})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {span} on {', '.join(cpus)}."


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Markdown; the first `left` columns are words, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def share(value: float, spread: float = 0.0) -> str:
    """Percent, with the half spread over seeds if there is one."""
    return f"{100 * value:.2f}" + (f" ±{50 * spread:.2f}" if spread else "")


def accuracy(records: Records) -> str:
    """A table for each network: recipes of both tools against T."""
    found = {key.split("/")[1]: record for key, record in records.items() if key.startswith("accuracy/")}
    if not found:
        return "No records yet."
    parts = [where(list(found.values()))]
    for name, record in found.items():
        steps = sorted({row["T"] for tool in ("recipes", "peers") for cells in record[tool].values() for row in cells})
        rows = []
        for tool, recipes in (("neuc", record["recipes"]), ("SpikingJelly", record["peers"])):
            for recipe, cells in recipes.items():
                by_step = {row["T"]: share(row["accuracy"], row["spread"]) for row in cells}
                rows.append([f"{tool} {recipe}", *(by_step.get(step, "") for step in steps)])
        head = ["accuracy, %", *(f"T = {step}" for step in steps)]
        title = f"### {name}: float network {share(record['ann'])} % of {record['images']:,} test images"
        parts += [title, table(head, rows)]
    return "\n\n".join(parts)


def goals(records: Records) -> str:
    """What was promised of each network and recipe, and whether it holds."""
    found = {key.split("/")[1]: record for key, record in records.items() if key.startswith("accuracy/")}
    rows = []
    for name, record in found.items():
        for recipe, cells in record["recipes"].items():
            allowed = [row for row in cells if row["T"] <= GOALS[recipe]]
            best = max(allowed, key=lambda row: (row["seeds"], row["gap"]))  # one choice of images may be luck
            row = [name, recipe, str(best["T"]), points(best["gap"]), span(best["gap_interval"])]
            row.append("yes" if best["gap"] >= -ALLOWED else "**no**")
            worse = [cell["T"] for cell in cells if "lead" in cell and cell["lead_interval"][1] < 0]
            better = [cell["T"] for cell in cells if "lead" in cell and cell["lead_interval"][0] > 0]
            row += [steps_text(better), steps_text(worse)] if "lead" in best else ["", ""]
            rows.append(row)
    head = ["network", "recipe", "best T allowed", "points to float", "95 % interval", "within 0.5"]
    return table([*head, "better than SpikingJelly's best at T", "worse at T"], rows, left=2)


def groups(records: Records) -> str:
    """Recipe a with two neurons for each number, at the T of its goal."""
    found = [record for key, record in records.items() if key.startswith("groups/")]
    if not found:
        return "No records yet."
    head = ["network", "T", "float network, %", "accuracy, %", "points to float", "95 % interval", "within 0.5"]
    rows = []
    for record in found:
        for row in record["recipes"]["a2"]:
            cells = [record["network"], str(row["T"]), share(record["ann"]), share(row["accuracy"], row["spread"])]
            within = "yes" if row["gap"] >= -ALLOWED else "**no**"
            rows.append([*cells, points(row["gap"]), span(row["gap_interval"]), within])
    return f"{where(found)}\n\n{table(head, rows)}"


def points(value: float) -> str:
    return f"{100 * value:+.2f}"


def span(interval: list[float]) -> str:
    return f"{points(interval[0])} … {points(interval[1])}"


def steps_text(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "–"


def blocks(records: Records) -> str:
    """Trained blocks beside their twins."""
    found = [record for key, record in records.items() if key.startswith("blocks/")]
    if not found:
        return "No records yet."
    names = list(found[0]["nanojoules"])
    head = [
        "block",
        "accuracy, %",
        "95 % interval",
        "twin, %",
        "spikes per neuron and step",
        "ACs",
        "MACs",
        "twin's MACs",
    ]
    head += [f"nJ ({name}), twin's" for name in names]
    rows = []
    for r in found:
        low, high = r["interval"]
        row = [r["block"], share(r["accuracy"]), f"{share(low)} … {share(high)}", share(r["twin"]), f"{r['rate']:.3f}"]
        row += [f"{r[key]:,.0f}" for key in ("acs", "macs", "twin_macs")]
        row += [f"{r['nanojoules'][name][0]:.0f}, {r['nanojoules'][name][1]:.0f}" for name in names]
        rows.append(row)
    sources = "; ".join(f"{name}: {source}" for name, source in found[0]["tables"].items())
    return f"{where(found)} Energy tables: {sources}.\n\n{table(head, rows)}"


def models(records: Records) -> str:
    """Agreement of real networks' outputs with the float network's."""
    keys = [key.split("/") for key in records if key.startswith("models/")]
    # models/NAME/RECIPE/T; those of older records had no T.
    found = [records["/".join(key)] for key in sorted((k for k in keys if len(k) == 4), key=_by_steps)]
    if not found:
        return "No records yet."
    head = [
        "network",
        "calibration",
        "inputs",
        "recipe",
        "T",
        "relative error",
        "correlation",
        "same largest output",
        "spikes per neuron",
    ]
    rows: list[list[str]] = []
    for r in found:
        cells = [r["model"], str(r["calibration"]), r["inputs"], r["recipe"], str(r["T"])]
        if "refused" in r:
            rows.append([*cells, f"refused: {r['refused']}", "", "", ""])
            continue
        same = "" if r["agreement"] is None else f"{100 * r['agreement']:.0f} %"
        rows.append([*cells, f"{r['error']:.3f}", f"{r['correlation']:.4f}", same, f"{r['spikes']:.2f}"])
    return f"{where(found)}\n\n{table(head, rows, left=4)}"


def _by_steps(key: list[str]) -> tuple[str, str, int]:
    """The order of models' records, T as a number."""
    return key[1], key[2], int(key[3])


def events(records: Records) -> str:
    """The synthetic event camera."""
    found = [record for key, record in records.items() if key.startswith("events/")]
    if not found:
        return "No records yet."
    parts = [where(found)]
    for r in found:
        head = ["after ms", "events so far", "accuracy, %"]
        rows = [[f"{row['ms']:g}", f"{row['events']:,.0f}", share(row["accuracy"])] for row in r["rows"]]
        parts += [r["about"], table(head, rows)]
    return "\n\n".join(parts)


def speed(records: Records) -> str:
    """Engines at the smallest T that keeps accuracy; how often the best other one ours is."""
    found = [record for key, record in records.items() if key.startswith("speed/")]
    if not found:
        return "No records yet."
    head = ["engine", "T", "accuracy, %", "batch 1: images/s a core", "median µs", "of the best other"]
    head += ["batch 100: images/s a core", "median µs", "of the best other"]
    parts = [where(found)]
    for r in found:
        batches = [{row["engine"]: row for row in r["rows"] if row["batch"] == batch} for batch in (1, 100)]
        others = [name for name, row in batches[0].items() if row["accuracy"] is not None and not _is_ours(name)]
        rows: list[list[str]] = []
        for name, first in batches[0].items():
            counted = first["accuracy"] is not None
            row = [name, str(first["T"]) if counted else "–", share(first["accuracy"] if counted else r["ann"])]
            for batch in batches:
                own = batch[name]
                best = max((batch[other]["rate"] for other in others), default=None)
                times = f"{own['rate'] / best:.1f} ×" if best and counted and _is_ours(name) else ""
                row += [f"{own['rate']:,.0f}", f"{own['median'] * 1e6:,.0f}", times]
            rows.append(row)
        title = f"### {r['network']}: float network {share(r['ann'])} % of {r['images']:,} test images"
        missed = ", ".join(f"{name} ({share(best)} % at best)" for name, best in r["missed"].items())
        parts += [title, table(head, rows)]
        if missed:
            parts.append(f"Not within half a point at T ≤ {max(r['steps'])}: {missed}.")
    return "\n\n".join(parts)


def _is_ours(engine: str) -> bool:
    return engine.startswith("neuc")


TABLES: dict[str, Callable[[Records], str]] = {
    "accuracy": accuracy,
    "goals": goals,
    "groups": groups,
    "blocks": blocks,
    "models": models,
    "events": events,
    "speed": speed,
}


def filled(text: str, records: Records) -> str:
    """The page with all tables anew."""
    for name, make in TABLES.items():
        text = between_marks(text, name, make(records))
    return text


def main() -> None:
    """Measure if asked to, then write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--measure", action="store_true", help="run every benchmark first")
    options.add_argument("--peers", help="of `spiking_accuracy.py` and `spiking_equal.py`")
    options.add_argument("--history", type=Path, default=HISTORY)
    options.add_argument("--page", type=Path, default=PAGE)
    given = options.parse_args()
    for script in SCRIPTS if given.measure else ():
        peers = ["--peers", given.peers] if given.peers and script in WITH_PEERS else []
        subprocess.run([sys.executable, str(HERE / script), *peers], check=True)
    given.page.write_text(filled(given.page.read_text(encoding="utf-8"), newest(given.history)), encoding="utf-8")


if __name__ == "__main__":
    main()
