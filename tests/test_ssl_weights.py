"""Loading encoders from files and the web, converting published ones, and tables of embeddings."""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import json
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

import fastaug.ssl
from fastaug import LogMel, cli
from fastaug.ssl.checkpoint import build_encoder, load_encoder, save_model
from fastaug.ssl.convert import convert_clmr
from fastaug.ssl.embed import embed
from fastaug.ssl.encoders import STRIDES, Contrastive, Projector, SampleCNN
from fastaug.ssl.probe.projectors import load_projector

RATE, CROP = 8_000, 20_736


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small trained encoder."""
    torch.manual_seed(0)
    model = Contrastive(SampleCNN(RATE, width=0.0625), Projector(32, 8))
    model(torch.randn(4, 1, CROP))
    card = {"encoder": "SampleCNN", "encoder_kwargs": {"sample_rate": RATE, "width": 0.0625}, "out_dim": 32,
            "sample_rate": RATE, "crop_samples": CROP, "logmel": None, "classes": ["a", "b"]}  # fmt: skip
    return save_model(tmp_path_factory.mktemp("run"), model, card).parent


# Loading.


def test_an_encoder_brings_its_rate_crop_and_classes(run: Path) -> None:
    x = torch.randn(2, 1, CROP)
    expected = load_encoder(run)[0](x)
    for source in (run, run / "model.safetensors", str(run)):
        encoder = fastaug.ssl.load(source)
        assert not encoder.training and torch.equal(encoder(x), expected)
        assert (encoder.sample_rate, encoder.crop_samples, encoder.out_dim) == (RATE, CROP, 32)
        assert encoder.classes == ("a", "b") and encoder.card["encoder"] == "SampleCNN"


def test_a_spectrogram_encoder_takes_samples(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten())\n"
    )
    logmel = {"n_fft": 256, "hop_length": 128, "n_mels": 16, "sample_rate": RATE, "normalise": "clip"}
    card = {"encoder": f"{tmp_path}/own.py:make", "encoder_kwargs": {}, "out_dim": 4, "sample_rate": RATE,
            "crop_samples": 4096, "logmel": logmel}  # fmt: skip
    save_model(tmp_path, Contrastive(nn.Identity(), nn.Linear(1, 1)), card)
    encoder, x = fastaug.ssl.load(tmp_path), torch.randn(3, 1, 4096)
    assert torch.equal(encoder(x), encoder.encoder(LogMel(**logmel)(x))) and encoder(x).shape == (3, 4)


@pytest.fixture
def server(run: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves the run's folder; the list holds what was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(run)))
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}", asked
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_url_is_downloaded_once_and_checked(
    run: Path, server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAUG_CACHE", str(tmp_path))
    url, asked = f"{server[0]}/model.safetensors", server[1]
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    x = torch.randn(1, 1, CROP)
    expected = fastaug.ssl.load(run)(x)
    assert torch.equal(fastaug.ssl.load(url, sha256=digest.upper())(x), expected)
    assert torch.equal(fastaug.ssl.load(f"{url}#sha256={digest}")(x), expected)
    assert asked == ["/model.safetensors"]
    (cached,) = tmp_path.iterdir()
    cached.write_bytes(cached.read_bytes()[:-1] + b"!")  # damaged on the disk: downloaded anew
    assert torch.equal(fastaug.ssl.load(url, sha256=digest)(x), expected) and len(asked) == 2

    with pytest.raises(ValueError, match=r"a download needs its checksum"):
        fastaug.ssl.load(url)
    with pytest.raises(ValueError, match=f"its sha256 is {digest}, expected {'0' * 64}"):
        fastaug.ssl.load(url, sha256="0" * 64)
    assert [p.name for p in tmp_path.iterdir()] == [cached.name]  # what is wrong is not kept
    with pytest.raises(ConnectionError, match=r"^http.*nothing.safetensors cannot be downloaded: File not found"):
        fastaug.ssl.load(f"{server[0]}/nothing.safetensors", sha256=digest)


def test_a_downloaded_card_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAUG_CACHE", str(tmp_path / "cache"))
    card = {"encoder": "os:system", "encoder_kwargs": {"command": f"touch {tmp_path}/executed"}, "out_dim": 1,
            "sample_rate": 1, "crop_samples": 1}  # fmt: skip
    file = save_model(tmp_path, nn.Linear(1, 1), card)
    with pytest.raises(ValueError, match="names code to run, os:system"):
        fastaug.ssl.load(f"file://{file}", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    hidden = {
        "encoder": "fastaug.ssl.fusion.encoders:TwoFormats",
        "out_dim": 1,
        "sample_rate": 1,
        "crop_samples": 1,
        "encoder_kwargs": {"audio": {k: card[k] for k in ("encoder", "encoder_kwargs")}, "spectrogram": None},
    }
    file = save_model(tmp_path, nn.Linear(1, 1), hidden)
    with pytest.raises(ValueError, match="names code to run, os:system"):
        fastaug.ssl.load(f"file://{file}", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert not (tmp_path / "executed").exists()


def test_a_downloaded_fusion_of_our_own_encoders_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAUG_CACHE", str(tmp_path / "cache"))
    part = {"encoder": "SampleCNN", "encoder_kwargs": {"sample_rate": RATE, "width": 0.0625}}
    card = {"encoder": "fastaug.ssl.fusion.encoders:TwoFormats", "encoder_kwargs": {"audio": part, "spectrogram": None},
            "out_dim": 32, "sample_rate": RATE, "crop_samples": CROP, "logmel": None}  # fmt: skip
    file = save_model(tmp_path, Contrastive(build_encoder(card), nn.Identity()), card)
    encoder = fastaug.ssl.load(f"file://{file}", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert encoder(torch.randn(2, 1, CROP)).shape == (2, 32)


def test_the_checksum_of_a_file_is_checked_where_given(run: Path) -> None:
    with pytest.raises(ValueError, match="model.safetensors: its sha256 is"):
        fastaug.ssl.load(run, sha256="0" * 64)


def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    for name, content in (("short", whole[:-100]), ("head", whole[:20]), ("empty", b"")):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.safetensors: not a readable safetensors file"):
            fastaug.ssl.load(file)
    other = json.loads((run / "model.json").read_text()) | {"encoder_kwargs": {"sample_rate": RATE, "width": 0.125}}
    save_model(tmp_path / "other", Contrastive(SampleCNN(RATE, width=0.0625), nn.Identity()), other)
    with pytest.raises(ValueError, match="its weights do not fit its card's SampleCNN"):
        fastaug.ssl.load(tmp_path / "other")


# The published CLMR checkpoints: the networks of their code, in the three layouts of their files.


def published(strides: tuple[int, ...], scale: int = 16) -> nn.Sequential:
    """CLMR's SampleCNN as its code builds it, channels divided by ``scale``."""
    channels = [c // scale for c in (128, 128, 128, 256, 256, 256, 256, 256, 256, 512)]
    blocks = [nn.Sequential(nn.Conv1d(1, channels[0], 3, 3), nn.BatchNorm1d(channels[0]), nn.ReLU())]
    for stride, c_in, c_out in zip(strides, channels[:-1], channels[1:], strict=True):
        conv = nn.Conv1d(c_in, c_out, stride, 1, padding=1)
        blocks.append(nn.Sequential(conv, nn.BatchNorm1d(c_out), nn.ReLU(), nn.MaxPool1d(stride, stride)))
    last = channels[-1]
    blocks.append(nn.Sequential(nn.Conv1d(last, last, 3, 1, padding=1), nn.BatchNorm1d(last), nn.ReLU()))
    return nn.Sequential(*blocks)


class Lightning:
    """Writes a checkpoint as PyTorch Lightning does, with classes of its own in it; its modules are gone afterwards."""

    def __init__(self) -> None:
        self.parsing = types.ModuleType("pytorch_lightning.utilities.parsing")
        self.callbacks = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
        self.stopping = types.ModuleType("pytorch_lightning.callbacks.early_stopping")
        attribute_dict = type("AttributeDict", (dict,), {"__module__": self.parsing.__name__})
        model_checkpoint = type("ModelCheckpoint", (), {"__module__": self.callbacks.__name__})
        self.stopping.EarlyStopping = type("EarlyStopping", (), {"__module__": self.stopping.__name__})  # type: ignore[attr-defined]
        self.parsing.AttributeDict, self.callbacks.ModelCheckpoint = attribute_dict, model_checkpoint  # type: ignore[attr-defined]

    def save(self, state: dict[str, Tensor], file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            for name in ("pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.callbacks"):
                patch.setitem(sys.modules, name, types.ModuleType(name))
            for module in (self.parsing, self.callbacks, self.stopping):
                patch.setitem(sys.modules, module.__name__, module)
            torch.save({
                "epoch": 3, "pytorch-lightning_version": "1.3.8", "state_dict": state,
                "hyper_parameters": self.parsing.AttributeDict(batch_size=48, args=argparse.Namespace(seed=42)),
                "callbacks": {self.callbacks.ModelCheckpoint: {"best_model_score": torch.tensor(1.0)},
                              self.stopping.EarlyStopping: {"patience": 3}},
            }, file)  # fmt: skip


def save_as(layout: str, net: nn.Sequential, head: nn.Module, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {k.partition(".")[2]: v for k, v in nn.ModuleDict({"n": net}).state_dict().items()}
    fc = {"encoder.fc.weight": torch.zeros(50, 32), "encoder.fc.bias": torch.zeros(50)}
    projector = {f"projector.{k}": v for k, v in head.state_dict().items()}
    if layout == "v1":
        names = {f"encoder.conv{int(k.partition('.')[0]) + 1}.{k.partition('.')[2]}": v for k, v in state.items()}
        torch.save(OrderedDict({**names, **fc, **projector}), file)
    elif layout == "v1 DataParallel, legacy file":
        names = {
            f"module.encoder.conv{int(k.partition('.')[0]) + 1}.{k.partition('.')[2]}": v for k, v in state.items()
        }
        torch.save(OrderedDict(names), file, _use_new_zipfile_serialization=False)
    elif layout == "v2":
        torch.save(OrderedDict({**{f"encoder.sequential.{k}": v for k, v in state.items()}, **fc, **projector}), file)
    else:
        names = {**{f"encoder.sequential.{k}": v for k, v in state.items()}, **fc, **projector}
        Lightning().save({f"model.{k}": v for k, v in names.items()}, file, monkeypatch)


@pytest.mark.parametrize("rate", sorted(STRIDES))
@pytest.mark.parametrize("layout", ["v1", "v1 DataParallel, legacy file", "v2", "Lightning"])
def test_published_checkpoints_give_the_same_embeddings(
    layout: str, rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(rate)
    net = published(STRIDES[rate])
    head = nn.Sequential(nn.Linear(32, 32, bias=False), nn.ReLU(), nn.Linear(32, 6, bias=False))
    crop = {22_050: 59_049, 16_000: 43_740, 8_000: 20_736}[rate]
    x = torch.randn(2, 1, crop)
    net.train()(x)  # moves the running statistics
    net.eval()
    save_as(layout, net, head, tmp_path / "clmr.ckpt", monkeypatch)
    assert cli.main(["convert", str(tmp_path / "clmr.ckpt"), str(tmp_path / "out")]) == 0
    encoder = fastaug.ssl.load(tmp_path / "out")
    with torch.no_grad():
        expected = net(x).flatten(1)
        torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-5)
    assert (encoder.sample_rate, encoder.crop_samples, encoder.out_dim) == (rate, crop, 32)
    if "legacy" not in layout:
        from safetensors.torch import load_file

        weights = load_file(tmp_path / "out" / "model.safetensors")
        assert torch.equal(weights["projector.layers.2.weight"], head[2].weight)


@pytest.mark.parametrize(("layout", "z"), [("v1", 128), ("v2", 64), ("Lightning", 64)])
def test_the_published_sizes(layout: str, z: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,368,512 parameters; 59,049 samples at 22,050 Hz to 512; projected to 128 by the first code, then to 64."""
    net = published(STRIDES[22_050], scale=1)
    assert sum(p.numel() for p in net.parameters()) == 2_368_512
    head = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, z, bias=False))
    save_as(layout, net, head, tmp_path / "clmr.pt", monkeypatch)
    encoder = fastaug.ssl.load(convert_clmr(tmp_path / "clmr.pt", tmp_path / "out"))
    assert (encoder.sample_rate, encoder.crop_samples, encoder.out_dim) == (22_050, 59_049, 512)
    assert sum(p.numel() for p in encoder.parameters()) == 2_368_512
    projector = load_projector(tmp_path / "out", encoder.card)
    h = torch.randn(2, 512)
    torch.testing.assert_close(projector(h), head(h))


def test_names_that_are_not_clmrs_are_said(tmp_path: Path) -> None:
    net = {f"encoder.sequential.{k}": v for k, v in published(STRIDES[RATE]).state_dict().items()}
    square, last = torch.zeros(32, 32), torch.zeros(6, 32)
    wrong = {
        r"model\.loss\.weight is not of a CLMR checkpoint": {"model.loss.weight": square},
        r'Unexpected key\(s\) in state_dict: "sequential\.0\.7\.weight"': {"encoder.sequential.0.7.weight": square},
        r"found projector\.0\.weight \(32, 32\)$": {"projector.0.weight": square},
        r"projector\.1\.bias \(6,\)": {
            "projector.0.weight": square, "projector.2.weight": last, "projector.1.bias": torch.zeros(6),
        },
        r"found projector\.0\.weight \(6, 32\)": {"projector.0.weight": last, "projector.2.weight": last},
        "holds encoder.sequential.0.0.weight twice": {"model.encoder.sequential.0.0.weight": torch.zeros(8, 1, 3)},
    }  # fmt: skip
    for message, more in wrong.items():
        torch.save({**net, **more}, tmp_path / "wrong.pt")
        with pytest.raises(ValueError, match=message):
            convert_clmr(tmp_path / "wrong.pt", tmp_path / "out")
    torch.save({k: v for k, v in net.items() if not k.endswith("4.1.running_var")}, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=r"sequential\.4\.1\.running_var"):
        convert_clmr(tmp_path / "wrong.pt", tmp_path / "out")
    (tmp_path / "cut.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="cut.safetensors: not a readable safetensors file"):
        convert_clmr(tmp_path / "cut.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    torch.save({**net, **{f"model.{k}": v for k, v in net.items()}}, tmp_path / "twice.pt")  # as Lightning has them
    assert convert_clmr(tmp_path / "twice.pt", tmp_path / "out").is_file()


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "model.module.", "module.model.module."])
def test_wrappers_before_the_names_are_taken_off(prefix: str, tmp_path: Path) -> None:
    """Also: counters of batches may be missing, as in the oldest files, and are kept where there are any."""
    net = published(STRIDES[RATE])
    net.train()(torch.randn(2, 1, 20_736))
    state = {f"{prefix}encoder.sequential.{k}": v for k, v in net.state_dict().items()}
    torch.save(state, tmp_path / "new.pt")
    torch.save({k: v for k, v in state.items() if not k.endswith("tracked")}, tmp_path / "old.pt")
    for name, count in (("new", 1), ("old", 0)):
        file = convert_clmr(tmp_path / f"{name}.pt", tmp_path / name)
        encoder = fastaug.ssl.load(file)
        assert {int(v) for k, v in encoder.state_dict().items() if k.endswith("tracked")} == {count}
        source = {"file": f"{name}.pt", "sha256": hashlib.sha256((tmp_path / f"{name}.pt").read_bytes()).hexdigest()}
        assert encoder.card["converted_from"] == source
    with pytest.raises(ValueError, match=f"are those of {RATE}, sample_rate=22050"):
        convert_clmr(tmp_path / "new.pt", tmp_path / "other", sample_rate=22_050)


def test_what_cannot_be_converted_says_why(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return (Path.mkdir, (tmp_path / "executed",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt: cannot be read as weights alone"):
        convert_clmr(tmp_path / "evil.pt", tmp_path / "out")
    assert not (tmp_path / "executed").exists()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        convert_clmr(tmp_path / "none.pt", tmp_path / "out")
    torch.save({"encoder.layer1.weight": torch.zeros(1)}, tmp_path / "resnet.pt")
    with pytest.raises(ValueError, match="no SampleCNN of CLMR in it.*found layer1.weight"):
        convert_clmr(tmp_path / "resnet.pt", tmp_path / "out")
    odd = published((3, 3, 3, 3, 3, 3, 4, 2, 2))
    torch.save({f"encoder.sequential.{k}": v for k, v in odd.state_dict().items()}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="no known rate"):
        convert_clmr(tmp_path / "odd.pt", tmp_path / "out")
    convert_clmr(tmp_path / "odd.pt", tmp_path / "out", sample_rate=12_000)
    assert fastaug.ssl.load(tmp_path / "out").crop_samples == 3 * 3**6 * 16
    assert not (tmp_path / "out" / "model.safetensors.partial").exists()


# Tables of embeddings.


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of two classes, of 2.5, 1 and 0.5 crops, and a file that is none."""
    root = tmp_path_factory.mktemp("songs")
    for i, (label, crops) in enumerate((("jazz", 2.5), ("rock", 1.0), ("rock", 0.5))):
        (root / label).mkdir(exist_ok=True)
        noise = np.random.default_rng(i).normal(size=int(crops * CROP))
        soundfile.write(root / label / f"{i}.wav", 0.1 * noise, RATE, subtype="FLOAT")
    (root / "rock" / "broken.wav").write_text("no audio")
    return root


def read_table(out: Path) -> dict[str, list[Any]]:
    if out.suffix == ".npz":
        with np.load(out) as arrays:
            return {name: list(arrays[name]) for name in ("key", "start", "length", "label", "h")}
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(out)
    assert json.loads(table.schema.metadata[b"card"])["out_dim"] == 32
    return {name: table[name].to_pylist() for name in table.column_names}


@pytest.mark.parametrize("name", ["table.parquet", "table.npz"])
def test_embeddings_of_segments(run: Path, songs: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    done = embed(run, str(songs), out, batch_size=2)
    table, encoder = read_table(out), fastaug.ssl.load(run)
    assert (done.rows, done.clips, done.dim, done.unreadable) == (len(table["key"]), 3, 32, 1)
    assert "1 files could not be read" in str(done)
    assert table["key"] == sorted(table["key"]) and len(set(table["key"])) == 3
    assert table["label"] == ["jazz"] * table["key"].count("jazz/0.wav") + ["rock"] * 2
    for key, start, length, h in zip(*(table[c] for c in ("key", "start", "length", "h")), strict=True):
        clip, _ = soundfile.read(songs / key, dtype="float32")
        piece = torch.zeros(1, 1, CROP)
        piece[0, 0, :length] = torch.from_numpy(clip[start : start + length])
        with torch.no_grad():
            np.testing.assert_allclose(np.array(h), encoder(piece)[0].numpy(), rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.glob("*.partial"))


def test_embeddings_with_overlap_and_of_whole_clips(run: Path, songs: Path, tmp_path: Path) -> None:
    plain = embed(run, str(songs), tmp_path / "a.npz")
    half = embed(run, str(songs), tmp_path / "b.npz", hop_seconds=CROP / RATE / 2)
    assert half.rows > plain.rows
    assert {int(s) % (CROP // 2) for s in read_table(tmp_path / "b.npz")["start"]} == {0}
    whole = embed(run, str(songs), tmp_path / "c.npz", whole=True, label="none")
    table = read_table(tmp_path / "c.npz")
    assert whole.rows == whole.clips == 3 and [str(x) for x in table["label"]] == ["", "", ""]
    for key, length, h in zip(table["key"], table["length"], table["h"], strict=True):
        clip, _ = soundfile.read(songs / str(key), dtype="float32")
        alone = torch.zeros(1, 1, max(CROP, len(clip)))  # no longer for the sake of a longer clip beside it
        alone[0, 0, : len(clip)] = torch.from_numpy(clip)
        with torch.no_grad():
            np.testing.assert_allclose(h, fastaug.ssl.load(run)(alone)[0].numpy(), rtol=1e-4, atol=1e-5)
        assert length == len(clip)


def test_the_command_embeds_and_says_what_is_wrong(
    run: Path, songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["embed", str(run), str(songs), str(tmp_path / "t.npz"), "--device", "cpu"]
    assert cli.main(line) == 0 and "embeddings of 32 numbers, of 3 clips" in capsys.readouterr().out
    assert cli.main([*line[:3], "t.csv"]) == 1 and "ends in .parquet or .npz" in capsys.readouterr().err
    assert cli.main([*line, "--whole", "--hop-seconds", "1"]) == 1
    (tmp_path / "t.npz").unlink()
    assert cli.main([*line, "--label", "mood"]) == 1 and "no field 'mood'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing half done


def test_parquet_without_pyarrow_names_the_other_way(
    run: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow.*a name that ends in .npz does not"):
        embed(run, str(songs), tmp_path / "t.parquet")
