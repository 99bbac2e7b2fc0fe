"""What fastaug is asked to reach, one row each, and where the results say whether it does.

The measured numbers come from the results' JSON alone; a case that is not in it makes its row "not yet measured". What
no timing can show names the test that shows it. A case's own ``minimum_ratio`` is another thing: the floor below which
the benchmark run fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Case = dict[str, Any]
Readings = dict[str, float]  # what was varied ("1 thread, flac") → the measured number
Read = Callable[[list[Case]], Readings]

TA, AM = "torch-audiomentations", "audiomentations"
SUBJECTS = ("", "", "effects and chain", "WAV and FLAC", "MP3", "loading", "time-frequency", "", "training")


@dataclass(frozen=True)
class Target:
    """Args:
    part: which part of the work asks for it; see `SUBJECTS`.
    words: what is asked.
    read: finds the measured numbers; None where a test shows the target instead.
    at_least, at_most: the limit; neither: the number is asked for, whatever it is.
    unit: behind the measured numbers.
    test: "tests/test_x.py::test_y", which fails where the target is missed; another file is run by hand.
    """

    part: int
    words: str
    read: Read | None = None
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"
    test: str = ""

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


def ratio(suite: str, name: str, *peers: str) -> Read:
    """The times of the fastest of ``peers`` over ours, of every variant of a case; ``name`` is a regular expression."""

    def read(cases: list[Case]) -> Readings:
        found = {}
        for case in chosen(cases, suite, name):
            rows = [peer for peer in case["peers"] if peer["name"] in peers and "ratio" in peer]
            if len(rows) == len(peers):
                found[variant(case)] = min(row["ratio"] for row in rows)
        return found

    return read


def seconds(suite: str, name: str, scale: float = 1.0) -> Read:
    """Our time per item, times ``scale``."""
    return lambda cases: {variant(case): scale * case["ours"]["best"] for case in chosen(cases, suite, name)}


def fact(suite: str, name: str, key: str) -> Read:
    """A number that the case recorded; with the date, where it is not of the run itself."""
    return lambda cases: {
        variant(case) or case.get("date", ""): case[key] for case in chosen(cases, suite, name) if key in case
    }


def chosen(cases: list[Case], suite: str, name: str) -> list[Case]:
    return [case for case in cases if case["suite"] == suite and re.fullmatch(name, case["case"])]


def variant(case: Case) -> str:
    """ "1 thread", and what else stands between the brackets of the case's name."""
    _, _, inside = case["case"].rstrip("]").partition("[")
    words = [re.sub(r"^(\d+)thread(s?)$", r"\1 thread\2", word) for word in inside.split("-") if word]
    return ", ".join(words)


