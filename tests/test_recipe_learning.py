"""What pre-training recipes share: learning from one batch and of held-out clips, groups, recompute, compile, cards."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

import test_recipe_cola
import test_recipe_fusion
import test_recipe_simclr
import test_recipes
from fastaug import Pipeline
from fastaug.ssl.checkpoint import load_encoder, read_card
from fastaug.ssl.data import discover, model_input
from fastaug.ssl.losses import nt_xent
from fastaug.ssl.training.distributed import World
from test_recipes import CROP, RATE, log, recipe, weights

# Fixtures.
music, one_thread, code = test_recipes.music, test_recipes.one_thread, test_recipes.code

ALONE = World(0, 1, torch.device("cpu"))
#: Recipe, settings; the parts of the fusion recipe have kinds of their own.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "clmr": ("clmr", {}),
    "simclr": ("simclr_spec", {"augment": "spectrogram"}),
    "fusion joint": ("fusion", {"fusion": "joint"}),
    "fusion separate": ("fusion", {"fusion": "separate"}),
    "cola bilinear": ("cola", {}),
    "cola triplet": ("cola", {"loss": "triplet"}),
}
CONFIGS = {
    "clmr": test_recipes.config, "simclr_spec": test_recipe_simclr.config, "fusion": test_recipe_fusion.config,
    "cola": test_recipe_cola.config,
}  # fmt: skip


def prepared(name: str, music: Path, code: str, out: Path, **changes: Any) -> tuple[ModuleType, Any]:
    kind, settings = RUNS[name]
    module = recipe(kind)
    own = {"spectrogram_encoder": f"{code}:seen"} if kind == "fusion" else {"encoder": f"{code}:tiny"}
    return module, CONFIGS[kind](module, music, code, out, **{"knn_crops": 0, **own, **settings, **changes})


@pytest.mark.parametrize("loss", ["bilinear", "cosine", "triplet"])
def test_colas_loss_of_one_batch_falls_within_twenty_steps(music: Path, code: str, tmp_path: Path, loss: str) -> None:
    torch.manual_seed(0)
    cola, cfg = prepared("cola bilinear", music, code, tmp_path, loss=loss, projection_dim=32)
    data = discover(cfg.data)
    crops = model_input(next(iter(cola.training_pipeline(cfg, data, ALONE, 8))))
    model, _ = cola.build_model(cfg, data)
    losses = fit(model, lambda: cola.contrast(cfg, model(crops), None)[0])
    assert losses[-1] < 0.7 * losses[0], losses


def test_simclrs_loss_of_one_batch_falls_within_twenty_steps(music: Path, code: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    simclr, cfg = prepared("simclr", music, code, tmp_path)
    data = discover(cfg.data)
    x = model_input(next(iter(simclr.training_pipeline(cfg, data, ALONE, 8))))
    model, _ = simclr.build_model(cfg, data)
    losses = fit(model, lambda: nt_xent(*model(x.flatten(0, 1))[1].unflatten(0, (2, -1))))
    assert losses[-1] < losses[0] - 0.3, losses


def fit(model: nn.Module, loss_of: Any) -> list[float]:
    optimiser, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(20):
        loss: Tensor = loss_of()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faint tones in noise, a pitch a clip: 24 to train on, 16 held out."""
    root, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(1)
    for split, count in (("train", 24), ("test", 16)):
        (root / split).mkdir()
        for i in range(count):
            t = np.arange(3 * CROP) / RATE
            tone = 0.07 * np.sin(2 * np.pi * 200 * 1.15 ** rng.uniform(0, 16) * t)
            soundfile.write(root / split / f"{i}.wav", tone + 0.2 * rng.normal(size=len(t)), RATE)
    return root


@pytest.mark.parametrize("name", ["simclr", "cola bilinear", "cola triplet"])
def test_held_out_positives_rank_higher_than_before_training(tones: Path, code: str, tmp_path: Path, name: str) -> None:
    """By the similarity that is trained: of projections, and COLA's own."""
    module, cfg = prepared(name, tones, code, tmp_path, steps=60, lr=3e-3, batch_size=12, projection_dim=32)
    pipe = Pipeline(str(tones), split="test", crop="random", views=2, batch_size=16, device="cpu", **module.inputs(cfg))
    crops = [batch.spectrograms for _ in range(4) for batch in pipe]
    torch.manual_seed(cfg.seed)
    model, _ = module.build_model(cfg, discover(cfg.data))

    def rank() -> float:
        model.eval()
        with torch.no_grad():
            z = [model(x) if "cola" in name else model(x.flatten(0, 1))[1].unflatten(0, (2, -1)) for x in crops]
        pairs = [nn.functional.normalize(torch.stack([a[0], a[-1]]), dim=2) for a in z]
        scores = [a @ b.T for a, b in pairs]
        apart = ~torch.eye(16, dtype=torch.bool)
        return float(np.mean([(s.diag()[:, None] > s)[apart].float().mean() for s in scores]))

    before = rank()
    module.main(cfg)
    model.load_state_dict(weights(tmp_path))
    assert rank() > before + 0.05


