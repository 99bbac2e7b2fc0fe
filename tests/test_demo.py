"""The demo from start to end, small; its page as a file and in a browser; Ctrl-C and running it again."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import fastaug
from corpus import audio_folder
from fastaug import Compose, Delay, Gain, HighLowPass, Keys, Noise, OneOf, PitchShift, PolarityInversion, Reverb, clmr
from fastaug.demo import run, speed
from fastaug.demo.clips import choose
from fastaug.demo.page import write_page
from fastaug.demo.picture import log_mel_picture
from fastaug.demo.words import in_words
from fastaug.ssl.checkpoint import load_encoder

TRACKS, SECONDS = 4, 3.0
SMALL = {"tracks": TRACKS, "seconds": SECONDS, "minutes": 0.05, "device": "cpu"}


class Elements(HTMLParser):
    """(tag, attributes) of a page; void elements and nesting do not matter here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(speed, "SECONDS", 0.1)
    monkeypatch.setattr(speed, "BATCH", 2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo; said.txt beside it has what it printed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("demo") / "out"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(out=out, **SMALL) == 0
    (out.parent / "said.txt").write_text(said.getvalue())
    return out


def data(uri: str, kind: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head.startswith(f"data:{kind}/") and head.endswith(";base64")
    return base64.b64decode(body, validate=True)


def test_page_is_one_file_without_network(demo: Path) -> None:
    text = (demo / "listen.html").read_text("utf-8")
    assert not re.search(r"https?:|file:|@import|url\(|{{|//cdn", re.sub(r"base64,[\w+/=]+", "", text))
    page = Elements(text)
    for tag, attributes in page.found:
        for name in ("src", "href", "srcset", "data"):
            assert attributes.get(name, "data:").startswith("data:"), f"<{tag} {name}=...> leaves the page"
    policy = next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    assert not page.of("link") and len(text) < 6_000_000


def test_page_has_three_sounds_and_pictures_a_track(demo: Path) -> None:
    page = Elements((demo / "listen.html").read_text("utf-8"))
    assert len(page.of("article")) == TRACKS
    sounds = [fastaug.load(data(audio["src"], "audio")) for audio in page.of("audio")]
    assert len(sounds) == 3 * TRACKS
    for i, (samples, rate) in enumerate(sounds):
        assert rate == 22_050 and samples.shape[0] == 1 and samples.std() > 1e-4
        expected = SECONDS if i % 3 == 0 else 59_049 / 22_050
        assert samples.shape[1] / rate == pytest.approx(expected, abs=0.06)
    for image in page.of("img"):
        pixels = decode_png(data(image["src"], "image"))
        assert pixels.shape[0] == 96 and pixels.shape[1] > 300 and len(np.unique(pixels)) > 30
    assert len(page.of("img")) == 3 * TRACKS


def decode_png(png: bytes) -> np.ndarray:
    """Palette indices (H, W), every chunk's checksum verified."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (size,), kind = struct.unpack_from(">I", png, at), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size)[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 3) and len(chunks[b"PLTE"]) == 768 and kind == b"IEND"
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


def test_page_can_be_used_without_seeing_or_a_mouse(demo: Path) -> None:
    page = Elements((demo / "listen.html").read_text("utf-8"))
    controls = [a for tag, a in page.found if tag in ("button", "input", "audio") or (tag == "article")]
    assert all(a.get("aria-label") or a.get("aria-labelledby") for a in controls)
    labels = [a["aria-label"] for a in page.of("button") + page.of("input")]
    assert len(set(labels)) == len(labels), "two controls have one name"
    assert all(image["alt"] for image in page.of("img")) and page.of("html")[0]["lang"] == "en"
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(set(ids)) == len(ids)


def test_page_tells_what_is_known_and_what_was_done(demo: Path) -> None:
    text = html.unescape((demo / "listen.html").read_text("utf-8"))
    for fact in (" bpm<", " minor<", " kHz, mono<", "Log-mel spectrogram", ">kHz<", ">s<", "Two views are"):
        assert fact in text, fact
    chain = clmr(sample_rate=22_050)
    records = choose(demo / f"corpus-{TRACKS}x{SECONDS:g}s-0", 8, 0)
    lists = re.findall(r'<ul class="pills words">(.*?)</ul>', text)
    told = [re.findall(r"<li>(.*?)</li>", part) for part in lists]
    drawn = [[in_words(chain, chain.draw(Keys.of(0, [r.key], view=v)), 0) for v in range(2)] for r in records]
    assert told == [words or ["only cropped"] for pair in drawn for words in pair]


def test_training_and_table(demo: Path) -> None:
    (folder,) = demo.glob("clmr-*")
    encoder, card = load_encoder(folder)
    assert card["step"] >= 1 and all(weight.isfinite().all() for weight in encoder.state_dict().values())
    said = (demo.parent / "said.txt").read_text()
    for row in ("random init", "pre-trained", "log-mel statistics"):
        assert re.search(rf"^{row}.* \d+\.\d ± \d+\.\d \(", said, flags=re.MULTILINE), said
    order = ["device", "data", "folder", "music", "open this in a browser", "speed", "train", "table", "Your own music"]
    places = [said.index(word) for word in order]
    assert places == sorted(places) and "minutes on" in said[places[-2] :]


def test_second_run_reuses_the_corpus(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus,) = demo.glob("corpus-*")
    before = {path: path.stat().st_mtime_ns for path in corpus.iterdir()}
    page = (demo / "listen.html").read_bytes()
    began = time.monotonic()
    assert run(out=demo, **{**SMALL, "minutes": 0}) == 0
    said = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in corpus.iterdir()} == before
    assert "is there already" in said and "synthesising" not in said and time.monotonic() - began < 30
    assert (demo / "listen.html").read_bytes() == page, "the same command gives another page"
    assert re.search(r"speed  [\d,]+ clips/s .* [\d,]+ from encoded files on", said)
    assert str((demo / "listen.html").resolve()) in said and "demo --data ~/Music" in said


def test_other_music_is_made_when_the_description_does_not_fit(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus,) = demo.glob("corpus-*")
    card = json.loads((corpus / "dataset.json").read_text())
    (corpus / "dataset.json").write_text(json.dumps({**card, "seed": 9}))
    assert run(out=demo, **{**SMALL, "minutes": 0}) == 0
    assert "synthesising" in capsys.readouterr().out
    assert json.loads((corpus / "dataset.json").read_text()) == card


def environment() -> dict[str, str]:
    """For a process that imports the same fastaug."""
    path = os.pathsep.join([str(Path(fastaug.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("when", ["synthesising", "step/s"])
def test_ctrl_c_keeps_files_and_says_how_to_go_on(when: str, tmp_path: Path) -> None:
    many = when == "synthesising"
    flags = ["--tracks", "64" if many else "4", "--seconds", "20" if many else "3", "--minutes", "5", "--device", "cpu"]
    command = [sys.executable, "-m", "fastaug.cli", "demo", "--out", "out", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes)  # type: ignore[call-overload]
    assert process.stdout is not None
    said = b""
    while when.encode() not in said:
        piece = process.stdout.read1(4096)
        assert piece, said.decode()
        said += piece
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    text = (said + rest).decode()
    assert process.returncode == 130, text
    assert "Traceback" not in text and "To go on:" in text
    line = text.partition("To go on:")[2].split("\n")[0]
    for flag in ("--out out", f"--tracks {flags[1]}", f"--seconds {flags[3]}", "--minutes 5", "--device cpu"):
        assert flag in line or flag == "--seconds 30"
    if not many:
        assert (tmp_path / "out" / "listen.html").is_file() and list(tmp_path.glob("out/clmr-*/last.pt"))
        assert "listen.html" in text.partition("Made so far:")[2]


def test_own_folder_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Odd names, a file that is no audio, no sub-folders: everything but the table."""
    folder = tmp_path / "my <music> & more"
    audio_folder(folder)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())[:3]):
        shutil.copy(path, flat / f'{i} "<b>" & é{path.suffix}')
    (flat / "notes.wav").write_text("not a sound")
    assert run(data=str(flat), out=tmp_path / "out", minutes=0.02, device="cpu") == 0
    said = capsys.readouterr().out
    assert "table  left out" in said and "synthes" not in said
    text = (tmp_path / "out" / "listen.html").read_text("utf-8")
    assert len(Elements(text).of("article")) == 3 and '"<b>"' not in text and "&lt;b&gt;" in text


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("not a sound")
    with pytest.raises(ValueError, match=r"no track can be read.*notes\.wav"):
        write_page(tmp_path, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()
    with pytest.raises(ValueError, match="minutes"):
        run(out=tmp_path / "out", minutes=-1)


def test_words() -> None:
    effects = [PolarityInversion(), Noise(std_ratio=0.004), Gain(gain_db=-12.3)]
    effects += [HighLowPass(low_pass_hz=2900.0, high_pass_hz=641), Delay(delay_ms=350.0), PitchShift(semitones=-3.2)]
    chain = Compose([*effects, Reverb(reverberance=61.0)])
    keys = Keys.of(0, list(range(8)))
    params = chain.draw(keys)
    high = params["3"]["highpass"].tolist()
    assert any(high) and not all(high)
    for row in range(8):
        filtered = "high-pass 641 Hz" if high[row] else "low-pass 2.9 kHz"
        expected = ["polarity flipped", "noise at 0.4 % of the level", "gain −12.3 dB", filtered]
        assert in_words(chain, params, row) == [*expected, "delay 350 ms", "pitch −3.2 st", "reverb 61 %"]
    either = OneOf([PitchShift(semitones=2.0), Noise(snr_db=20.0)])
    phrases = {tuple(in_words(either, either.draw(keys), row)) for row in range(8)}
    assert phrases == {("pitch +2.0 st",), ("noise −20.0 dB",)}
    assert in_words(Gain(gain_db=-0.01), Gain(gain_db=-0.01).draw(Keys.of(0, [0])), 0) == ["gain 0.0 dB"]
    assert in_words(Gain(p=0.0), Gain(p=0.0).draw(Keys.of(0, [0])), 0) == []


def test_picture_shows_the_tone_where_the_axis_says() -> None:
    for hz, label in ((1000, "1"), (4000, "4")):
        tone = torch.sin(2 * torch.pi * hz * torch.arange(22_050) / 22_050)[None]
        picture = log_mel_picture(tone, 22_050, width=100, bands=96)
        pixels = decode_png(picture.png)
        row = pixels.astype(np.float64).sum(1).argmax()
        at = dict(picture.kilohertz)[label]
        assert abs((1 - (row + 0.5) / 96) - at) < 2 / 96 and picture.seconds == 1.0


def test_only_the_chatter_of_the_decoder_is_kept_back() -> None:
    """In a process of its own, where file descriptor 2 is really Python's stderr."""
    script = """if True:
        import os, sys
        from fastaug.codecs.quiet import quiet_decoders
        with quiet_decoders():
            os.write(2, b"[src/libmpg123/layer3.c:1] error: part2_3_length\\n\\nNote: Trying to resync...\\n")
            os.write(2, b"something else\\n")
            print("from Python", file=sys.stderr)
        os.write(2, b"[src/libmpg123/ afterwards\\n")
        print("and Python", file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert sorted(lines[:2]) == ["from Python", "something else"]
    assert lines[2:] == ["[src/libmpg123/ afterwards", "and Python"]
