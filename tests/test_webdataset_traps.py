"""Traps of webdataset 1.0.2, each beside what we do with the same shards. Its part is pinned: where a later version no
longer does that, the test says so and the comparison in the docs has to change."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import RATE, encoded, tone, write_tar
from fastaug import Pipeline

wds = pytest.importorskip("webdataset")
if not importlib.metadata.version("webdataset").startswith("1.0."):
    pytest.skip("pinned to webdataset 1.0", allow_module_level=True)

CLIP = encoded(tone(0.1, 0), "wav")
COMMON: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 400, "device": "cpu", "num_threads": 0}
pytestmark = pytest.mark.filterwarnings("ignore")


def members(*keys: str) -> list[tuple[str, bytes]]:
    return [pair for key in keys for pair in ((f"{key}.wav", CLIP), (f"{key}.json", b'{"id": "%s"}' % key.encode()))]


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Six shards of four records; record r of shard s has the key "s-r"."""
    paths = [write_tar(tmp_path / f"train-{s}.tar", members(*(f"{s}-{r}" for r in range(4)))) for s in range(6)]
    return [str(path) for path in paths]


def theirs(source: Any, **options: Any) -> Any:
    return wds.WebDataset(source, **{"shardshuffle": False, "empty_check": False, "nodesplitter": None} | options)


def their_keys(dataset: Any) -> list[str]:
    return [sample["__key__"] for sample in dataset]


def our_keys(pipe: Pipeline) -> list[str]:
    return [key.partition("/")[2] for batch in pipe for key in batch.keys]


def pairs(pipe: Pipeline) -> Iterator[tuple[str, str]]:
    """The key of each delivered record, and the key that its label says."""
    for batch in pipe:
        yield from zip((key.partition("/")[2] for key in batch.keys), batch.fields["id"], strict=True)


def test_1_the_same_shard_order_every_epoch(shards: list[str]) -> None:
    dataset = theirs(shards, shardshuffle=6)
    assert their_keys(dataset) == their_keys(dataset)
    pipe = Pipeline(shards, shuffle=8, **COMMON)
    epochs = [our_keys(pipe) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3 and len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    pipe.set_epoch(1)
    assert our_keys(pipe) == epochs[1]


def test_2_a_seed_in_the_environment(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = our_keys(Pipeline(shards, shuffle=8, seed=5, **COMMON))
    monkeypatch.setenv("WDS_SEED", "5")
    with pytest.raises(TypeError):
        their_keys(theirs(shards, shardshuffle=6, detshuffle=True))
    assert our_keys(Pipeline(shards, shuffle=8, seed=5, **COMMON)) == expected


def test_3_a_short_epoch_is_the_same_head_for_ever(shards: list[str]) -> None:
    dataset = theirs(shards).with_epoch(6)
    assert their_keys(dataset) == their_keys(dataset) and len(their_keys(dataset)) == 6
    pipe = Pipeline(shards, shuffle=24, epoch_size=6, **COMMON)
    seen = {key for _ in range(30) for key in our_keys(pipe)}
    assert len(seen) == 24


def test_3_an_epoch_of_n_for_each_worker(shards: list[str]) -> None:
    count = lambda dataset: len(list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)))  # noqa: E731
    assert count(theirs(shards, workersplitter=wds.split_by_worker).repeat().with_epoch(6)) == 12
    pipe = Pipeline(shards, shuffle=24, epoch_size=6, batch_size=1, **COMMON)
    assert count(pipe) == 6 == len(pipe)


def test_4_resampling_misses_records_and_has_no_seed(shards: list[str]) -> None:
    runs = [their_keys(theirs(shards, resampled=True).with_epoch(24)) for _ in range(4)]
    assert any(len(set(run)) < 24 for run in runs) and len({tuple(run) for run in runs}) > 1
    ours = [our_keys(Pipeline(shards, shuffle=8, epoch_size=60, seed=3, **COMMON)) for _ in range(2)]
    assert ours[0] == ours[1] and set(Counter(ours[0]).values()) <= {2, 3} and len(set(ours[0])) == 24


def test_5_more_workers_than_shards(shards: list[str]) -> None:
    with pytest.raises(ValueError, match="No samples"):
        list(torch.utils.data.DataLoader(theirs(shards[:2], empty_check=True), batch_size=None, num_workers=3))
    pipe = Pipeline(shards[:1], batch_size=1, **COMMON)
    found = [pipe.finish(batch) for batch in torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=3)]
    assert [batch.keys[0] for batch in found] == [f"train-0.tar/0-{r}" for r in range(4)]


