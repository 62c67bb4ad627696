"""The part of docs/npu.md on published silicon: errors by kind and source, what was seen when, and what is open.

Tables are computed from the rows in tests/compiler; `npu_page.py` writes the page, and `published_errors.json`, the
band of errors that compiled models' predictions are told with; run by itself this file writes that alone. What was
read first, and what the model said then, is history and stands here as text.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import median

from neuc.compiler.npu.row_devices import machine_for
from neuc.compiler.npu.row_models import known_kinds, predict
from neuc.compiler.npu.rows import Prediction, Row, read_rows
from neuc.compiler.npu.validate import gate_of, summarise

ROOT = Path(__file__).resolve().parent.parent
ERRORS = ROOT / "backends" / "npu" / "published_errors.json"
"""Where the band of errors stands that whole models' predictions are told with."""
ELEMENT_WISE = ("add", "mul", "axpy", "relu", "leaky_relu", "gelu", "silu_mul")
GIVEN_RATES = ("conv2d",)
"""Kinds of rows whose kernel's rate is always an input."""
FIRST_LOOKS = (
    "| rows, read after the model was committed | median error, largest, tau at first sight | what followed |",
    "|---|---|---|",
    "| 41 products of mlir-air, bf16 results | 20 %, 46 %, 0.92 | launches one after another, as its GEMVs' |",
    "| 9 sums of vectors, mlir-air | 4 %, 12 %, 1.00 | nothing |",
    "| 8 products with a vector, 1 to 8 columns, amd/IRON on Krackan | 9 %, 14 %, 0.75 | the suite's dispatch |",
    "| 6 products with a vector, 1 to 4 columns, amd/IRON on Phoenix | 21 %, 50 %, 0.80 | the suite's dispatch |",
    "| 5 GELUs, 8 RMS norms, mlir-air | 49 %, 53 % and 53 %, 64 % | three constants, now calibration rows |",
    "| 11 SiLU and product, 1 layer norm, mlir-air | 61 %, 65 % and 62 % | the same constants, not fitted to these |",
    "| 36 functions of 2048 elements, one product of 128 x 128, IRON on Krackan | 41 %, 56 % | the suite's dispatch |",
    "| 4 products of flm, amd/IRON on Krackan | 54 %, 60 % | the suite's dispatch |",
    "| 8 products of iron.GEMM on Krackan | 64 %, 81 % | no prediction: its kernels' rates are not known |",
    "| 11 convolutions, amd/IRON on Strix | 76 %, 99.8 % | none without `rate=` (6 with that of two others) |",
    "| a ReLU, a copy of 32768 elements, amd/IRON on Strix | 37 % and 90 % | the copy's time is a dispatch |",
    "| 37 products of mlir-air's with a second launch or a compiler's kernel (seen in part "
    "before; 14 more gave two constants) | 5 %, 37 %, 0.96 | nothing |",
    "| 23 products of IREE's histories, medians: PRO 360, packet flow, one core | 12 %, 57 %, 0.82 | its own kernel by"
    " peano |",
    "| 5 softmaxes of IREE's | 21 %, 162 %, 0.95 | XDNA1's cycles a number are XDNA2's, by one of them |",
    "| 28 products with a vector, mlir-air (some had been seen) | 4 %, 31 %, 0.94 | groups of four launches, too |",
    "| 14 products of iron.GEMM, 6 of flm, amd/IRON on Phoenix | 16 %, 63 %, 0.90 and 35 %, 46 %, 0.55 | nothing |",
    "| 5 chains of tasks, xdna-emu | 81 %, 89 % | the controller's time between tasks, by two gaps of others |",
)


