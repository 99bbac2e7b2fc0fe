"""Datasets that become shards: the synthetic corpus, audio folders, manifests, GTZAN."""

from __future__ import annotations
