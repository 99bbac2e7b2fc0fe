"""What to watch while pre-training, and how to score classifiers.

Alignment and uniformity: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and
Uniformity on the Hypersphere" (2020), eqs. 1 and 2 with alpha = 2, t = 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(z_i: Tensor, z_j: Tensor) -> float:
    """Mean squared distance between the normalised views of one example, 0 (identical) to 4; lower is closer."""
    return float((F.normalize(z_i.float(), dim=1) - F.normalize(z_j.float(), dim=1)).square().sum(1).mean())


def uniformity(z: Tensor) -> float:
    """log mean exp(-2 d^2) over pairs of the normalised rows of (N, D), N >= 2: 0 collapsed, towards -4 spread."""
    if len(z) < 2:
        raise ValueError(f"uniformity: needs at least 2 rows, got {len(z)}")
    z = F.normalize(z.float(), dim=1)
    i, j = torch.triu_indices(len(z), len(z), offset=1, device=z.device)
    squared = 2 - 2 * (z @ z.T)[i, j]
    return float(torch.logsumexp(-2 * squared, dim=0) - math.log(len(i)))


def relative_std(z: Tensor) -> float:
    """Mean standard deviation per dimension of the normalised rows of (N, D), times sqrt(D): 1 spread, 0 collapsed."""
    return float(F.normalize(z.float(), dim=1).std(dim=0, correction=0).mean() * math.sqrt(z.shape[1]))


def positive_top1(z_i: Tensor, z_j: Tensor) -> float:
    """Share of the 2B views, 0 to 1, whose most similar other view is their partner."""
    rows = len(z_i)
    z = F.normalize(torch.cat([z_i, z_j]).float(), dim=1)
    similarity = (z @ z.T).fill_diagonal_(float("-inf"))
    partner = torch.arange(2 * rows, device=z.device).roll(rows)
    return float((similarity.argmax(1) == partner).float().mean())


def view_metrics(z_i: Tensor, z_j: Tensor) -> dict[str, float]:
    """The four numbers that tell learning from collapse, from one batch of projections, each (B, D), B >= 2."""
    both = torch.cat([z_i, z_j]).detach()
    return {
        "alignment": alignment(z_i.detach(), z_j.detach()),
        "uniformity": uniformity(both),
        "std": relative_std(both),
        "top1": positive_top1(z_i.detach(), z_j.detach()),
    }


def knn_scores(bank: Tensor, targets: Tensor, queries: Tensor, k: int = 10, forbidden: Tensor | None = None) -> Tensor:
    """Class scores (Q, n) of ``queries`` (Q, D): the mean target of the k most cosine-similar rows of ``bank`` (N, D).

    Args:
        targets: (N, n) float, one-hot or multi-hot.
        forbidden: (Q, N) bool, neighbours a query may not use (other crops of its own track). A query left without
            neighbours gets NaN.
    """
    similarity = F.normalize(queries.float(), dim=1) @ F.normalize(bank.float(), dim=1).T
    if forbidden is not None:
        similarity = similarity.masked_fill(forbidden.to(similarity.device), float("-inf"))
    best, index = similarity.topk(min(k, len(bank)), dim=1)
    usable = best.isfinite().float()
    # A whisker of similarity breaks ties between classes in favour of the nearer neighbours.
    weight = usable * (1 + 1e-3 * torch.nan_to_num(best, neginf=0.0))
    return (weight[..., None] * targets.to(weight.device)[index]).sum(1) / weight.sum(1, keepdim=True)


def is_multi(labels: Tensor) -> bool:
    """True for float (B, n) multi-hot labels, False for int64 (B,) class labels, as in ``Batch.labels``."""
    return labels.ndim == 2


def labelled(labels: Tensor) -> Tensor:
    """(B,) bool: rows that have a label (class >= 0, or no NaN)."""
    return ~labels.isnan().any(1) if is_multi(labels) else labels >= 0


def score(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of class ``scores`` (N, n) for labels as in ``Batch.labels``; unlabelled rows are left out.

    One label: ``accuracy``. Several: scikit-learn's ROC-AUC and average precision, macro over tags and over clips
    (``roc_auc``, ``pr_auc``, ``roc_auc_clip``, ``pr_auc_clip``), and how many tags and clips had to be skipped because
    only one value occurs in them, which leaves both metrics undefined.
    """
    keep = labelled(labels)
    scores, labels = scores.detach()[keep].cpu(), labels[keep].cpu()
    if not len(labels):
        raise ValueError("score: no labelled example")
    if not is_multi(labels):
        return {"accuracy": float((scores.argmax(1) == labels).double().mean())}
    s, y = scores.double().numpy(), labels.numpy() > 0.5
    roc, pr, skipped = _macro(y, s)
    roc_clip, pr_clip, skipped_clips = _macro(y.T, s.T)
    return {
        "roc_auc": roc,
        "pr_auc": pr,
        "roc_auc_clip": roc_clip,
        "pr_auc_clip": pr_clip,
        "skipped_tags": skipped,
        "skipped_clips": skipped_clips,
    }


def by_class(truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Average precision and ROC-AUC, (2, n), of each column of (N, n); NaN where only one value occurs."""
    try:
        from sklearn.metrics import average_precision_score, roc_auc_score
    except ImportError as error:
        raise ImportError("ROC-AUC and PR-AUC need scikit-learn: pip install scikit-learn") from error
    found = np.full((2, truth.shape[1]), np.nan)
    for c in range(truth.shape[1]):
        if 0 < truth[:, c].sum() < len(truth):
            found[0, c] = average_precision_score(truth[:, c], scores[:, c])
            found[1, c] = roc_auc_score(truth[:, c], scores[:, c])
    return found


def _macro(truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> tuple[float, float, int]:
    """Mean ROC-AUC and average precision over columns in which both values occur; and the number of other columns."""
    found = by_class(truth, scores)
    known = found[:, ~np.isnan(found[0])]
    pr, roc = (float(row.mean()) if row.size else float("nan") for row in known)
    return roc, pr, truth.shape[1] - known.shape[1]
