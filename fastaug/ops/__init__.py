"""Native operators: deterministic, row-wise tensor functions, one file each, for CPU and CUDA behind one torch op.

Every op takes contiguous-or-not float32 ``(B, C, T)`` samples and per-row ``(B,)`` parameters, never writes its input,
and gives a row the same result whatever the batch around it and the number of threads.
"""

from __future__ import annotations
