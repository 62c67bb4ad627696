"""`Session` as its users see it: results, signature, feeds that do not fit, bindings, profiles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtime_programs
from neuc.errors import Error, Exit
from neuc.runtime.executors.plan import (
    MAX_PIECES,
    PIECE_BYTES,
    PIECE_GRAINS,
    PIECE_OPERATIONS,
    barriers,
    calls_of,
    goals,
    pieces_of,
    split_work,
)
from neuc.runtime.native.layout import PIECE_SHARE
from neuc.runtime.program import (
    ArenaBuffer,
    BufferArg,
    F32Arg,
    InputBuffer,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OutputBuffer,
    Program,
    Repeat,
    ScheduleStep,
)
from neuc.runtime.session import Session
from neuc.runtime.signature import Signature

TRIES = 1000


def session(program: Program | None = None, **options: object) -> Session:
    return Session.from_parts(
        program or runtime_programs.chain(),
        runtime_programs.kernels(),
        runtime_programs.chain_weights(),
        **options,  # type: ignore[arg-type]
    )


def numbers(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, runtime_programs.WIDTH)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("grain", [1, 7, 1000])
def test_any_batch_any_threads(threads: int, grain: int) -> None:
    with session(runtime_programs.chain(5, grain), threads=threads) as s:
        assert s.threads == threads
        for batch in (1, 2, 3, 17, 128, 400, 3, 1):
            x = numbers(batch)
            np.testing.assert_array_equal(s.run(None, {"x": x})[0], runtime_programs.chain_expected(x, 5))


def test_no_output_names_mean_all() -> None:
    feeds = {spec.name: numbers(2) for spec in runtime_programs.chain().inputs}
    found, right = session().run([], feeds), session().run(None, feeds)
    assert len(found) == len(right) > 0
    assert all(np.array_equal(a, b) for a, b in zip(found, right))


def test_zero_rows() -> None:
    with session(threads=2) as s:
        (y,) = s.run(None, {"x": np.zeros((0, 5), np.float32)})
        assert y.shape == (0, 5)


def test_more_sets_of_sizes_than_are_kept() -> None:
    with session(threads=1) as s:
        for batch in [*range(1, 60), *range(1, 60, 7)]:
            x = numbers(batch)
            np.testing.assert_array_equal(s.run(["y"], {"x": x})[0], runtime_programs.chain_expected(x))


def test_outputs_are_new_memory() -> None:
    with session(threads=1) as s:
        first, second = s.run(None, {"x": numbers(1)})[0], s.run(None, {"x": numbers(2)})[0]
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, runtime_programs.chain_expected(numbers(1)))


def test_an_input_that_is_an_output_is_copied() -> None:
    io = (IoSpec("float32", ("N",), "x"),)
    with session(Program(io, io, {}, ())) as s:
        x = np.ones(3, np.float32)
        (y,) = s.run(None, {"x": x})
        np.testing.assert_array_equal(x, y)
        assert not np.shares_memory(x, y)


def test_feeds_that_are_not_contiguous_aligned_or_native() -> None:
    x = numbers(6)
    want = runtime_programs.chain_expected(x)
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[:] = x
    readonly = x.copy()
    readonly.flags.writeable = False
    with session(threads=1) as s:
        for feed in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[::-1][::-1], odd, readonly, x.astype(">f4")):
            np.testing.assert_array_equal(s.run(None, {"x": feed})[0], want)


def test_signature() -> None:
    with session() as s:
        (x,) = s.get_inputs()
        assert (x.name, x.shape, x.type) == ("x", ["B", 5], "tensor(float)")
        assert [o.name for o in s.get_outputs()] == ["y"]
        assert s.get_modelmeta().producer_name == "neuc"


X = np.ones((2, 5), np.float32)


@pytest.mark.parametrize(
    ("feeds", "code", "words"),
    [
        ({}, "NEUC-E310", ["missing input", "'x'", "float32[B, 5]"]),
        ({"X": X}, "NEUC-E310", ["no input 'X'", "its inputs are 'x'"]),
        ({"x": X, "z": X}, "NEUC-E310", ["'z'"]),
        ([X], "NEUC-E310", ["list"]),
        (X, "NEUC-E310", ["ndarray"]),
        ({"x": X.astype(np.float64)}, "NEUC-E311", ["'x'", "expected float32", "got float64"]),
        ({"x": X.astype(np.int64)}, "NEUC-E311", ["got int64"]),
        ({"x": "text"}, "NEUC-E311", ["'x'"]),
        ({"x": None}, "NEUC-E311", ["'x'"]),
        ({"x": [[1.0], [1.0, 2.0]]}, "NEUC-E311", ["'x'", "list"]),
        ({"x": X[0]}, "NEUC-E312", ["'x'", "expected 2 dimensions [B, 5]", "[5]"]),
        ({"x": np.float32(1)}, "NEUC-E312", ["got 0 []"]),
        ({"x": X[None]}, "NEUC-E312", ["[1, 2, 5]"]),
        ({"x": X[:, :4].copy()}, "NEUC-E312", ["'x'", "[B, 5]", "[2, 4]", "dimension 1 must be 5"]),
    ],
)
def test_wrong_feeds(feeds: dict[str, np.ndarray], code: str, words: list[str]) -> None:
    with session(threads=1) as s, pytest.raises(Error) as caught:
        s.run(None, feeds)
    assert caught.value.code == code
    assert caught.value.exit_code == Exit.USAGE
    for word in words:
        assert word in str(caught.value)


def test_the_hint_for_a_wrong_size_says_whether_a_name_ties_it() -> None:
    """A fixed size has nothing to do with other inputs."""
    pair = replace(runtime_programs.chain(), inputs=(IoSpec("float32", ("B", 5), "x"), IoSpec("float32", ("B",), "y")))
    signature = Signature(pair)
    with pytest.raises(Error) as caught:
        signature.check_feeds({"x": X[:, :4].copy(), "y": X[:, 0].copy()})
    assert caught.value.hint == "dimension 1 is fixed in the model: feed 5 along it"
    with pytest.raises(Error) as caught:
        signature.check_feeds({"x": X, "y": X[:1, 0].copy()})
    assert "'y'" in str(caught.value)
    assert "same name" in str(caught.value.hint)


def test_wrong_output_name() -> None:
    with session(threads=1) as s, pytest.raises(Error, match="no output 'z'") as caught:
        s.run(["z"], {"x": X})
    assert caught.value.code == "NEUC-E313"


def two_inputs() -> Program:
    """out[2*N] from a[N] and b[N + 1]; only ``a`` is used."""
    a, b = IoSpec("float32", ("N",), "a"), IoSpec("float32", ("N+1",), "b")
    out = IoSpec("float32", ("2*N",), "out")
    launches = (
        Launch("k_scale", (BufferArg(0), BufferArg(1), F32Arg(1.0)), "N"),
        Launch("k_scale", (BufferArg(0), BufferArg(1, "N*4"), F32Arg(3.0)), "N"),
    )
    segment = NativeSegment(("N",), 0, 0, (a, b), (out,), (InputBuffer(0), OutputBuffer(0)), launches)
    return Program((a, b), (out,), {"s": segment}, (ScheduleStep("s", ("a", "b"), ("out",)),))


def running_sums() -> Program:
    """y[t] = x[t] + y[t - 1] + bias in rows of 5, x doubled first and y halved last; the number of rows is symbolic."""
    row = f"{4 * runtime_programs.WIDTH}"
    loop = Repeat("t", "T")
    buffers = (InputBuffer(0), OutputBuffer(0), ArenaBuffer(0, f"T*{row}"), ArenaBuffer(f"(T*{row}+63)//64*64", row))
    at = [BufferArg(2, f"t*{row}"), BufferArg(1, f"t*{row}")]
    width = runtime_programs.WIDTH
    launches = (
        Launch("k_scale", (BufferArg(0), BufferArg(2), F32Arg(2.0)), f"T*{width}"),
        Launch("k_scale", (BufferArg(2), BufferArg(3), F32Arg(0.0)), width),
        Launch("k_add", (at[0], BufferArg(3), at[1], IntArg(width)), width, repeat=loop),
        Launch("k_scale", (at[1], BufferArg(3), F32Arg(1.0)), width, repeat=loop),
        Launch("k_scale", (BufferArg(1), BufferArg(1), F32Arg(0.5)), f"T*{width}"),
    )
    io = IoSpec("float32", ("T", width))
    segment = NativeSegment(("T",), f"(T*{row}+63)//64*64 + {row}", 0, (io,), (io,), buffers, launches)
    x, y = (IoSpec("float32", ("T", width), name) for name in "xy")
    return Program((x,), (y,), {"s": segment}, (ScheduleStep("s", ("x",), ("y",)),))


@pytest.mark.parametrize("threads", [1, 3])
def test_launches_of_a_loop_run_as_often_as_sizes_say(threads: int) -> None:
    with session(running_sums(), threads=threads, profile=True) as s:
        for steps in (4, 1, 300, 4, 0):
            x = np.round(numbers(steps) * 64)  # sums of integers are exact
            np.testing.assert_array_equal(s.run(None, {"x": x})[0], np.cumsum(x, axis=0))


def test_symbols_must_agree() -> None:
    with session(two_inputs(), threads=2) as s:
        a = np.arange(4, dtype=np.float32)
        np.testing.assert_array_equal(s.run(None, {"a": a, "b": np.zeros(5, np.float32)})[0], [*a, *(3 * a)])
        with pytest.raises(Error, match=r"'b'.*dimension 0 must be N\+1 \(N = 4\)") as caught:
            s.run(None, {"a": a, "b": np.zeros(4, np.float32)})
        assert caught.value.exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"arena": "N-10"}, "NEUC-E314"),
        ({"arena": "100//(N-4)"}, "NEUC-E303"),
        ({"scratch": "0-N"}, "NEUC-E314"),
        ({"arena": "N*1000000000000000"}, "NEUC-E315"),
        ({"arena": 16, "buffers": (InputBuffer(0), ArenaBuffer("N*4", 1))}, "NEUC-E314"),
        ({"arena": 16, "buffers": (InputBuffer(0), ArenaBuffer("N*5"))}, "NEUC-E314"),
        ({"outputs": (IoSpec("float32", ("N-5",)),)}, "NEUC-E314"),
        ({"launches": (Launch("k_scale", (), "N*1000000000000"),)}, "NEUC-E314"),
        ({"launches": (Launch("k_scale", (), "N-5"),)}, "NEUC-E314"),
        ({"launches": (Launch("k_scale", (), 1, repeat=Repeat("t", "N*1000000")),)}, "NEUC-E314"),
        ({"launches": (Launch("k_scale", (), 1, repeat=Repeat("t", "N-5")),)}, "NEUC-E314"),
        ({"launches": (Launch("k_scale", (), "t*1000000000000", repeat=Repeat("t", "N")),)}, "NEUC-E314"),
    ],
)
def test_sizes_that_make_no_sense(change: dict[str, object], code: str) -> None:
    program = two_inputs()
    segment = program.segments["s"]
    assert isinstance(segment, NativeSegment)
    broken = NativeSegment(**{**{k: v for k, v in vars(segment).items() if k != "kind"}, **change})  # type: ignore[arg-type]
    with session(Program(program.inputs, program.outputs, {"s": broken}, program.schedule), threads=1) as s:
        with pytest.raises(Error) as caught:
            s.run(None, {"a": np.zeros(4, np.float32), "b": np.zeros(5, np.float32)})
        assert caught.value.code == code


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_thread_has_scratch_memory_of_its_own(threads: int) -> None:
    x, out = IoSpec("float32", ("N",), "x"), IoSpec("int64", ("N",), "out")
    launches = (Launch("k_where", (BufferArg(0), BufferArg(1), IntArg(0)), "N"),)
    segment = NativeSegment(("N",), "N*12", "N*100", (x,), (out,), (InputBuffer(0), OutputBuffer(0)), launches)
    program = Program((x,), (out,), {"s": segment}, (ScheduleStep("s", ("x",), ("out",)),))
    with session(program, threads=threads) as s:
        for size in (6, 600):
            places = np.zeros(0, np.int64)
            for _ in range(TRIES):  # a thread that comes late finds its units done
                places = np.union1d(places, s.run(None, {"x": np.zeros(size, np.float32)})[0])
                if len(places) == threads:
                    break
            assert len(places) == threads
            assert all(int(place) % 64 == 0 for place in places)
            assert (np.diff(places) >= 100 * size).all()


def test_missing_parts() -> None:
    with pytest.raises(Error, match="bias"):
        Session.from_parts(runtime_programs.chain(), runtime_programs.kernels(), {})
    only = {name: code for name, code in runtime_programs.kernels().items() if name != "k_reverse"}
    with pytest.raises(Error, match="k_reverse"):
        Session.from_parts(runtime_programs.chain(), only, runtime_programs.chain_weights())
    with pytest.raises(Error, match="threads=0"):
        session(threads=0)


def test_weights_that_are_not_aligned_are_copied() -> None:
    place = np.empty(100, np.uint8)[4:24].view(np.float32)
    place[:] = runtime_programs.BIAS
    weights = {"bias": place.astype(">f4")[::-1][::-1]}
    s = Session.from_parts(runtime_programs.chain(), runtime_programs.kernels(), weights, threads=1)
    np.testing.assert_array_equal(s.run(None, {"x": X})[0], runtime_programs.chain_expected(X))


def test_closed() -> None:
    s = session(threads=1)
    s.close()
    s.close()
    with pytest.raises(Error, match="closed"):
        s.run(None, {"x": X})


def test_io_binding() -> None:
    with session(threads=1) as s:
        binding, y = s.io_binding(), np.empty((2, 5), np.float32)
        binding.bind_cpu_input("x", X)
        binding.bind_cpu_output("y", y)
        s.run_with_iobinding(binding)
        np.testing.assert_array_equal(y, runtime_programs.chain_expected(X))
        assert binding.get_outputs()[0] is y
        binding.bind_output("y")
        s.run_with_iobinding(binding)
        assert binding.copy_outputs_to_cpu()[0] is not y
        y[:] = 0
        binding.bind_input("x", "cpu", 0, np.float32, X.shape, X.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        s.run_with_iobinding(binding)
        np.testing.assert_array_equal(y, runtime_programs.chain_expected(X))
        binding.clear_binding_inputs()
        with pytest.raises(Error, match="missing input"):
            s.run_with_iobinding(binding)


def test_bindings_that_do_not_fit() -> None:
    with session(threads=1) as s:
        binding = s.io_binding()
        binding.bind_cpu_input("x", X)
        with pytest.raises(Error, match="no output 'z'"):
            binding.bind_output("z")
        with pytest.raises(Error, match="not contiguous"):
            binding.bind_cpu_output("y", np.empty((4, 5), np.float32)[::2])
        with pytest.raises(Error, match="device 'cuda'"):
            binding.bind_output("y", "cuda", 0, np.float32, (2, 5), 4096)
        for wrong in (np.empty((3, 5), np.float32), np.empty((2, 5), np.float64)):
            binding.bind_cpu_output("y", wrong)
            with pytest.raises(Error, match="is bound to"):
                s.run_with_iobinding(binding)


def test_profile(tmp_path: Path) -> None:
    with session(runtime_programs.chain(2), threads=2, profile=True) as s:
        s.run(None, {"x": numbers(100)})
        s.run(None, {"x": numbers(100)})
        profile = s.profile
        assert profile is not None
        assert 2 * 5 <= len(profile.events) <= 2 * 5 * 2  # runs, launches, threads: one may come too late
        assert set(profile.totals()) == {"double", "flip", "bias"}
        for event in profile.events:
            assert 0 < event.begin <= event.end
        profile.save(tmp_path / "trace.json")
        trace = json.loads((tmp_path / "trace.json").read_text())
        assert {e["tid"] for e in trace["traceEvents"]} <= {0, 1}
        assert all(e["ph"] == "X" and e["ts"] >= 0 for e in trace["traceEvents"])
        assert sum(e["args"]["work"] for e in trace["traceEvents"]) == 2 * 5 * 500
        with pytest.raises(Error):
            profile.save(tmp_path / "no" / "trace.json")
    with session(threads=1) as s:
        assert s.profile is None


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_work_is_split_into_whole_grains(threads: int) -> None:
    rng = np.random.default_rng(threads)
    works, grains = rng.integers(1, 3000, 200), rng.integers(1, 100, 200)
    for work, grain, ranges in zip(works, grains, split_work(works, grains, threads)):
        begins, ends = ranges[:, 0], ranges[:, 1]
        if work < 2 * grain:
            assert (begins[0], ends[0]) == (0, work)
            assert (begins[1:] == ends[1:]).all()
            continue
        assert begins[0] == 0
        assert ends[-1] == work
        np.testing.assert_array_equal(begins[1:], ends[:-1])
        assert (begins % grain == 0).all()
        shares = -(-(ends - begins) // grain)
        assert shares.max() - shares.min() <= 1


def test_barriers_stand_where_threads_depend_on_each_other() -> None:
    works = np.array([1, 1, 50, 50, 1, 1, 1])
    ranges = split_work(works, np.ones_like(works), 2)
    assert barriers(ranges, np.arange(7)).tolist() == [0, 1, 1, 1, 0, 0, 1]
    assert barriers(ranges, np.array([1, 1, 1, 2, 2, 3, 3])).tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert barriers(ranges[[0, 1, 4, 5]], np.array([1, 1, 2, 3])).tolist() == [0, 0, 0, 1]
    assert barriers(split_work(works, np.ones_like(works), 1), np.arange(7)).tolist() == [0] * 7


def cut(size: int, least: int) -> list[int]:
    """What the driver makes of a range."""
    pieces: list[int] = []
    while size > 0:
        pieces.append(min(size, max(size // (PIECE_SHARE * least), 1) * least))
        size -= pieces[-1]
    return pieces


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_pieces_cover_ranges_in_whole_grains_and_are_all_counted(threads: int) -> None:
    works, grains = np.array([1, 50, 1000, 1000, 1000, 7, 54]), np.array([1, 1, 8, 8, 600, 3, 1])
    weights = np.array([0, 0, 0, 10**12, 10**12, threads * PIECE_BYTES * 2, 0])
    efforts = np.array([0, 10, 0, 0, 10**9, 0, PIECE_OPERATIONS])
    ranges = split_work(works, grains, threads)
    pieces = pieces_of(ranges, grains, weights, efforts)
    total, ends = 0, goals(np.ones(len(works), np.int64), ranges, pieces)
    for row, grain, piece, end in zip(ranges, grains, pieces, ends):
        sizes = row[:, 1] - row[:, 0]
        if piece:
            assert piece % grain == 0
            total += sum(len(cut(int(size), int(piece))) for size in sizes)
        else:
            assert (sizes > 0).sum() == 1
            total += 1
        assert end == total
    largest = (ranges[:, :, 1] - ranges[:, :, 0]).max(axis=1)
    assert pieces[1] == largest[1]  # few weights, few grains, little to do: ranges are taken whole
    if threads > 1 and 125 // threads >= 2 * PIECE_GRAINS:
        assert pieces[2] < largest[2]  # many grains: in pieces
    assert pieces[3] < largest[3] or threads > 125 // MAX_PIECES
    assert pieces[6] == 1  # a unit is worth a call
    assert not pieces_of(split_work(works, grains, 1), grains, weights, efforts).any()


def test_pieces_shrink_towards_the_end_of_a_range() -> None:
    assert cut(54, 1) == [18, 12, 8, 5, 3, 2, 2, 1, 1, 1, 1]
    assert calls_of(np.array([[54, 54, 0, 7]]), np.array([[1, 54, 1, 0]])).tolist() == [[11, 1, 0, 1]]


@pytest.mark.parametrize("threads", [2, 3])
def test_pieces_of_few_units_give_the_same_results(threads: int) -> None:
    program = runtime_programs.chain(4)
    segment = next(iter(program.segments.values()))
    assert isinstance(segment, NativeSegment)
    launches = tuple(replace(launch, effort=PIECE_OPERATIONS // 3) for launch in segment.launches)
    program = replace(program, segments={name: replace(segment, launches=launches) for name in program.segments})
    weights = runtime_programs.chain_weights()
    with Session.from_parts(program, runtime_programs.kernels(), weights, threads=threads) as s:
        for rows in (1, 3, 40, 300):
            x = np.random.default_rng(rows).standard_normal((rows, runtime_programs.WIDTH)).astype(np.float32)
            np.testing.assert_array_equal(s.run(None, {"x": x})[0], runtime_programs.chain_expected(x, 4))
