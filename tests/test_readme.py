"""Every code block of the README, in its order, in a folder that has what the README speaks of.

Python blocks run as they are. `fastaug ...` lines run as they are, but for the budgets in ``SHORTER``. `make ...` lines
are only checked to be known to make (`make -n`). The `torchrun` line is checked up to its parsed configuration;
test_recipes.py trains with two processes. Where lightning is not installed, a stand-in with its interface fits two
steps.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from fastaug import cli
from fastaug.datasets.gtzan import filtered_split
from fastaug.datasets.synthetic import synth
from fastaug.ssl.config import _from_file, parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
QUICK = "--steps 1 --batch-size 2 --width 0.05 --knn-crops 0 --no-tensorboard --device cpu"
SHORTER = {
    "fastaug demo": "--minutes 0 --device cpu",
    "fastaug listen": "--clips 1",
    "fastaug recipe run clmr": QUICK,
    "fastaug recipe run probe": "--device cpu --seeds 0",
}


def tones(folder: Path, names: list[str], seconds: float = 3.0, rate: int = 22_050) -> None:
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(int(seconds * rate)) / rate
        wave = 0.3 * np.sin(2 * np.pi * (200 + 37 * i) * t) + 0.01 * rng.standard_normal(len(t))
        soundfile.write(path, wave, rate)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """music/ as shards, ~/Music with two sub-folders, genres_original/ with a few tracks of GTZAN's split."""
    folder = tmp_path_factory.mktemp("readme")
    synth(folder / "music", tracks=20, seconds=3.0, codec="wav", seed=0, progress=False)
    tones(folder / "Music", [f"{label}/{i}.wav" for label in ("loud", "soft") for i in range(10)])
    wanted = {(split, genre): 2 for split in ("train", "valid", "test") for genre in ("blues", "rock")}
    for track, split in sorted(filtered_split().items()):
        genre = track.partition(".")[0]
        if wanted.get((split, genre), 0):
            wanted[split, genre] -= 1
            tones(folder / "genres_original", [f"{genre}/{track}.wav"])
    assert not any(wanted.values())
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setattr(sys, "argv", ["fastaug"])  # recipes run in this process and set it
    torch.set_num_threads(1)  # thousands of tiny steps of the probe's head


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda i: f"{i + 1}-{BLOCKS[i][0]}")
def test_block(number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In order: what one block writes, a later one reads."""
    kind, code = BLOCKS[number]
    {"python": run_python, "sh": run_shell}[kind](code, number, monkeypatch, capsys)


def run_python(code: str, number: int, monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    if "import lightning" in code:
        try:
            import lightning  # noqa: F401
        except ImportError:
            monkeypatch.setitem(sys.modules, "lightning", stand_in())
    exec(compile(code, f"README.md, block {number + 1}", "exec"), {"__name__": "readme"})


def stand_in() -> Any:
    """What the README uses of lightning: fit() checks that the steps give a gradient, and applies it."""

    class Trainer:
        def __init__(self, max_steps: int, **_: Any) -> None:
            self.max_steps = max_steps

        def fit(self, module: Any, batches: Any) -> None:
            optimiser = module.configure_optimizers()
            before = [weight.detach().clone() for weight in module.parameters()]
            for step, batch in zip(range(self.max_steps), batches):
                loss = module.training_step(batch, step)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters()))

    return SimpleNamespace(LightningModule=torch.nn.Module, Trainer=Trainer)


def run_shell(code: str, _: int, __: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for line in code.strip().splitlines():
        if line.startswith("make "):
            check_make(line)
        elif line.startswith("torchrun "):
            check_torchrun(line)
        else:
            shorter = next((more for start, more in SHORTER.items() if line.startswith(start)), "")
            words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in shlex.split(line)]
            assert words[0] == "fastaug", f"how to run {line!r}?"
            assert cli.main([*words[1:], *shorter.split()]) == 0, f"{line}\n{capsys.readouterr().err}"


def check_make(line: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-n", *line.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr


def check_torchrun(line: str) -> None:
    """The recipe was copied here by the line before; its flags are parsed as it would parse them."""
    script, *flags = line.split()[3:]
    assert Path(script).is_file() and Path("configs").is_dir()
    recipe = _from_file(Path(script))
    config = parse(recipe.Config, recipe.CONFIGS, flags)
    assert config.preset == "clmr-v2" and config.data == "music-shards"


def test_what_the_commands_left() -> None:
    """Runs last: the README's commands really did what it says they do."""
    if not Path("runs").is_dir():
        pytest.skip("the blocks were not run")
    for run in ("runs/clmr-gtzan", "runs/clmr-clmr-v2"):
        assert (Path(run) / "model.safetensors").is_file() and (Path(run) / "probe-linear.json").is_file()
    assert Path("listen.html").is_file() and Path("demo-mine/listen.html").is_file()


def test_the_table_is_measured() -> None:
    """The table is what docs/make_table.py makes of benchmarks/results: run it after `make bench`."""
    make_table = _from_file(ROOT / "docs" / "make_table.py")
    assert make_table.BEGIN + make_table.table() + make_table.END in README


def test_the_picture_is_small_and_drawn_by_its_script() -> None:
    picture = ROOT / "docs" / "assets" / "view.svg"
    assert "docs/assets/view.svg" in README and picture.stat().st_size < 200_000
    text = picture.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3 and "http" not in text.replace("http://www.w3.org/2000/svg", "")
