"""What to read, and in which order: records out of tar shards, audio folders and lists."""

from __future__ import annotations

from fastaug.shards.idx import write_index
from fastaug.shards.mix import Mix
from fastaug.shards.opening import open_source
from fastaug.shards.order import epoch_order
from fastaug.shards.record import AUDIO_SUFFIXES, BadRecord, Record
from fastaug.shards.source import Source

__all__ = ["AUDIO_SUFFIXES", "BadRecord", "Mix", "Record", "Source", "epoch_order", "open_source", "write_index"]
