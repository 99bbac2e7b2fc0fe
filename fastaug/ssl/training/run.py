"""The bookkeeping of one run: its folder, its log, and a clean stop on Ctrl-C or when the time is up."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import math
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from fastaug.codecs.quiet import quiet_decoders
from fastaug.ssl.checkpoint import MODEL, load_state, save_state, write_json, write_whole
from fastaug.ssl.config import config_hash, defaults_of

# Fields of every recipe that may differ between a run and its continuation.
_FREE = ("preset", "label", "out", "device", "steps", "minutes", "log_every", "save_minutes", "knn_crops",
         "tensorboard", "resume", "fresh")  # fmt: skip


def free_fields(cosine: bool) -> tuple[str, ...]:
    """Fields of a recipe's configuration that its continuation may change; not ``steps`` where a cosine ends there."""
    return tuple(name for name in _FREE if not (cosine and name == "steps"))


class Run:
    """An output folder: config.json (resolved configuration and environment), metrics.jsonl, last.pt, TensorBoard.

    Args:
        folder: created if absent.
        config: a dataclass instance.
        ignore: its fields that may differ between a run and its continuation (budgets, places).
        writes: False on every process but the first.
        tensorboard: also log there, if tensorboard is installed.
    """

    def __init__(
        self, folder: Path, config: Any, ignore: Sequence[str] = (), writes: bool = True, tensorboard: bool = True
    ) -> None:
        self.folder, self.writes = folder, writes
        self.hash = config_hash(config, ignore)
        self.config = dataclasses.asdict(config)
        self._defaults = defaults_of(type(config))
        self._compared = {k: v for k, v in self.config.items() if k not in ignore}
        self._board: Any = None
        self._wants_board = writes and tensorboard  # at the first number: its thread complains when a run cannot begin
        if writes:
            folder.mkdir(parents=True, exist_ok=True)

    def resume(self, required: bool = False, fresh: bool = False) -> dict[str, Any] | None:
        """The saved state to go on from, None to start anew; refuses the state of another experiment.

        Also sets torch's global generators to where they were, for dropout; all processes drew from the same state.

        Afterwards the folder describes this run: config.json is written, and log lines beyond the resumed step are cut.
        """
        if required and fresh:
            raise ValueError("--resume and --fresh exclude each other")
        state = None if fresh else load_state(self.folder, self._compared, required, self._defaults)
        if state:
            _set_random_states(state.get("random", {}))
        if self.writes:
            self._cut_log(state["step"] if state else 0)
            about = {"config": self.config, "config_hash": self.hash, "environment": environment()}
            write_json(self.folder / "config.json", about)
        return state

    def save(self, **state: Any) -> None:
        """Write last.pt; the state must hold "step". Of what has a ``state_dict()``, that is stored."""
        if self.writes:
            plain = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in state.items()}
            about = {"config_hash": self.hash, "config": self._compared, "random": _random_states()}
            save_state(self.folder, {**about, **plain})

    def log(self, step: int, **values: Any) -> None:
        """Append one line to metrics.jsonl (None values left out), and numbers to TensorBoard."""
        if not self.writes:
            return
        kept = {k: v for k, v in values.items() if v is not None}
        file = self.folder / "metrics.jsonl"
        try:
            with open(file, "a") as log:
                log.write(json.dumps({"step": step, **kept}) + "\n")
        except OSError as error:
            raise OSError(f"{file} cannot be written: {error}") from error
        if self._wants_board:
            self._show(step, kept)

    def _show(self, step: int, values: dict[str, Any]) -> None:
        """Numbers to TensorBoard, if it is installed."""
        with self._board_errors():
            self._board = self._board or _tensorboard(self.folder)
            self._wants_board = self._board is not None
            for name, value in values.items() if self._wants_board else ():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._board is not None:
            with self._board_errors():
                self._board.close()

    @contextlib.contextmanager
    def _board_errors(self) -> Iterator[None]:
        """What its writer says does not name the file."""
        try:
            yield
        except OSError as error:
            where = self.folder / "tensorboard"
            raise OSError(f"{where} cannot be written: {error}; --no-tensorboard does without") from error

    def _cut_log(self, step: int) -> None:
        file = self.folder / "metrics.jsonl"
        if file.is_file():
            kept = [line for line in file.read_text().splitlines() if step and _step(line) <= step]
            write_whole(file, lambda partial: partial.write_text("".join(line + "\n" for line in kept)))


def _step(line: str) -> float:
    """The step of a log line; infinity for one that was cut off when a process was killed."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _random_states() -> dict[str, torch.Tensor]:
    """Of torch's global generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else states


def _set_random_states(states: dict[str, torch.Tensor]) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]


def environment() -> dict[str, str]:
    """Versions and hardware, for the record."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine(), "gpu": gpu}


class Stop:
    """Says when to leave a loop early: the minutes are up, or Ctrl-C (or SIGTERM) came once.

    A second Ctrl-C interrupts at once. Use as a context manager; outside the main thread signals stay untouched.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.interrupted = False
        self._deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        with contextlib.suppress(ValueError):  # not the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def __bool__(self) -> bool:
        return self.interrupted or time.monotonic() >= self._deadline


def command_line() -> str:
    """What was typed to start this process, to be typed again; ``--fresh`` left out, as it would not resume."""
    typed = [a for a in sys.argv if a != "--fresh"]
    return " ".join(["python", *map(shlex.quote, typed)])


def report(bar: Any, shown: dict[str, Any], values: dict[str, Any]) -> None:
    """The last known values (``shown`` keeps them) beside a tqdm bar, warnings on their own line."""
    if "warning" in values:
        bar.write(values["warning"])
    shown |= {k: f"{values[k]:.3f}" for k in ("loss", "knn", "knn_roc_auc", "top1") if k in values}
    if "examples_per_second" in values:
        shown |= {
            "examples/s": f"{values['examples_per_second']:.0f}",
            "loading": f"{values.get('time_loading', 0):.0%}",
        }
    bar.set_postfix(shown)


def closing_words(out: Path, step: int, steps: int, resume_with: str, recipe: Path, own_music: str = "") -> str:
    """What there is now and what to type next; ``own_music``: the flags for real data, after a demo."""
    lines = [f"{out / MODEL}: step {step} of {steps}"]
    if step < steps:
        lines.append(f"go on:          {resume_with}")
    lines.append(f"what it knows:  python {recipe.with_name('probe.py')} --checkpoint {out}")
    if own_music:
        lines.append(f"your own music: python {recipe} {own_music}")
    return "\n".join(lines)


def guarded(main: Callable[[], object]) -> None:
    """Run a script's main: what the user can mend ends in one line, not a traceback.

    That is a wrong value, a missing file, a full disk, a loss that is no number.
    """
    try:
        with quiet_decoders():
            main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; the same command goes on: {command_line()}")


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of returning them to the system; elsewhere does nothing.

    A training step on the CPU frees and allocates the same few hundred megabytes each time; by default every one of
    those pages is unmapped, mapped and zeroed again, which took half of a SampleCNN step's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never give the top of the heap back
    mallopt(-4, 0)  # M_MMAP_MAX: no separate mappings for large blocks