EFFECTS = (
    Target(2, f"high- and low-pass (FIR) at least 10 times as fast as {TA}",
           ratio("effects", r"high_low_pass\[.*", f"{TA} LowPassFilter, HighPassFilter"), 10),
    Target(2, "first-order IIR at least 2 times as fast as pedalboard",
           ratio("effects", r"butterworth\[.*-1\]", "pedalboard LowpassFilter, HighpassFilter"), 2),
    Target(2, "reverb at least 4 times as fast as pedalboard",
           ratio("effects", r"reverb\[.*", "pedalboard Reverb"), 4),
    Target(2, "reverb at least 8 times as fast as sox", ratio("effects", r"reverb\[.*", "sox reverb"), 8),
    Target(2, f"pitch shift at least 20 times as fast as {AM}",
           ratio("effects", r"pitch\[.*", f"{AM} PitchShift (signalsmith)"), 20),
    Target(2, "pitch shift at least 8 times as fast as sox", ratio("effects", r"pitch\[.*", "sox pitch"), 8),
    Target(2, f"pitch shift at least 100 times as fast as {TA}",
           ratio("effects", r"pitch\[.*", f"{TA} PitchShift"), 100),
    Target(2, "44.1 to 22.05 kHz at least 5 times as fast as torchaudio",
           ratio("effects", r"resample\[.*-44100-22050\]", "torchaudio Resample"), 5),
    Target(2, "44.1 to 22.05 kHz no slower than soxr HQ (goal 1.2)",
           ratio("effects", r"resample\[.*-44100-22050\]", "soxr HQ"), 1),
    Target(2, f"the chain without delay and reverb at least 50 times as fast as {TA}",
           ratio("chain", r"clmr_two_views_without_delay_and_reverb\[.*", TA), 50),
    Target(2, "the whole chain at least 8 times as fast as one of sox and pedalboard (goal 10)",
           ratio("chain", r"clmr_two_views\[.*", "pedalboard, sox for pitch"), 8),
    Target(2, "eight transforms of 256 clips of one sample, one thread, under 1 ms",
           seconds("chain", r"eight_transforms_of_one_sample\[1thread\]", 1e3), at_most=1, unit=" ms"),
    Target(2, "memory beside the input at most 3 times the batch",
           fact("chain", r"peak_memory", "batches"), at_most=3, unit=" batches"),
    Target(2, "reverb equals the sox command line within 1e-6", test="tests/test_ops_reverb.py::test_equals_sox"),
    Target(2, "time stretch equals sox tempo within 1e-6",
           test="tests/test_ops_wsola.py::test_time_stretch_equals_sox_tempo"),
    Target(2, "pitch shift agrees with sox pitch to 80 dB in band",
           test="tests/test_ops_wsola.py::test_pitch_shift_equals_sox_pitch_in_band"),
    Target(2, "FIR equals julius within 1e-6", test="tests/test_ops_fir.py::test_equals_julius"),
    Target(2, "IIR agrees with scipy in float64 to 110 dB, from 20 Hz at 48 kHz",
           test="tests/test_ops_iir.py::test_equals_scipy"),
    Target(2, "CUDA kernels compile for four architectures without spills",
           test="tests/test_nvrtc.py::test_compiles_without_spills_or_local_memory"),
    Target(2, "the same source emulated on the CPU: no race in either order of the threads, sectors counted",
           test="tests/test_emulation.py"),
    Target(2, "on a GPU, CUDA agrees with the CPU: failures of `pytest -m gpu`", fact("gpu_tests", "all", "failed"),
           at_most=0, unit=""),
    Target(2, "on a GPU, each kernel within 4 times its floor (goal)",
           fact("gpu", r"(gain|noise|high_low_pass|butterworth\[.*|resample|delay|pitch|reverb|clmr_view)",
                "floor_multiple"), at_most=4, unit=" x the floor"),
    Target(2, f"on a GPU, the chain at least 100 times as fast as {TA} (goal)",
           ratio("gpu", "clmr_view_without_delay_and_reverb", TA), 100),
)  # fmt: skip


def crop_targets(part: int, codec: str, least: float, torchcodec: float | None) -> list[Target]:
    name, shown = rf"crop\[.*-{codec}\]", codec.upper()
    targets = [Target(part, f"a crop of {shown} at least {least:g} times as fast as soundfile's range and soxr HQ"
                      + (" (goal 5)" if least < 5 else ""),
                      ratio("decode", name, "soundfile range + soxr HQ"), least)]  # fmt: skip
    if torchcodec:
        words = f"a crop of {shown} at least {torchcodec:g} times as fast as torchcodec"
        targets.append(Target(part, words, ratio("decode", name, "torchcodec range"), torchcodec))
    words = f"crops of {shown}: two threads at least 1.8 times as fast as one"
    targets.append(Target(part, words, ratio("decode", rf"crop\[2threads-{codec}\]", "fastaug on one thread"), 1.8))
    return targets


