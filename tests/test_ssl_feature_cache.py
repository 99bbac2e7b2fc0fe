"""Features on disk: equal to fresh ones bit for bit, found again only for the same data, checkpoint and crops."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from fastaug.ssl.checkpoint import save_model
from fastaug.ssl.cola import Cola
from fastaug.ssl.data import discover
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.probe import table
from fastaug.ssl.probe.cache import FeatureCache, file_hash, stamp
from fastaug.ssl.probe.features import Features, calibrate_batch_norm, join
from fastaug.ssl.probe.label_shares import choose_share
from fastaug.ssl.probe.projectors import load_projector, reset
from fastaug.ssl.probe.protocols import DEFAULT, PROTOCOLS
from fastaug.ssl.probe.representations import (
    Extractor,
    checkpoint,
    divide,
    pipeline,
    random_init,
    statistics,
    three_parts,
)
from fastaug.ssl.probe.table import LOGMEL, PRETRAINED, RANDOM, Share, probe_table

RATE, CROP = 8000, 2048
CARD: dict[str, Any] = {
    "encoder": "SampleCNN", "encoder_kwargs": {"strides": [2, 2, 2, 2, 2, 2, 2, 2, 2], "width": 0.0625},
    "sample_rate": RATE, "crop_samples": CROP, "logmel": None, "out_dim": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips a class, unsplit, of 2.5 to 4.5 crops."""
    root, rng = tmp_path_factory.mktemp("music"), np.random.default_rng(0)
    for label, hertz in (("low", 200), ("high", 1500)):
        (root / label).mkdir()
        for i in range(10):
            t = np.arange(int(CROP * (2.5 + i % 3))) / RATE
            tone = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.2) * t) + 0.05 * rng.normal(size=len(t))
            soundfile.write(root / label / f"{i}.wav", tone, RATE)
    return root


def run(folder: Path, seed: int = 0, kind: str = "mlp") -> Path:
    torch.manual_seed(seed)
    model = Contrastive(SampleCNN(strides=(2,) * 9, width=0.0625), Projector(32, 8, kind))
    return save_model(folder, model, CARD)


def extractor(music: Path, cache: Path | None) -> Extractor:
    return Extractor(discover(str(music)), CARD, torch.device("cpu"), 8, FeatureCache(cache))


def equal(a: Features, b: Features) -> bool:
    tensors = all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("values", "clip", "labels", "turn"))
    return tensors and a.keys == b.keys


@pytest.mark.parametrize("name", ["default", "clmr-v2", "book"])
def test_cached_equal_fresh_bit_for_bit(music: Path, tmp_path: Path, name: str) -> None:
    file, cpu, protocol = run(tmp_path / "run"), torch.device("cpu"), PROTOCOLS[name]
    fresh = extractor(music, None).features({"x": checkpoint(file, False, cpu)}, protocol)["x"]
    first, again = extractor(music, tmp_path / "c"), extractor(music, tmp_path / "c")
    first.features({"x": checkpoint(file, False, cpu)}, protocol)
    found = again.features({"x": checkpoint(file, False, cpu)}, protocol)["x"]
    assert first.decoded == 3 and again.decoded == 0
    assert all(equal(fresh[part], found[part]) for part in ("train", "valid", "test"))


def test_only_what_is_missing_is_extracted_and_all_of_it_from_one_pass(music: Path, tmp_path: Path) -> None:
    one, two, cpu = run(tmp_path / "1", 1), run(tmp_path / "2", 2), torch.device("cpu")
    extractor(music, tmp_path / "c").features({"one": checkpoint(one, False, cpu)}, DEFAULT)
    later = extractor(music, tmp_path / "c")
    others = {"z": checkpoint(one, True, cpu), "two": checkpoint(two, False, cpu), "mel": statistics(CARD, cpu)}
    found = later.features({"one": checkpoint(one, False, cpu), **others}, DEFAULT)
    assert later.decoded == 3 and len(list((tmp_path / "c").iterdir())) == 12
    assert found["z"]["test"].values.shape[1] == 8 and found["one"]["test"].values.shape[1] == 32
    assert not equal(found["one"]["test"], found["two"]["test"])


def test_other_data_checkpoint_or_crops_are_other_features(music: Path, tmp_path: Path) -> None:
    file, cpu, cache = run(tmp_path / "run"), torch.device("cpu"), tmp_path / "c"

    def decoded(music: Path, protocol: str = "default") -> int:
        it = extractor(music, cache)
        it.features({"x": checkpoint(file, False, cpu)}, PROTOCOLS[protocol])
        return it.decoded

    assert decoded(music) == 3 and decoded(music) == 0
    assert decoded(music, "clmr-v2") == 2  # random crops of train and valid; the test's segments are there
    run(tmp_path / "run", seed=9)
    assert decoded(music) == 3 and decoded(music) == 0
    some = next(music.rglob("*.wav"))
    some.touch()
    assert decoded(music) == 3


