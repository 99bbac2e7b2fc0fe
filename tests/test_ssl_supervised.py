"""Training whole networks on labels: the loss falls, stopping, resuming bit for bit, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import nn

from fastaug.shards.opening import open_source
from fastaug.shards.source import Source, subset
from fastaug.ssl.checkpoint import STATE, load_encoder, save_model
from fastaug.ssl.cola import Cola
from fastaug.ssl.data import discover
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.probe import classifier, supervised
from fastaug.ssl.probe.label_shares import choose_share
from fastaug.ssl.probe.protocols import DEFAULT, Fit, Protocol
from fastaug.ssl.probe.supervised import Interrupted, Task, classify, known_labels, supervised_table, train_classifier
from fastaug.ssl.probe.table import Share, probe_table

RATE, CROP = 8000, 2048
CARD: dict[str, Any] = {
    "encoder": "SampleCNN", "encoder_kwargs": {"strides": [2, 2, 2, 2, 2, 2, 2, 2, 2], "width": 0.0625},
    "sample_rate": RATE, "crop_samples": CROP, "logmel": None, "out_dim": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/valid/test folders of two classes: low and high tones in noise."""
    root, rng = tmp_path_factory.mktemp("music"), np.random.default_rng(0)
    for split, count in (("train", 8), ("valid", 4), ("test", 4)):
        for label, hertz in (("low", 200), ("high", 1500)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                t = np.arange(2 * CROP + 500) / RATE
                tone = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.2) * t) + 0.05 * rng.normal(size=len(t))
                soundfile.write(folder / f"{i}.wav", tone, RATE)
    return root


def with_network(**changes: Any) -> Protocol:
    fit = Fit("adam", 3e-3, batch_size=8, epochs=6, patience=None, least_batches=2)
    return dataclasses.replace(DEFAULT, network=dataclasses.replace(fit, **changes))


def task(music: Path, protocol: Protocol, **more: Any) -> Task:
    return Task(discover(str(music)), CARD, torch.device("cpu"), protocol, 8, **more)


def encoder(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return SampleCNN(strides=(2,) * 9, width=0.0625)


def parts(music: Path) -> tuple[Source, Source, Source]:
    train, valid, test = (open_source(str(music), split) for split in ("train", "valid", "test"))
    return train, valid, test


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_the_loss_falls_and_tones_are_told_apart(music: Path) -> None:
    train, valid, test = parts(music)
    # Batch norm's running variance starts at 1 and takes some fifty steps to arrive at that of the activations.
    it, seen = task(music, with_network(epochs=10, least_batches=8)), list[dict[str, Any]]()
    model = train_classifier(it, encoder(), train, valid, log=seen.append)
    assert seen[-1]["loss"] < 0.5 * seen[0]["loss"] and [s["epoch"] for s in seen] == list(range(1, 11))
    said, found = classify(it, model, test)
    assert float((said.scores.argmax(1) == found.labels).float().mean()) == 1.0
    assert said.logits.shape == (8, 2) and said.probabilities.sum(1).allclose(torch.ones(8))


def test_global_randomness_is_left_alone(music: Path) -> None:
    train, valid, _ = parts(music)
    start = encoder()
    before = torch.get_rng_state()
    train_classifier(task(music, with_network(epochs=1)), start, train, valid)
    assert torch.equal(torch.get_rng_state(), before)


def test_stopped_and_resumed_equal_uninterrupted(music: Path, tmp_path: Path) -> None:
    train, valid, _ = parts(music)
    protocol = with_network(decay=0.9, plateau=(0.5, 0))
    whole, halves = list[dict[str, Any]](), list[dict[str, Any]]()
    expected = train_classifier(task(music, protocol), encoder(), train, valid, 3, log=whole.append)
    with pytest.raises(Interrupted):
        train_classifier(task(music, protocol, stop=True), encoder(), train, valid, 3, tmp_path, halves.append)
    assert len(halves) == 1
    torch.rand(7)
    found = train_classifier(task(music, protocol), encoder(), train, valid, 3, tmp_path, halves.append)
    assert same(found, expected) and halves == whole
    again = train_classifier(task(music, protocol), encoder(), train, valid, 3, tmp_path, halves.append)
    assert same(again, expected) and len(halves) == 6  # nothing left to do
    longer = with_network(decay=0.9, plateau=(0.5, 0), epochs=8)
    train_classifier(task(music, longer), encoder(), train, valid, 3, tmp_path, halves.append)
    assert len(halves) == 8


def test_another_training_in_the_folder_is_refused(music: Path, tmp_path: Path) -> None:
    train, valid, _ = parts(music)
    protocol = with_network(epochs=1)
    train_classifier(task(music, protocol), encoder(), train, valid, 0, tmp_path)
    for start, clips, seed, changed, what in (
        (0, 16, 1, protocol, "seed: 0 there, 1 now"),
        (0, 8, 0, protocol, "train: "),
        (1, 16, 0, protocol, "start: "),
        (0, 16, 0, with_network(epochs=1, lr=1.0), "network: "),
    ):
        with pytest.raises(ValueError, match=f"another experiment .*{what}"):
            some = subset(train, range(clips))
            train_classifier(task(music, changed), encoder(start), some, valid, seed, tmp_path)
    (tmp_path / STATE).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="cannot be read"):
        train_classifier(task(music, protocol), encoder(), train, valid, 0, tmp_path)


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[list[torch.Tensor]]:
    """Validation losses as given; returns the weights they were asked for."""
    seen: list[list[torch.Tensor]] = []

    def loss(task: Task, model: nn.Module, valid: Source) -> float:
        seen.append(weights(model))
        return losses[len(seen) - 1]

    monkeypatch.setattr(supervised, "_validation_loss", loss)
    return seen


