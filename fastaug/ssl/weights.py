"""``load``: a trained encoder from a file or the web, ready for samples, and what it must be fed with."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastaug.ssl.checkpoint import check_card, load_encoder, read_card, write_whole

CACHE = "FASTAUG_CACHE"
_BLOCK = 1 << 20
_SCHEMES = ("https", "http", "file")


class PretrainedEncoder(nn.Module):
    """Samples (B, C, T) float32 at ``sample_rate`` -> (B, out_dim); a spectrogram encoder brings its front end along.

    Attributes:
        encoder: the network itself. frontend: what makes its spectrograms, None for an encoder of samples.
        sample_rate: Hz. crop_samples: the length T that it was trained on.
        out_dim: D. classes: ordered names of the labels of its training data, () where there were none.
        card: everything that was stored with the weights.
    """

    def __init__(self, encoder: nn.Module, card: dict[str, Any]) -> None:
        from fastaug import LogMel

        super().__init__()
        self.encoder = encoder
        self.frontend = LogMel(**card["logmel"]) if card.get("logmel") else None
        self.card = card
        self.sample_rate, self.crop_samples = int(card["sample_rate"]), int(card["crop_samples"])
        self.out_dim, self.classes = int(card["out_dim"]), tuple(card.get("classes") or ())

    def forward(self, samples: Tensor) -> Tensor:
        return self.encoder(samples if self.frontend is None else self.frontend(samples))


def load(source: str | os.PathLike[str], sha256: str | None = None, trust_code: bool = False) -> PretrainedEncoder:
    """The trained encoder of a checkpoint, in eval mode on the CPU. Nothing is unpickled.

    Args:
        source: the folder of a run, a model.safetensors, or the URL of one (http, https, file).
        sha256: 64 hex digits, required for a URL, which may also carry them: ``https://…/model.safetensors#sha256=…``.
            Downloads are kept in ``$FASTAUG_CACHE``, by default ~/.cache/fastaug.
        trust_code: for a URL, accept a card whose encoder is a ``module:callable`` outside this library, which is
            imported and called; in a file of yours it always is.

    Raises:
        FileNotFoundError: no such file. ConnectionError: the download failed.
        ValueError: the checksum is missing or wrong, the file is no checkpoint, its weights do not fit its encoder, or
            its card names code.
    """
    remote = urllib.parse.urlsplit(str(source)).scheme in _SCHEMES
    if remote:
        url, fragment = urllib.parse.urldefrag(str(source))
        sha256 = sha256 or (fragment.partition("sha256=")[2] or None)
        source = fetch(url, sha256)
    file, card = read_card(Path(source))
    if sha256 and not remote:
        _check(file, sha256, str(file))
    check_card(card, file, "encoder", "encoder_kwargs", "sample_rate", "crop_samples", "out_dim")
    foreign = [] if not remote or trust_code else _foreign(card)
    if foreign:
        raise ValueError(
            f"the card of {url} names code to run, {foreign[0]}: pass trust_code=True if you trust its source"
        )
    return PretrainedEncoder(*load_encoder(file)).eval()


def _foreign(card: Any) -> list[str]:
    """Encoders that a card names, at any depth, and that are not this library's."""
    if isinstance(card, list):
        return [name for part in card for name in _foreign(part)]
    if not isinstance(card, dict):
        return []
    from fastaug.ssl import encoders
    from fastaug.ssl.fusion import encoders as fusion_encoders

    own = {*encoders.__all__, *(f"{fusion_encoders.__name__}:{name}" for name in fusion_encoders.__all__)}
    named = [str(card["encoder"])] if isinstance(card.get("encoder"), str) and card["encoder"] not in own else []
    return named + [name for value in card.values() for name in _foreign(value)]


def fetch(url: str, sha256: str | None) -> Path:
    """The cached file of a URL, downloaded at the first call; its checksum is right.

    Raises:
        ValueError: no checksum, or what came has another. ConnectionError: the download failed.
    """
    if not sha256 or len(sha256) != 64:
        raise ValueError(f'{url}: a download needs its checksum: sha256="64 hex digits", or #sha256=… after the URL')
    sha256 = sha256.lower()
    folder = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "fastaug")
    name = Path(urllib.parse.urlsplit(url).path).name or "model.safetensors"
    file = folder / f"{sha256[:16]}-{name}"
    if file.is_file() and _digest(file) == sha256:
        return file
    folder.mkdir(parents=True, exist_ok=True)

    def download(partial: Path) -> None:
        try:
            with urllib.request.urlopen(url, timeout=60) as reply, open(partial, "wb") as out:
                while block := reply.read(_BLOCK):
                    out.write(block)
        except (urllib.error.URLError, TimeoutError) as error:
            raise ConnectionError(f"{url} cannot be downloaded: {getattr(error, 'reason', error)}") from error
        _check(partial, sha256, url)

    write_whole(file, download)
    return file


def _check(file: Path, sha256: str, name: str) -> None:
    found = _digest(file)
    if found != sha256.lower():
        raise ValueError(f"{name}: its sha256 is {found}, expected {sha256}; not loaded")


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