@pytest.mark.parametrize("name", ["simclr", "fusion joint", "fusion separate", "cola bilinear", "cola triplet"])
def test_masked_groups_leave_only_other_groups_as_negatives(music: Path, code: str, tmp_path: Path, name: str) -> None:
    first: dict[str, float] = {}
    for mask in ("label", ""):
        module, cfg = prepared(name, music, code, tmp_path / f"run{mask}", mask_group=mask, steps=1, log_every=1)
        first[mask] = log(module.main(cfg))[0]["loss"]
    if "triplet" in name:  # a mean over what is left, so it may lie on either side
        assert first["label"] != first[""]
    else:
        assert first["label"] < first[""] - 0.3  # two labels: half of the negatives are gone
    module, cfg = prepared(name, music, code, tmp_path / "wrong", mask_group="artist")
    with pytest.raises(ValueError, match="no field 'artist' in the data; fields are"):
        module.main(cfg)


@pytest.mark.parametrize("name", ["simclr", "fusion joint", "fusion separate", "cola bilinear"])
def test_recomputed_activations_train_the_same_weights(music: Path, code: str, tmp_path: Path, name: str) -> None:
    found = []
    for again in (False, True):
        out = tmp_path / str(again)
        module, cfg = prepared(name, music, code, out, recompute=again, steps=2)
        found.append(weights(module.main(cfg)))
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    module, cfg = prepared(name, music, code, tmp_path / "both", recompute=True, compile=True)
    with pytest.raises(ValueError, match="--compile and --recompute exclude each other"):
        module.main(cfg)


@pytest.mark.parametrize("name", ["simclr", "fusion joint", "fusion separate", "cola bilinear"])
def test_compiled_models_train_the_same_weights(
    music: Path, code: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through dynamo's graphs; what inductor makes of them takes minutes here and is not this library's."""
    calls: list[str] = []

    def compile_eagerly(self: nn.Module) -> None:
        calls.append(type(self).__name__)
        inner = functools.partial(torch.compile, backend="eager")
        self._compiled_call_impl = inner(self._call_impl)  # what nn.Module.compile does

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    found = []
    for compiled in (False, True):
        module, cfg = prepared(name, music, code, tmp_path / str(compiled), compile=compiled, steps=2)
        found.append(weights(module.main(cfg)))
    assert len(calls) == 1 and found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][k], found[1][k], atol=1e-6) for k in found[0])


@pytest.mark.parametrize("name", ["clmr", "simclr", "fusion joint", "cola bilinear"])
def test_the_card_counts_tracks_and_clips(code: str, tmp_path: Path, name: str) -> None:
    """As `fastaug shard --unit track` packs them; here by hand: two tracks of two clips."""
    from fastaug.datasets.tracks import join_clips
    from fastaug.shards.entries import Entry
    from fastaug.shards.writer import write_shards

    rng, entries = np.random.default_rng(0), []
    for track in range(2):
        clips = [tmp_path / f"{track}{i}.wav" for i in range(2)]
        for clip in clips:
            soundfile.write(clip, 0.1 * rng.normal(size=CROP), RATE)
        fields = {"track": str(track), "clips": [c.name for c in clips]}
        entries.append(Entry(f"{track}.flac", join_clips([str(c) for c in clips]), fields))
    write_shards(entries, tmp_path / "shards", name="two", group_field="track", unit="track", progress=False)
    module, cfg = prepared(name, tmp_path / "shards", code, tmp_path / "run", steps=1, batch_size=2)
    out = module.main(cfg)
    assert read_card(out)[1]["counts"] == {"tracks": 2, "clips": 4} and read_card(out)[1]["data"] == "two"
    assert load_encoder(out)[1]["split"] == "train"
