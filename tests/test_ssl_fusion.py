"""Fused encoders, the cross-format loss against its definition and across processes, decision weights, the tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from fastaug import LogMel
from fastaug.ssl.checkpoint import load_encoder, save_model
from fastaug.ssl.data import Dataset
from fastaug.ssl.encoders import SampleCNN
from fastaug.ssl.fusion.encoders import BranchCNN, SpectrogramCNN, WaveformFrames
from fastaug.ssl.fusion.model import (
    MultiFormat,
    contrast,
    cross_format,
    fused_encoder,
    in_parts,
    join_checkpoints,
    model_inputs,
    two_views,
)
from fastaug.ssl.fusion.probe import decision_weight, join_seeds
from fastaug.ssl.fusion.published import SOURCE, record, source_tables
from fastaug.ssl.losses import nt_xent
from fastaug.ssl.probe.projectors import load_projector, reset
from fastaug.ssl.probe.results import read

LOGMEL = {"n_fft": 256, "hop_length": 128, "n_mels": 16, "sample_rate": 8_000, "normalise": "clip"}
ENCODERS = ("fastaug.ssl.fusion.encoders:BranchCNN", "fastaug.ssl.fusion.encoders:SpectrogramCNN")
CROP = 10_368
KINDS = ("separate", "joint", "early", "model", "audio", "spectrogram")


def build(fusion: str) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    return fused_encoder(fusion, *ENCODERS, LOGMEL, sample_rate=8_000, width=0.0625)


def written_out(z_a: np.ndarray, z_s: np.ndarray, temperature: float, groups: list[int] | None = None) -> float:
    """Both directions, sum by sum, in float64."""
    a, s = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_a.astype(np.float64), z_s.astype(np.float64)))
    losses = []
    for anchors, keys in ((a, s), (s, a)):
        for b in range(len(a)):
            asked = [k for k in range(len(a)) if k == b or groups is None or groups[k] != groups[b]]
            denominator = sum(math.exp(anchors[b] @ keys[k] / temperature) for k in asked)
            losses.append(-math.log(math.exp(anchors[b] @ keys[b] / temperature) / denominator))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_the_cross_format_loss_is_the_written_out_sum(temperature: float, rows: int) -> None:
    z_a, z_s = torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(rows))
    expected = written_out(z_a.numpy(), z_s.numpy(), temperature)
    assert float(cross_format(z_a, z_s, temperature)) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert float(cross_format(z_s, 7 * z_a, temperature)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_examples_of_one_group_are_no_negatives_in_any_kind_of_fusion() -> None:
    groups = [3, 1, 3, 3, 2, 1]
    z = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor(groups)
    joint = contrast(z[:2], True, 0.2, ids)["joint"]
    assert float(joint) == pytest.approx(written_out(z[0].numpy(), z[1].numpy(), 0.2, groups), rel=1e-5)
    two, four = contrast(z[:2], False, 0.2, ids), contrast(z, False, 0.2, ids)
    assert torch.equal(two["views"], nt_xent(z[0], z[1], 0.2, groups=ids)) and list(two) == ["views"]
    assert list(four) == ["audio", "spectrogram"] and torch.equal(four["audio"], two["views"])
    assert torch.equal(four["spectrogram"], nt_xent(z[2], z[3], 0.2, groups=ids))
    assert float(two["views"]) < float(contrast(z[:2], False, 0.2)["views"])


def test_the_cross_format_loss_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"both must be \(B, D\)"):
        cross_format(torch.randn(2, 3), torch.randn(3, 3))
    with pytest.raises(ValueError, match="temperature must be > 0"):
        cross_format(torch.randn(2, 3), torch.randn(2, 3), 0.0)


#: Two of the groups have members in both processes.
IN_GROUPS = torch.tensor([4, 4, 9, -1, 4, 9, -1, 1])


def _models_and_inputs() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(6, 4), nn.Linear(5, 4)]), torch.randn(8, 6), torch.randn(8, 5)


class _Both(nn.Module):
    def __init__(self, models: Any) -> None:
        super().__init__()
        self.models = models

    def forward(self, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return self.models[0](a), self.models[1](s)


def _step(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    models, a, s = _models_and_inputs()
    parallel = nn.parallel.DistributedDataParallel(_Both(models))
    loss = cross_format(*parallel(a[rank::2], s[rank::2]), 0.2, IN_GROUPS[rank::2])
    loss.backward()
    torch.save({"loss": loss.detach(), "grads": [p.grad for p in models.parameters()]}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    models, a, s = _models_and_inputs()
    loss = cross_format(*_Both(models)(a, s), 0.2, IN_GROUPS)
    assert not torch.isclose(loss, cross_format(*_Both(models)(a, s), 0.2))
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in models.parameters() if p.grad is not None])
    mp.spawn(_step, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert float(sum(f["loss"] for f in found)) / 2 == pytest.approx(loss.item(), rel=1e-5)
    for result in found:
        assert torch.allclose(torch.cat([g.flatten() for g in result["grads"]]), expected, rtol=1e-4, atol=1e-6)


def test_separate_trains_each_encoder_as_if_alone() -> None:
    samples = torch.randn(2, 3, 1, CROP, generator=torch.Generator().manual_seed(1))
    spectra = LogMel(**LOGMEL)(samples.flip(0))
    model = MultiFormat(build("separate")[0], samples[0], 8)
    z = model(samples, spectra)
    losses = contrast(z, False, 0.5)
    torch.stack(list(losses.values())).sum().backward()
    for place, (name, x) in enumerate((("audio", samples), ("spectrogram", spectra))):
        branch, projector = getattr(model.encoder, name), model.projectors[name]
        wanted = [*branch.parameters(), *projector.parameters()]
        together = [p.grad.clone() for p in wanted if p.grad is not None]
        alone = projector(branch(x.flatten(0, 1))).chunk(2)
        loss = nt_xent(*alone, 0.5)
        assert torch.allclose(torch.stack(alone), z[2 * place : 2 * place + 2], atol=1e-6)
        assert loss.item() == pytest.approx(losses[name].item(), rel=1e-6)
        grads = torch.autograd.grad(loss, wanted)
        assert len(grads) == len(together)
        assert all(torch.allclose(g, t, rtol=1e-4, atol=1e-7) for g, t in zip(grads, together))


def test_two_views_keep_the_order_of_similarity() -> None:
    z = torch.randn(4, 5, 3)
    z_i, z_j = two_views(z)
    similar = [torch.nn.functional.cosine_similarity(z[v], z[v + 1]) for v in (0, 2)]
    assert torch.allclose(torch.nn.functional.cosine_similarity(z_i, z_j), (similar[0] + similar[1]) / 2, atol=1e-6)
    assert torch.equal(two_views(z[:2]), z[:2])
    assert contrast(z[:2], True, 0.5)["joint"] == cross_format(z[0], z[1], 0.5)
    assert contrast(z[:2], False, 0.5)["views"] == nt_xent(z[0], z[1], 0.5)


def test_parts_keep_samples_and_spectrograms_together() -> None:
    samples, spectra = torch.arange(10).reshape(2, 5), torch.arange(10).reshape(2, 5) + 100
    parts = in_parts(samples, spectra, 2)
    assert [len(p[0][0]) for p in parts] == [3, 2]
    assert all(s is not None and torch.equal(a + 100, s) for a, s in parts)
    assert [s for _, s in in_parts(samples, None, 3)] == [None, None, None]


@pytest.mark.parametrize("fusion", KINDS)
def test_samples_alone_are_enough_and_the_description_rebuilds(fusion: str, tmp_path: Path) -> None:
    encoder, description = build(fusion)
    samples = torch.randn(3, 1, CROP)
    encoder.eval()
    h = encoder(samples)
    assert torch.equal(h, encoder(samples, LogMel(**LOGMEL)(samples)))
    parts = encoder.formats(samples)
    assert list(parts) == {"joint": ["audio", "spectrogram"], "separate": ["audio", "spectrogram"], "audio": ["audio"],
                           "spectrogram": ["spectrogram"]}.get(fusion, ["fused"])  # fmt: skip
    assert torch.equal(h, torch.cat(list(parts.values()), 1)) and h.shape[1] == 32 * len(parts)
    save_model(tmp_path, nn.ModuleDict({"encoder": encoder}), description)
    assert torch.equal(load_encoder(tmp_path)[0](samples), h)


@pytest.mark.parametrize("fusion", KINDS)
def test_projectors_of_every_kind_come_back(fusion: str, tmp_path: Path) -> None:
    encoder, description = build(fusion)
    model = MultiFormat(encoder, torch.zeros(2, 1, CROP), 6)
    card = {**description, "out_dim": sum(model.dims.values())}
    save_model(tmp_path, model, card)
    projector, x = load_projector(tmp_path, card), torch.randn(2, 1, CROP)
    model.eval()
    with torch.no_grad():
        expected = torch.cat(list(model(x[None], None)), dim=1)  # each projector on the h of its own format
        found = projector(encoder(x))
    assert found.shape == (2, 6 * len(model.dims)) and torch.equal(found, expected)
    assert not torch.equal(reset(projector)(encoder(x)), found)
    with pytest.raises(ValueError, match=f"dimensions, but its encoder gives {card['out_dim'] + 1}"):
        load_projector(tmp_path, {**card, "out_dim": card["out_dim"] + 1})


def test_projectors_of_unknown_formats_and_joined_encoders_are_said(tmp_path: Path) -> None:
    encoder, description = build("audio")
    model = MultiFormat(encoder, torch.zeros(2, 1, CROP), 6)
    card = {**description, "out_dim": sum(model.dims.values())}
    model.projectors["video"] = nn.Linear(3, 3)
    save_model(tmp_path / "strange", model, card)
    with pytest.raises(ValueError, match=r"takes projectors of audio, spectrogram, fused, not video\.bias"):
        load_projector(tmp_path / "strange", card)
    save_model(tmp_path / "joined", nn.ModuleDict({"encoder": encoder}), card)
    with pytest.raises(ValueError, match="holds no projector: .*side by side"):
        load_projector(tmp_path / "joined", card)


def test_what_each_kind_hears_and_sees() -> None:
    encoder, _ = build("separate")
    samples, other = torch.randn(2, 2, 1, CROP)
    spectra = LogMel(**LOGMEL)(other)
    for fusion in ("early", "model"):
        fused = build(fusion)[0].eval()
        h = fused(samples, spectra)
        assert not torch.allclose(h, fused(other, spectra)) and not torch.allclose(h, fused(samples, spectra.flip(0)))
    h_audio, h_picture = encoder.eval().formats(samples, spectra).values()
    assert torch.equal(h_audio, encoder.audio(samples)) and torch.equal(h_picture, encoder.spectrogram(spectra))
    with pytest.raises(ValueError, match="fusion must be one of separate, "):
        build("late")


@pytest.mark.parametrize("hop", [128, 256, 441, 160, 512, 11])
@pytest.mark.parametrize("length", [4_096, 4_095, 5_000])
def test_the_learned_front_end_has_the_frames_of_the_log_mel(hop: int, length: int) -> None:
    frames = WaveformFrames(hop, bands=4, channels=4).eval()
    spectra = LogMel(n_fft=1024, hop_length=hop, n_mels=4, sample_rate=8_000)(torch.zeros(1, 1, length))
    assert frames(torch.zeros(1, 1, length)).shape == (1, 1, 4, spectra.shape[-1]) == (1, 1, 4, 1 + length // hop)


@pytest.mark.parametrize("hop", [128, 441])
def test_a_frame_of_the_learned_front_end_is_at_its_hop(hop: int) -> None:
    torch.manual_seed(0)
    frames = WaveformFrames(hop, bands=4, channels=16).eval()
    for n in (3, 10):
        samples = torch.zeros(1, 1, 16 * hop)
        silence = frames(samples)
        samples[..., n * hop] = 1.0
        changed = (frames(samples) - silence).abs().amax((0, 1, 2))
        assert int(changed.argmax()) == n and changed[[*range(n - 1), *range(n + 2, len(changed))]].max() == 0


def test_the_branch_of_five_seconds_uses_its_end() -> None:
    samples = torch.randn(1, 1, 110_250)
    other = samples.clone()
    other[..., 90_000:] = torch.randn(20_250)
    branch, short = BranchCNN(22_050, width=0.0625).eval(), SampleCNN(22_050, width=0.0625).eval()
    assert branch.blocks(samples.unsqueeze(2)).shape == (1, 32, 1, 5) and branch(samples).shape == (1, 32)
    assert not torch.equal(branch(samples), branch(other)) and torch.equal(short(samples), short(other))
    assert len(branch.blocks) == 9 and BranchCNN(22_050)(samples.expand(2, -1, -1)).shape == (2, 512)
    assert SpectrogramCNN()(torch.randn(2, 1, 16, 20)).shape == (2, 512)
    with pytest.raises(ValueError, match="no strides for sample_rate=44100"):
        BranchCNN(44_100)


class _Batch:
    def __init__(self, views: int, pictures: bool = True) -> None:
        self.audio = torch.arange(views * 3.0).reshape(views, 3, 1, 1)
        self.spectrograms = 100 + self.audio[..., None] if pictures else None


def test_model_inputs_takes_the_views_that_belong_together() -> None:
    samples, spectra = model_inputs("separate", _Batch(4))
    assert spectra is not None
    assert samples.flatten().tolist() == [0, 1, 2, 3, 4, 5] and spectra.flatten().tolist() == [*range(106, 112)]
    samples, spectra = model_inputs("joint", _Batch(2))
    assert spectra is not None
    assert samples.flatten().tolist() == [0, 1, 2] and spectra.flatten().tolist() == [103, 104, 105]
    samples, spectra = model_inputs("early", _Batch(2))
    assert spectra is not None and torch.equal(samples.flatten() + 100, spectra.flatten()) and len(samples) == 2
    assert model_inputs("audio", _Batch(2, pictures=False))[1] is None


def test_the_decision_weight_finds_who_knows() -> None:
    labels = torch.arange(60) % 3
    right = 0.2 + 0.4 * torch.eye(3)[labels]
    blind = torch.softmax(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), 1)
    assert decision_weight(right, blind, labels) >= 0.9 and decision_weight(blind, right, labels) <= 0.1
    first, second = right.clone(), right.clone()  # each knows one half of the clips
    first[::2], second[1::2] = 1 / 3, 1 / 3
    assert 0.3 <= decision_weight(first, second, labels) <= 0.7
    tags = torch.stack([labels == 0, labels > 0], 1).float()
    assert decision_weight(0.1 + 0.8 * tags, blind[:, :2], tags) >= 0.9


def test_the_decision_weight_is_the_most_likely_one() -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.softmax(2 * torch.randn(2, 40, 4, generator=generator), 2)
    labels = torch.randint(0, 4, (40,), generator=generator)
    found = decision_weight(first, second, labels)
    loss = [-float((w * first + (1 - w) * second)[torch.arange(40), labels].log().mean()) for w in np.arange(21) / 20]
    assert found == pytest.approx(np.argmin(loss) / 20) and 0 < found < 1


def test_the_tables_stand_beside_what_was_published() -> None:
    published = {(e.table[:7], e.name): (e.valid_map, e.accuracy) for e in SOURCE if e.valid_map}
    assert published == {
        ("Table 1", "audio: crop only"): (0.115, 11.1), ("Table 1", "audio: + white noise"): (0.127, 10.3),
        ("Table 1", "audio: all"): (0.219, 37.7), ("Table 1", "spectrogram: time mask only"): (0.249, 35.1),
        ("Table 1", "spectrogram: all"): (0.312, 48.2), ("Table 2", "audio"): (0.269, 37.7),
        ("Table 2", "audio, MTAT pre-training"): (0.193, 19.1), ("Table 2", "spectrogram"): (0.312, 48.2),
        ("Table 2", "audio + spectrogram"): (0.34, 53.1),
    }  # fmt: skip
    rows = {"audio": {"valid_map": [0.25, 0.35], "accuracy": [0.5, 0.6]}, "decision level": {"accuracy": [0.125]}}
    lines = source_tables({"crop": rows, "all": {"decision level": rows["decision level"]}}).splitlines()
    line = {
        name: next(x for x in lines if x.startswith(name)) for name in ("audio: crop only", "audio: all", "decision")
    }
    assert "0.300 ± 0.071" in line["audio: crop only"] and "55.0 ± 7.1" in line["audio: crop only"]
    assert line["audio: crop only"].endswith("0.115, 11.1") and "not measured" in line["audio: crop only"]
    assert line["audio: all"].count("not measured") == 3 and "12.5" in line["decision"]
    assert any(".219" in x for x in lines) and any(".269" in x for x in lines)


def test_results_of_the_tables_are_recorded_once_each(tmp_path: Path) -> None:
    rows = {"audio": {"accuracy": [0.5, 0.6]}, "decision level": {"accuracy": [0.25], "weight": [0.3]}}
    data = Dataset("set", ("train",), "genre", "tiny", "by hand", ("a", "b"))
    record(tmp_path / "r.csv", {"all": rows}, data, "linear", "configs/fusion-demo.json", torch.device("cpu"))
    found = {r.system: r for r in read(tmp_path / "r.csv")}
    assert set(found) == {"audio", "decision level"}  # "audio: all" of table 1 is the same run
    assert found["audio"].seeds == 2 and found["audio"].mean == pytest.approx(0.55)
    assert found["audio"].sd == pytest.approx(0.070711, abs=1e-6)
    assert math.isnan(found["decision level"].sd)  # one seed has none
    assert (found["audio"].dataset, found["audio"].split, found["audio"].metric) == ("tiny", "by hand", "accuracy")
    assert (found["audio"].recipe, found["audio"].preset) == ("fusion --tables, linear head", "fusion-demo")


def test_seeds_of_pre_training_count_once_each() -> None:
    one, two = ({"audio": {"accuracy": values}} for values in ([0.2, 0.4], [0.5, 0.5]))
    assert join_seeds([one]) is one
    assert join_seeds([one, two])["audio"]["accuracy"] == pytest.approx([0.3, 0.5])


def checkpoint(folder: Path, encoder: nn.Module, name: str, **card: Any) -> Path:
    settings = {"encoder": name, "sample_rate": 8_000, "crop_samples": CROP, "logmel": None, "out_dim": 32}
    save_model(folder, nn.ModuleDict({"encoder": encoder}), {**settings, **card})
    return folder


def test_two_checkpoints_join(tmp_path: Path) -> None:
    wave = {"sample_rate": 8_000, "width": 0.0625}
    a = checkpoint(tmp_path / "a", BranchCNN(**wave), ENCODERS[0], encoder_kwargs=wave)
    seen = {"encoder_kwargs": {"width": 0.0625}, "logmel": LOGMEL}
    s = checkpoint(tmp_path / "s", SpectrogramCNN(width=0.0625), ENCODERS[1], **seen)
    encoder, card = load_encoder(join_checkpoints(a, s, tmp_path / "both"))
    samples = torch.randn(2, 1, CROP)
    expected = [load_encoder(a)[0](samples), load_encoder(s)[0](LogMel(**LOGMEL)(samples))]
    assert torch.equal(encoder(samples), torch.cat(expected, 1)) and card["out_dim"] == 64 and card["logmel"] is None
    with pytest.raises(ValueError, match="must be an encoder of waveforms"):
        join_checkpoints(s, a, tmp_path / "no")
    with pytest.raises(ValueError, match="both checkpoints"):
        join_checkpoints(a, "", tmp_path / "no")
    other = checkpoint(tmp_path / "o", SpectrogramCNN(width=0.0625), ENCODERS[1], **{**seen, "crop_samples": 4096})
    with pytest.raises(ValueError, match="agree in crop_samples: 10368 of .*, 4096 of"):
        join_checkpoints(a, other, tmp_path / "no")
