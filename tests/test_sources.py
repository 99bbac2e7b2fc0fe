"""Mixtures, and datasets of other libraries as sources."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus import RATE, encoded, examples, shards, tone, write_tar
from fastaug import Mix, Pipeline
from fastaug.shards import open_source

COMMON: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 4_000, "device": "cpu", "num_threads": 1}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mix")
    return {"a": shards(folder / "a", 12, 4), "b": shards(folder / "b", 24, 8)}


def test_a_mixture_delivers_in_proportion_to_its_weights(two: dict[str, Path]) -> None:
    pipe = Pipeline(
        Mix(two, {"a": 3, "b": 1}), split="train", epoch_size=4_000, batch_size=500, crop="center", **COMMON
    )
    order = pipe._plan(0).order
    share = (order.records < len(open_source(two["a"], "train"))).mean()
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4_000)
    records = [(int(r), int(o)) for r, o in zip(order.records, order.occurrences, strict=True)]
    assert len(set(records)) == len(records)
    rounds = collections.Counter(r for r, _ in records)
    for source in (range(12), range(12, 36)):
        counts = [rounds[r] for r in source]
        assert max(counts) - min(counts) <= 1  # each source goes round on its own


def test_a_mixture_keeps_the_sources_apart_by_name(two: dict[str, Path]) -> None:
    pipe = Pipeline(Mix({"x": two["a"], "y": two["a"]}), split="train", batch_size=64, labels="genre", **COMMON)
    (batch,) = pipe
    assert {key.split("/")[0] for key in batch.keys} == {"x", "y"}
    alone = Pipeline(two["a"], split="train", batch_size=64, labels="genre", **COMMON)
    assert pipe.classes == alone.classes
    expected = {key: label for b in alone for key, label in zip(b.keys, b.labels.tolist(), strict=True)}
    got = dict(zip(batch.keys, batch.labels.tolist(), strict=True))
    assert all(got[key] == expected[key.split("/", 1)[1]] for key in got)


def test_ranks_of_a_mixture_cover_it_and_resume(two: dict[str, Path]) -> None:
    mix = Mix(two)
    parts = [Pipeline(mix, split="train", batch_size=6, rank=r, world_size=3, **COMMON) for r in range(3)]
    keys = [[b.keys for b in part] for part in parts]
    assert [len(k) for k in keys] == [2, 2, 2]
    again = Pipeline(mix, split="train", batch_size=6, rank=1, world_size=3, **COMMON)
    next(iter(again))
    other = Pipeline(mix, split="train", batch_size=6, rank=1, world_size=3, **COMMON)
    other.load_state_dict(again.state_dict())
    assert [b.keys for b in other] == keys[1][1:]
    with pytest.raises(ValueError, match="records"):
        Pipeline(
            Mix(two, {"a": 1, "b": 2}), split="train", batch_size=6, rank=1, world_size=3, **COMMON
        ).load_state_dict(again.state_dict())


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ({}, None, "one source or more"),
        ({"a/b": "x"}, None, "without '/'"),
        ({"a": "x"}, {"b": 1.0}, "weights for"),
        ({"a": "x"}, {"a": 0.0}, "positive"),
        ({"a": "x"}, {"a": float("nan")}, "positive"),
    ],
)
def test_mixtures_that_do_not_fit(sources: dict, weights: dict | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mix(sources, weights)


def test_sources_that_disagree_about_classes(tmp_path: Path) -> None:
    for name, label in (("a", "rock"), ("b", "jazz")):
        (tmp_path / name / label).mkdir(parents=True)
        (tmp_path / name / label / "1.wav").write_bytes(encoded(tone(0.3, 1), "wav"))
    with pytest.raises(ValueError, match="a and b disagree about the classes of 'label'"):
        open_source(Mix({"a": tmp_path / "a", "b": tmp_path / "b"}))


def test_replacement_draws_uniformly_and_counts_repeats(two: dict[str, Path]) -> None:
    parts = [
        Pipeline(two["b"], replacement=True, epoch_size=2_400, rank=r, world_size=2, **COMMON)._plan(0).order
        for r in range(2)
    ]
    records = np.stack([part.records for part in parts], 1).ravel()
    occurrences = np.stack([part.occurrences for part in parts], 1).ravel()
    counts = np.bincount(records, minlength=24)
    assert len(records) == 2_400 and counts.min() > 50 and counts.max() < 150 and counts.std() > 5
    seen: collections.Counter[int] = collections.Counter()
    for record, occurrence in zip(records.tolist(), occurrences.tolist(), strict=True):
        assert seen[record] == occurrence
        seen[record] += 1


# Other libraries.


def test_a_webdataset_gives_its_shards(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    folder = shards(tmp_path / "x", 12, 4)
    paths = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = wds.WebDataset(paths, shardshuffle=100, nodesplitter=wds.split_by_node).shuffle(10)
    ours = [b.keys for b in Pipeline(paths, **COMMON)]
    assert [b.keys for b in Pipeline(dataset, **COMMON)] == ours
    for changed in (dataset.decode(), wds.WebDataset(paths, shardshuffle=False).map(lambda sample: sample)):
        with pytest.raises(TypeError, match="stage _map"):
            Pipeline(changed, **COMMON)
    selected = wds.WebDataset(paths, shardshuffle=False, select_files=lambda name: True)
    with pytest.raises(TypeError, match="select_files"):
        Pipeline(selected, **COMMON)
    with pytest.raises(TypeError, match="list of shards"):
        Pipeline(wds.DataPipeline(lambda: iter([])), **COMMON)


def hugging(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    paths = []
    for name, data, suffix in examples(6):
        paths.append(tmp_path / f"{name}.{suffix}")
        paths[-1].write_bytes(data)
    rows = {"audio": [str(path) for path in paths], "genre": [0, 1, 2, -1, 1, 0], "year": list(range(1990, 1996))}
    dataset = datasets.Dataset.from_dict(rows)
    dataset = dataset.cast_column("genre", datasets.ClassLabel(names=["drone", "beat", "choir"]))
    return dataset.cast_column("audio", datasets.Audio(sampling_rate=8_000)), paths


def test_a_hugging_face_dataset(tmp_path: Path) -> None:
    dataset, paths = hugging(tmp_path)
    pipe = Pipeline(dataset, labels="genre", crop="center", batch_size=6, **COMMON)
    (batch,) = pipe
    assert batch.keys == [f"{i:08d}" for i in range(6)] and pipe.classes == ["drone", "beat", "choir"]
    assert batch.labels.tolist() == [0, 1, 2, -1, 1, 0] and batch.fields["year"] == list(range(1990, 1996))
    (expected,) = Pipeline([str(p) for p in paths], crop="center", batch_size=6, **COMMON)
    assert torch.equal(batch.audio, expected.audio)
    loader = torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=1)
    pipe.set_epoch(0)
    (through,) = [pipe.finish(b) for b in loader]
    assert torch.equal(through.audio, batch.audio)


def test_hugging_face_bytes_splits_and_lists_of_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [
        {"sound": {"bytes": encoded(tone(0.5, i), "flac"), "path": None}, "tags": [0, 2][: i + 1]} for i in range(2)
    ]
    dataset = datasets.Dataset.from_list(rows).cast_column("sound", datasets.Audio())
    dataset = dataset.cast_column("tags", datasets.Sequence(datasets.ClassLabel(names=["x", "y", "z"])))
    splits = datasets.DatasetDict({"train": dataset, "validation": dataset.select([1])})
    pipe = Pipeline(splits, split="valid", labels="tags", **COMMON)
    (batch,) = pipe
    assert batch.labels.tolist() == [[1.0, 0.0, 1.0]]
    with pytest.raises(ValueError, match="no split 'test' among train, validation"):
        Pipeline(splits, split="test", **COMMON)
    with pytest.raises(TypeError, match="streamed"):
        Pipeline(dataset.to_iterable_dataset(), **COMMON)
    with pytest.raises(TypeError, match="one audio column"):
        Pipeline(dataset.remove_columns("sound"), **COMMON)


def test_unknown_kinds_of_sources(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a.wav", encoded(tone(0.2, 0), "wav"))])
    with pytest.raises(TypeError, match="paths or Records"):
        open_source([tmp_path / "a.tar", 3])
