"""Everything a result table wants to know of a classifier's scores: metrics, confusion, each class on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastaug.ssl.metrics import by_class, is_multi, labelled, score

__all__ = ["Report", "report", "t_interval"]

ONE_LABEL = ("accuracy", "map", "macro_f1")
SEVERAL_LABELS = ("roc_auc", "pr_auc", "roc_auc_clip", "pr_auc_clip", "macro_f1")


@dataclass
class Report:
    """How well scores fit labels.

    Attributes:
        values: metric → value. One label a clip: ``accuracy``, ``map`` (mean over classes of the average precision of
            one class against the rest), ``macro_f1``. Several: as `fastaug.ssl.metrics.score`, ``map`` (= ``pr_auc``)
            and ``macro_f1``, the latter with probabilities from 0.5 on taken as yes.
        confusion: int64 (n, n), row = truth, column = prediction; several labels: (n, 2, 2), a matrix for each tag.
        per_class: metric → one value a class, NaN where it is undefined because only one value occurs.
    """

    values: dict[str, float]
    confusion: Tensor
    per_class: dict[str, list[float]]


def report(scores: Tensor, labels: Tensor, probabilities: Tensor | None = None) -> Report:
    """Score (N, n) ``scores`` of all classes against labels as in ``Batch.labels``; unlabelled rows are left out.

    Args:
        scores: in which only the order matters, within a row and within a column.
        probabilities: (N, n), for the threshold of ``macro_f1`` with several labels; default: sigmoid of the scores.

    Raises:
        ValueError: no labelled row.
    """
    values = score(scores, labels)
    keep = labelled(labels).cpu()
    scores, labels = scores.detach().cpu()[keep], labels.cpu()[keep]
    n = scores.shape[1]
    if is_multi(labels):
        yes = (scores.sigmoid() if probabilities is None else probabilities.detach().cpu()[keep]) >= 0.5
        truth = labels > 0.5
        four = [(t & said).sum(0) for t in (~truth, truth) for said in (~yes, yes)]
        confusion = torch.stack(four, dim=1).reshape(n, 2, 2)
        hits, said, are = confusion[:, 1, 1], confusion[:, :, 1].sum(1), confusion[:, 1].sum(1)
    else:
        truth = torch.eye(n, dtype=torch.bool)[labels]
        confusion = torch.bincount(labels * n + scores.argmax(1), minlength=n * n).view(n, n)
        hits, said, are = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    f1 = torch.where(said + are > 0, 2 * hits / (said + are).clamp(min=1), torch.nan).double()
    ap, auc = by_class(truth.numpy(), scores.double().numpy())
    values["map"] = float(np.nanmean(ap)) if not np.isnan(ap).all() else math.nan
    values["macro_f1"] = float(f1.nanmean())  # over the classes that occur, in the truth or in what was said
    return Report(values, confusion, {"average_precision": ap.tolist(), "roc_auc": auc.tolist(), "f1": f1.tolist()})


def t_interval(values: Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of (n,) ``values`` that are independent: mean ± t · s / √n; NaN for n < 2.

    Over seeds it says how far another set of seeds may lie, not how far another set of test clips may.
    """
    if len(values) < 2:
        return math.nan, math.nan
    from scipy.special import stdtrit  # scikit-learn brings it

    values = values.double()
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * float(values.std()) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half
