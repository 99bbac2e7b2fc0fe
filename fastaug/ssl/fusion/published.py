"""What "Multi-format Contrastive Learning for Music Genre Classification" states: its augmentation, its tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

import fastaug.transforms as T
from fastaug.ssl.checkpoint import write_whole
from fastaug.ssl.data import Dataset
from fastaug.ssl.fusion.encoders import AUDIO, FUSED, SPECTROGRAM
from fastaug.ssl.fusion.probe import BOTH, DECISION, RANDOM, Rows, cell
from fastaug.ssl.probe.results import append, of_row, where
from fastaug.ssl.probe.rows import Row

__all__ = [
    "RUNS",
    "SOURCE",
    "branch_spectrogram",
    "branch_waveform",
    "record",
    "source_tables",
    "time_mask",
    "white_noise",
    "write_tables",
]


def branch_waveform() -> T.Compose:
    """Noise, gain, filter, pitch: the ranges of gain and pitch are the source's, the rest is ours or CLMR's."""
    filters = T.HighLowPass(low_pass_hz=(2200.0, 4000.0), high_pass_hz=(200.0, 1200.0), p=0.8)
    gain, pitch = T.Gain(gain_db=(-6.0, 0.0), p=0.5), T.PitchShift(semitones=(-5.0, 5.0), p=0.6)
    return T.Compose([white_noise(), gain, filters, pitch])


def white_noise() -> T.Noise:
    """The signal-to-noise ratio and p are ours."""
    return T.Noise(snr_db=(10.0, 40.0), p=0.5)


def branch_spectrogram() -> T.Compose:
    """A frequency mask of up to 5 % (ours), a time mask of up to 10 %, noise mixed in; how much noise is ours."""
    return T.Compose([T.FrequencyMask(width=0.05), time_mask(), T.SpecNoise(std_ratio=(0.0, 0.2))])


def time_mask() -> T.TimeMask:
    """Up to 10 %, which the source found better than 5 %."""
    return T.TimeMask(width=0.1)


#: The pre-training runs that all rows need: what differs from recipes/fusion.py's settings. The two branches of a
#: "separate" run share no weight, so one run serves a row of either format.
RUNS: dict[str, dict[str, str]] = {
    "all": {},
    "crop": {"transform": "none", "spec_transform": "time_mask"},
    "noise": {"fusion": "audio", "transform": "white_noise"},
    "mtat": {"fusion": "audio"},
    "joint": {"fusion": "joint"},
    "early": {"fusion": "early"},
    "model": {"fusion": "model"},
}


@dataclass(frozen=True)
class Published:
    """A row of the source: mAP on validation, accuracy in percent, and where this toolkit finds its own number.

    ``run`` and ``row``: name of a pre-training run and of a row of ``fusion_rows``; ``valid_map`` None: not published.
    """

    table: str
    name: str
    run: str
    row: str
    valid_map: float | None = None
    accuracy: float | None = None


#: "Multi-format Contrastive Learning for Music Genre Classification", tables 1 and 2, and what it leaves untried.
SOURCE = (
    Published("Table 1, augmentation", "audio: crop only", "crop", AUDIO, 0.115, 11.1),
    Published("Table 1, augmentation", "audio: + white noise", "noise", AUDIO, 0.127, 10.3),
    Published("Table 1, augmentation", "audio: all", "all", AUDIO, 0.219, 37.7),
    Published("Table 1, augmentation", "spectrogram: time mask only", "crop", SPECTROGRAM, 0.249, 35.1),
    Published("Table 1, augmentation", "spectrogram: all", "all", SPECTROGRAM, 0.312, 48.2),
    Published("Table 2, input", "audio", "all", AUDIO, 0.269, 37.7),
    Published("Table 2, input", "audio, MTAT pre-training", "mtat", AUDIO, 0.193, 19.1),
    Published("Table 2, input", "spectrogram", "all", SPECTROGRAM, 0.312, 48.2),
    Published("Table 2, input", "audio + spectrogram", "all", BOTH, 0.340, 53.1),
    Published("not in the source", "random init, both", "all", RANDOM),
    Published("not in the source", "decision level", "all", DECISION),
    Published("not in the source", "joint cross-format loss", "joint", BOTH),
    Published("not in the source", "early fusion", "early", FUSED),
    Published("not in the source", "model-level fusion", "model", FUSED),
)


def source_tables(runs: dict[str, Rows]) -> str:
    """Tables 1 and 2 with what was measured beside what was published; ``runs``: name -> rows, missing ones allowed."""
    lines, table = [], ""
    for entry in SOURCE:
        if entry.table != table:
            table = entry.table
            lines += ["", f"{table:34}{'mAP valid':>16}{'accuracy':>16}{'segments':>16}{'published':>18}"]
        metrics = runs.get(entry.run, {}).get(entry.row)
        cells = [
            cell(metrics, "valid_map", 1.0),
            cell(metrics, "accuracy", 100.0),
            cell(metrics, "segment_accuracy", 100.0),
        ]
        published = "-" if entry.valid_map is None else f"{entry.valid_map:.3f}, {entry.accuracy:.1f}"
        lines.append(f"{entry.name:34}" + "".join(f"{cell:>16}" for cell in cells) + f"{published:>18}")
    return "\n".join([
        *lines[1:], "",
        "± standard deviation over seeds. The source has audio at .219 mAP in its table 1 and text and at .269 in its",
        "table 2, which cannot both be; its accuracies are no multiples of 1/290, so of segments or of batches, not of",
        "clips: compare the direction.",
    ])  # fmt: skip


def write_tables(file: Path, runs: dict[str, Rows]) -> str:
    """`source_tables`, written to ``file`` too, all or nothing."""
    text = source_tables(runs)
    write_whole(file, lambda partial: partial.write_text(text + "\n"))
    return text


def record(path: Path, runs: dict[str, Rows], data: Dataset, head: str, preset: str, device: torch.device) -> None:
    """Append what was measured to a file like recipes/results.csv; a run that serves both tables counts once."""
    recipe = f"fusion --tables, {head} head"
    about, run, found = (recipe, Path(preset).stem, data.name, data.protocol), where(device), []
    for entry in {(entry.run, entry.row): entry for entry in SOURCE}.values():
        row = Row(entry.name, runs.get(entry.run, {}).get(entry.row, {}))
        found += of_row(row, [metric for metric in row.values if metric != "weight"], about, run)
    append(path, found)
