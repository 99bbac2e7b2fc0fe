"""Draws docs/assets/view.svg, the picture of the README: one moment of a synthetic track and two views of it.

python docs/make_view.py
"""

from __future__ import annotations

import base64
import html
import textwrap
from pathlib import Path

import torch

from fastaug import Keys, clmr
from fastaug.datasets.synthetic import synth_track
from fastaug.demo.clips import CROP, RATE
from fastaug.demo.picture import log_mel, log_mel_picture
from fastaug.demo.words import in_words

OUT = Path(__file__).parent / "assets" / "view.svg"
TRACK, START, KEY = 19, 4 * RATE, "view-1"
WIDTH, HEIGHT, GAP, LEFT, TOP = 268, 168, 24, 34, 30
STYLE = """
text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #57606a; }
.name { font-size: 14px; font-weight: 600; fill: #1f2328; }
.words { font-size: 13px; fill: #1f2328; }
@media (prefers-color-scheme: dark) { text { fill: #9198a1; } .name, .words { fill: #f0f6fc; } }
"""


def main() -> None:
    samples, _ = synth_track(seed=0, index=TRACK, seconds=12.0, sample_rate=RATE)
    x = torch.from_numpy(samples.T.copy()).float()[None, :, START : START + CROP] / 32768
    chain = clmr(sample_rate=RATE)
    panels = [("one moment of a track", x[0], ["2.7 s, untouched"])]
    for view in range(2):
        params = chain.draw(Keys.of(0, [KEY], view=view))
        panels.append((f"view {view + 1}", chain.apply(x, params)[0], in_words(chain, params, 0)))
    top = float(log_mel(x[0], RATE, WIDTH, 96).max())
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(svg(panels, top), encoding="utf-8")
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


def svg(panels: list[tuple[str, torch.Tensor, list[str]]], top: float) -> str:
    parts = [panel(LEFT + i * (WIDTH + GAP), *each, top) for i, each in enumerate(panels)]
    width, height = LEFT + len(panels) * (WIDTH + GAP) - GAP + 4, TOP + HEIGHT + 66
    label = "Log-mel spectrograms of one moment of a track and of two augmented views of it"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


def panel(left: int, name: str, samples: torch.Tensor, words: list[str], top: float) -> str:
    picture = log_mel_picture(samples, RATE, WIDTH, 96, top)
    bottom = TOP + HEIGHT
    parts = [
        f'<text class="name" x="{left}" y="{TOP - 10}">{html.escape(name)}</text>',
        f'<image x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{base64.b64encode(picture.png).decode()}"/>',
    ]
    for second in range(3):
        x = left + WIDTH * second / picture.seconds
        parts.append(f'<text x="{x:.0f}" y="{bottom + 15}">{second}{" s" if second == 0 else ""}</text>')
    if left == LEFT:
        for text, at in picture.kilohertz:
            parts.append(f'<text x="{left - 6}" y="{bottom - at * HEIGHT + 4:.0f}" text-anchor="end">{text}</text>')
        parts.append(f'<text x="{left - 6}" y="{bottom + 15}" text-anchor="end">kHz</text>')
    for line, text in enumerate(textwrap.wrap(", ".join(w.replace(" ", "\N{NO-BREAK SPACE}") for w in words), 40)):
        parts.append(f'<text class="words" x="{left}" y="{bottom + 38 + 18 * line}">{html.escape(text)}</text>')
    return "".join(parts)


if __name__ == "__main__":
    main()
