"""SpecAugment of one batch of log-mel spectrograms: 64 of 128 bands and 116 frames, two masks along either axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import Peer, compare
from limits import work

from fastaug.random import Keys
from fastaug.transforms import SpecAugment

ROWS, BANDS, FRAMES = 64, 128, 116


def share_of_zeros(expected: torch.Tensor, got: torch.Tensor) -> str:
    """The draws differ, so what is held side by side is how much is masked."""
    ours, theirs = (float((y == 0).float().mean()) for y in (expected, got))
    assert abs(ours - theirs) < 0.08, f"{ours:.2f} of the cells masked, the peer {theirs:.2f}"
    return f"{ours:.2f} and {theirs:.2f} of the cells masked"


def test_spec_augment(benchmark: Any, threads: int) -> None:
    x = torch.randn(ROWS, 1, BANDS, FRAMES, generator=torch.Generator().manual_seed(0))
    augment = SpecAugment(freq_width=26, time_width=23, fill=0.0)
    call = iter(range(1 << 30))

    def ours() -> torch.Tensor:
        return augment.apply(x, augment.draw(Keys.of(next(call), range(ROWS))))

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio.transforms import FrequencyMasking, TimeMasking

        # Drawn uniformly in [0, width): one more than ours, which can reach it.
        masks = [FrequencyMasking(27, True), FrequencyMasking(27, True), TimeMasking(24, True), TimeMasking(24, True)]

        def run() -> torch.Tensor:
            y = x
            for mask in masks:
                y = mask(y)
            return y

        return run

    compare(
        benchmark,
        ours,
        [Peer("torchaudio FrequencyMasking + TimeMasking, iid", "torchaudio", torchaudio, check=share_of_zeros)],
        items=ROWS,
        unit="clip",
        threads=threads,
        minimum_ratio={"torchaudio FrequencyMasking + TimeMasking, iid": 5},
        facts=work(BANDS * FRAMES, passes=2),
    )
