"""The same memory for everybody and for every call: a heap whose pages are there, large, and stay.

Left alone, glibc maps blocks of more than 32 MiB anew for every call, gives the end of the heap back or not, depending
on what else is allocated at the moment, and the kernel takes a page fault for every 4 KiB that comes again. So the same
call had 22,051 page faults in one run and none in the next, and took one or three times as long (torchaudio's Resample,
torch's and fastaug's gain). In a heap of 4 KiB pages, where these happen to lie decides about the caches besides.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

LARGE = 2 << 20  # bytes of a large page
_range = (0, 0)  # of the reserve, in large pages


def reserve(most: int = 1 << 30) -> None:
    """Keep all blocks in one heap that is never given back (what `fastaug.ssl` asks for when it trains, too), and put
    large pages behind its first GiB, or behind an eighth of the memory that is free. Does nothing but on Linux with
    glibc."""
    global _range
    with contextlib.suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
        libc.mallopt(-8, 1)  # M_ARENA_MAX: threads share the heap
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        size = min(most, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
        block = libc.malloc(size)
        if not block:
            return
        _range = (-(-block // LARGE) * LARGE, (block + size) // LARGE * LARGE)
        advise(14)  # MADV_HUGEPAGE
        ctypes.memset(block, 1, size)
        libc.free(block)


def settle() -> None:
    """Collect garbage, and make large pages again of what a fork has split (Linux 6.1)."""
    gc.collect()
    advise(25)  # MADV_COLLAPSE


def advise(advice: int) -> None:
    begin, end = _range
    if end > begin:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)