def test_damaged_files_are_made_anew_and_a_full_disk_is_said(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, key = FeatureCache(tmp_path), {"a": 1}
    features = Features(torch.randn(2, 3), torch.tensor([0, 0]), torch.tensor([1]), ["clip/é\udce9"])
    cache.store(key, features)
    kept = cache.load(key)
    assert kept is not None and equal(kept, features) and cache.load({"a": 2}) is None
    FeatureCache(tmp_path / "two").store({"a": 1, "b": 2}, features)
    assert FeatureCache(tmp_path / "two").load({"b": 2, "a": 1}) is not None
    shutil.rmtree(tmp_path / "two")
    (file,) = tmp_path.iterdir()
    for damaged in (file.read_bytes()[:100], b"", b"nonsense"):
        file.write_bytes(damaged)
        assert cache.load(key) is None
    with open(file, "wb") as opened:
        np.savez(opened, values=np.array([{}], dtype=object))  # would be pickled code
    assert cache.load(key) is None

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ValueError, match="No space left"):
        cache.store(key, features)
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="features cannot be kept in .*No space left.*--cache"):
        cache.store({"b": 1}, features)
    assert list(tmp_path.iterdir()) == [file]
    FeatureCache(None).store(key, features)


def test_table_is_the_same_with_and_without_cache(music: Path, tmp_path: Path) -> None:
    run(tmp_path / "run")
    short = dataclasses.replace(DEFAULT, head=dataclasses.replace(DEFAULT.head, epochs=20))
    tables = [
        probe_table(str(music), [tmp_path / "run"], seeds=(0, 1), cache=folder, protocol=short).to_dict()
        for folder in (None, tmp_path / "c", tmp_path / "c")
    ]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0]["split"].endswith("60/20/20 by key") and tables[0]["clips"] == {"train": 12, "valid": 4, "test": 4}


def test_random_crops_in_turns(music: Path) -> None:
    found = extractor(music, None).features({"mel": statistics(CARD, torch.device("cpu"))}, PROTOCOLS["book"])["mel"]
    train, test = found["train"], found["test"]
    assert train.turn.bincount().tolist() == [12] * 15 and test.values.shape[0] == 4  # one crop a clip and turn
    assert len(train.values[train.clip == 0].unique(dim=0)) > 10


def test_first_crop_is_the_first_segment(music: Path) -> None:
    mel = {"mel": statistics(CARD, torch.device("cpu"))}
    first, all_of_them = (
        extractor(music, None).features(mel, PROTOCOLS[n])["mel"]["test"] for n in ("book", "default")
    )
    rows = [int((all_of_them.clip == c).nonzero()[0, 0]) for c in range(4)]
    assert first.values.equal(all_of_them.values[rows]) and first.keys == all_of_them.keys


def test_join_matches_clips_by_key() -> None:
    a = Features(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), torch.tensor([5, 6]), ["a", "b"])
    b = Features(torch.tensor([[3.0], [4.0]]), torch.tensor([0, 1]), torch.tensor([6, 5]), ["b", "a"])
    both = join([a, b])
    assert both.clip.tolist() == [0, 1, 1, 0] and both.turn.tolist() == [0, 0, 1, 1] and both.labels.tolist() == [5, 6]
    with pytest.raises(ValueError, match="2 values, 1 clips"):
        Features(torch.zeros(2, 1), torch.zeros(1), torch.zeros(1), ["a"])


def test_missing_splits_are_taken_from_train_by_key(music: Path, tmp_path: Path) -> None:
    parts = three_parts(discover(str(music)))
    assert [len(part) for part in parts.values()] == [12, 4, 4]
    keys = {name: {part.key(i) for i in range(len(part))} for name, part in parts.items()}
    assert len(set.union(*keys.values())) == 20
    whole = {f"{split}/{p.parent.name}": p.read_bytes() for split in ("train", "test") for p in music.rglob("0.wav")}
    for name, content in whole.items():
        (tmp_path / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / name / f"{i}.wav").write_bytes(content)
    parts = three_parts(discover(str(tmp_path)))
    assert [len(part) for part in parts.values()] == [8, 2, 10]
    with pytest.raises(ValueError, match="too few to split"):
        divide(divide(parts["valid"], 0.5)[0], 0.5)


def test_projectors_come_back_and_their_absence_is_said(tmp_path: Path) -> None:
    for kind, dim in (("linear", 8), ("mlp", 8)):
        projector = load_projector(run(tmp_path / kind, kind=kind), CARD)
        assert projector(torch.zeros(1, 32)).shape == (1, dim)
        assert (projector(torch.ones(1, 32)) != 0).any()
    cola = Cola(SampleCNN(strides=(2,) * 9, width=0.0625), 32, projection_dim=6)
    save_model(tmp_path / "cola", cola, CARD)
    head = load_projector(tmp_path / "cola", CARD).eval()
    h = torch.randn(3, 32)
    assert torch.equal(head(h), cola.eval().projector(h))
    fresh = reset(head)
    assert not torch.equal(fresh(h), head(h)) and torch.equal(head(h), cola.projector(h))
    save_model(tmp_path / "odd", Contrastive(cola.encoder, nn.Sequential(nn.Linear(32, 4))), CARD)
    with pytest.raises(ValueError, match=r"takes CLMR's projector or COLA's, not one of 0.bias, 0.weight"):
        load_projector(tmp_path / "odd", CARD)
    with pytest.raises(ValueError, match="its projector does not fit an encoder of 16 dimensions"):
        load_projector(tmp_path / "mlp", {**CARD, "out_dim": 16})
    with pytest.raises(ValueError, match="holds no projector: --representation z"):
        load_projector(run(tmp_path / "none", kind="identity"), CARD)


