"""``listen.html``: one file that lets one hear and see what an augmentation does. No network, no scripts of others."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaug.demo.clips import RATE, Clip, View, choose, make_clips
from fastaug.demo.picture import Picture, log_mel, log_mel_picture
from fastaug.transforms.base import Transform

__all__ = ["write_page"]

_TEMPLATE = Path(__file__).with_name("page.html")
_BANDS = 96
_PLAY = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="go" d="M7 4v16l13-8z"/>'
    '<path class="pause" d="M6 4h4v16H6zM14 4h4v16h-4z"/></svg>'
)


def write_page(
    data: Any,
    out: str | os.PathLike[str] = "listen.html",
    clips: int = 8,
    seed: int = 0,
    transform: Transform | None = None,
    device: torch.device | str = "cpu",
) -> Path:
    """Write one self-contained HTML page: tracks, two augmented views of each, their pictures and parameters.

    Args:
        data: what ``Pipeline`` accepts as a source: audio file or folder, folder of shards, pattern, records.
        out: the page; written whole or not at all.
        clips: number of tracks.
        seed: chooses tracks, crops and parameters.
        transform: a chain over (B, C, T); `fastaug.clmr` by default.
        device: where it runs.

    Returns:
        The page's path.

    Raises:
        ValueError, FileNotFoundError: no track of ``data`` can be read.
    """
    from fastaug.transforms import clmr

    if clips < 1:
        raise ValueError(f"clips must be at least 1, got {clips}")
    chain = transform or clmr()
    found = make_clips(choose(data, clips, seed), chain, seed, torch.device(device))
    given = str(data) if isinstance(data, str | Path) else "DATA"
    kind, _ = _encode(torch.zeros(1, 64))
    values = {
        "title": f"fastaug · {len(found)} tracks, two views each",
        "heading": f"{_count(len(found))}, two views of each",
        "hint": "Play with the round buttons; click a picture, or focus it and use the arrow keys, to move. "
        "Brighter is louder, on one scale a track; frequency is on the mel scale. Frames mark "
        "where each view was cut from.",
        "tracks": "\n".join(_track(i, clip) for i, clip in enumerate(found, 1)),
        "command": html.escape(f"fastaug listen {given} --clips {clips} --seed {seed}"),
        "chain": html.escape(str(chain)),
        "about": f"Sound here is {RATE / 1000:g} kHz mono, stored as {kind} for size; a model gets the samples.",
    }
    page = _TEMPLATE.read_text("utf-8")
    for name, value in values.items():
        page = page.replace("{{" + name + "}}", value)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, "utf-8")
    os.replace(partial, path)
    return path


def _count(tracks: int) -> str:
    return "One track" if tracks == 1 else f"{tracks} tracks"


def _track(number: int, clip: Clip) -> str:
    top = float(log_mel(clip.samples, RATE, 640, _BANDS).max())
    name, of = html.escape(clip.title), f"of track {number}, {html.escape(clip.title)}"
    spans = "".join(
        f'<div class="span view-{v}" style="left:{100 * view.start * RATE / clip.samples.shape[1]:.2f}%;'
        f'width:{100 * view.seconds * RATE / clip.samples.shape[1]:.2f}%"><b>{v}</b></div>'
        for v, view in enumerate(clip.views, 1)
    )
    whole = _player("whole", f"the original {of}", "<b>Original</b>", clip.samples, 640, top, spans, "")
    views = "\n".join(_view(v, view, of, top) for v, view in enumerate(clip.views, 1))
    return (
        f'<article class="track" aria-labelledby="t{number}">\n<h2 id="t{number}">{name}</h2>\n'
        f'{_pills(clip.facts, "facts")}\n{whole}\n<div class="views">\n{views}\n</div>\n</article>'
    )


def _view(number: int, view: View, of: str, top: float) -> str:
    name = f"Play the same moment of the original, for view {number} {of}"
    same = (
        f'<button class="same" type="button" data-start="{view.start:.3f}" data-seconds="{view.seconds:.3f}" '
        f'aria-label="{name}">same moment<span>, untouched</span></button>'
    )
    heading = f"<b>View {number}</b> <span>from {view.start:.1f} s</span>"
    player = _player(f"view-{number}", f"view {number} {of}", heading, view.samples, 320, top, "", same)
    return player.replace("</figure>", _pills(view.words or ["only cropped"], "words") + "</figure>")


def _player(
    kind: str, name: str, heading: str, samples: Tensor, width: int, top: float, inside: str, button: str
) -> str:
    picture = log_mel_picture(samples, RATE, width, _BANDS, top)
    mime, sound = _encode(samples)
    return (
        f'<figure class="player {kind}">\n<div class="bar"><button class="play" type="button" data-name="{name}" '
        f'aria-label="Play {name}">{_PLAY}</button><h3>{heading}</h3>{button}</div>\n<div class="picture">'
        f'{_frequencies(picture)}<div class="plot">'
        f'<img alt="Log-mel spectrogram of {name}: {picture.seconds:.1f} seconds, 0 to {RATE / 2000:g} kHz" '
        f'src="{_uri("image/png", picture.png)}">{inside}<div class="cursor"></div>'
        f'<input type="range" min="0" max="{picture.seconds:.3f}" step="0.05" value="0" '
        f'aria-label="Position in {name}">'
        f"</div>{_seconds(picture.seconds)}</div>\n"
        f'<audio controls preload="metadata" aria-label="{name}" src="{_uri(mime, sound)}"></audio>\n</figure>'
    )


def _frequencies(picture: Picture) -> str:
    ticks = "".join(f'<span style="bottom:{100 * at:.1f}%">{text}</span>' for text, at in picture.kilohertz if at < 0.9)
    return f'<div class="axis khz" aria-hidden="true"><span class="unit">kHz</span>{ticks}</div>'


def _seconds(seconds: float) -> str:
    step = next(s for s in (0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 1e9) if seconds / s <= 8)
    at = [i * step for i in range(int(0.92 * seconds / step) + 1)]
    ticks = "".join(f'<span style="left:{100 * t / seconds:.1f}%">{t:g}</span>' for t in at)
    return f'<div class="axis sec" aria-hidden="true">{ticks}<span class="unit">s</span></div>'


def _pills(words: Sequence[str], kind: str) -> str:
    return f'<ul class="pills {kind}">' + "".join(f"<li>{html.escape(word)}</li>" for word in words) + "</ul>"


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _encode(samples: Tensor) -> tuple[str, bytes]:
    """(MIME type, file) of samples (1, T): MP3, which every browser plays; WAV where libsndfile cannot write it."""
    import soundfile

    pcm = samples.mean(0).nan_to_num().clamp(-1, 1).numpy()
    buffer = io.BytesIO()
    if "MPEG_LAYER_III" in soundfile.available_subtypes():
        soundfile.write(buffer, pcm, RATE, format="MP3", subtype="MPEG_LAYER_III")
        return "audio/mpeg", buffer.getvalue()
    soundfile.write(buffer, pcm, RATE, format="WAV", subtype="PCM_16")
    return "audio/wav", buffer.getvalue()
