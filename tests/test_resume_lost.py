"""Resuming where whole batches of DataLoader workers are bad: nothing is lost, repeated, or played in another order."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import RATE, encoded, tone
from fastaug import Batch, Mix, Pipeline, Record
from fastaug.batch import Place
from fastaug.progress import Progress

CLIPS = [encoded(tone(0.1, seed), "wav") for seed in range(4)]
COMMON: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 400, "device": "cpu", "views": 2, "batch_size": 1}
PATTERNS = {
    "first": "x.........",
    "middle": ".....x....",
    "last": ".........x",
    "two in a row": "....xx....",
    "two of a worker": "....x.x...",
    "a share of two": ".x.x.x.x.x",
    "a share of three": "..x..x..x.",
    "the end": "......xxxx",
}


def records(pattern: str) -> list[Record]:
    """One record a letter: "." good, "x" bad."""
    return [Record(f"{i:02d}", CLIPS[i % 4] if kind == "." else b"nothing") for i, kind in enumerate(pattern)]


def pipeline(pattern: str, **more: Any) -> Pipeline:
    return Pipeline(records(pattern), **(COMMON | {"on_error": "skip"} | more))


def line(batch: Batch) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in (json.dumps(batch.keys).encode(), batch.starts.numpy().tobytes(), batch.audio.numpy().tobytes()):
        digest.update(part)
    place = batch.place
    assert place is not None
    return f"{place.epoch} {place.index} {','.join(batch.keys)} {digest.hexdigest()}"


class Run:
    """Epochs of a Pipeline, alone or through a loader, from a state on."""

    def __init__(self, pipe: Pipeline, kind: str, workers: int, state: Any = None, **loading: Any) -> None:
        self.pipe, self.loader = pipe, pipe
        self.stateful = kind == "torchdata"
        if kind == "torch":
            loading = {"multiprocessing_context": "fork" if workers else None} | loading
            self.loader = torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=workers, **loading)
        elif self.stateful:
            from torchdata.stateful_dataloader import StatefulDataLoader

            self.loader = StatefulDataLoader(pipe, batch_size=None, num_workers=workers, **loading)
        if state is not None:
            (self.loader if self.stateful else pipe).load_state_dict(json.loads(state))

    def state(self) -> str:
        return json.dumps((self.loader if self.stateful else self.pipe).state_dict())

    def epoch(self) -> Iterator[str]:
        for batch in self.loader:
            yield line(self.pipe.finish(batch))

    def rest(self, epochs: int) -> Iterator[tuple[str, str]]:
        """Every batch up to the end of epoch ``epochs - 1``, and the state behind it."""
        for _ in range(epochs + 1):  # the first may be over already
            if self.pipe.epoch < epochs:
                yield from ((text, self.state()) for text in self.epoch())
        assert self.pipe.epoch == epochs


def everything(pattern: str, epochs: int, **more: Any) -> list[str]:
    """What comes, in the order of the epochs."""
    pipe = pipeline(pattern, **more)
    return [line(batch) for _ in range(epochs) for batch in pipe]


def check(pattern: str, kind: str, workers: int, stops: list[int] | None, epochs: int = 2, **more: Any) -> None:
    """Stop behind some batches, or each, go on from the state in other objects, and compare with the whole."""
    whole = list(Run(pipeline(pattern, **more), kind, workers).rest(epochs))
    texts = [text for text, _ in whole]
    assert sorted(texts) == sorted(everything(pattern, epochs, **more))
    for stop in range(len(whole) - 1) if stops is None else [stop for stop in stops if stop < len(whole) - 1]:
        went_on = list(Run(pipeline(pattern, **more), kind, workers, whole[stop][1]).rest(epochs))
        assert texts[: stop + 1] + [text for text, _ in went_on] == texts, (pattern, kind, workers, stop)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("kind", ["alone", "torchdata"])
def test_without_workers(pattern: str, kind: str) -> None:
    check(pattern, kind, 0, None)


@pytest.mark.parametrize("kind", ["torch", "torchdata"])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", PATTERNS)
def test_through_workers(name: str, workers: int, kind: str) -> None:
    stop = (3 * list(PATTERNS).index(name) + workers) % 8  # each of them in one case or another
    check(PATTERNS[name], kind, workers, [stop, 3] if workers == 2 else [stop])


VARIANTS: dict[str, dict[str, Any]] = {
    "replace": {"on_error": "replace"},
    "replacement": {"replacement": True, "epoch_size": 14},
    "shuffled": {"shuffle": 6},
    "larger batches": {"batch_size": 2},
    "segments": {"crop": "segments", "crop_samples": 700, "batch_size": 2},
    "one rank of two": {"shuffle": 10, "rank": 1, "world_size": 2, "epoch_size": 19},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    check("..xx....x.", "alone", 0, None, **VARIANTS[name])
    check("x.x.x.x..x", "torch", 2, [2], **VARIANTS[name])
    check("..xx....x.", "torchdata", 2, [3], **VARIANTS[name])


def test_a_weighted_mix() -> None:
    def make() -> Pipeline:
        mix = Mix({"a": records("..x..."), "b": records("x.xx.")}, {"a": 1, "b": 3})
        return Pipeline(mix, **COMMON, on_error="skip", epoch_size=15)

    for kind, workers, stops in (("alone", 0, (0, 3, 8)), ("torch", 2, (1, 5)), ("torchdata", 2, (4,))):
        whole = list(Run(make(), kind, workers).rest(2))
        for stop in stops:
            went_on = Run(make(), kind, workers, whole[stop][1]).rest(2)
            assert [text for text, _ in went_on] == [text for text, _ in whole[stop + 1 :]]


@pytest.mark.parametrize("counts", [(2, 3, 0), (3, 1, 2), (0, 2, 1), (3, 0, 0)])
def test_each_time_with_another_number_of_workers(counts: tuple[int, ...]) -> None:
    """The order is then another, but all come once."""
    state, got = None, []
    for workers in counts:
        run = Run(pipeline("..x.x.....xx"), "torch" if workers else "alone", workers, state)
        steps = itertools.islice(run.rest(2), 3) if len(got) < 6 else run.rest(2)
        found = list(steps)
        got += [text for text, _ in found]
        state = found[-1][1]
    assert sorted(got) == sorted(everything("..x.x.....xx", 2))


def test_one_that_is_left_early_begins_again_with_what_is_known_to_be_lost() -> None:
    """The share of the second worker is bad from its third batch on."""
    run = Run(pipeline(".....x.x.x", shuffle=0), "torch", 2)
    whole = everything(".....x.x.x", 2)
    list(itertools.islice(run.epoch(), 3))
    assert run.pipe.epoch == 0
    got = [text for text, _ in run.rest(2)]
    assert sorted(got) == sorted(whole)


@pytest.mark.parametrize("kind", ["torch", "torchdata"])
def test_epochs_that_end_with_lost_batches_pass_unasked(kind: str) -> None:
    """Nobody looks at the Pipeline between two epochs: the workers of the next one find out by themselves."""
    pattern = "..." + 40 * "x"
    run = Run(pipeline(pattern), kind, 1, prefetch_factor=1)
    assert [text for _ in range(3) for text in run.epoch()] == everything(pattern, 3)


@pytest.mark.parametrize(
    ("pattern", "workers"), [(".........", 2), (".........", 3), ("...x...x.", 2), (".......xx", 1)]
)
def test_workers_that_live_on_begin_where_the_caller_is(pattern: str, workers: int) -> None:
    """Left in mid-epoch, an epoch begins again, however far workers had read ahead; a chosen one is played."""
    count = pattern.count(".")
    texts = everything(pattern, 6, shuffle=4)
    epochs = [sorted(texts[i : i + count]) for i in range(0, 6 * count, count)]
    run = Run(pipeline(pattern, shuffle=4), "torch", workers, persistent_workers=True)
    for stop in (1, 5, 6):  # of two, the second worker has then handed on all of its share, the first has not
        list(itertools.islice(run.epoch(), stop))
        assert run.pipe.epoch == 0
    assert [sorted(run.epoch()) for _ in range(2)] == epochs[:2]
    run.pipe.set_epoch(4)
    assert sorted(run.epoch()) == epochs[4] and run.pipe.epoch == 5
    run.pipe.set_epoch(2)
    begun = list(itertools.islice(run.epoch(), 4))
    state = run.state()
    assert sorted(run.epoch()) == epochs[2] and sorted(run.epoch()) == epochs[3]
    run.pipe.load_state_dict(json.loads(state))
    assert sorted([*begun, *run.epoch()]) == epochs[2] and run.pipe.epoch == 3
    files = list(Path(run.pipe._lost.path).parent.glob(f"{Path(run.pipe._lost.path).name}-*"))
    assert len(files) == 1
    del run
    gc.collect()
    assert not files[0].exists()


def test_a_stateful_loader_that_goes_back() -> None:
    """Its state is loaded into the same objects, in mid-epoch and at the end of one; and into others, between two."""
    run = Run(pipeline("...x..x.."), "torchdata", 2)
    states = list(run.rest(3))
    whole = [text for text, _ in states]
    for stop in (2, 6, 3):
        run.loader.load_state_dict(json.loads(states[stop][1]))
        again = [text for _ in range(3) for text in run.epoch()]
        assert again[: len(whole) - stop - 1] == whole[stop + 1 :]
    first = Run(pipeline("...x..x.."), "torchdata", 2)
    got = list(first.epoch())
    second = Run(pipeline("...x..x.."), "torchdata", 2, first.state())
    assert got + [text for _ in range(2) for text in second.epoch()] == whole


@pytest.mark.parametrize("stop", [1, 5])
def test_a_stateful_loader_that_takes_its_state_every_few_steps(stop: int) -> None:
    """Back at the last state that it took, it passes over batches that the Pipeline then never sees."""
    whole = list(Run(pipeline("........."), "torchdata", 2, snapshot_every_n_steps=4).rest(2))
    run = Run(pipeline("........."), "torchdata", 2, whole[stop][1], snapshot_every_n_steps=4)
    assert [text for text, _ in run.rest(2)] == [text for text, _ in whole[stop + 1 :]]


def test_what_an_iteration_still_delivers_does_not_undo_the_choice_of_an_epoch() -> None:
    progress, stamp = Progress(), (7, 0, 0)
    progress.deliver(Place(0, 0, 5, 2, 0, stamp))
    progress.reset(3)
    progress.deliver(Place(0, 1, 5, 2, 0, stamp))
    assert progress.state() == {"epoch": 3, "batch": 0, "turn": 0, "done": []}
    progress.deliver(Place(3, 1, 5, 2, 0, (8, 2, 0)))
    assert progress.state() == {"epoch": 3, "batch": 0, "turn": 2, "done": [1]}


def test_a_state_with_gaps_is_not_the_edge_of_an_epoch() -> None:
    state = pipeline("....", rank=0, world_size=1).state_dict()
    other = pipeline("....", rank=1, world_size=2)
    other.load_state_dict(state)
    with pytest.raises(ValueError, match="world_size: 1 → 2"):
        other.load_state_dict(state | {"done": [1]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "torchdata"])
@pytest.mark.parametrize("name", ["two in a row", "a share of two", "the end"])
def test_through_workers_from_every_place(name: str, kind: str) -> None:
    check(PATTERNS[name], kind, 2, None)
