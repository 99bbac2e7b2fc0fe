"""Datasets that become shards: the synthetic corpus, audio folders, manifests, GTZAN, MTAT, FMA."""

from __future__ import annotations
