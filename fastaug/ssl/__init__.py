"""Self-supervised learning: the numerical parts that recipes share, tested like the rest of the library.

``losses`` NT-Xent and losses of pairs, exact across processes · ``encoders``, ``spectrogram_encoders`` and projection
heads · ``cola`` COLA's network · ``optim`` LARS and schedules · ``metrics`` what to watch and how to score ·
``checkpoint`` weights with a card, exact resume · ``weights`` `load`, from a file or the web · ``convert`` published
CLMR weights · ``embed`` a table of embeddings · ``data`` splits and labels of a user's data · ``config`` presets and
flags · packages ``training``, ``probe`` and ``fusion``.

Nothing here is imported by ``import fastaug``; scikit-learn, safetensors, tyro and tensorboard are imported on use.
"""

from fastaug.ssl.weights import PretrainedEncoder, load

__all__ = ["PretrainedEncoder", "load"]
