"""The supervised baseline: the whole network trained on labelled clips, from a checkpoint (fine-tuned) or from scratch.

Same encoder, clips, labels and test as the probe of frozen features. Training sees random crops through a `Pipeline`,
stops early on the validation clips and keeps the best weights. It resumes at the epoch where it stopped, bit for bit on
the CPU.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.labels import Labels
from fastaug.shards.record import RecordError
from fastaug.shards.source import Source, subset
from fastaug.ssl.checkpoint import build_encoder, load_encoder, load_state, read_card, save_model, save_state
from fastaug.ssl.config import hash_of
from fastaug.ssl.data import Dataset, model_input
from fastaug.ssl.encoders import out_dim
from fastaug.ssl.metrics import is_multi, labelled
from fastaug.ssl.probe import representations as reps
from fastaug.ssl.probe.cache import file_hash
from fastaug.ssl.probe.classifier import Classifier, checkpoints_projection, projection
from fastaug.ssl.probe.features import Features, extract
from fastaug.ssl.probe.heads import (
    Best,
    Predictions,
    build_optimiser,
    classification_loss,
    clip_logits,
    predictions,
    step,
)
from fastaug.ssl.probe.protocols import DEFAULT, Protocol
from fastaug.ssl.probe.rows import FINETUNED, SUPERVISED, ProbeTable, Row
from fastaug.ssl.probe.scoring import report
from fastaug.ssl.probe.table import ALL_LABELS, Share, data_and_card, finished_table

__all__ = ["Task", "supervised_table", "train_classifier"]


@dataclass(frozen=True)
class Task:
    """What is learnt, and how it is judged.

    Attributes:
        data: labelled. card: rate, crop and front end of the encoder.
        device, protocol: as in `probe_table`.
        batch_size: of evaluation; training's is the protocol's.
        transform: augmentation of the training crops; None for none.
        stop: true when it is time to leave.
    """

    data: Dataset
    card: dict[str, Any]
    device: torch.device
    protocol: Protocol = DEFAULT
    batch_size: int = 32
    transform: Any = None
    stop: Any = False

    def pipeline(self, source: Source, batch_size: int | None = None, **more: Any) -> Any:
        return reps.pipeline(self.data, self.card, self.device, batch_size or self.batch_size, source, **more)


class Interrupted(KeyboardInterrupt):
    """Training was left early; its state is saved and the same call goes on."""


def train_classifier(
    task: Task, encoder: nn.Module, train: Source, valid: Source, seed: int = 0, folder: Path | None = None,
    log: Callable[[dict[str, Any]], None] | None = None, first: nn.Module | None = None,
) -> Classifier:  # fmt: skip
    """Train encoder and classifier on ``train``, all of whose clips are labelled; stop on ``valid``.

    Global random state is left alone.

    Args:
        encoder: trained further in place.
        folder: keeps last.pt, from which the same call goes on; None for none.
        log: gets {"epoch", "loss", "valid_loss", "lr"} after each epoch.
        first: of the classifier's layers, to be trained further; None: new ones as the protocol says.

    Raises:
        ValueError: ``folder`` holds the state of another training, or nothing can be learnt from so few clips.
        Interrupted: ``task.stop`` said so.
    """
    fit = task.protocol.network
    if len(train) < 2:
        raise ValueError(f"training needs at least 2 labelled clips, got {len(train)}")
    size = min(fit.batch_size or len(train), len(train))
    whole = max(-(-len(train) // size), fit.least_batches) * size  # full batches only: batch norm needs company
    pipe = task.pipeline(
        train, size, crop="random", shuffle=4096, seed=seed, epoch_size=whole, transform=task.transform
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dim, hidden = _dim(encoder, task), task.protocol.network_hidden
        if first is None and task.protocol.network_tanh:
            first = projection(dim, hidden[0])
        model = Classifier(encoder, dim, len(task.data.classes), hidden, first).to(task.device)
        optimiser, best = build_optimiser(model, fit), Best(fit)
        about = _about(task, train, valid, seed, model)
        epoch, done = _resume(folder, about, model, optimiser, best) if folder else (0, False)
        while epoch < fit.epochs and not done:
            pipe.set_epoch(epoch)
            loss = _epoch(pipe, model, optimiser, task)
            rate = optimiser.param_groups[0]["lr"]
            best.after_epoch(optimiser)
            epoch += 1
            valid_loss = _validation_loss(task, model, valid)
            done = best.look(epoch, valid_loss, model, optimiser)
            if folder:
                _save(folder, about, epoch, done, model, optimiser, best)
            if log:
                log({"epoch": epoch, "loss": loss, "valid_loss": valid_loss, "lr": rate})
            if task.stop and not done and epoch < fit.epochs:
                raise Interrupted
    best.restore(model)
    return model.eval()


def _epoch(pipe: Any, model: Classifier, optimiser: torch.optim.Optimizer, task: Task) -> float:
    """One pass over the training clips; the mean loss."""
    model.train()
    losses = []
    for batch in pipe:
        if len(batch) < 2:  # of what could be read
            continue
        loss = classification_loss(model(model_input(batch)), batch.labels)
        step(model, optimiser, loss, task.protocol.network)
        losses.append(loss.detach())
    if not losses:
        raise ValueError("no training batch with two clips that can be read")
    return float(torch.stack(losses).mean())


def segment_logits(task: Task, model: nn.Module, source: Source, crops: str) -> Features:
    """Logits of the crops of clips, as Features."""
    model.eval()
    pipe = task.pipeline(source, **reps.crop_settings(crops))
    return extract(pipe, {"": lambda batch: model(model_input(batch))})[""]


def classify(task: Task, model: nn.Module, source: Source) -> tuple[Predictions, Features]:
    """What ``model`` says of the clips of ``source``, cropped and averaged as the protocol tests."""
    found = segment_logits(task, model, source, task.protocol.test_crops)
    multi = is_multi(found.labels)
    return predictions(found.values, found.clip, len(found.keys), multi, task.protocol.average), found


def _validation_loss(task: Task, model: Classifier, valid: Source) -> float:
    crops = "first" if task.protocol.test_crops == "first" else "segments"
    found = segment_logits(task, model, valid, crops).drop_unlabelled()
    return float(classification_loss(clip_logits(found.values, found.clip, len(found.keys)), found.labels))


def _dim(encoder: nn.Module, task: Task) -> int:
    from fastaug import LogMel

    samples = torch.zeros(2, 1, task.card["crop_samples"])
    return out_dim(encoder.cpu(), LogMel(**task.card["logmel"])(samples) if task.card["logmel"] else samples)


def _about(task: Task, train: Source, valid: Source, seed: int, model: nn.Module) -> dict[str, Any]:
    """All that a training depends on; a state of anything else is not resumed. The start is in it as a hash."""
    start = hashlib.blake2b(digest_size=16)
    for value in model.state_dict().values():
        start.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    card = {name: task.card[name] for name in ("encoder", "encoder_kwargs", "sample_rate", "crop_samples", "logmel")}
    about = {
        "train": train.digest, "valid": valid.digest, "label": task.data.label, "card": card, "seed": seed,
        "network": dataclasses.asdict(task.protocol.network), "hidden": task.protocol.network_hidden,
        "test_crops": task.protocol.test_crops, "transform": repr(task.transform), "start": start.hexdigest(),
    }  # fmt: skip
    found: dict[str, Any] = json.loads(json.dumps(about))
    found["network"].pop("epochs")  # more of them go on
    return found


def _save(
    folder: Path, about: dict[str, Any], epoch: int, done: bool, model: nn.Module, optimiser: torch.optim.Optimizer,
    best: Best,
) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    state = {
        "config_hash": hash_of(about), "config": about, "step": epoch, "done": done, "model": model.state_dict(),
        "optimiser": optimiser.state_dict(), "best": best.state_dict(), "random": torch.get_rng_state(), "cuda": cuda,
    }  # fmt: skip
    save_state(folder, state)


def _resume(
    folder: Path, about: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer, best: Best
) -> tuple[int, bool]:
    """(epochs done, whether it had stopped)."""
    state = load_state(folder, about)
    if state is None:
        return 0, False
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    best.load_state_dict(state["best"])
    torch.set_rng_state(state["random"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    return state["step"], state["done"]


def known_labels(data: Dataset, source: Source) -> tuple[Tensor, list[str]]:
    """Labels and keys of a source's clips, read without decoding; a record that cannot be read counts as unlabelled."""
    labels = Labels(str(data.label), list(data.classes), data.multi)
    encoded = []
    for i in range(len(source)):
        try:
            encoded.append(labels.encode(source.read(i).fields))
        except (RecordError, OSError, ValueError):
            encoded.append(None)
    return labels.tensor(encoded), [source.key(i) for i in range(len(source))]


