"""Resuming: through torchdata, after kill -9, and in several processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import RATE, shards
from fastaug import Batch, Pipeline

COMMON: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 2_000, "views": 2, "device": "cpu", "num_threads": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("resume"), count=24, per_shard=8, seconds=0.4)


def pipeline(corpus: Path | str, batch_size: int = 2) -> Pipeline:
    return Pipeline(corpus, split="train", batch_size=batch_size, **COMMON)


def line(batch: Batch) -> str:
    """Epoch, index and a hash of everything delivered."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (json.dumps(batch.keys).encode(), batch.starts.numpy().tobytes(), batch.audio.numpy().tobytes()):
        digest.update(part)
    return f"{batch.place.epoch} {batch.place.index} {digest.hexdigest()}"


# torchdata's StatefulDataLoader.


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_stateful_data_loader(corpus: Path, workers: int) -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> tuple[Pipeline, Any]:
        pipe = pipeline(corpus)
        return pipe, torchdata.StatefulDataLoader(pipe, batch_size=None, num_workers=workers)

    pipe, loader = make()
    whole = [line(pipe.finish(batch)) for _ in range(2) for batch in loader]
    assert len(set(whole)) == 24
    got: list[str] = []
    state = None
    for stop_after in (5, 4, 100):  # resumes twice in the first epoch, then goes on to its end
        pipe, loader = make()
        if state is not None:
            loader.load_state_dict(state)
        for taken, batch in enumerate(loader, 1):
            got.append(line(pipe.finish(batch)))
            state = json.loads(json.dumps(loader.state_dict(), default=list)) if workers == 0 else loader.state_dict()
            if taken == stop_after:
                break
    assert got == whole[:12]
    # The loader went through its epoch; the next one is the second.
    got += [line(pipe.finish(batch)) for batch in loader]
    assert got == whole


def test_a_worker_state_in_another_layout_of_workers_is_refused(corpus: Path) -> None:
    state = pipeline(corpus).state_dict() | {"batch": 2, "worker": (0, 2)}
    with pytest.raises(ValueError, match="number of workers"):
        pipeline(corpus).load_state_dict(state)


# kill -9.


def _train(corpus: str, folder: str, workers: int, every: int, epochs: int) -> None:
    """A training loop: a checkpoint every few batches, every batch in the log before the next is asked for."""
    os.setsid()  # so that the kill takes the workers along: alone, they would need seconds to notice
    torch.set_num_threads(1)
    checkpoint, log = Path(folder, "checkpoint.json"), Path(folder, "log")
    pipe = pipeline(corpus)
    if checkpoint.exists():
        pipe.load_state_dict(json.loads(checkpoint.read_text()))
    with log.open("a") as out:
        out.write(f"from {pipe.state_dict()['epoch']} {pipe.state_dict()['batch']}\n")
        out.flush()
        done = 0
        while pipe.epoch < epochs:
            loader: Any = pipe
            if workers:
                loader = torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=workers)
            for raw in loader:
                batch = pipe.finish(raw)
                out.write(line(batch) + "\n")
                out.flush()
                done += 1
                if done % every == 0:
                    part = checkpoint.with_suffix(".part")
                    part.write_text(json.dumps(pipe.state_dict()))
                    os.replace(part, checkpoint)
        out.write("end\n")


def _killed_at_random(corpus: Path, folder: Path, workers: int, kills: int, epochs: int, every: int) -> list[str]:
    """The log of a training that is killed ``kills`` times, each time somewhere in the next few batches."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "fastaug.pipeline", "test_resume"])
    rng = random.Random(workers)
    log = folder / "log"
    for _ in range(kills):
        before = log.stat().st_size if log.exists() else 0
        child = context.Process(target=_train, args=(str(corpus), str(folder), workers, every, epochs))
        child.start()
        wanted, deadline = rng.randint(1, 5), time.monotonic() + 60
        while child.is_alive() and time.monotonic() < deadline:
            if log.exists() and log.read_bytes()[before:].count(b"\n") > wanted:
                break
            time.sleep(rng.uniform(0, 0.004))
        assert time.monotonic() < deadline
        time.sleep(rng.uniform(0, 0.01))
        if child.is_alive():
            os.killpg(child.pid, signal.SIGKILL)
        child.join()
    child = context.Process(target=_train, args=(str(corpus), str(folder), workers, every, epochs))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    return log.read_text().splitlines()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_at_many_points_everything_is_delivered_as_if_never_killed(
    corpus: Path, tmp_path: Path, workers: int, kills: int
) -> None:
    every = 2
    epochs = 3 if kills < 10 else 16
    pipe, truth = pipeline(corpus), []
    for _ in range(epochs):
        truth += [line(batch) for batch in pipe]
    place = {text.rsplit(" ", 1)[0]: i for i, text in enumerate(truth)}
    log = _killed_at_random(corpus, tmp_path, workers, kills, epochs, every)
    assert log[-1] == "end" and sum(text.startswith("from") for text in log) >= kills
    seen: set[int] = set()
    expected = 0
    crossed = 0
    for text in log[:-1]:
        if text.startswith("from"):
            expected = place[text[5:]] if text[5:] in place else len(truth)
            crossed += expected > 0
            assert expected in seen or expected == 0 or expected - 1 in seen  # a checkpoint of what was delivered
            continue
        if text.count(" ") != 2 or len(text) != len(truth[expected]):  # cut by the kill
            continue
        assert text == truth[expected]
        seen.add(expected)
        expected += 1
    assert seen == set(range(len(truth))) and crossed > kills // 2


# Several processes.

_RANK = """
import json, sys
import torch.distributed as dist
from fastaug import Pipeline
dist.init_process_group("gloo")
pipe = Pipeline(sys.argv[1], split="train", batch_size=4, sample_rate=16_000, crop_samples=2_000, device="cpu",
                num_threads=1)
epochs = []
for _ in range(2):
    batches = [batch.keys for batch in pipe]
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, batches)
    epochs.append(everyone)
if dist.get_rank() == 0:
    print(json.dumps(epochs))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [2, 4])
def test_processes_of_torchrun_share_the_epoch(corpus: Path, tmp_path: Path, world: int) -> None:
    script = tmp_path / "rank.py"
    script.write_text(_RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, str(script), str(corpus)], capture_output=True, text=True, env=environment, timeout=240
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for everyone in json.loads(result.stdout.splitlines()[-1]):
        assert len({len(batches) for batches in everyone}) == 1  # as many steps on every rank
        keys = [key for batches in everyone for batch in batches for key in batch]
        assert len(keys) == len(set(keys)) == 24