def test_5_ranks_without_a_word_about_them(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "0")
        with pytest.raises(ValueError, match="nodesplitter"):
            their_keys(wds.WebDataset(shards, shardshuffle=False))
    ranks = [our_keys(Pipeline(shards[:5], shuffle=4, rank=r, world_size=3, **COMMON)) for r in range(3)]
    assert {len(rank) for rank in ranks} == {7}, "as many steps on every rank, or they wait for each other for ever"
    assert len({key for rank in ranks for key in rank}) == 20


def test_6_shards_of_one_name_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in "xy":
        (tmp_path / place).mkdir()
        write_tar(tmp_path / place / "train-0.tar", members(place))
    (tmp_path / "theirs").mkdir()
    served = {f"http://{place}/train-0.tar": tmp_path / place / "train-0.tar" for place in "xy"}
    schemes = importlib.import_module("webdataset.gopen").gopen_schemes
    monkeypatch.setitem(schemes, "http", lambda url, *_, **__: served[url].open("rb"))
    urls = list(served)
    assert their_keys(theirs(urls, cache_dir=str(tmp_path / "theirs"))) == ["x", "x"]
    paths = [str(tmp_path / place / "train-0.tar") for place in "xy"]
    assert our_keys(Pipeline(paths, cache=tmp_path / "ours", **COMMON)) == ["x", "y"]


def test_6_a_cache_in_the_environment_and_a_place_that_is_not_there(
    shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "elsewhere"))
    assert len(our_keys(Pipeline(shards, cache=tmp_path / "new" / "cache", **COMMON))) == 24
    assert not (tmp_path / "elsewhere").exists() and len(list((tmp_path / "new" / "cache").rglob("*.tar"))) == 6


def test_6_a_shard_that_is_not_there_is_asked_for_again_and_again(
    shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    cached = {"cache_dir": str(tmp_path), "handler": wds.ignore_and_continue}
    gone = "http://127.0.0.1:9/gone.tar"
    with contextlib.suppress(Exception):
        their_keys(theirs([gone], **cached))
    assert sum(slept) > 60, slept
    slept.clear()
    with pytest.raises(FileNotFoundError, match=r"gone\.tar"):
        Pipeline([*shards, str(tmp_path / "gone.tar")], on_error="skip", **COMMON)
    assert slept == []


def test_7_dots_in_names(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "s.tar", members("01. song", "Track 2.0 (Clean Version)")))
    assert their_keys(theirs(path)) == ["01", "Track 2"] and " song.wav" in next(iter(theirs(path)))
    assert our_keys(Pipeline(path, **COMMON)) == ["01. song", "Track 2.0 (Clean Version)"]


def test_7_members_that_are_not_adjacent(tmp_path: Path) -> None:
    order = [members("a", "b")[i] for i in (0, 2, 1, 3)]
    path = str(write_tar(tmp_path / "s.tar", [*order, *members("c")]))
    broken = [sorted(set(sample) & {"wav", "json"}) for sample in theirs(path)]
    assert broken == [["wav"], ["wav"], ["json"], ["json"], ["json", "wav"]]
    with pytest.raises(ValueError, match="not adjacent"):
        Pipeline(path, **COMMON)
    pipe = Pipeline(path, on_error="skip", **COMMON)
    assert list(pairs(pipe)) == [("c", "c")] and len(pipe.stats.bad) == 2


def test_7_duplicate_names(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "s.tar", [*members("a"), *members("a"), *members("b")]))
    with pytest.raises(ValueError, match="duplicate file name"):
        their_keys(theirs(path))
    pipe = Pipeline(path, on_error="skip", **COMMON)
    assert list(pairs(pipe)) == [("b", "b")] and "2 audio members" in pipe.stats.bad[0].reason
    apart = write_tar(tmp_path / "t.tar", [*members("a"), *members("b"), *members("a")])
    assert list(pairs(Pipeline(apart, on_error="skip", **COMMON))) == [("a", "a"), ("b", "b")]


def cut_and_next(tmp_path: Path, second: list[tuple[str, bytes]]) -> list[str]:
    """A shard that is cut in the JSON of its last record, "x", and another one."""
    first = write_tar(tmp_path / "1.tar", members("w", "x"))
    data = first.read_bytes()
    first.write_bytes(data[: data.index(b"x.json") + 512])
    return [str(first), str(write_tar(tmp_path / "2.tar", second))]


