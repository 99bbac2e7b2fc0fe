"""What to read, and in which order: records out of tar shards, audio folders and lists."""

from __future__ import annotations

from fastaug.shards.mix import Mix
from fastaug.shards.order import epoch_order
from fastaug.shards.record import AUDIO_SUFFIXES, BadRecord, Record
from fastaug.shards.source import Source, open_source

__all__ = ["AUDIO_SUFFIXES", "BadRecord", "Mix", "Record", "Source", "epoch_order", "open_source"]
