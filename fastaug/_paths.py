"""Where the kernel sources and the recipes are: beside the package in a checkout, inside it once installed."""

from __future__ import annotations

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _find(checkout_name: str, packaged_name: str, marker: str) -> Path:
    # An installed copy wins: a folder named csrc/ next to site-packages/fastaug would belong to somebody else.
    for folder in (_PACKAGE / packaged_name, _PACKAGE.parent / checkout_name):
        if (folder / marker).exists():
            return folder
    raise FileNotFoundError(
        f"{checkout_name}/ is neither inside the package ({_PACKAGE / packaged_name}) nor beside it "
        f"({_PACKAGE.parent / checkout_name}): this installation of fastaug is incomplete, reinstall it"
    )


def csrc_dir() -> Path:
    """The folder that holds ``fa_compat.h`` and ``cuda/*.cu``. Raises FileNotFoundError if it is missing."""
    return _find("csrc", "_csrc", "fa_compat.h")


def stamp_of(csrc: Path) -> int:
    """Of what Python and the native module have agreed on: the headers that name its functions and tables.

    setup.py, which reads this file on its own, builds it into the module.
    """
    headers = sorted([*csrc.glob("cpu/*.h"), *csrc.glob("codecs/*.h")])
    text = b"\0".join(header.read_bytes() for header in headers)
    return int.from_bytes(hashlib.blake2b(text, digest_size=3).digest(), "little")


def checkout_stamp() -> int | None:
    """`stamp_of` the sources beside the package; None once it is installed: what comes together fits together."""
    csrc = _PACKAGE.parent / "csrc"
    return stamp_of(csrc) if csrc_dir() == csrc else None


def recipes_dir() -> Path:
    """The folder that holds the recipes and their ``configs/``. Raises FileNotFoundError if it is missing."""
    return _find("recipes", "_recipes", "clmr.py")
