"""Batches decoded by a CUDA device on a stream of their own, and their hand-over to the caller's stream.

The host's part (read, probe, find frames, fill a pinned buffer), the copy and the decoding kernels of a batch run while
the caller's stream augments, or trains on, an earlier one. Nothing but an event joins the two.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fastaug.batch import Batch, Place
from fastaug.loader import Loader
from fastaug.tasks import Part, Task, Way

__all__ = ["Arrival", "load_on_device"]

_mine = threading.local()


@dataclass
class Arrival:
    """A batch on a device, and when it is there.

    Attributes:
        event: recorded behind the work that makes it; None on the CPU, where tests run kernels in emulation.
    """

    found: Batch | Part
    event: torch.cuda.Event | None

    def take(self) -> Batch | Part:
        """The batch, for use on the current stream: work queued there from now on waits for it, the caller does not."""
        if self.event is not None and isinstance(self.found, Batch):
            audio = self.found.audio
            stream = torch.cuda.current_stream(audio.device)
            stream.wait_event(self.event)
            audio.record_stream(stream)  # freed memory goes back to the other stream only when this one is through
        return self.found


def load_on_device(loader: Loader, tasks: Sequence[Task], place: Place, way: Way) -> Arrival:
    """Load a batch with the decoding kernels of ``way.device``.

    Waits, in this thread, until the device has decoded it, to decode on the CPU what it refused.
    """
    if way.device is None or way.device.type != "cuda":
        return Arrival(loader.load_batch(tasks, place, way), None)
    with torch.cuda.device(way.device), torch.cuda.stream(_stream(way.device)):
        found = loader.load_batch(tasks, place, way)
        event = torch.cuda.Event()
        event.record()
    return Arrival(found, event)


def _stream(device: torch.device) -> torch.cuda.Stream:
    """This thread's stream. It comes before the caller's: a batch needs few milliseconds, but is waited for."""
    streams = _mine.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device, priority=-1)
    return streams[device]  # type: ignore[no-any-return]
