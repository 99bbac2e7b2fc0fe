"""What torchrun's processes share: a stop, a folder made once, one gradient; and the devices that can be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from fastaug.ssl.training.distributed import World, choose_device, start


def _meet(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    file, calls = Path(folder, "made"), []

    def make() -> str:
        calls.append(file.exists())  # only who comes second finds it
        file.write_text("there")
        return "there"

    made = world.once(make)
    flags = [world.any(rank == wants) for wants in (0, 1, 2)]
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    parallel = world.wrap(model)  # its hooks end with it
    parallel(torch.full((2, 3), float(rank))).sum().backward()
    assert model.weight.grad is not None
    torch.save({"made": made, "calls": calls, "flags": flags, "grad": model.weight.grad}, f"{folder}/{rank}.pt")
    world.say(f"rank {rank} says")
    world.close()
    assert not dist.is_initialized()


def test_two_processes_stop_begin_and_learn_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mp.spawn(_meet, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert [f["made"] for f in found] == ["there", "there"] and [f["calls"] for f in found] == [[False], [True]]
    assert all(f["flags"] == [True, True, False] for f in found)
    assert all(torch.equal(f["grad"], torch.ones(1, 3)) for f in found)  # the mean of 0 and 2
    printed = capfd.readouterr().out
    assert "rank 0 says" in printed and "rank 1 says" not in printed


def test_a_process_alone_meets_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    world, model = World(0, 1, torch.device("cpu")), nn.Linear(2, 2)
    assert world.wrap(model) is model and world.any(True) and not world.any(False) and world.once(lambda: None) is None
    world.barrier()
    world.say("hello")
    world.close()
    assert capsys.readouterr().out == "hello\n"


def test_the_device_is_that_of_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = [str(choose_device(name, 3)) for name in ("auto", "cuda", "cuda:1", "cpu")]
    assert found == ["cuda:3", "cuda:3", "cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto", 3)) == "cpu"
    with pytest.raises(ValueError, match=r"--device cuda:1: this torch \(.*\) sees no CUDA device"):
        choose_device("cuda:1")
    with pytest.raises(ValueError, match="--device gpu"):
        start("gpu")
