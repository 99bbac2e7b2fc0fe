"""Pipeline on a CUDA device: the same examples as on the CPU, decoded by kernels on a stream of their own.

Without a GPU the kernels run in emulation on CPU tensors, and streams and events are stand-ins that write down what
is asked of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from corpus import RATE, encoded, tone
from emulation import emulate
from fastaug import Batch, Gain, Pipeline, Record, arrival, clmr
from fastaug.batch import Place
from fastaug.codecs import DecodeError, device_plan
from fastaug.codecs.device import DeviceBatch, Staging
from fastaug.codecs.native import Members, Wanted
from fastaug.ops import _cuda
from fastaug.tasks import Part, Way
from test_wav import noise, written

CODECS = ("wav", "flac", "mp3", "ogg")
LABELS = [f"{i:02d}" for i in range(16)]


@pytest.fixture
def on_paper(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Pipelines decode with kernels in emulation, one launch at a time; their names. Fresh memory is full of NaN."""
    names: list[str] = []
    one = threading.Lock()

    def launch(file: str, name: str, grid: Sequence[int], block: Sequence[int], args: Any, shared: int = 0) -> None:
        if 0 not in grid:
            with one:
                names.append(name)
                emulate(file).launch(name, grid, block, args, shared, count=False)

    monkeypatch.setattr(_cuda, "launch", launch)
    monkeypatch.setattr(Pipeline, "_decodes_on", lambda self: torch.device("cpu"))
    torch.use_deterministic_algorithms(True)
    yield names
    torch.use_deterministic_algorithms(False)


def clips(pattern: str) -> list[Record]:
    """ "." good, "x" no audio, "n" NaN inside, "l" a label of no class, "s" shorter than the crops."""
    records = []
    for i, kind in enumerate(pattern):
        data = encoded(tone(0.06 if kind == "s" else 0.2 + 0.01 * i, i, channels=1 + i % 2), CODECS[i % 4])
        if kind == "n":
            samples = np.sin(np.arange(3_000) / 9)[:, None] * 0.3
            samples[::40] = np.nan
            data = written(samples, "FLOAT", rate=RATE)
        records.append(Record(LABELS[i], b"" if kind == "x" else data, {"n": "?" if kind == "l" else LABELS[i]}))
    return records


def both(
    records: list[Record], monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[list[Batch], list[Batch], Any]:
    """The batches of two epochs by kernels and by the CPU, and both Pipelines."""
    common = {"labels": "n", "classes": LABELS, "views": 2, "seed": 3, "device": "cpu", "shuffle": 8} | settings
    there = Pipeline(records, **common)
    ours = [batch for _ in range(2) for batch in there]
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "_decodes_on", lambda self: None)
        here = Pipeline(records, **common)
        expected = [batch for _ in range(2) for batch in here]
    return ours, expected, (there, here)


