"""Every kernel once, for `ncu` to look at: python benchmarks/gpu_profile.py (see gpu.sh)."""

from __future__ import annotations

import torch
from materials import RATE, batch

from fastaug import LogMel, SpecAugment, functional

CLIPS = 256


def main() -> None:
    x = batch(32).repeat(CLIPS // 32, 1, 1).cuda()
    cutoffs = torch.linspace(200, 4000, CLIPS).cuda()
    high = torch.arange(CLIPS).cuda() >= CLIPS // 2
    front_end, masks = LogMel(n_fft=1024, hop_length=512, n_mels=128, sample_rate=RATE), SpecAugment()

    def everything() -> None:
        functional.gain(x, -6.0)
        functional.add_noise(x, torch.arange(CLIPS * 3, device="cuda").reshape(CLIPS, 3), snr_db=30.0)
        functional.sinc_filter(x, RATE, cutoffs, high)
        functional.butterworth(x, RATE, cutoffs, high, 1)
        functional.delay(x, RATE, 300.0)
        functional.pitch_shift(x, RATE, torch.linspace(-7, 7, CLIPS).cuda())
        functional.reverb(x, RATE, 50.0, 50.0, 70.0)
        functional.resample(x, 44_100, 22_050)
        masks(front_end(x))

    everything()  # compiles
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    everything()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main()
