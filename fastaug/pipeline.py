"""The one straight line: shards or files → crops → augmented views → spectrograms, as an iterable of `Batch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ahead import load_ahead
from fastaug.batch import Batch, Place, Stamp
from fastaug.checks import check_rate
from fastaug.codecs.status import DecodeError
from fastaug.frontends.spectrogram import Framed
from fastaug.labels import Labels
from fastaug.loader import CROPS, Loader
from fastaug.lost import Lost, Word
from fastaug.plan import Plan
from fastaug.progress import STATE_VERSION, Progress, changes
from fastaug.settings import (
    check_choice,
    check_least,
    crop_width,
    default_device,
    default_threads,
    ranks,
    this_worker,
)  # fmt: skip
from fastaug.shards.opening import open_source
from fastaug.shards.order import Order, epoch_order
from fastaug.shards.record import BadRecord
from fastaug.stats import Stats
from fastaug.tasks import Part
from fastaug.views import bind_views, transform_views, unwrap_views, valid_frames

__all__ = ["Pipeline", "Stats"]


class Pipeline(torch.utils.data.IterableDataset[Batch]):
    """An iterable of augmented batches.

    Args:
        source: a folder written by ``fastaug shard``; a tar file, pattern or list; a folder or list of audio files;
            a list of Records.
        split: "train", "valid" or "test"; None takes everything.
        labels: the field to deliver as ``batch.labels``, e.g. "genre"; None for no labels.
        classes: ordered class names, where the source does not describe them.
        sample_rate: Hz of everything delivered.
        crop_samples, crop_seconds: crop length, one of them; seconds become ⌊seconds · rate + 0.5⌋ samples.
        crop: "random", "center", "segments" (all windows, a hop apart) or "whole" (padded, with lengths). Random for
            split="train" or no split, center otherwise.
        hop_samples: step between segments; crop_samples by default.
        share_crop: True: all views see one crop.
        views: V views of every example; None for one, without the view dimension.
        batch_size: examples a batch.
        transform, spec_transform: a Transform (or callable on (B, C, T)) for all views, or a list of V, None among
            them for an untouched view. ``spec_transform`` works on the frontend's output.
        frontend: (B, C, T) → (B, C, F, N), e.g. LogMel. Where it has a method ``frames(samples)``, the masks of
            ``spec_transform`` keep to the valid frames of padded clips.
        channels: 1 mixes down, None keeps.
        seed: 64 bits; with the epoch and the record key it decides every draw.
        shuffle: window in records, 0 for none; 4096 for split="train", 0 otherwise.
        drop_last: drop the last batch where it is smaller.
        epoch_size: records an epoch over all ranks; see `fastaug.shards.epoch_order`.
        replacement: draw every record from all, as with `torch.utils.data.RandomSampler(replacement=True)`.
        rank, world_size: torch.distributed's by default.
        device: where batches are delivered; CUDA if usable, else the CPU.
        num_threads: threads that decode ahead; 0: none, each batch is decoded when it is asked for, with torch's
            threads, which is faster where augmentation or training want the same cores. By default torch's count where
            there is a CUDA device to work beside, else 0.
        prefetch: batches decoded ahead; with ``num_threads=0``, fetched from storage ahead.
        on_error: "raise" (names the record), "skip" (the batch is smaller) or "replace" (another record, drawn).
        max_bad_in_row, max_bad_fraction: limits of "skip" and "replace", beyond which `TooManyBadError` is raised; None
            for none. The fraction is of all records tried, looked at from 1000 on and at the end of an epoch.
        error_log: file to which each bad record is appended as a line of JSON: key, stage, reason, url, member, offset.
        cache: folder to which shards are copied at first use, for slow storage.

    Raises:
        ValueError, FileNotFoundError: arguments that do not fit, or a source that is not there.
    """

    def __init__(
        self,
        source: Any,
        *,
        sample_rate: int,
        split: str | None = None,
        labels: str | None = None,
        classes: Sequence[str] | None = None,
        crop_samples: int | None = None,
        crop_seconds: float | None = None,
        crop: str | None = None,
        hop_samples: int | None = None,
        share_crop: bool = False,
        views: int | None = None,
        batch_size: int = 32,
        transform: Any = None,
        frontend: nn.Module | Callable[[Tensor], Tensor] | None = None,
        spec_transform: Any = None,
        channels: int | None = 1,
        seed: int = 0,
        shuffle: int | None = None,
        drop_last: bool = False,
        epoch_size: int | None = None,
        replacement: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        device: torch.device | str | None = None,
        num_threads: int | None = None,
        prefetch: int = 2,
        on_error: str = "raise",
        max_bad_in_row: int | None = 100,
        max_bad_fraction: float | None = None,
        error_log: str | Path | None = None,
        cache: str | Path | None = None,
    ) -> None:
        check_rate(sample_rate, "Pipeline")
        crop = crop or ("random" if split in (None, "train") else "center")
        check_choice("crop", crop, CROPS)
        check_choice("on_error", on_error, ("raise", "skip", "replace"))
        check_least("batch_size", batch_size, 1)
        check_least("prefetch", prefetch, 0)
        check_least("num_threads", num_threads, 0)
        check_least("views", views, 1)
        width = crop_width(crop, crop_samples, crop_seconds, sample_rate)
        opened = open_source(source, split, cache)
        if opened.bad and on_error == "raise":
            raise ValueError(f"{len(opened.bad)} problem(s) in the shards, the first: {opened.bad[0]}")
        if len(opened) == 0:
            raise ValueError(f"{source!r} holds no records" + "".join(f"; {bad}" for bad in opened.bad[:1]))
        found = opened.label_info.get(labels or "", {})
        names = list(classes) if classes is not None else found.get("classes")
        label = Labels(labels, names, bool(found.get("multi", False))) if labels is not None else None
        self._loader = Loader(
            opened, sample_rate, crop, width, hop_samples or width or 1, views or 1, share_crop, channels, label,
            seed, on_error, flat=views is None,
        )  # fmt: skip
        self.sample_rate, self.views, self.batch_size, self.seed = sample_rate, views, batch_size, seed
        self.shuffle = shuffle if shuffle is not None else 4096 if split == "train" else 0
        self.drop_last, self.epoch_size, self.replacement = drop_last, epoch_size, replacement
        self.on_error = on_error
        self.rank, self.world_size = ranks(rank, world_size)
        self.device = torch.device(device) if device is not None else default_device()
        self.num_threads = default_threads(self.device) if num_threads is None else num_threads
        self.prefetch = prefetch
        self.transform = bind_views(transform, sample_rate, views, "transform")
        self.frontend = bind_views(frontend, sample_rate, None, "frontend")
        self.spec_transform = bind_views(spec_transform, sample_rate, views, "spec_transform")
        if self.spec_transform is not None and frontend is None:
            raise ValueError("spec_transform works on a frontend's output: give frontend= as well")
        self._stats = Stats(max_bad_in_row=max_bad_in_row, max_bad_fraction=max_bad_fraction, error_log=error_log)
        self._stats.add(opened.bad)
        self._progress = Progress()
        self._iterations = 0
        self._lost = Lost()
        self._listens = True
        self._plans: dict[int, Plan] = {}

    @property
    def classes(self) -> list[str] | None:
        """Ordered names of the classes of ``labels``; None where there are none."""
        return self._loader.labels.classes if self._loader.labels else None

    @property
    def stats(self) -> Stats:
        """What was delivered so far, and what could not be."""
        self._hear()
        return self._stats

    @property
    def epoch(self) -> int:
        """The epoch that ``iter`` plays, or is playing."""
        self._hear()
        return self._progress.epoch

    # Iterating.

    def __iter__(self) -> Iterator[Batch]:
        """Play epoch ``self.epoch``; exhausting it moves on to the next, leaving early restarts it."""
        progress, worker = self._progress, this_worker()
        if worker and progress.begun and (known := self._lost.recall()):  # a worker that lives on
            progress.follow(known)
            self._listens = True
        self._hear()  # first: word of lost batches may end an epoch
        if progress.begun:  # and left early, or by this worker played to its end
            progress.reset(progress.epoch + (progress.batch >= len(self)))
        count, epoch = len(self), progress.epoch
        whole, empty = not (progress.batch or progress.done), True
        for batch in self._load(progress.lane(count, worker or (0, 1)), epoch, worker):
            empty = False
            if worker is None:
                yield self.finish(batch)
            elif batch.place is not None:
                progress.hand_on(batch.place.index + 1, worker)
                yield batch
        if worker is not None:
            progress.hand_on(count, worker)
            return
        if empty and whole and count:
            raise RuntimeError(f"every record of epoch {epoch} was bad, the last: {self._stats.bad[-1]}")
        if progress.epoch == epoch:  # not yet moved on by the last batch: that was skipped
            progress.reset(epoch + 1)

    def __len__(self) -> int:
        """Batches an epoch on this rank."""
        return len(self._plan(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next ``iter`` plays, from its beginning."""
        self._progress.reset(epoch)
        self._keep()

    def finish(self, batch: Batch) -> Batch:
        """Transfer, augment and compute spectrograms of a batch that a DataLoader worker yielded.

        Already finished batches come back as they are. Also notes the batch as delivered, for `state_dict`.
        """
        if batch.finished:
            return batch
        if batch.subkeys is None or batch.place is None:
            raise ValueError("finish takes batches of this Pipeline, as its DataLoader workers yield them")
        self._note(batch, batch.place)
        moved = (batch.pin_memory() if self.device.type == "cuda" else batch).to(self.device, non_blocking=True)
        audio = moved.audio if self.views is not None else moved.audio[None]
        lengths = moved.lengths.reshape(audio.shape[:2])
        audio, params = transform_views(audio, self.transform, batch.subkeys, "transform", lengths)
        spectra, spec_params = None, None
        if self.frontend is not None:
            flat = self.frontend(audio.flatten(0, 1))
            spectra = flat.reshape(*audio.shape[:2], *flat.shape[1:])
            valid = valid_frames(self.frontend, batch.lengths, batch.audio.shape[-1], audio.shape[-1])
            # Spectrograms of our own front ends are new; those of others may be kept, or be the audio itself.
            fresh = isinstance(self.frontend, Framed) and not spectra.requires_grad
            spectra, spec_params = transform_views(
                spectra, self.spec_transform, batch.subkeys, "spec_transform", valid, fresh
            )
        if self.views is None:
            audio, spectra = audio[0], None if spectra is None else spectra[0]
        return dataclasses.replace(
            moved,
            audio=audio,
            spectrograms=spectra,
            params=unwrap_views(params, self.views),
            spec_params=unwrap_views(spec_params, self.views),
            finished=True,
        )

    def to_tuple(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Batches as tuples of their attributes or fields: ``for (x_i, x_j), y in pipe.to_tuple("audio", "labels")``.

        Raises:
            AttributeError: a batch has neither an attribute nor a field of that name.
        """
        for batch in self:
            yield tuple(_named(batch, name) for name in names)

    # Resuming.

    def state_dict(self) -> dict[str, Any]:
        """Where the caller is: right after the last batch delivered to it, prefetched ones not counted.

        In a DataLoader worker it is where that worker is, for torchdata's StatefulDataLoader.
        """
        self._hear()
        return {"version": STATE_VERSION, **self._progress.state(), "worker": this_worker(), "layout": self._layout()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly there at the next ``iter``.

        Raises:
            ValueError: the state is of another version, or of a Pipeline with another layout; names what differs.
                Rank and world size may differ at the edge of an epoch, the number of workers only where the state
                is the Pipeline's in the main process.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"Pipeline state of version {state.get('version')!r}, expected {STATE_VERSION}")
        worker, stamp = this_worker(), self._stamp()
        if changed := changes(state, self._layout(), worker):
            raise ValueError("cannot resume, the Pipeline has changed since the state was saved: " + ", ".join(changed))
        self._progress.load(state)
        self._keep()
        if worker and stamp:  # the parent does not see the state
            self._listens = False
            self._lost.tell(Word(self.epoch, len(self), stamp, self._progress.passed(worker), resumed=True))

    def _layout(self) -> dict[str, Any]:
        """What the order and the content of batches depend on."""
        loader = self._loader
        return {
            "records": loader.source.digest,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "epoch_size": self.epoch_size,
            "replacement": self.replacement,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "rank": self.rank,
            "world_size": self.world_size,
            "sample_rate": self.sample_rate,
            "views": self.views,
            "crop": loader.crop,
            "crop_samples": loader.crop_samples,
            "hop_samples": loader.hop_samples,
            "share_crop": loader.share_crop,
            "channels": loader.channels,
        }

    # Inside.

    def _plan(self, epoch: int) -> Plan:
        """The rows of every batch of an epoch on this rank."""
        if epoch not in self._plans:
            source = self._loader.source
            order = epoch_order(
                source.sizes, self.seed, epoch, self.shuffle, self.epoch_size, self.rank, self.world_size,
                self.replacement, source.mixture,
            )  # fmt: skip
            self._plans = {epoch: Plan.of(order, self._segment_counts(order), self.batch_size, self.drop_last)}
        return self._plans[epoch]

    def _segment_counts(self, order: Order) -> dict[int, int] | None:
        """Segments of each record, 0 for bad ones; None unless ``crop="segments"``."""
        if self._loader.crop != "segments":
            return None
        records = sorted(set(order.records.tolist()))
        counts = self._loader.count_segments(records, self.num_threads or torch.get_num_threads())
        found = dict(zip(records, counts, strict=True))
        bad = [count for count in found.values() if isinstance(count, BadRecord)]
        if bad and self._loader.on_error == "raise":
            raise DecodeError(str(bad[0]))
        self._stats.add(bad)
        return {record: 0 if isinstance(count, BadRecord) else count for record, count in found.items()}

    def _load(self, indices: Sequence[int], epoch: int, worker: tuple[int, int] | None) -> Iterator[Batch]:
        """Batches loaded ahead, not yet augmented; on the CPU in a DataLoader worker."""
        plan, lost, stamp = self._plan(epoch), Part(), self._stamp()
        gone: list[int] = []
        self._iterations += 1
        device = self._decodes_on() if worker is None else None
        ahead = load_ahead(self._loader, plan, indices, epoch, self.num_threads, self.prefetch, device)
        for found, index in zip(ahead, indices, strict=True):
            if isinstance(found, Batch):
                found.errors, found.outcomes = lost.errors + found.errors, lost.outcomes + found.outcomes
                stride = worker[1] if worker is not None else 1
                found.place = Place(epoch, index, len(plan), stride, len(gone), stamp)
                lost, gone = Part(), []
                yield found
            elif worker is None:
                self._stats.note(0, found.errors, found.outcomes)
            else:
                lost += found  # a worker's own count is lost with it: the next batch tells
                gone.append(index)
        if stamp is not None and gone:
            self._stats.add(lost.errors)  # into the log
            self._lost.tell(Word(epoch, len(plan), stamp, gone, lost.errors, lost.outcomes))

    def _stamp(self) -> Stamp | None:
        """What tells an iteration of DataLoader workers from the others, and is the same for all its workers."""
        info = torch.utils.data.get_worker_info()
        return None if info is None else (info.seed - info.id, self._stats.delivered, self._iterations)

    def _hear(self) -> None:
        """Take in what workers have told of batches that do not come.

        A worker does so once, for the epoch may have ended since its parent last did, and leaves out what others of
        its own iteration have already told; not at all where it has been put in its place.
        """
        for word in self._lost.news() if self._listens else ():
            if word.resumed or word.stamp != self._stamp():
                self._stats.count(word.errors, word.outcomes, log=False)
                self._progress.take(word)
        self._listens = self._listens and this_worker() is None

    def _decodes_on(self) -> torch.device | None:
        """The device whose kernels decode, the caller's current one as a rule; None for the CPU."""
        if self.device.type != "cuda":
            return None
        # By number: what is current is so for a thread, and other threads decode.
        return self.device if self.device.index is not None else torch.device("cuda", torch.cuda.current_device())

    def _note(self, batch: Batch, place: Place) -> None:
        self._hear()
        self._progress.deliver(place)
        self._keep()
        self._stats.note(len(batch), batch.errors, batch.outcomes, place.last)

    def _keep(self) -> None:
        """Where DataLoader workers that live on find out how far the caller is; there are none before the first batch
        of one."""
        if self._progress.stamp is not None and this_worker() is None:
            self._lost.keep(self._progress.known())


def _named(batch: Batch, name: str) -> Any:
    if hasattr(batch, name):
        return getattr(batch, name)
    if name in batch.fields:
        return batch.fields[name]
    raise AttributeError(f"a batch has no attribute or field {name!r}; fields: {', '.join(batch.fields)}")
