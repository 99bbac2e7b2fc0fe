"""The presets against the table in docs/presets.md, row by row, and against what their sources amount to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import fastaug.transforms as T
from fastaug.random import Keys

TABLE = Path(__file__).parents[1] / "docs" / "presets.md"
PRESETS = {"clmr_v2": T.clmr_v2, "clmr_thesis": T.clmr_thesis, "clmr_v1": T.clmr_v1, "clmr_book": T.clmr_book}


def rows() -> list[tuple[str, str, float, str, str]]:
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| clmr_") and len(cells) == 5:
            found.append((cells[0], cells[1], float(cells[2]), cells[3].strip("`"), cells[4]))
    return found


def test_the_table_is_the_code() -> None:
    table = rows()
    assert {row[0] for row in table} == set(PRESETS) and all(row[4] for row in table), "every row names its source"
    for name, preset in PRESETS.items():
        documented = [
            eval(f"T.{step}({drawn + ', ' if drawn else ''}p={p})") for n, step, p, drawn, _ in table if n == name
        ]
        chain = preset()
        assert [repr(step) for step in documented] == [repr(step) for step in chain.transforms], name
        assert documented == list(chain.transforms), name


def test_clmr_is_v2() -> None:
    assert T.clmr is T.clmr_v2
    probabilities = [step.p for step in T.clmr().transforms]
    assert probabilities == [0.8, 0.01, 0.3, 0.8, 0.3, 0.6, 0.6]  # CLMR config/config.yaml


@pytest.mark.parametrize("preset", PRESETS.values())
def test_arguments(preset) -> None:  # type: ignore[no-untyped-def]
    chain = preset(22_050, 2000)
    assert chain.sample_rate == 22_050 and chain.transforms[0] == T.RandomCrop(samples=2000)
    assert list(chain.transforms[1:]) == list(preset().transforms)
    first, second = chain.views(0.1 * torch.randn(3, 1, 5000), 2)
    assert first.shape == second.shape == (3, 1, 2000) and not torch.equal(first, second)


def test_draws_lie_in_the_documented_ranges() -> None:
    params = T.clmr().draw(Keys.of(0, range(20_000)))
    assert set(params["4"]["delay_ms"].tolist()) == {200, 250, 300, 350, 400, 450}
    assert set(params["6"]["reverberance"].tolist()) == set(range(100))
    cents = params["5"]["semitones"].double() * 100
    assert (cents - cents.round()).abs().max() < 1e-4 and cents.round().aminmax() == (-700, 700)
    v1 = T.clmr_v1().draw(Keys.of(0, range(20_000)))
    assert set(v1["2"]["gain_db"].tolist()) == set(range(-20, 0))
    assert set(v1["6"]["room_scale"].tolist()) == set(range(1, 101))
    assert not v1["1"]["active"].any()


GOLDEN = {
    "0:active": True,
    "1:active": False,
    "1:std_ratio": 0.004132852889597416,
    "2:active": False,
    "2:gain_db": -9.965882301330566,
    "3:active": False,
    "3:highpass": False,
    "3:cutoff_hz": 3167.3896484375,
    "4:active": True,
    "4:delay_ms": 400.0,
    "4:factor": 0.5,
    "5:active": False,
    "5:semitones": -1.9800000190734863,
    "6:active": True,
    "6:reverberance": 67.0,
    "6:hf_damping": 39.0,
    "6:room_scale": 82.0,
    "6:stereo_depth": 100.0,
    "6:pre_delay_ms": 0.0,
    "6:wet_gain_db": 0.0,
}


def test_golden_draw() -> None:
    """Fixed for good: a change of any stream name, preset or generator shows here."""
    params = T.clmr().draw(Keys.of(0, ["train-000000.tar/song"], epoch=1, view=1))
    drawn = {f"{i}:{n}": v.item() for i in "0123456" for n, v in params[i].items() if v.dim() == 1}
    assert drawn == pytest.approx(GOLDEN, rel=1e-6)


def test_draw_is_cheap() -> None:
    chain, keys = T.clmr(), Keys.cat([Keys.of(0, range(256), view=v) for v in range(2)])
    chain.draw(keys)
    best = min(_seconds(lambda: chain.draw(keys)) for _ in range(7))
    assert best < 0.02, f"{1000 * best:.1f} ms for 2 x 256 rows; about 3 ms on one idle core"


def _seconds(call) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
