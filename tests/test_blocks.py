"""Memory that batches use again: never while anything refers to it, and nothing of it is shared between processes."""

from __future__ import annotations

import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest
import torch

from corpus import RATE, encoded, tone
from fastaug import Pipeline, Record
from fastaug.blocks import Blocks

SHAPE = (2, 8, 1, 20_000)  # 1.28 MB


def test_a_block_is_used_again_when_its_tensor_is_gone() -> None:
    blocks = Blocks()
    first = blocks.empty(*SHAPE)
    assert first.shape == SHAPE and first.dtype == torch.float32 and first.is_contiguous()
    place = first.data_ptr()
    first.fill_(1.0)
    other = blocks.empty(*SHAPE)
    assert other.data_ptr() != place
    del first
    assert blocks.empty(*SHAPE).data_ptr() == place
    assert blocks.empty(2, 7, 1, 20_000).data_ptr() == place, "a last batch that is a little smaller"


@pytest.mark.parametrize(
    "keep", [lambda x: x[0, 3], lambda x: x.numpy(), lambda x: x.flatten(0, 1)[::2], lambda x: [x]]
)
def test_whatever_refers_to_the_memory_keeps_it(keep: Any) -> None:
    blocks = Blocks()
    tensor = blocks.empty(*SHAPE)
    place = tensor.data_ptr()
    kept = keep(tensor)
    del tensor
    assert blocks.empty(*SHAPE).data_ptr() != place
    del kept
    assert place in [blocks.empty(*SHAPE).data_ptr(), (held := blocks.empty(*SHAPE)).data_ptr()], held.shape


def test_blocks_of_another_size_are_given_up() -> None:
    blocks = Blocks()
    blocks.empty(*SHAPE)
    small = blocks.empty(2, 1, 1, 100)
    assert small.untyped_storage().nbytes() == 800 and len(blocks._free) == 1
    large = blocks.empty(4, 8, 1, 20_000)
    assert large.untyped_storage().nbytes() == 4 * 8 * 20_000 * 4 and not blocks._free
    del large
    assert len(blocks._free) == 1 and len(blocks._free[0]) == 4 * 8 * 20_000 * 4
    assert not pickle.loads(pickle.dumps(blocks))._free


def test_no_more_are_kept_than_said() -> None:
    blocks = Blocks(2)
    held = [blocks.empty(*SHAPE) for _ in range(5)]
    del held
    assert len(blocks._free) == 2


def test_a_forked_process_has_its_own() -> None:
    blocks = Blocks()
    tensor = blocks.empty(*SHAPE)
    tensor.fill_(3.0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)
            tensor.numpy().fill(4.0)  # torch would use threads that are not here
            del tensor
            blocks.empty(*SHAPE).numpy().fill(5.0)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bool((tensor == 3.0).all())


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_that_are_kept_stay_as_they_were(threads: int) -> None:
    clips = [encoded(np.full((20_000, 1), (i + 1) / 64, np.float32), "wav") for i in range(40)]
    records = [Record(f"{i:02d}", clip) for i, clip in enumerate(clips)]
    settings: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 20_000, "views": 2, "batch_size": 8}
    pipe = Pipeline(records, num_threads=threads, device="cpu", **settings)
    kept, places = [], set()
    for epoch in range(3):
        for batch in pipe:
            places.add(batch.audio.data_ptr())
            if batch.place is not None and batch.place.index % 2 == epoch % 2:
                kept.append(batch)
    assert len(places) < 15, "memory is used again"
    for batch in kept:
        for b, key in enumerate(batch.keys):
            assert bool((batch.audio[:, b] == (int(key) + 1) / 64).all())


def test_a_short_clip_is_padded_in_used_memory() -> None:
    long = encoded(np.full((160_000, 1), 0.5, np.float32), "wav")
    records = [Record("long", long), Record("short", encoded(tone(0.1, 0), "wav"))]
    pipe = Pipeline(records, sample_rate=RATE, crop_samples=160_000, batch_size=1, views=2, device="cpu")
    places = set()
    for _ in range(3):
        for batch in pipe:
            places.add(batch.audio.data_ptr())
            assert batch.keys == ["long"] or batch.audio[..., 1_600:].abs().max() == 0
    assert len(places) < 4
