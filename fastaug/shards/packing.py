"""The parts of a shard on disk: keys that are safe in a tar, the tar file itself, the check of a header."""

from __future__ import annotations

import hashlib
import tarfile
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["ShardFile", "safe_key", "unreadable"]

_KEY_BYTES = 80  # with its suffix well below ustar's 100 bytes, so that no pax header is ever needed


def safe_key(path: str) -> str:
    """The key of a relative path: no suffix, ``/`` as ``__``, anything but letters, digits, - and _ as ``_``.

    Letters of any script stay. A long key keeps its first bytes and ends in a hash of the path.
    """
    stem = PurePosixPath(path).with_suffix("") if PurePosixPath(path).name else PurePosixPath("_")
    text = unicodedata.normalize("NFC", "__".join(part for part in stem.parts if part != "/"))
    key = "".join(c if c.isalnum() or c in "-_" else "_" for c in text)
    encoded = key.encode()
    if len(encoded) > _KEY_BYTES:
        mark = hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        key = encoded[: _KEY_BYTES - 13].decode(errors="ignore") + "_" + mark
    return key or "_"


def unreadable(data: bytes) -> str | None:
    """Why an encoded file cannot be used, None if it can be opened and has samples."""
    from fastaug.codecs import DecodeError, open_audio

    try:
        with open_audio(data, "file") as audio:
            return None if audio.info.frames else "a header but no samples"
    except DecodeError as error:
        return str(error).removeprefix("file: ")


class ShardFile:
    """A tar file being written, hashed as it grows.

    Args:
        path: where to write; replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = open(path, "wb")  # noqa: SIM115 (closed by close or abandon)

    def add(self, key: str, suffix: str, audio: bytes, fields: bytes) -> None:
        """Appends one record: ``key.suffix``, then ``key.json`` with the encoded fields."""
        self._member(f"{key}.{suffix}", audio)
        self._member(f"{key}.json", fields)
        self.records += 1

    def size_with(self, audio: bytes, fields: bytes) -> int:
        """Bytes of the file, but for its end, were this record added."""
        blocks = sum(1 + -(-len(data) // tarfile.BLOCKSIZE) for data in (audio, fields))
        return self.size + blocks * tarfile.BLOCKSIZE

    def close(self) -> dict[str, Any]:
        """Ends the archive; returns its line of dataset.json."""
        # Two zero blocks, padded to tar's record size as GNU tar does.
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.size + end) % tarfile.RECORDSIZE))
        self._file.close()
        return {"file": self.path.name, "records": self.records, "bytes": self.size, "sha256": self._hash.hexdigest()}

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._file.close()

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # owner 0, time 0: the same entries give the same bytes
        info.size, info.mode = len(data), 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict"))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
