"""Features of a dataset's train, valid and test clips under several encoders, decoded once and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastaug
from fastaug.shards.opening import open_source
from fastaug.shards.source import Source, subset
from fastaug.ssl.checkpoint import build_encoder, check_card, load_encoder, read_card
from fastaug.ssl.data import Dataset, model_input
from fastaug.ssl.probe.cache import FeatureCache, file_hash, stamp
from fastaug.ssl.probe.features import Features, calibrate_batch_norm, extract, join, logmel_statistics
from fastaug.ssl.probe.projectors import load_projector, reset
from fastaug.ssl.probe.protocols import Protocol

PARTS = ("train", "valid", "test")
CALIBRATION_BATCHES = 8
FIRST = 1 << 40  # samples between segments, so that there is only one


def three_parts(data: Dataset) -> dict[str, Source]:
    """Train, valid and test; what is missing is taken from train by a hash of the keys, so it never changes.

    Unsplit data is divided 60/20/20; without "test", "valid" is the test set.
    """
    if not data.splits:
        rest, test = divide(open_source(data.source), 0.2)
        return dict(zip(PARTS, (*divide(rest, 0.25), test), strict=True))
    found = {name: open_source(data.source, name) for name in data.splits}
    if len(found) == 3:
        return found
    if len(found) == 1:
        (only,) = found.values()
        rest, test = divide(only, 0.2)
        return dict(zip(PARTS, (*divide(rest, 0.25), test), strict=True))
    test = found.get("test") or found["valid"]
    return dict(zip(PARTS, (*divide(found.get("train") or found["valid"], 0.2), test), strict=True))


def divide(source: Source, share: float) -> tuple[Source, Source]:
    """(rest, ``share`` of the clips): those whose hashed key comes first."""
    keys = [source.key(i) for i in range(len(source))]
    order = sorted(range(len(keys)), key=lambda i: hashlib.blake2b(keys[i].encode("utf-8", "surrogateescape")).digest())
    cut = max(1, round(share * len(order)))
    if cut >= len(order):
        raise ValueError(f"{len(order)} clips are too few to split")
    return subset(source, sorted(order[cut:])), subset(source, sorted(order[:cut]))


def pipeline(
    data: Dataset, card: dict[str, Any], device: torch.device, batch_size: int, part: Source, **more: Any
) -> Any:
    """A Pipeline over clips of ``part`` that gives what the encoder of ``card`` takes; ``more``: crop and the like."""
    from fastaug import LogMel, Pipeline

    settings: dict[str, Any] = {"crop": "segments", "shuffle": 0, "on_error": "skip", **more}
    return Pipeline(
        part, labels=data.label, sample_rate=card["sample_rate"], crop_samples=card["crop_samples"],
        batch_size=batch_size, device=device, frontend=LogMel(**card["logmel"]) if card["logmel"] else None,
        rank=0, world_size=1, **settings,
    )  # fmt: skip


def crop_settings(crops: str) -> dict[str, Any]:
    """`Protocol.train_crops` or ``test_crops`` as settings of a Pipeline."""
    settings: dict[str, dict[str, Any]] = {
        "segments": {"crop": "segments"}, "first": {"crop": "segments", "hop_samples": FIRST},
        "random": {"crop": "random", "seed": 0},
    }  # fmt: skip
    return settings[crops]


@dataclass
class Representation:
    """A way of turning a batch into features.

    Attributes:
        identity: all that its features depend on besides the data, JSON-able.
        make: builds the function; called when features are not on disk.
    """

    identity: dict[str, Any]
    make: Callable[[], Callable[[Any], Tensor]]


def checkpoint(path: str | Path, projected: bool, device: torch.device) -> Representation:
    """The encoder at ``path``, with ``projected`` followed by its projector: z instead of h."""
    file, card = read_card(path)

    def make() -> Callable[[Any], Tensor]:
        encoder, _ = load_encoder(path)
        model = nn.Sequential(encoder, load_projector(path, card)) if projected else encoder
        return frozen(model.eval().to(device))

    return Representation({"checkpoint": file_hash(file), "projected": projected}, make)


def random_init(
    card: dict[str, Any], seed: int, projector: nn.Module | None, batches: Callable[[], Iterable[Any]],
    calibrated_on: str, device: torch.device,
) -> Representation:  # fmt: skip
    """An untrained encoder (and projector like ``projector``), its batch norm calibrated on the first of ``batches``.

    Args:
        calibrated_on: identifies these batches.
    """

    def make() -> Callable[[Any], Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder: nn.Module = build_encoder(card)
            model = encoder if projector is None else nn.Sequential(encoder, reset(projector))
        inputs = (model_input(b) for b in islice(batches(), CALIBRATION_BATCHES))
        return frozen(calibrate_batch_norm(model.to(device), inputs))

    who = {"encoder": card["encoder"], "kwargs": card["encoder_kwargs"], "seed": seed, "data": calibrated_on}
    return Representation({"random": who, "projector": str(projector)}, make)


def statistics(card: dict[str, Any], device: torch.device) -> Representation:
    """Log-mel statistics of the same crops at the same rate; windows of about 64 ms whatever the rate."""

    def make() -> Callable[[Any], Tensor]:
        from fastaug import LogMel

        n_fft = 2 ** round(math.log2(0.064 * card["sample_rate"]))
        frontend = LogMel(n_fft=n_fft, hop_length=n_fft // 2, n_mels=64, sample_rate=card["sample_rate"]).to(device)
        return lambda batch: logmel_statistics(frontend(batch.audio))

    return Representation({"statistics": "log-mel"}, make)


def frozen(encoder: nn.Module) -> Callable[[Any], Tensor]:
    """An encoder as a function of a Batch, for ``extract``."""
    return lambda batch: encoder(model_input(batch))


class Extractor:
    """Features of the parts of ``data`` under ``representations``, cropped as a protocol says.

    Args:
        card: sample rate, crop and front end that all representations share.
        cache: where they are kept.
    """

    def __init__(
        self, data: Dataset, card: dict[str, Any], device: torch.device, batch_size: int, cache: FeatureCache
    ) -> None:
        self.data, self.card, self.device, self.batch_size, self.cache = data, card, device, batch_size, cache
        self.parts = three_parts(data)
        self.stamp = stamp(data.source)
        self.decoded = 0  # passes over a part, for those who want to see the cache at work

    def features(
        self, representations: dict[str, Representation], protocol: Protocol
    ) -> dict[str, dict[str, Features]]:
        """Representation → part → features."""
        made = {name: functools.cache(r.make) for name, r in representations.items()}
        found: dict[str, dict[str, Features]] = {name: {} for name in representations}
        for part, source in self.parts.items():
            crops, passes = protocol.train_crops, protocol.passes
            if part == "test":
                crops, passes = protocol.test_crops, 1
            keys = {name: self._key(r, source, crops, passes) for name, r in representations.items()}
            for name, key in keys.items():
                if (kept := self.cache.load(key)) is not None:
                    found[name][part] = kept
            missing = {name: made[name]() for name in representations if part not in found[name]}
            for name, features in (self._extract(source, missing, crops, passes) if missing else {}).items():
                self.cache.store(keys[name], features)
                found[name][part] = features
        return found

    def _key(self, representation: Representation, source: Source, crops: str, passes: int) -> dict[str, Any]:
        card = {name: self.card[name] for name in ("sample_rate", "crop_samples", "logmel")}
        data = {"stamp": self.stamp, "digest": source.digest, "label": self.data.label, "classes": self.data.classes}
        how = {"crops": crops, "passes": passes, "device": self.device.type, "version": fastaug.__version__}
        key = {"representation": representation.identity, "card": card, "data": data, "how": how}
        result: dict[str, Any] = json.loads(json.dumps(key))
        return result

    def _extract(
        self, source: Source, encoders: dict[str, Callable[[Any], Tensor]], crops: str, passes: int
    ) -> dict[str, Features]:
        pipe = pipeline(self.data, self.card, self.device, self.batch_size, source, **crop_settings(crops))
        self.decoded += 1
        turns = []
        for epoch in range(passes):
            pipe.set_epoch(epoch)
            turns.append(extract(pipe, encoders))
        return {name: turns[0][name] if passes == 1 else join([t[name] for t in turns]) for name in encoders}


def input_card(path: str | Path) -> dict[str, Any]:
    """A checkpoint's card, with all that a probe wants of it.

    Raises:
        FileNotFoundError, ValueError: as ``read_card``, or something is missing.
    """
    file, card = read_card(path)
    check_card(card, file, "encoder", "encoder_kwargs", "sample_rate", "crop_samples", "logmel")
    return card


def common_card(cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one of several cards, which must agree in what an input is.

    Raises:
        ValueError: they do not; names the difference.
    """
    for key in ("sample_rate", "crop_samples", "logmel"):
        values = {str(card[key]) for card in cards}
        if len(values) > 1:
            raise ValueError(f"checkpoints of one table must agree in {key}, got {', '.join(sorted(values))}")
    return cards[0]
