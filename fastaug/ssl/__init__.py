"""Self-supervised learning: the numerical parts that recipes share, tested like the rest of the library.

``losses`` NT-Xent and losses of pairs, exact across processes · ``cola`` COLA's network · ``encoders``,
``spectrogram_encoders`` and projection heads · ``fusion`` and its parts: two formats of one sound · ``metrics`` what to
watch while pre-training and how to score · ``features``, ``feature_cache``, ``representations`` frozen features ·
``probe`` heads on them, ``protocols`` published settings, ``label_shares`` few labels · ``supervised`` whole networks ·
``scoring``, ``rows``, ``table``, ``results`` representations side by side · ``checkpoint`` weights with a card, exact
resume · ``weights`` `load`, from a file or the web · ``convert`` published CLMR weights · ``embed`` a table of
embeddings · ``run`` folder, log, Ctrl-C · ``precision`` float16 and bfloat16 · ``accumulate`` large batches in parts ·
``recompute`` gradient checkpointing · ``monitor`` evaluation within a time budget · ``data`` splits and labels of a
user's data · ``config`` presets and flags · ``distributed`` torchrun. Nothing here is imported by ``import fastaug``;
scikit-learn, safetensors, tyro and tensorboard are imported on use.
"""

from fastaug.ssl.weights import PretrainedEncoder, load

__all__ = ["PretrainedEncoder", "load"]
