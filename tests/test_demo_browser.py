"""The page of the demo in a headless Chromium: it plays, with mouse and keyboard, on wide and narrow windows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Page, browser, chromium
from fastaug.datasets.synthetic import synth
from fastaug.demo.page import write_page

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium")
PLAYERS = "[...document.querySelectorAll('.player')]"


@pytest.fixture(scope="module")
def listen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    synth(folder / "music", tracks=4, seconds=8.0, codec="mp3", seed=1, progress=False)
    return write_page(folder / "music", folder / "listen.html", clips=2)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_everything_loads_and_nothing_is_fetched(page: Page, listen: Path) -> None:
    page.requests.clear()
    page.open(listen)
    page.until("[...document.querySelectorAll('audio')].every(audio => audio.readyState >= 1)")
    durations = page.run("[...document.querySelectorAll('audio')].map(audio => audio.duration)")
    assert len(durations) == 6
    for i, seconds in enumerate(durations):
        assert seconds == pytest.approx(8.0 if i % 3 == 0 else 59_049 / 22_050, abs=0.1)
    assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert [url for url in page.requests if not url.startswith("data:")] == [listen.resolve().as_uri()]
    assert page.problems == []


def test_a_click_plays_and_another_takes_over(page: Page, listen: Path) -> None:
    page.open(listen)
    page.run(f"{PLAYERS}[1].querySelector('.play').click()")
    page.until(f"{PLAYERS}[1].querySelector('audio').currentTime > 0.5")
    assert page.run(f"{PLAYERS}[1].querySelector('.play').getAttribute('aria-label')").startswith("Pause view 1")
    assert float(page.run(f"{PLAYERS}[1].querySelector('.plot').style.getPropertyValue('--at')")) > 0.1
    page.run(f"{PLAYERS}[2].querySelector('.play').click()")
    page.until(f"{PLAYERS}[2].querySelector('audio').currentTime > 0.2")
    assert page.run(f"{PLAYERS}.map(p => !p.querySelector('audio').paused)") == [False, False, True] + [False] * 3
    assert page.run(f"{PLAYERS}[1].querySelector('.play').getAttribute('aria-label')").startswith("Play view 1")
    page.until(f"{PLAYERS}[2].querySelector('audio').paused")  # at its end, ready to be played again
    page.until(f"{PLAYERS}[2].querySelector('audio').currentTime === 0")


def test_keyboard(page: Page, listen: Path) -> None:
    page.open(listen)
    page.run(f"{PLAYERS}[0].querySelector('input').focus()")
    for _ in range(10):
        page.press("ArrowRight", 39)
    moved = page.run(f"{PLAYERS}[0].querySelector('audio').currentTime")
    assert moved == pytest.approx(0.5, abs=0.06)
    assert page.run(f"{PLAYERS}[0].querySelector('input').getAttribute('aria-valuetext')") == "0.5 of 8.0 seconds"
    page.press(" ", 32)
    page.until(f"{PLAYERS}[0].querySelector('audio').currentTime > {moved + 0.3}")
    page.press(" ", 32)
    assert page.run(f"{PLAYERS}[0].querySelector('audio').paused")


def test_the_same_moment_of_the_original(page: Page, listen: Path) -> None:
    page.open(listen)
    start, seconds = page.run("Object.values({...document.querySelector('.same').dataset}).map(Number)")
    page.run("document.querySelector('.same').click()")
    whole = f"{PLAYERS}[0].querySelector('audio')"
    page.until(f"!{whole}.paused && {whole}.currentTime >= {start}")
    page.until(f"{whole}.paused")
    assert page.run(f"{whole}.currentTime") == pytest.approx(start + seconds, abs=0.3)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (360, False)])
def test_it_looks_right(page: Page, listen: Path, width: int, dark: bool) -> None:
    """Fits the window, has readable contrast in both schemes; pictures go to FASTAUG_PICTURES for human eyes."""
    page.open(listen, width=width, dark=dark)
    assert page.run("document.scrollingElement.scrollWidth") == width
    assert page.run("getComputedStyle(document.querySelector('.views')).gridTemplateColumns.split(' ').length") == (
        1 if width < 700 else 2
    )
    paper, ink = page.run("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert contrast(paper, ink) > 10 and (luminance(paper) < 0.05) == dark
    for name in (".hint", ".facts li", ".words li", ".axis span", ".same", ".player h3 b", ".view-2 h3 b"):
        colour = page.run(f"getComputedStyle(document.querySelector('{name}')).color")
        assert contrast(paper, colour) > 4.5, f"{name}: {colour} on {paper}"
    assert (
        page.run("Math.max(...[...document.querySelectorAll('.bar')].map(bar => bar.offsetHeight))") <= 48
    )  # one line
    small = page.run("[...document.querySelectorAll('.play')].map(b => b.getBoundingClientRect().width)")
    assert min(small) >= 44  # WCAG 2.5.5, target size
    if folder := os.environ.get("FASTAUG_PICTURES"):
        Path(folder, f"listen-{width}-{'dark' if dark else 'light'}.png").write_bytes(page.picture())


def channels(colour: str) -> list[float]:
    return [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
