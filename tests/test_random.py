"""Philox against published vectors, golden draws, and what the statistics of draws must be."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
import random
import zlib

import numpy as np
import pytest
import torch

from fastaug.random import Keys, philox4x32, sample_id, stream_id

# Random123 1.14, kat_vectors, "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox_in_plain_python(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 as the paper writes it, one word at a time."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return tuple(c)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: tuple, key: tuple, expected: tuple) -> None:
    assert tuple(int(word) for word in philox4x32(counter, key)) == expected
    assert philox_in_plain_python(counter, key) == expected


def test_philox_arrays_equal_scalars() -> None:
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 1 << 32, (50, 4), dtype=np.uint64)
    keys = rng.integers(0, 1 << 32, (50, 2), dtype=np.uint64)
    together = np.stack(philox4x32(counters.T, keys.T), axis=-1)
    for row in range(50):
        expected = philox_in_plain_python(tuple(map(int, counters[row])), tuple(map(int, keys[row])))
        assert tuple(map(int, together[row])) == expected


def test_definitions_of_ids_streams_and_subkeys() -> None:
    assert sample_id("a/ü") == int.from_bytes(hashlib.blake2b("a/ü".encode()).digest()[:8], "little")
    assert stream_id("transform/4/0:cutoff_hz") == zlib.crc32(b"transform/4/0:cutoff_hz")
    seed, key, epoch, view, occurrence = 0x123456789ABCDEF0, "train-000000.tar/x", 7, 1, 3
    identity = sample_id(key)
    counter = (identity & 0xFFFFFFFF, identity >> 32, epoch, view | occurrence << 8)
    subkey = philox_in_plain_python(counter, (seed & 0xFFFFFFFF, seed >> 32))[:2]
    keys = Keys.of(seed, [key], epoch, view, occurrence).child(4).child(0)
    assert tuple(map(int, keys.rows[0])) == subkey
    expected = philox_in_plain_python((5, 0, stream_id("transform/4/0:cutoff_hz"), 2), subkey)
    assert tuple(keys.words("cutoff_hz", block=5, channel=2)[0].tolist()) == expected


def test_copies_of_keys_know_where_their_own_rows_lie() -> None:
    keys = Keys.of(1, np.arange(20, dtype=np.uint64)[::2]).child(2)
    reversed_rows = dataclasses.replace(keys, rows=keys.rows[::-1])
    for copied in (pickle.loads(pickle.dumps(keys)), copy.deepcopy(keys), copy.copy(keys), reversed_rows, keys):
        assert copied.path == keys.path and copied._at == copied.rows.ctypes.data
    drawn = keys.uniform("x", 0.0, 1.0)
    assert torch.equal(pickle.loads(pickle.dumps(keys)).uniform("x", 0.0, 1.0), drawn)
    assert torch.equal(reversed_rows.uniform("x", 0.0, 1.0), drawn.flip(0))
    assert torch.equal(Keys.of(1, range(0, 20, 2)).child(2).uniform("x", 0.0, 1.0), drawn)


GOLDEN = {
    "rows": [[3059071060, 1603414274], [2092763516, 1001825604], [576937128, 2421256748]],
    "words": [2797977593, 1831458523, 2959005205, 152885624],
    "uniform": [-2.091270923614502, -1.9281889200210571, -4.578669548034668],
    "integers": [326, 690, 536],
    "choice": [250.0, 300.0, 300.0],
    "permutation": [[1, 3, 4, 0, 2], [4, 3, 2, 0, 1], [3, 0, 4, 2, 1]],
}


def test_golden_values() -> None:
    """Fixed for ever: changing one of these changes everybody's experiments."""
    keys = Keys.of(1, ["a", "b", "c"], epoch=2, view=1)
    assert keys.rows.tolist() == GOLDEN["rows"]
    assert keys.words("gain_db").tolist()[0] == GOLDEN["words"]
    assert keys.uniform("gain_db", -6.0, 0.0).tolist() == GOLDEN["uniform"]
    assert keys.integers("start", 0, 1000).tolist() == GOLDEN["integers"]
    assert keys.choice("delay_ms", [200, 250, 300]).tolist() == GOLDEN["choice"]
    assert keys.permutation("order", 5).tolist() == GOLDEN["permutation"]


def test_draws_do_not_depend_on_batch_mates_or_order() -> None:
    names = [f"clip {i}" for i in range(64)]
    together = Keys.of(3, names).uniform("x", 0, 1)
    alone = torch.cat([Keys.of(3, [name]).uniform("x", 0, 1) for name in reversed(names)]).flip(0)
    assert torch.equal(together, alone)


def test_every_part_of_the_key_changes_the_draw() -> None:
    def draw(seed: int = 0, key: str = "k", epoch: int = 0, view: int = 0, occurrence: int = 0, path: str = "t") -> int:
        return int(Keys.of(seed, [key], epoch, view, occurrence, path).words("p")[0, 0])

    changes = [
        {"seed": 1},
        {"seed": 1 << 40},
        {"key": "l"},
        {"epoch": 1},
        {"view": 1},
        {"occurrence": 1},
        {"path": "u"},
    ]
    assert len({draw(), *(draw(**change) for change in changes)}) == len(changes) + 1