WHOLE = ("soundfile (libsndfile)", "miniaudio (dr_mp3, dr_flac)")
DECODING = (
    *crop_targets(3, "flac", 3.5, 10),
    *crop_targets(3, "wav", 5, None),
    Target(3, "whole FLAC files at least 1.2 times as fast as the faster of libsndfile and miniaudio",
           ratio("decode", r"whole\[.*-flac\]", *WHOLE), 1.2),
    Target(3, "FLAC is bit-exact against flac", test="tests/test_flac.py::test_bit_exact_against_the_encoder"),
    Target(3, "10,000 ranges of FLAC equal slices of the whole", test="tests/test_flac.py::test_ten_thousand_ranges"),
    Target(3, "FLAC is bit-exact in the emulation of its kernels",
           test="tests/test_decode_cuda.py::test_flac_of_the_encoder"),
    Target(3, "WAV equals libsndfile", test="tests/test_wav.py::test_every_kind_as_libsndfile_reads_it"),
    Target(3, "30 CPU-minutes of fuzzing WAV and FLAC without a finding", test="tests/fuzz/run.sh"),
    Target(3, "ranges of WAV equal slices of the whole", test="tests/test_wav.py::test_ranges_are_slices"),
    Target(3, "a resampled range is the range of the resampled whole",
           test="tests/test_decode_batch.py::test_ranges_of_flac_at_every_rate"),
    Target(3, "every odd and broken file decodes or says why",
           test="tests/test_real_data.py::test_odd_and_broken_files_decode_or_say_why"),
    Target(3, "on a GPU, 256 crops of WAV or FLAC from pinned bytes in at most 3 ms",
           seconds("gpu", r"decode_from_pinned_bytes\[(wav|flac)\]", 256e3), at_most=3, unit=" ms"),
    *crop_targets(4, "mp3", 3.5, 10),
    Target(4, "whole MP3 files no slower than the fastest of mpg123, miniaudio and libsndfile (goal 1.3)",
           ratio("decode", r"whole\[.*-mp3\]", "libmpg123", *WHOLE), 1),
    Target(4, "MP3 equals mpg123: rms below 8.8e-6", test="tests/test_mp3.py::test_equals_mpg123"),
    Target(4, "MP3 equals libsndfile", test="tests/test_mp3.py::test_equals_libsndfile"),
    Target(4, "random ranges of MP3 equal slices",
           test="tests/test_mp3.py::test_a_thousand_random_ranges_equal_slices"),
    Target(4, "intensity stereo and mixed blocks of granules made by hand",
           test="tests/test_mp3_frames.py::test_intensity_of_mpeg_1"),
    Target(4, "the kernels of MP3, emulated, within 1e-6 of the CPU",
           test="tests/test_mp3_cuda.py::test_samples_are_close_to_the_cpu_decoder"),
    Target(4, "60 CPU-minutes of fuzzing MP3 without a finding", test="tests/fuzz/run.sh"),
    Target(4, "on a GPU, 256 crops of MP3, 128k and 320k, from pinned bytes in at most 3 ms",
           seconds("gpu", r"decode_from_pinned_bytes\[mp3-.*", 256e3), at_most=3, unit=" ms"),
)  # fmt: skip

LOADING = (
    Target(5, "a tar scan at least 4 times as fast as webdataset", ratio("loading", r"tar_scan\[.*", "webdataset"), 4),
    Target(5, "MP3 in tar to two CLMR views, batch 256, at least 10 times as fast as webdataset and the fastest peers",
           ratio("loading", r"two_views\[.*-clmr-256\]", "webdataset + soundfile + soxr, whole file",
                 "webdataset + soundfile + soxr, only the crops"), 10),
    Target(5, "Pipeline within 10 % of decode and augment alone (their time over its: at least 0.91)",
           ratio("loading", r"pipeline_beside_its_parts\[.*", "decode + augment alone"), 0.909),
    Target(5, "anonymous memory flat over 200,000 clips: grows by at most 2 % (`benchmarks/memory.py`, minutes)",
           fact("memory", "long_run", "growth_percent"), at_most=2, unit=" %"),
    Target(5, "1 % corrupt members of six kinds in 20,000: each listed with its reason, no other lost",
           test="tests/test_errors.py::test_one_per_cent_corrupt"),
    Target(5, "every trap of webdataset is passed", test="tests/test_webdataset_traps.py"),
    Target(5, "killed at many points, everything is delivered as if never killed",
           test="tests/test_resume.py::test_killed_at_many_points_everything_is_delivered_as_if_never_killed"),
    Target(5, "the readers together read the set, each record once",
           test="tests/test_order.py::test_readers_cover_the_set_with_no_more_repeats_than_equal_steps_need"),
    Target(5, "10,000 shards on 512 ranks of 8 workers: exact cover",
           test="tests/test_order.py::test_ten_thousand_shards_on_512_ranks_of_8_workers"),
    Target(5, "on a GPU, at most 5 % idle while SampleCNN trains at batch 256",
           fact("gpu_training", r"idle_share_while_training.*", "idle_percent"), at_most=5, unit=" %"),
)  # fmt: skip

