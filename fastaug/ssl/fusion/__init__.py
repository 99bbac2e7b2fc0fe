"""Two formats of one sound, waveform and spectrogram.

``encoders`` that take both · ``model`` and losses for pre-training · ``probe`` each format, both together, and a
weighted vote · ``published`` augmentations and tables.
"""