def test_uniforms_are_uniform_and_independent() -> None:
    keys = Keys.of(0, range(20_000))
    u, v = keys.uniform("u", 0, 1).double(), keys.uniform("v", 0, 1).double()
    counts = torch.histc(u, 64, 0, 1)
    chi2 = float(((counts - 312.5) ** 2 / 312.5).sum())
    assert 30 < chi2 < 110  # 63 degrees of freedom: both tails below 1e-3
    assert abs(float(torch.corrcoef(torch.stack([u, v]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1])) < 0.03
    assert bool((u * 2**24 == (u * 2**24).round()).all())


def test_integers_choice_coin_and_permutation() -> None:
    keys = Keys.of(0, range(30_000))
    integers = keys.integers("i", -2, 3)
    assert sorted(integers.unique().tolist()) == [-2, -1, 0, 1, 2]
    assert (torch.bincount(integers + 2).float() / 30_000 - 0.2).abs().max() < 0.01
    assert set(keys.choice("c", [0.5, 7.0]).tolist()) == {0.5, 7.0}
    assert abs(float(keys.coin("p", 0.3).float().mean()) - 0.3) < 0.01
    assert not keys.coin("p", 0.0).any() and keys.coin("p", 1.0).all()
    permutation = keys.permutation("o", 6)
    assert torch.equal(permutation.sort(dim=1).values, torch.arange(6).expand(30_000, 6))
    assert (permutation[:, 0].bincount() / 30_000 - 1 / 6).abs().max() < 0.01
    bounds = np.arange(1, 30_001)
    assert bool((keys.integers("b", 0, bounds) < torch.from_numpy(bounds)).all())


def test_short_ways_draw_the_same() -> None:
    """What is drawn natively at once is what NumPy and torch make of the words."""
    keys = Keys.of(0, range(1000))
    assert torch.equal(keys.word("w"), keys.words("w")[:, 0]) and bool((keys.word("w") >= 1 << 31).any())
    assert torch.equal(keys.fractions("f", -700, 701, 100), (keys.integers("f", -700, 701).double() / 100).float())
    assert torch.equal(keys.value("r", range(5, 90)), keys.integers("r", 5, 90).float())
    assert torch.equal(keys.value("r", range(5, 90, 3)), 5 + 3 * keys.integers("r", 0, 29).float())
    with pytest.raises(ValueError, match="an integer range needs low < high"):
        keys.fractions("f", 3, 3)


@pytest.mark.parametrize(("epoch", "view", "occurrence"), [(0, 0, 0), (7, 1, 0), ((1 << 32) + 5, 255, (1 << 24) - 1)])
def test_numbers_and_arrays_give_the_same_subkeys(epoch: int, view: int, occurrence: int) -> None:
    ids = np.array([0, 1, (1 << 64) - 1, 0x0123456789ABCDEF], dtype=np.uint64)
    seed = (1 << 64) - 3
    each = [np.full(4, number, dtype=np.uint64) for number in (epoch, view, occurrence)]
    assert np.array_equal(Keys.of(seed, ids, epoch, view, occurrence).rows, Keys.of(seed, ids, *each).rows)


def test_log_uniform_is_uniform_in_the_logarithm() -> None:
    drawn = Keys.of(0, range(20_000)).log_uniform("f", 20.0, 20_000.0)
    assert abs(float((drawn < 632.5).float().mean()) - 0.5) < 0.02
    assert float(drawn.min()) >= 20.0 and float(drawn.max()) <= 20_000.0


def test_values_follow_their_specification() -> None:
    keys = Keys.of(0, range(1000))
    assert torch.equal(keys.value("x", 3), torch.full((1000,), 3.0))
    assert torch.equal(keys.value("x", (1.0, 2.0)), keys.uniform("x", 1.0, 2.0))
    assert torch.equal(keys.value("x", [1.0, 2.0]), keys.choice("x", [1.0, 2.0]))
    noise = keys.child(1).noise_key("noise")
    assert torch.equal(noise[:, :2], torch.from_numpy(keys.rows.astype(np.int64)))
    assert set(noise[:, 2].tolist()) == {stream_id("transform/1:noise")}


def test_errors_name_the_argument() -> None:
    keys = Keys.of(0, ["a"])
    with pytest.raises(ValueError, match=r"cutoff.*positive bounds"):
        keys.log_uniform("cutoff", 0.0, 5.0)
    with pytest.raises(ValueError, match=r"start: an integer range"):
        keys.integers("start", 5, 5)
    with pytest.raises(ValueError, match="view must be below 256"):
        Keys.of(0, ["a"], view=256)


def test_no_global_generator_is_touched() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    Keys.of(0, ["a"]).uniform("x", 0, 1)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