def section() -> list[str]:
    """Everything below the section's title, as paragraphs and rows of tables."""
    found = _unseen()
    return [
        *_calibration(),
        "`neuc npu validate rows.csv` prints every row, for any CSV with the columns id, device, kind, shape, dtype, "
        "config, value, unit, and source if it has that. Constants are fitted once a dtype or kernel library, from "
        "rows of the same sources: these are errors on calibration rows. Exit code 4: a gate is missed; 3: no row "
        "could be predicted; 1: the file, an id or a value is wrong. Kendall's tau is tau-b.",
        "Words of `config`, in any order: `tile 64x64x64` or `kernel=64x64x64` (m x k x n of one core), "
        "`rate=133.1` (multiply-adds a cycle of the kernel), `one core`, `8 cores`, `4x8 cores` (rows x columns), "
        "`2 columns` or `herd=8x4` (along M x along N) at work (all if not said), `dispatch=275us` (of the host "
        "program that measured), `order=MxNxK` (of the shape, otherwise MxKxN), `b_row_maj`, `b_col_maj`, `C depth 1` "
        "or `C depth 2` (buffers of C in a core), `k_l2=512` (columns of A that a memory tile collects), `47 MB of DDR "
        "traffic`, `x100 repeats`, `no compute` (transfers alone); whose program it is, which says how it uses host "
        "memory (`flm`, `iron.gemm`, `stock`, `iree` with `4-level tiling`, `packed`, `direct codegen`), and the "
        "kernel's compiler (`chess`, `peano`), `mlir-air` (launches in groups that wait for each other; results are "
        "rounded on the cores, `drain`, by a second launch, `fused-cast`, or by a kernel the compiler wrote, `direct "
        "codegen`; `tile 64/512/32/128` is m, k_l2, k, n), `whole call` (buffers and copies of the host, too); of "
        "convolutions `filter=3x3`, `stride=2`; of shim transfers `MM2S` or `S2MM`, `first` or `following` task and "
        "`K=8` (tasks: all of them and what lies between, if neither is said), `gap between tasks`, of dma `hops=3`. "
        "A source of mlir-air, IREE, tibrezus or IRON's suites stands for the words that its rows have in common. "
        "Devices, element types, kinds and units may be spelled as sources do (`Ryzen AI MAX+ 395`, `int8 x int4`, "
        "`matmul`, `GFLOP/s`). Other words are listed as remarks, with the "
        "known word they are near to and the rows that have them; an unknown word with `=`, words that contradict each "
        "other, more cores or hops than there are, a `k_l2` that is no multiple of the tile's k, or tiles that a "
        "core's memory cannot hold, leave the row without a prediction, with the reason, and everything else that is "
        "wrong with it. Sizes of a shape are whole numbers, `4K` is 4096; ids are a row's own. Errors above 1000 % are "
        "said as how many times the measured time is predicted. Kinds are "
        f"{', '.join(f'`{kind}`' for kind in known_kinds())}; times are in cycles, ns, us, ms or s, rates in GOPS, "
        "TOPS, GFLOPS, TFLOPS, MAC/cycle, MB/s or GB/s where a kind has such. Every prediction "
        "says what bounds it and whether a dispatch is in it.",
        "Rows that no constant comes from, predicted with our own kernel model (`tests/compiler/npu_unseen.csv`):",
        *_by_source(found),
        "Beyond 25 %, or not predicted:",
        *_beyond(found),
        "A program's time follows from how it reads host memory: the block of C it makes at once, and how long runs "
        "A, B and C lie in there (`backends/npu/gemm_layouts.py`); from what its shims' channels carry; from whether "
        "blocks overlap; and from what its host does around a run. Constants are one a mechanism, in the machine "
        "files, with where they come from.",
        "Which rows had been seen: all but those of the table below, when on 2026-11-22 reads got a limit of their "
        "own, few columns had to wait for their shims, short runs lay in two lines of memory, hosts copied and "
        "synchronised, and mlir-air's launches followed one another. The same rows gave before: 81 GEMMs a median "
        "error of 10 %, at most 37 %, tau 0.90; 11 products with a vector 34 %, 49 %, 0.89. Rows of tibrezus were "
        "read again then: tile, compiler, and whether a call or a launch was measured stand in its sources, and are "
        "now in `config`. Before programs' use of host memory was in the model, 58 of the GEMMs gave 26 %, 107 %, and "
        "0.52. What followed was predicted first, then read:",
        *FIRST_LOOKS,
        "What sources say of their own scatter: xdna-emu's same transfer took 3829 to 11438 cycles in 20 runs (a "
        "deviation of 22 %), and a single read may or may not wait 1330 cycles more for host memory. Its one run of "
        "1024 words took 1247 cycles, of 2048 words 3421; no straight line is within 15 % of both and of 16384 words, "
        "so that the gate of single reads cannot be met by one. The prediction prints what may be added. Five runs of "
        "amd/IRON's same sum of 2048 elements on Krackan took 124 to 262 us (deviations are 6 to 37 %); its dispatch "
        "there, 185 us, is the median of the suite's copies, 146 to 238 us; on Phoenix that is 422 us, 293 to 559, and"
        " one product with a vector took from 2.5 to 4.8 ms. mlir-air times a start and a wait alone, 70.7 us, all "
        "that the shortest of its products took.",
        "mlir-air's products: launches run in groups of two by two, fewer where blocks do not divide, and a group "
        "waits until the one before has left (air-opt-shim-dma-bds, runtime_loop_tiling_sizes), so that three or five "
        "blocks along N are as many groups; those of products with a vector are of four. Cores round float sums one "
        "after the other (mm_aie2p.cc), four cycles each, a constant of its 41 products with bf16 results, which had 8"
        " %, 33 %, 0.92 before. Three figures that its registry says are carried over from other shapes are left out.",
        "Open: mlir-air's products with wide results and few columns of A in memory tiles (k_l2 of 32 to 128) take up "
        "to 58 % longer than predicted; reads reach 21 to 29 GB/s there, and rows of B are 19 to 38 kB apart, but "
        "2048x3584x3584 does so, too. IREE's i8 products with i32 results on Strix take as long with four levels of "
        "tiling as with three, where half as much is read. A softmax of IREE's on HX 370 took 2 to 87 us in eight "
        "runs, less than a dispatch. flm's products of 256 rows on Krackan took 196 to 382 us in five runs, one of "
        "them on Phoenix 683 to 2279. First tasks of xdna-emu's chains took 691 to 880 (S2MM) and 774 to 1478 cycles "
        "(MM2S).",
    ]