def supervised_table(
    mode: str,
    data: str | Dataset,
    checkpoints: Sequence[str | Path] = (),
    label: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    card: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    protocol: Protocol = DEFAULT,
    shares: Sequence[Share] = ALL_LABELS,
    transform: Any = None,
    folder: Path | None = None,
    stop: Any = False,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> ProbeTable:
    """Train whole networks on each share of the labels with each seed, and score them on the test clips.

    Arguments as `fastaug.ssl.probe.table.probe_table`'s, and:

    Args:
        mode: "finetune" starts at the checkpoints (seed k at checkpoint k, in turn), "scratch" at random weights.
        transform: augmentation of the training crops.
        folder: keeps each training's state and its classifier; None for none.
        stop: true when it is time to leave.

    Raises:
        ValueError: as there, or no checkpoint to fine-tune.
    """
    if mode == "finetune" and not checkpoints:
        raise ValueError("--mode finetune needs a checkpoint")
    data, card = data_and_card(data, label, protocol, checkpoints, card)
    task = Task(data, card, torch.device(device), protocol, batch_size, transform, stop)
    parts = reps.three_parts(data)
    known = {part: known_labels(data, source) for part, source in parts.items()}
    labels, keys = known["train"]
    rows = [Row(FINETUNED if mode == "finetune" else SUPERVISED, labels=str(share)) for share in shares]
    for row, share in zip(rows, shares, strict=True):
        for turn, seed in enumerate(seeds):
            chosen = subset(parts["train"], share.choose(labels, keys, data.classes, seed).tolist())
            path = checkpoints[turn % len(checkpoints)] if mode == "finetune" else None
            place = folder / _place(mode, protocol, share, seed, path) if folder else None
            start, first = _start(path, card, seed), checkpoints_projection(path, card, protocol)
            model = train_classifier(task, start, chosen, parts["valid"], seed, place, log, first)
            said, found = classify(task, model, parts["test"])
            row.add_report(report(said.scores, found.labels, said.probabilities))
            if place:
                about = {"mode": mode, "protocol": protocol.name, "classes": data.classes, "data": data.name}
                save_model(place, model, {**card, **about, "split_protocol": data.protocol, "label": data.label})
    clips = {part: int(labelled(found).sum()) for part, (found, _) in known.items()}
    return finished_table(rows, data, clips, f"mode {mode}", protocol, mode)


def _start(path: str | Path | None, card: dict[str, Any], seed: int) -> nn.Module:
    if path is not None:
        return load_encoder(path)[0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_encoder(card)


def _place(mode: str, protocol: Protocol, share: Share, seed: int, path: str | Path | None) -> str:
    """A folder's name for one training."""
    kind = str(share).replace(" % of labels", "pct").replace(" ", "-") or "all"
    start = f"-{file_hash(read_card(path)[0])[:8]}" if path is not None else ""
    return f"{mode}-{protocol.name}-{kind}-seed{seed}{start}"