def test_8_a_record_of_one_shard_with_the_label_of_another(tmp_path: Path) -> None:
    paths = cut_and_next(tmp_path, [("x.json", b'{"id": "another song"}'), *members("y")])
    swapped = [s for s in theirs(paths, handler=wds.ignore_and_continue) if s["__key__"] == "x"]
    assert swapped[0]["__url__"] == paths[0] and swapped[0]["json"] == b'{"id": "another song"}'
    pipe = Pipeline(paths, on_error="skip", **COMMON)
    assert list(pairs(pipe)) == [("w", "w"), ("y", "y")]
    told = {(Path(bad.url or "").name, bad.key) for bad in pipe.stats.bad}
    assert told == {("1.tar", "1.tar/x"), ("2.tar", "2.tar/x")}


def test_8_a_good_record_dropped_as_a_duplicate(tmp_path: Path) -> None:
    paths = cut_and_next(tmp_path, members("x", "y"))
    with_next = [s for s in theirs(paths, handler=wds.ignore_and_continue) if s.get("json") == b'{"id": "x"}']
    assert all(s["__url__"] == paths[0] for s in with_next), "the second shard's x is never delivered as its own"
    assert list(pairs(Pipeline(paths, on_error="skip", **COMMON))) == [("w", "w"), ("x", "x"), ("y", "y")]


def test_8_records_of_audio_alone(tmp_path: Path) -> None:
    """Nothing but the key tells a record from the next: the cut one, and the one of that name in the next shard."""
    other = encoded(tone(0.1, 5), "wav")
    first = write_tar(tmp_path / "1.tar", [("w.wav", CLIP), ("x.wav", CLIP)])
    data = first.read_bytes()
    first.write_bytes(data[: data.index(b"x.wav") + 512 + 100])
    second = write_tar(tmp_path / "2.tar", [("x.wav", other), ("y.wav", other)])
    pipe = Pipeline([str(first), str(second)], on_error="skip", crop="center", **COMMON)
    (batch,) = pipe
    assert batch.keys == ["1.tar/w", "2.tar/x", "2.tar/y"] and [bad.key for bad in pipe.stats.bad] == ["1.tar/x"]
    assert torch.equal(batch.audio[1], batch.audio[2]) and not torch.equal(batch.audio[0], batch.audio[1])


def test_8_a_damaged_header_ends_the_shard_silently(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", members("a", "b", "c"))
    data = bytearray(path.read_bytes())
    at = data.index(b"b.wav")
    data[at : at + 512] = b"\x99" * 512
    path.write_bytes(data)
    called: list[Exception] = []
    assert their_keys(theirs(str(path), handler=lambda e: called.append(e) or True)) == ["a"] and called == []
    with pytest.raises(ValueError, match=rf"no tar header at byte {at}"):
        Pipeline(path, **COMMON)
    pipe = Pipeline(path, on_error="skip", **COMMON)
    assert list(pairs(pipe)) == [("a", "a"), ("c", "c")] and pipe.stats.bad[0].offset == at


def test_9_a_sleep_for_each_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [(f"{i}.wav", b"nothing") for i in range(3)]
    path = str(write_tar(tmp_path / "s.tar", [*bad, *members("a")]))
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    def fail(sample: dict[str, Any]) -> Any:
        if "json" not in sample:
            raise ValueError("not audio")
        return sample

    assert their_keys(theirs(path).map(fail, handler=wds.warn_and_continue)) == ["a"] and slept == [0.5] * 3
    slept.clear()
    assert our_keys(Pipeline(path, on_error="skip", **COMMON)) == ["a"] and slept == []


def test_10_no_state_to_resume_from(shards: list[str]) -> None:
    assert not hasattr(theirs(shards).shuffle(8), "state_dict")
    whole = our_keys(Pipeline(shards, shuffle=8, batch_size=3, **COMMON))
    pipe = Pipeline(shards, shuffle=8, batch_size=3, **COMMON)
    head = [key.partition("/")[2] for _, batch in zip(range(3), pipe, strict=False) for key in batch.keys]
    again = Pipeline(shards, shuffle=8, batch_size=3, **COMMON)
    again.load_state_dict(pipe.state_dict())
    assert head + our_keys(again) == whole


def test_10_files_are_left_to_the_garbage_collector(shards: list[str]) -> None:
    def left_open(run: Any) -> list[str]:
        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            run()
            gc.collect()
        return [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)]

    assert left_open(lambda: next(iter(theirs(shards)))) != []
    for threads in (0, 2):
        settings = COMMON | {"batch_size": 3, "num_threads": threads}
        assert left_open(lambda s=settings: next(iter(Pipeline(shards, shuffle=8, **s)))) == []