def published_errors() -> dict[str, object]:
    """How far rows that no constant comes from are from predictions, by kind of work and generation of arrays.

    The band that `neuc compile` says beside its own predictions; kept in `ERRORS`.
    """
    groups: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for source, p in _unseen():
        machine = machine_for(p.row.device)[0]
        for kind in _work(p.row):
            if machine is not None and p.error is not None:
                groups.setdefault((kind, machine.generation), []).append((source, abs(p.error)))
    rows: list[dict[str, object]] = []
    for (kind, generation), found in sorted(groups.items()):
        errors = sorted(error for _, error in found)
        rows.append(
            {
                "kind": kind,
                "generation": generation,
                "rows": len(errors),
                "median": round(median(errors), 4),
                "nine_of_ten": round(errors[math.ceil(0.9 * len(errors)) - 1], 4),
                "largest": round(errors[-1], 4),
                "sources": sorted({source for source, _ in found}),
            }
        )
    return {
        "what": "errors of predicted times of published runs that no constant of the machine files is fitted to: "
        "shares of the measured time, absolute",
        "written_by": "python benchmarks/npu_silicon.py",
        "rows_of": "tests/compiler/npu_unseen.csv",
        "errors": rows,
    }


def _work(row: Row) -> list[str]:
    """Which kinds of work on an array a row is like: calls with their dispatch, not the array alone."""
    if row.kind == "gemm":
        operands = next((name for name in ("int8", "bf16") if row.dtype.replace("i8", "int8").startswith(name)), "")
        return ["products", *([f"{operands} products"] if operands else [])]
    named = {"softmax": "softmax", "layer_norm": "layer norms", **dict.fromkeys(ELEMENT_WISE, "element-wise functions")}
    return [named[row.kind]] if row.kind in named else []


def _calibration() -> list[str]:
    """Errors on the published rows, by kind and by where kernel rates come from."""
    rows = read_rows(ROOT / "tests" / "compiler" / "npu_calibration.csv")
    lines = [
        "| rows | kernel rates | rows predicted | median error | largest | Kendall's tau |",
        "|---|---|---|---|---|---|",
    ]
    for kinds in (
        ("gemm_array",),
        ("gemm_array_memory_bound",),
        ("gemm",),
        ("kernel",),
        ("shim_single_bd",),
        ("shim_chained",),
        ("gelu",),
        ("rms_norm",),
        ("softmax",),
    ):
        for own in (False, True):
            found = summarise([predict(row, own_rates=own) for row in rows if row.kind in kinds])
            if found is not None:
                tau = "" if found.tau is None else f"{found.tau:.2f}"
                source = "own kernel model" if own else "as rows give them"
                cells = (kinds[0], source, found.count, f"{found.median:.1%}", f"{found.maximum:.1%}", tau)
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _unseen() -> list[tuple[str, Prediction]]:
    """Published rows that no constant comes from, with their sources, and what our own kernel model says of them."""
    path = ROOT / "tests" / "compiler" / "npu_unseen.csv"
    with path.open(encoding="utf-8") as file:
        sources = [fields["source"] for fields in csv.DictReader(file)]
    rows = zip(sources, read_rows(path))
    return [(source, predict(row, own_rates=row.kind not in GIVEN_RATES)) for source, row in rows]


def _by_source(found: list[tuple[str, Prediction]]) -> list[str]:
    """Their errors by source and kind, and by kind."""
    groups: dict[str, list[Prediction]] = {}
    for source, p in found:
        groups.setdefault(f"{source}, {p.row.kind}", []).append(p)
    for kind in dict.fromkeys(p.row.kind for _, p in found):
        groups[f"all, {kind}"] = [p for _, p in found if p.row.kind == kind]
    lines = [
        "| source, kind | rows | median error | largest | Kendall's tau | not predicted |",
        "|---|---|---|---|---|---|",
    ]
    for name, predictions in groups.items():
        sums = summarise(predictions)
        refused = sum(p.value is None for p in predictions) or ""
        if sums is None:
            lines.append(f"| {name} | 0 | | | | {refused} |")
            continue
        tau = "" if sums.tau is None or sums.count < 4 else f"{sums.tau:.2f}"
        lines.append(f"| {name} | {sums.count} | {sums.median:.0%} | {sums.maximum:.0%} | {tau} | {refused} |")
    return lines


def _beyond(found: list[tuple[str, Prediction]]) -> list[str]:
    """Those beyond the largest error a GEMM may have, or not predicted, one by one."""
    lines = ["| row | source | measured | predicted | error |", "|---|---|---|---|---|"]
    for source, p in found:
        if p.error is None or abs(p.error) > gate_of("gemm")[1]:
            what = f"{p.row.kind} {p.row.shape} {p.row.dtype}; {p.row.config}"
            said = p.why_not if p.value is None else f"{p.value:.4g}"
            error = "" if p.error is None else f"{p.error:+.0%}"
            lines.append(f"| {what} | {source} | {p.row.value:g} {p.row.unit} | {said} | {error} |")
    return lines


def write_errors() -> None:
    """Write the band of errors."""
    ERRORS.write_text(json.dumps(published_errors(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_errors()