def test_untrained_encoders_are_calibrated_and_their_own(music: Path) -> None:
    it, cpu = extractor(music, None), torch.device("cpu")

    def batches() -> Any:
        return pipeline(it.data, CARD, cpu, 8, it.parts["train"])

    made = [random_init(CARD, seed, None, batches, "", cpu) for seed in (3, 3, 7)]
    batch = next(iter(batches()))
    with torch.no_grad():
        first, same, other = (one.make()(batch) for one in made)
        torch.manual_seed(3)
        plain = SampleCNN(strides=(2,) * 9, width=0.0625).eval()
        uncalibrated = plain(batch.audio)
        calibrate_batch_norm(plain, (b.audio for b in batches()))
        assert torch.equal(first, same) and torch.equal(first, plain(batch.audio))
    assert not torch.allclose(first, uncalibrated) and not torch.allclose(first, other)
    assert made[0].identity == made[1].identity != made[2].identity


def test_other_rates_and_front_ends_are_other_features(music: Path) -> None:
    it = extractor(music, None)
    mel = statistics(CARD, torch.device("cpu"))
    keys = [it._key(mel, it.parts["train"], "segments", 1)]
    for change in ({"sample_rate": 4000}, {"crop_samples": 1024}, {"logmel": {"n_fft": 256}}):
        it.card = {**CARD, **change}
        keys.append(it._key(mel, it.parts["train"], "segments", 1))
    assert len({str(key) for key in keys}) == 4


def test_stamp_and_hash_see_changes(tmp_path: Path) -> None:
    file = tmp_path / "b" / "a.tar"
    file.parent.mkdir()
    file.write_bytes(b"1")
    old = stamp(str(file.parent))
    file.write_bytes(b"2")  # as long as before
    os.utime(file, ns=(1, 1))
    assert stamp(str(file.parent)) != old
    file.unlink()
    (tmp_path / "a.tar").write_bytes(b"1")
    before, content = stamp(str(tmp_path)), file_hash(tmp_path / "a.tar")
    assert stamp(f"{tmp_path}/{{a,b}}.tar") == stamp(f"{tmp_path}/*.tar")
    (tmp_path / "a.tar").write_bytes(b"22")
    assert stamp(str(tmp_path)) != before and file_hash(tmp_path / "a.tar") != content
    before = stamp(str(tmp_path))
    (tmp_path / "a.tar.idx").write_text("made by reading")
    assert stamp(str(tmp_path)) == before
    large = tmp_path / "large"
    large.write_bytes(bytes(3 << 20))
    content = file_hash(large)
    large.write_bytes(bytes((3 << 20) - 1) + b"1")
    assert file_hash(large) != content


def test_each_row_has_its_seed_checkpoint_share_and_test_clips(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = run(tmp_path / "a", 1), run(tmp_path / "b", 2)
    parts = extractor(music, None)
    data, card, device = parts.data, CARD, torch.device("cpu")

    def batches() -> Any:
        return pipeline(data, card, device, 8, parts.parts["train"], crop="random", shuffle=4096)

    untrained = {f"random {seed}": random_init(card, seed, None, batches, "", device) for seed in (3, 7)}
    found = parts.features({"a": checkpoint(a, False, device), "b": checkpoint(b, False, device), **untrained}, DEFAULT)
    calls: list[tuple[Features, tuple[Features, ...], int]] = []
    judged: list[torch.Tensor] = []
    learn, judge = table.predict, table.report

    def watched(head: str, train: Features, others: tuple[Features, ...], classes: int, seed: int, *rest: Any) -> Any:
        calls.append((train, others, seed))
        return learn(head, train, others, classes, seed, *rest)

    def judging(scores: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        judged.append(labels)
        return judge(scores, labels, *rest)

    monkeypatch.setattr(table, "predict", watched)
    monkeypatch.setattr(table, "report", judging)
    quick = dataclasses.replace(DEFAULT, head=dataclasses.replace(DEFAULT.head, epochs=5))
    made = probe_table(str(music), [a, b], seeds=(3, 7), shares=[Share(0.5)], protocol=quick, batch_size=8)
    assert [row.name for row in made.rows] == [RANDOM, PRETRAINED, LOGMEL] and len(calls) == 6
    for turn, (seed, name) in enumerate(((3, "a"), (7, "b"))):
        for call, labels, which in zip(calls[3 * turn :], judged[3 * turn :], (f"random {seed}", name)):
            expected = found[which]
            train = expected["train"]
            chosen = train.select(choose_share(train.labels, train.keys, data.classes, 0.5, seed))
            assert call[2] == seed and equal(call[0], chosen)
            assert equal(call[1][0], expected["valid"]) and equal(call[1][1], expected["test"])
            assert labels is call[1][1].labels  # of the test clips
