"""What every pre-training loop needs around its loss.

``run`` folder, log, Ctrl-C · ``distributed`` torchrun · ``precision`` float16 and bfloat16 · ``accumulate`` large
batches in parts · ``recompute`` gradient checkpointing · ``monitor`` evaluation within a time budget · ``ablation`` of
augmentations.
"""
