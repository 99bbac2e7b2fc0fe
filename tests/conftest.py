"""Fixtures and guards that every test file gets."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests share helpers: nvrtc, reference, emulation

THREADS = min(2, os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(THREADS)
    # A suite started in the background of a shell inherits "ignore Ctrl-C", and so would every process it starts.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without CUDA, tests marked gpu are skipped, or fail if FASTAUG_REQUIRE_CUDA=1 says that there must be one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("FASTAUG_REQUIRE_CUDA") == "1":
            pytest.fail("FASTAUG_REQUIRE_CUDA=1, but torch.cuda.is_available() is False", pytrace=False)
        pytest.skip("no CUDA device")


def _global_rng_state() -> str:
    """A digest of the three global generators: the library must read and write none of them."""
    state = (random.getstate(), np.random.get_state(), torch.get_rng_state().numpy().tobytes())
    return hashlib.sha256(pickle.dumps(state)).hexdigest()


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """Seeds the global generators before each test, and restores torch's thread count after it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


@pytest.fixture
def global_rng_untouched() -> Iterator[None]:
    """Fails the test if any global generator moved while it ran. Make inputs from generators of your own."""
    before = _global_rng_state()
    yield
    assert _global_rng_state() == before, "a global random generator was used"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real recordings: FASTAUG_TEST_DATA, or ../shared/data beside the checkout. Skips if absent."""
    folder = Path(os.environ.get("FASTAUG_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real recordings: {folder} does not exist (set FASTAUG_TEST_DATA)")
    return folder
