"""Self-supervised learning: the numerical parts that recipes share, tested like the rest of the library.

``losses`` NT-Xent, exact across processes · ``encoders`` SampleCNN and projection heads · ``metrics`` what to watch
while pre-training and how to score · ``features``, ``feature_cache``, ``representations`` frozen features ·
``probe`` heads on them, ``protocols`` published settings, ``label_shares`` few labels · ``supervised`` whole networks ·
``scoring``, ``rows``, ``table``, ``results`` representations side by side · ``checkpoint`` weights with a card, exact
resume · ``run`` folder, log, Ctrl-C · ``monitor`` evaluation within a time budget · ``data`` splits and labels of a
user's data · ``config`` presets and flags · ``distributed`` torchrun.

Nothing here is imported by ``import fastaug``; scikit-learn, safetensors, tyro and tensorboard are imported on use.
"""
