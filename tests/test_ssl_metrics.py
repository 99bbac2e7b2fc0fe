"""Metrics against direct sums, known geometry and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastaug.ssl import metrics


def test_alignment_and_uniformity_written_out() -> None:
    z_i, z_j = torch.randn(2, 6, 4, dtype=torch.float64)
    a, b = (z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True) for z in (z_i, z_j))
    assert metrics.alignment(z_i, z_j) == pytest.approx(np.mean(np.sum((a - b) ** 2, axis=1)), rel=1e-5)
    pairs = [math.exp(-2 * np.sum((a[i] - a[j]) ** 2)) for i in range(6) for j in range(i)]
    assert metrics.uniformity(z_i) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-4)


def test_collapsed_and_spread_embeddings() -> None:
    same = torch.ones(50, 16) + 1e-6 * torch.randn(50, 16)
    spread = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    assert metrics.relative_std(same) < 1e-3 and metrics.uniformity(same) > -1e-3
    assert metrics.relative_std(spread) == pytest.approx(1, abs=0.02) and metrics.uniformity(spread) < -3


def test_positive_top1_counts_views_that_find_their_partner() -> None:
    z = torch.eye(4)
    assert metrics.positive_top1(z, z) == 1
    swapped = z[[1, 0, 2, 3]]  # the partners of the first two rows are exchanged
    assert metrics.positive_top1(z, swapped) == 0.5


def test_knn_votes_and_forbidden_neighbours() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    targets = torch.eye(2)[torch.tensor([0, 0, 1])]
    query = torch.tensor([[1.0, 0.05]])
    assert metrics.knn_scores(bank, targets, query, k=3)[0].tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
    forbidden = torch.tensor([[True, True, False]])
    assert metrics.knn_scores(bank, targets, query, k=3, forbidden=forbidden)[0].tolist() == pytest.approx([0, 1])


def test_accuracy_leaves_unlabelled_rows_out() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert metrics.score(scores, torch.tensor([0, 0, -1])) == {"accuracy": 0.5}
    with pytest.raises(ValueError, match="no labelled example"):
        metrics.score(scores, torch.tensor([-1, -1, -1]))


def test_tag_metrics_equal_scikit_learn_and_skip_constant_tags() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 5))
    labels = (rng.random((40, 5)) < 0.3).astype(np.float32)
    labels[:, 3] = 0  # a tag that never occurs
    labels[7] = 0  # a clip without any tag
    found = metrics.score(torch.tensor(scores), torch.tensor(labels))
    tags = [0, 1, 2, 4]
    clips = [r for r in range(40) if 0 < labels[r].sum() < 5]
    assert found["skipped_tags"] == 1 and found["skipped_clips"] == 40 - len(clips) > 0
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels[:, tags], scores[:, tags], average="macro"))
    assert found["pr_auc"] == pytest.approx(average_precision_score(labels[:, tags], scores[:, tags], average="macro"))
    assert found["pr_auc_clip"] == pytest.approx(
        average_precision_score(labels[clips], scores[clips], average="samples")
    )


def test_unlabelled_rows_of_tags_are_left_out() -> None:
    scores, labels = torch.randn(6, 2), torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    gap = torch.full((1, 2), math.nan)
    assert metrics.score(torch.cat([scores, torch.randn(1, 2)]), torch.cat([labels, gap])) == metrics.score(
        scores, labels
    )