@pytest.mark.parametrize("keep", ["best", "last"])
def test_early_stopping_and_the_weights_that_are_kept(
    music: Path, monkeypatch: pytest.MonkeyPatch, keep: str, tmp_path: Path
) -> None:
    train, valid, _ = parts(music)
    seen = scripted(monkeypatch, [3.0, 1.0, 2.0, 1.5, 0.1, 0.0])
    protocol = with_network(patience=2, keep=keep)
    model = train_classifier(task(music, protocol), encoder(), train, valid, 0, tmp_path)
    assert len(seen) == 4  # epoch 2 was the best, two epochs of patience
    kept = seen[1 if keep == "best" else 3]
    assert all(torch.equal(a, b) for a, b in zip(weights(model), kept, strict=True))
    again = train_classifier(task(music, protocol), encoder(), train, valid, 0, tmp_path)
    assert same(again, model) and len(seen) == 4  # it had stopped, and stays so


def test_rates_clipping_and_batches(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid, _ = parts(music)
    sizes: list[int] = []
    model_input = supervised.model_input
    monkeypatch.setattr(supervised, "model_input", lambda b: (sizes.append(len(b)), model_input(b))[1])
    scripted(monkeypatch, [1.0] * 9)
    seen: list[dict[str, Any]] = []
    odd = subset(train, range(5, 12))  # seven clips, batches of four: an epoch is 8 rows, none of one clip
    protocol = with_network(batch_size=4, least_batches=1, epochs=2, decay=0.5, lr=1e-2)
    train_classifier(task(music, protocol), encoder(), odd, valid, log=seen.append)
    assert sizes == [4, 4, 4, 4] and [s["lr"] for s in seen] == [1e-2, 5e-3]
    frozen = with_network(optimiser="sgd", clip=1e-12, epochs=1)
    model = train_classifier(task(music, frozen), encoder(), train, valid)
    moved = [
        (a - b).detach().abs().max() for a, b in zip(model.encoder.parameters(), encoder().parameters(), strict=True)
    ]
    assert float(torch.stack(moved).max()) < 1e-7
    with pytest.raises(ValueError, match="at least 2 labelled clips, got 1"):
        train_classifier(task(music, protocol), encoder(), subset(train, [0]), valid)


def test_every_epoch_has_its_own_order_and_crops(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid, _ = parts(music)
    seen: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    model_input = supervised.model_input

    def watched(batch: Any) -> torch.Tensor:
        seen.append((tuple(batch.keys), tuple(batch.starts.tolist())))
        return model_input(batch)

    monkeypatch.setattr(supervised, "model_input", watched)
    scripted(monkeypatch, [1.0, 1.0])
    train_classifier(task(music, with_network(epochs=2, batch_size=16, least_batches=1)), encoder(), train, valid)
    (first, second) = seen
    assert sorted(first[0]) == sorted(second[0]) and first[0] != second[0]
    starts = [dict(zip(*one, strict=True)) for one in seen]
    assert starts[0] != starts[1]


def test_augmentation_reaches_the_training_crops_only(music: Path) -> None:
    train, valid, test = parts(music)
    calls: list[tuple[int, ...]] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return x

    it = task(music, with_network(epochs=1), transform=watched)
    classify(it, train_classifier(it, encoder(), train, valid), test)
    assert calls == [(8, 1, CROP)] * 2


def test_labels_are_read_without_decoding(music: Path) -> None:
    data = discover(str(music))
    labels, keys = known_labels(data, open_source(str(music), "train"))
    assert labels.tolist() == [0] * 8 + [1] * 8 and keys[0] == "train/high/0.wav"


def test_table_of_both_modes_chooses_the_clips_of_the_probe(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "run", Contrastive(encoder(), Projector(32, 8)), CARD)
    trained_on: list[list[str]] = []
    train = supervised.train_classifier

    def watched(task: Task, encoder: nn.Module, clips: Source, *rest: Any) -> Any:
        trained_on.append(sorted(clips.key(i) for i in range(len(clips))))
        assert {rest[0].key(i).split("/")[0] for i in range(len(rest[0]))} == {"valid"}  # stops on these
        return train(task, encoder, clips, *rest)

    monkeypatch.setattr(supervised, "train_classifier", watched)
    shares = [Share(0.5), Share(shots=1)]
    common: dict[str, Any] = {"protocol": with_network(epochs=1), "seeds": (0, 1), "shares": shares}
    for mode, checkpoints in (("finetune", [tmp_path / "run"]), ("scratch", [])):
        table = supervised_table(mode, str(music), checkpoints, card=CARD, folder=tmp_path, **common)
        assert [row.labels for row in table.rows] == ["50 % of labels", "1 shot"]
        assert all(len(row.values["accuracy"]) == 2 for row in table.rows)
        assert table.clips == {"train": 16, "valid": 8, "test": 8} and "by folder" in str(table)
    assert [len(keys) for keys in trained_on] == [8, 8, 2, 2] * 2 and trained_on[:4] == trained_on[4:]
    labels, keys = known_labels(discover(str(music)), open_source(str(music), "train"))
    chosen = choose_share(labels, keys, ("high", "low"), 0.5, seed=1)
    assert trained_on[1] == sorted(keys[i] for i in chosen.tolist())
    (saved,) = tmp_path.glob("finetune-default-1-shot-seed1-*")
    assert load_encoder(saved)[1]["mode"] == "finetune"
    with pytest.raises(ValueError, match="finetune needs a checkpoint"):
        supervised_table("finetune", str(music), [], card=CARD)
    with pytest.raises(ValueError, match="20 shots: class 'high' has 8"):
        supervised_table("scratch", str(music), [], card=CARD, shares=[Share(shots=20)])
    with pytest.raises(ValueError, match="1 % of 16 labelled clips is 0, without any of class"):
        probe_table(str(music), [tmp_path / "run"], seeds=(0,), shares=[Share(0.01)])


def test_fine_tuning_starts_at_the_checkpoint(music: Path, tmp_path: Path) -> None:
    start = encoder(5)
    save_model(tmp_path / "run", Contrastive(start, Projector(32, 8)), CARD)
    still = with_network(epochs=1, lr=0.0)
    supervised_table("finetune", str(music), [tmp_path / "run"], seeds=(0,), protocol=still, folder=tmp_path)
    (saved,) = tmp_path.glob("finetune-*")
    tuned = load_encoder(saved)[0]
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), start.parameters(), strict=True))


