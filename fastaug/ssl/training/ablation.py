"""Which steps of an augmentation chain happen, how often, and to which view: the ablations of the CLMR thesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastaug.transforms.base import Transform
from fastaug.transforms.compose import Compose


def ablation(chain: Transform | None, ablate: bool = False, only: str = "", p: Sequence[str] = ()) -> Any:
    """``transform=`` of a Pipeline with two views: ``chain`` with other probabilities, or a list of one a view.

    Steps are named by their class, as in "Delay". What does not happen stays in the chain with p = 0, so that the draws
    of the other steps are those of the whole chain: runs that are compared differ in nothing else.

    Args:
        chain: a Compose, or a single transform; None only crops.
        ablate: the first view is only cropped, the second gets every step with p = 1 (CLMR's ``ablation`` flag).
        only: the one step that happens.
        p: "NAME=probability" of steps, which goes above all else.

    Raises:
        ValueError: a name that is no step of the chain (lists them), a probability outside [0, 1], or no chain.
    """
    if not (ablate or only or p):
        return chain
    if chain is None:
        raise ValueError("--ablate, --only and --p change a chain of augmentations, and there is none")
    steps = list(chain.transforms) if isinstance(chain, Compose) else [chain]
    names = [type(step).__name__ for step in steps]
    wanted: dict[str, float] = dict(map(_probability, p))
    for name in (*([only] if only else []), *wanted):
        if name not in names:
            raise ValueError(f"no step {name!r} in the chain; steps are {', '.join(names)}")
    changed = []
    for step, name in zip(steps, names, strict=True):
        usual = 0.0 if only and name != only else 1.0 if ablate else step.p
        changed.append(dataclasses.replace(step, p=wanted.get(name, usual)))  # type: ignore[type-var]
    if isinstance(chain, Compose):
        whole: Any = Compose(changed, p=chain.p, sample_rate=chain.sample_rate)
    else:
        (whole,) = changed
    return [None, whole] if ablate else whole


def _probability(flag: str) -> tuple[str, float]:
    name, equals, number = flag.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not equals or not 0 <= value <= 1:
        raise ValueError(f"--p takes NAME=probability in [0, 1], got {flag!r}")
    return name, value