FRONT_ENDS = (
    Target(6, "LogMel at least 3 times as fast as torchaudio",
           ratio("features", r"logmel\[.*", "torchaudio MelSpectrogram + AmplitudeToDB"), 3),
    Target(6, "LogMel at least 8 times as fast as nnAudio",
           ratio("features", r"logmel\[.*", "nnAudio MelSpectrogram"), 8),
    Target(6, "LogMel at least 10 times as fast as librosa",
           ratio("features", r"logmel\[.*", "librosa melspectrogram + power_to_db"), 10),
    Target(6, "the share of the FFT in LogMel (told, no limit)", fact("features", "share_of_the_fft", "fft_share"),
           unit=" of its time"),
    Target(6, "SpecAugment at least 5 times as fast as torchaudio's masks",
           ratio("masks", r"spec_augment\[.*", "torchaudio FrequencyMasking + TimeMasking, iid"), 5),
    Target(6, "librosa's parity over a matrix of sizes, scales and norms",
           test="tests/test_frontend_parity.py::test_librosa"),
    Target(6, "torchaudio's parity over the same matrix", test="tests/test_frontend_parity.py::test_torchaudio"),
    Target(6, "SpecAugment's statistics are those of its definition",
           test="tests/test_spec.py::test_widths_and_places_are_uniform"),
    Target(6, "on a GPU, LogMel and SpecAugment as a multiple of the bandwidth floor (told, no limit)",
           fact("gpu", r"logmel.*", "floor_multiple"), unit=" x the floor"),
)  # fmt: skip

TARGETS = (*EFFECTS, *DECODING, *LOADING, *FRONT_ENDS)


def table(cases: list[Case]) -> list[str]:
    """Lines of Markdown: every target, what was measured, and whether that meets it."""
    lines = ["| subject | target | measured | met |", "|---|---|---|---|"]
    for target in TARGETS:
        measured, met = verdict(target, cases)
        lines.append(f"| {SUBJECTS[target.part]} | {target.words} | {measured} | {met} |")
    return lines


def tally(cases: list[Case]) -> str:
    """How many of the targets that can be measured are met, in a sentence."""
    limited = [t for t in TARGETS if t.read is not None and (t.at_least is not None or t.at_most is not None)]
    found = [(target, target.read(cases)) for target in limited if target.read is not None]
    measured = [(target, readings) for target, readings in found if readings]
    met = sum(all(map(target.met, readings.values())) for target, readings in measured)
    return (
        f"{met} of {len(measured)} measured targets are met in every variant; {len(limited) - len(measured)} are not "
        f"yet measured; {sum(t.read is None for t in TARGETS)} are shown by tests."
    )


def verdict(target: Target, cases: list[Case]) -> tuple[str, str]:
    """The last two cells of a target's row."""
    if target.read is None:
        return f"shown by `{target.test}`", "in `make test`" if "test_" in target.test else "by hand"
    readings = target.read(cases)
    if not readings:
        return "not yet measured", "–"
    common = set.intersection(*(set(what.split(", ")) for what in readings)) if len(readings) > 1 else set()
    named = {", ".join(word for word in what.split(", ") if word not in common): v for what, v in readings.items()}
    said = "; ".join(f"{shorten(value)}{target.unit}" + (f" ({what})" if what else "") for what, value in named.items())
    if target.at_least is None and target.at_most is None:
        return said, "–"
    good = [target.met(value) for value in readings.values()]
    return said, "yes" if all(good) else "**no**" if not any(good) else f"**{sum(good)} of {len(good)}**"


def shorten(value: float) -> str:
    """Three digits: with two, 7.96 would seem to meet 8."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
