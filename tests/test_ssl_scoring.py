"""Reports against scikit-learn, intervals against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from fastaug.ssl.probe.scoring import report, t_interval


def test_one_label_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 4, 60), rng.normal(size=(60, 5))
    scores[np.arange(60), labels] += 1  # class 4 never occurs, but is said
    labels[:3], said = 3, scores.argmax(1)
    assert (said == 4).any()
    found = report(torch.tensor(scores), torch.tensor(labels))
    assert found.values["accuracy"] == pytest.approx(sk.accuracy_score(labels, said))
    assert found.values["macro_f1"] == pytest.approx(sk.f1_score(labels, said, average="macro"))
    hot = np.eye(5)[labels][:, :4]
    assert found.values["map"] == pytest.approx(sk.average_precision_score(hot, scores[:, :4], average="macro"))
    assert found.per_class["roc_auc"][2] == pytest.approx(sk.roc_auc_score(labels == 2, scores[:, 2]))
    assert math.isnan(found.per_class["roc_auc"][4])
    assert found.confusion.tolist() == sk.confusion_matrix(labels, said, labels=range(5)).tolist()


def test_several_labels_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((50, 6)) < 0.3).astype(np.float32)
    labels[:, 5] = 0
    scores = rng.normal(size=(50, 6)) + labels
    probabilities = 1 / (1 + np.exp(0.3 - scores))
    found = report(torch.tensor(scores), torch.tensor(labels), torch.tensor(probabilities))
    yes = probabilities >= 0.5
    assert found.confusion.tolist() == sk.multilabel_confusion_matrix(labels, yes).tolist()
    assert found.values["macro_f1"] == pytest.approx(sk.f1_score(labels, yes, average="macro", zero_division=0))
    assert found.values["map"] == found.values["pr_auc"]
    expected = sk.average_precision_score(labels[:, :5], scores[:, :5], average=None)
    assert found.per_class["average_precision"][:5] == pytest.approx(expected.tolist())
    clips = labels.any(1) & ~labels.all(1)
    assert found.values["roc_auc_clip"] == pytest.approx(
        sk.roc_auc_score(labels[clips], scores[clips], average="samples")
    )


def test_unlabelled_rows_do_not_count() -> None:
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, -1, -1])
    whole, part = report(scores, labels), report(scores[:4], labels[:4])
    assert whole.values == part.values and torch.equal(whole.confusion, part.confusion)
    hot = torch.eye(3)[labels.clamp(min=0)]
    hot[4:] = math.nan
    assert torch.equal(report(scores, hot, scores.sigmoid()).confusion, report(scores[:4], hot[:4]).confusion)


def test_a_tag_that_nobody_has_or_says_has_no_f1() -> None:
    labels = torch.tensor([[1.0, 0], [0, 0], [1, 0]])
    scores = torch.tensor([[1.0, -1], [-1, -1], [1, -1]])
    found = report(scores, labels)
    assert found.values["macro_f1"] == 1 and math.isnan(found.per_class["f1"][1])


def test_t_interval_is_students() -> None:
    from scipy import stats

    values = torch.tensor([0.5, 0.61, 0.58, 0.7])
    expected = stats.t.interval(0.95, 3, values.mean().item(), stats.sem(values.numpy()))
    assert t_interval(values) == pytest.approx(expected, rel=1e-6)
    assert all(math.isnan(edge) for edge in t_interval(values[:1]))