def assert_alike(ours: list[Batch], expected: list[Batch], close_db: float = 110.0) -> None:
    assert len(ours) == len(expected) > 0
    for a, b in zip(ours, expected, strict=True):
        assert (a.keys, a.fields, a.errors, a.outcomes, a.place) == (b.keys, b.fields, b.errors, b.outcomes, b.place)
        for name in ("starts", "lengths", "labels", "segment", "subkeys"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None) and (x is None or torch.equal(x.cpu(), y.cpu())), name
        assert a.audio.shape == b.audio.shape and a.audio.dtype == torch.float32
        error, power = ((t.double().cpu()) ** 2 for t in (a.audio.cpu() - b.audio, b.audio))
        assert float(error.sum()) <= 10 ** (-close_db / 10) * float(power.sum())
        assert torch.equal(a.audio.cpu() == 0.0, b.audio == 0.0) or float(error.max()) < 1e-12


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("on_error", "pattern"), [("skip", "..x.n.s.l..."), ("replace", "..x.n.s.l..."), ("raise", ".." * 3)]
)
def test_the_same_examples_as_on_the_cpu(
    on_paper: list[str], monkeypatch: pytest.MonkeyPatch, threads: int, on_error: str, pattern: str
) -> None:
    settings = {"sample_rate": RATE, "crop_samples": 1_200, "batch_size": 5, "on_error": on_error}
    ours, expected, (there, here) = both(clips(pattern), monkeypatch, num_threads=threads, **settings)
    assert_alike(ours, expected)
    assert there.stats.bad == here.stats.bad and there.stats.bad_count == here.stats.bad_count
    assert {"fa_wav_kernel", "fa_flac_place_kernel", "fa_mp3_samples_kernel"} <= set(on_paper)
    assert there.epoch == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"crop": "whole", "batch_size": 4},
        {"crop": "segments", "crop_samples": 900, "batch_size": 7},
        {"crop_samples": 500, "channels": 2, "batch_size": 3, "only": 2},
        {"crop_samples": 600, "channels": None, "batch_size": 3, "only": 2},
        {"crop_samples": 500, "sample_rate": RATE // 2, "batch_size": 6},
        {"crop_samples": 400, "views": None, "batch_size": 4},
    ],
    ids=lambda s: ", ".join(f"{k}={v}" for k, v in s.items()),
)
def test_every_way_to_crop(on_paper: list[str], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    settings = {"sample_rate": RATE, "num_threads": 0} | settings
    records = clips("........")
    if only := settings.pop("only", 0):
        records = [record for i, record in enumerate(records) if 1 + i % 2 == only]
    assert_alike(*both(records, monkeypatch, **settings)[:2])
    assert on_paper


def test_a_bad_record_raises_with_its_name(on_paper: list[str]) -> None:
    pipe = Pipeline(clips("..x."), sample_rate=RATE, crop_samples=100, device="cpu", num_threads=2)
    with pytest.raises(DecodeError, match="record '02': decode failed: .*empty"):
        list(pipe)


def test_the_augmented_views_are_those_of_the_cpu(on_paper: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"sample_rate": RATE, "crop_samples": 1_000, "batch_size": 4, "transform": Gain(gain_db=(-20.0, 0.0))}
    ours, expected, _ = both(clips("...."), monkeypatch, num_threads=0, **settings)
    assert_alike(ours, expected)
    assert all(
        torch.equal(a.params[v]["gain_db"], b.params[v]["gain_db"]) for a, b in zip(ours, expected) for v in (0, 1)
    )


# Streams and events.


class Diary:
    """Stands in for what `fastaug.arrival` uses of torch.cuda, and writes down what happens on which stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.local = threading.local()
        self.streams = 0
        for name in ("Stream", "Event", "device", "stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    @property
    def current(self) -> Any:
        return getattr(self.local, "stream", "the caller's")

    def note(self, *what: Any) -> None:
        self.notes.append(what)

    def Stream(self, device: Any, priority: int = 0) -> Any:
        self.streams += 1
        return SimpleNamespace(name=f"stream {self.streams}", priority=priority)

    def Event(self) -> Any:
        event = SimpleNamespace(stream=None)
        event.record = lambda: (setattr(event, "stream", self.current), self.note("record", self.current))
        return event

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        yield

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.local.stream = self.current, stream.name
        self.priority = stream.priority
        yield
        self.local.stream = before

    def current_stream(self, device: Any) -> Any:
        return SimpleNamespace(
            wait_event=lambda event: self.note("wait", self.current, event.stream), name=self.current
        )


class Audio:
    device = torch.device("cuda", 0)

    def __init__(self, diary: Diary) -> None:
        self.record_stream = lambda stream: diary.note("keep for", stream.name)


def test_a_batch_is_handed_over_by_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded on a stream of the loading thread, an event behind it; the caller's stream waits, and keeps the memory."""
    diary = Diary(monkeypatch)
    batch = Batch(Audio(diary), RATE, [], {}, None, None)  # type: ignore[arg-type]

    def load_batch(tasks: Any, place: Place, way: Way) -> Batch | Part:
        diary.note("load", diary.current)
        return batch if tasks else Part()

    loader: Any = SimpleNamespace(load_batch=load_batch)
    way = Way(1, torch.device("cuda", 0))
    arrivals = []
    work = lambda: arrivals.append(arrival.load_on_device(loader, [1], Place(0, 0, 1), way))  # noqa: E731
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert diary.notes == [("load", "stream 1"), ("record", "stream 1"), ("load", "stream 2"), ("record", "stream 2")]
    assert diary.priority < 0, "before the work of the caller"
    diary.notes.clear()
    assert [one.take() for one in arrivals] == [batch, batch]
    caller = "the caller's"
    assert diary.notes == [
        ("wait", caller, "stream 1"), ("keep for", caller), ("wait", caller, "stream 2"), ("keep for", caller),
    ]  # fmt: skip
    work(), work()
    assert diary.streams == 3, "one a thread"
    nothing = arrival.load_on_device(loader, [], Place(0, 0, 1), way)
    assert isinstance(nothing.take(), Part)


def test_other_threads_decode_on_the_device_that_is_current_for_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    settings: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 9, "num_threads": 1}
    found = [Pipeline(clips("."), device=name, **settings)._decodes_on() for name in ("cuda", "cuda:1", "cpu")]
    assert found == [torch.device("cuda", 3), torch.device("cuda", 1), None]


# The decoder's side.