def test_colas_classifier_begins_with_its_projection(music: Path, tmp_path: Path) -> None:
    """Dropout, linear, layer norm, tanh, then 256 and the classes; pre-trained where the checkpoint has it."""
    pre_trained = Cola(encoder(5), 32, projection_dim=16)
    save_model(tmp_path / "run", pre_trained, CARD)
    save_model(tmp_path / "other", Contrastive(encoder(5), Projector(32, 8)), CARD)
    still = dataclasses.replace(with_network(epochs=1, lr=0.0), network_hidden=(16, 8), network_tanh=True)
    found = {}
    for mode, name in (("finetune", "run"), ("finetune", "other"), ("scratch", "none")):
        checkpoints = [] if mode == "scratch" else [tmp_path / name]
        supervised_table(mode, str(music), checkpoints, card=CARD, seeds=(0,), protocol=still, folder=tmp_path / name)
        (saved,) = (tmp_path / name).glob(f"{mode}-*")
        state = load_file(saved / "model.safetensors")
        found[name] = {k: v for k, v in state.items() if k.startswith("head.")}
        shapes = {k: tuple(v.shape) for k, v in found[name].items() if k.endswith("weight")}
        assert shapes == {
            "head.0.1.weight": (16, 32), "head.0.2.weight": (16,), "head.1.0.weight": (8, 16), "head.2.weight": (2, 8),
        }  # fmt: skip
    projection = pre_trained.projector.state_dict()
    assert torch.equal(found["run"]["head.0.1.weight"], projection["1.weight"])
    assert not torch.equal(found["other"]["head.0.1.weight"], projection["1.weight"])
    model = classifier.Classifier(encoder(), 32, 2, (16, 8), classifier.projection(32, 16))
    assert [type(m).__name__ for m in model.head[0]] == ["Dropout", "Linear", "LayerNorm", "Tanh"]
    wider = dataclasses.replace(still, network_hidden=(17, 8))
    assert classifier.checkpoints_projection(tmp_path / "run", CARD, wider) is None


def test_as_published_the_clips_are_split_at_random(music: Path, tmp_path: Path) -> None:
    """Of 32 clips a fifth is for testing, whichever split they are of; the table says so."""
    save_model(tmp_path / "run", Contrastive(encoder(), Projector(32, 8)), CARD)
    random = dataclasses.replace(with_network(epochs=1), split="random")
    probed = probe_table(str(music), [tmp_path / "run"], seeds=(0,), protocol=random)
    trained = supervised_table("scratch", str(music), card=CARD, seeds=(0,), protocol=random)
    for table in (probed, trained):
        assert table.clips == {"train": 20, "valid": 6, "test": 6}
        assert "split: at random, as published (60/20/20 by key" in table.about