def test_rows_that_are_not_asked_for_stay(on_paper: list[str]) -> None:
    """What a replacement is decoded into holds the rest of the batch."""
    data = [written(noise(400, 1, i), "PCM_16") for i in range(3)]
    members = Members(data, ["a", "b", "c"], 1)
    wanted = Wanted(np.arange(3), np.array([4, 1, 2]), np.array([10, 390, -20]), np.array([60, 60, 60]))
    samples = torch.full((6, 1, 60), 7.0)
    assert not DeviceBatch(members, wanted, None, (6, 1, 60), "cpu", 1, samples).finish()
    expected = DeviceBatch(members, wanted, None, (6, 1, 60), "cpu", 1).samples
    assert torch.equal(samples[[1, 2, 4]], expected[[1, 2, 4]]) and bool((samples[[0, 3, 5]] == 7.0).all())
    assert not samples[1, 0, 10:].any() and not samples[2, 0, :20].any()


@pytest.mark.parametrize("call", [1, 2])
def test_a_plan_is_given_up_where_there_is_no_memory_for_it(
    on_paper: list[str], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    native, open_plans, calls = device_plan._library.native(), set(), []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(native, name)

        def fa_stage_plan(self, *args: Any) -> int:
            open_plans.add(handle := native.fa_stage_plan(*args))
            return handle

        def fa_stage_fill(self, handle: int, *args: Any) -> None:
            native.fa_stage_fill(handle, *args)
            open_plans.remove(handle)

    def reserve(self: Staging, nbytes: int) -> int:
        calls.append(nbytes)
        if len(calls) == call:
            raise MemoryError("no page-locked memory")
        return taken(self, nbytes)

    taken = Staging.reserve
    counting = Counting()
    monkeypatch.setattr(device_plan._library, "native", lambda: counting)
    monkeypatch.setattr(Staging, "reserve", reserve)
    data = [written(noise(400, 1, 0), "PCM_16")]
    members, wanted = Members(data, ["a"], 1), Wanted(*(np.array([v]) for v in (0, 0, 5, 90)))
    with pytest.raises(MemoryError, match="page-locked"):
        DeviceBatch(members, wanted, None, (1, 1, 90), "cpu", 1)
    assert len(calls) == call and not open_plans
    monkeypatch.setattr(Staging, "reserve", taken)
    DeviceBatch(members, wanted, None, (1, 1, 90), "cpu", 1)
    assert not open_plans


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("on_error", ["skip", "replace"])
@pytest.mark.parametrize(
    "crop", [{"crop_samples": 1_200}, {"crop": "whole"}, {"crop": "segments", "crop_samples": 900}]
)
def test_the_same_examples_on_a_gpu(threads: int, on_error: str, crop: dict[str, Any]) -> None:
    records = clips("..x.n.s.l...")
    common: dict[str, Any] = {
        "labels": "n", "classes": LABELS, "views": 2, "seed": 3, "shuffle": 8, "sample_rate": RATE, "batch_size": 5,
        "on_error": on_error, "num_threads": threads,
    }  # fmt: skip
    there, here = Pipeline(records, device="cuda", **common, **crop), Pipeline(records, device="cpu", **common, **crop)
    ours, expected = ([batch for _ in range(3) for batch in pipe] for pipe in (there, here))
    assert all(batch.audio.is_cuda and batch.labels.is_cuda for batch in ours)
    assert_alike(ours, expected)
    assert there.stats.bad == here.stats.bad


@pytest.mark.gpu
def test_batches_of_a_gpu_are_not_overwritten_while_they_are_used() -> None:
    """The caller's stream lags far behind; memory of batches that it has let go is taken by later ones."""
    records = [Record(f"{i:02d}", encoded(np.full((40_000, 1), (i + 1) / 64, np.float32), "wav")) for i in range(48)]
    pipe = Pipeline(records, sample_rate=RATE, crop_samples=30_000, views=2, batch_size=4, device="cuda", num_threads=2)
    list(pipe)
    found = []
    for _ in range(3):
        for batch in pipe:
            torch.cuda._sleep(20_000_000)
            found.append((batch.audio.amin((0, 2, 3)), batch.audio.amax((0, 2, 3)), batch.keys))
            del batch
    for low, high, keys in found:
        levels = torch.tensor([(int(key) + 1) / 64 for key in keys])
        assert torch.equal(low.cpu(), levels) and torch.equal(high.cpu(), levels)


@pytest.mark.gpu
def test_the_caller_does_not_wait_for_a_batch_that_is_read_ahead() -> None:
    """Decoding of the next batches overlaps the caller's work: to take a batch queues work, and waits for none."""
    records = [Record(f"{i:02d}", encoded(tone(2.0, i), CODECS[i % 3])) for i in range(48)]
    pipe = Pipeline(
        records, sample_rate=RATE, crop_samples=20_000, views=2, batch_size=8, device="cuda", num_threads=2,
        transform=clmr(),
    )  # fmt: skip
    list(pipe)
    iterator = iter(pipe)
    next(iterator)
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)  # half a second
    behind = torch.cuda.Event()
    behind.record()
    for _ in range(3):
        next(iterator)
    assert not behind.query(), "three batches came while the caller's stream was still at work"
    iterator.close()
    torch.cuda.synchronize()
