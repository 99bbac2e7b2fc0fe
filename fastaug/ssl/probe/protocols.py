"""How published work judged its representations: the settings of each evaluation, to be named with every number.

A `Protocol` holds what a paper or its code states; where the source is silent the value is ours and ``ours`` says so.
Mistakes of the sources are left out of ``PROTOCOLS`` and offered in ``PUBLISHED`` only, for reproducing a number.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DEFAULT", "PROTOCOLS", "PUBLISHED", "Fit", "Protocol", "choose_protocol"]


@dataclass(frozen=True)
class Fit:
    """How weights are trained and when to stop.

    Attributes:
        optimiser: "sgd" has momentum 0.9 and Nesterov's correction.
        lr, weight_decay: of the optimiser; "adam" adds the decay to the gradient, "adamw" decouples it.
        batch_size: examples a step; None takes all at once, so that an epoch is one step.
        epochs: at most. Of the segments (of one random crop a clip, with random crops).
        patience: stop after so many epochs without a lower validation loss; None trains to the end.
        every: epochs between two looks at the validation loss.
        keep: the weights of the lowest validation loss, or the last.
        shuffle: a new order every epoch.
        plateau: (factor, patience in looks) of a falling learning rate; None for none.
        decay: factor of the learning rate after each epoch.
        clip: largest norm of the gradient; None for any.
        least_batches: of an epoch; small sets go round several times. Of fine-tuning and training from scratch only.
    """

    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 3e-4
    weight_decay: float = 0.0
    batch_size: int | None = 48
    epochs: int = 200
    patience: int | None = 10
    every: int = 1
    keep: Literal["best", "last"] = "best"
    shuffle: bool = True
    plateau: tuple[float, int] | None = None
    decay: float = 1.0
    clip: float | None = None
    least_batches: int = 1


@dataclass(frozen=True)
class Protocol:
    """One way of evaluating.

    Attributes:
        name, source: what it is called, and where it was read.
        head: of ``--mode linear`` and ``mlp``, which train on frozen features.
        network: of ``--mode finetune`` and ``scratch``, which train encoder and classifier on audio.
        hidden: width of the MLP's one hidden layer.
        network_hidden: hidden layers of the classifier on a network that is trained as a whole.
        network_tanh: the first of these is COLA's projection (dropout 0.1, linear, layer norm, tanh), the pre-trained
            one where the checkpoint has one that fits.
        dropout: before the last layer of the MLP. input_dropout: and before the first layer of either head.
        standardise: features to mean 0 and deviation 1 over the training segments.
        pool: heads see the mean of a clip's features rather than single segments.
        train_crops: of training and validation clips: all segments (end to end, an incomplete tail dropped), random
            crops, or the first one. passes: random crops of a clip, one an epoch in turn.
        test_crops: of test clips.
        average: over a test clip's crops: mean of the logits or of the probabilities (sigmoids; softmax for one label).
        labels: share of the labelled training clips, where the source fixes it.
        share: what a share counts: clips, or (PUBLISHED only) segments of each distinct set of labels.
        split: the dataset's own, or (PUBLISHED only) at random, whatever the dataset says.
        ours: what the source does not say. mistakes: what it did and should not have (PUBLISHED only).
    """

    name: str
    source: str
    head: Fit
    network: Fit
    hidden: int = 512
    network_hidden: tuple[int, ...] = ()
    network_tanh: bool = False
    dropout: float = 0.0
    input_dropout: bool = False
    standardise: bool = False
    pool: bool = False
    train_crops: Literal["segments", "random", "first"] = "segments"
    passes: int = 1
    test_crops: Literal["segments", "random", "first"] = "segments"
    average: Literal["logits", "probabilities"] = "logits"
    labels: float = 1.0
    share: Literal["clips", "label sets"] = "clips"
    split: Literal["own", "random"] = "own"
    ours: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    def describe(self, mode: str) -> str:
        """What a run of ``mode`` does, in two or three lines to print beside its result."""
        trained = mode in ("finetune", "scratch")
        lines = [f"protocol {self.name} ({self.source}): {_words(self.network if trained else self.head)}"]
        if mode == "knn":
            lines = [f"protocol {self.name} ({self.source}): nearest neighbours of the mean of a clip's features"]
        crops = "random crops" if trained else _CROPS[self.train_crops]
        lines[0] += f"; trained on {crops}, tested on the mean of the {self.average} of {_CROPS[self.test_crops]}"
        if self.mistakes:
            lines.append(f"  as published, mistakes included: {'; '.join(self.mistakes)}")
        if self.ours:
            lines.append(f"  not stated there, ours: {'; '.join(self.ours)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


_CROPS = {"segments": "all segments", "random": "a random crop", "first": "the first crop"}


def _words(fit: Fit) -> str:
    batch = "all at once" if fit.batch_size is None else f"batch {fit.batch_size}"
    stop = "no early stopping" if fit.patience is None else f"patience {fit.patience}"
    return (
        f"{fit.optimiser} {fit.lr:g}, decay {fit.weight_decay:g}, {batch}, at most {fit.epochs} epochs, {stop}, "
        f"{fit.keep} weights"
    )


# Where a source fine-tunes nothing: ours, for all of them.
_NETWORK = Fit("adam", 3e-4, 1e-6, batch_size=48, epochs=200, patience=20, least_batches=32)
_NETWORK_IS_OURS = "everything of finetune and scratch"

DEFAULT = Protocol(
    "default", "this library's", standardise=True, network=_NETWORK,
    head=Fit("adamw", 1e-2, 1e-2, batch_size=None, epochs=1000, patience=100, every=5),
)  # fmt: skip

_THESIS = Protocol(
    "thesis", "Spijkervet, Contrastive Learning of Musical Representations, chapter 5", network=_NETWORK,
    head=Fit("adam", 3e-4, 1e-6, batch_size=2048, epochs=50, patience=3),
    ours=("features in batches of 2,048, 50 epochs and all segments of training clips (its code's)", _NETWORK_IS_OURS),
)  # fmt: skip

_CLMR_V1 = Protocol(
    "clmr-v1", "the released code of March 2021", network=_NETWORK,
    head=Fit("adam", 1e-3, 1e-4, batch_size=2048, epochs=50, patience=5), ours=(_NETWORK_IS_OURS,),
)  # fmt: skip

_CLMR_V2 = Protocol(
    "clmr-v2", "the released code of November 2021", train_crops="random", average="probabilities",
    head=Fit("adam", 1e-3, 1e-6, batch_size=48, epochs=200, patience=10, plateau=(0.1, 5)),
    network=Fit("sgd", 3e-4, 1e-6, batch_size=48, epochs=200, patience=10, plateau=(0.2, 5)),
)  # fmt: skip

_BOOK = Protocol(
    "book", "Music Classification: Beyond Supervised Learning, chapter on self-supervision", train_crops="random",
    passes=15, test_crops="first", network=dataclasses.replace(_NETWORK, batch_size=16),
    head=Fit("adam", 1e-4, 1e-6, batch_size=16, epochs=15, patience=None, keep="last"),
    ours=("weight decay 1e-6, as in clmr-v2", "validation on one random crop a clip and epoch", _NETWORK_IS_OURS),
)  # fmt: skip

_INTERNSHIP = Protocol(
    "internship", "the internship report on SimCLR for audio", labels=0.1, network=_NETWORK,
    head=Fit("adam", 1e-3, 1e-6, batch_size=48, epochs=50, patience=None),
    ours=("optimiser, rate, decay and batch", "all segments, mean of logits", "best weights", _NETWORK_IS_OURS),
)  # fmt: skip

_COLA = Protocol(
    "cola", "the official COLA (head) and its PyTorch port on FMA (network)", network_hidden=(512, 256),
    network_tanh=True,
    head=Fit("adam", 1e-3, 0.0, batch_size=64, epochs=100, patience=None),
    network=Fit("adam", 1e-4, 0.0, batch_size=64, epochs=64, patience=None, decay=0.97, clip=1.0),
    ours=("best weights by validation loss",),
)  # fmt: skip

_MARBLE = Protocol(
    "marble", "MARBLE: MLP of 512 with dropout 0.2", dropout=0.2, pool=True, network=_NETWORK,
    head=Fit("adam", 1e-3, 0.0, batch_size=64, epochs=100, patience=20),
    ours=("rate, batch, epochs and patience", "one rate where MARBLE sweeps", _NETWORK_IS_OURS),
)  # fmt: skip

_JUKEMIR = Protocol(
    "jukemir", "JukeMIR, one of its 216 settings", dropout=0.5, input_dropout=True, pool=True, standardise=True,
    head=Fit("adam", 1e-3, 0.0, batch_size=64, epochs=2000, patience=200), network=_NETWORK,
    ours=("its defaults, where JukeMIR takes the best of a grid on the validation clips",
          "the validation loss stops, once an epoch, where JukeMIR's metric does every 8 steps", _NETWORK_IS_OURS),
)  # fmt: skip

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (DEFAULT, _THESIS, _CLMR_V1, _CLMR_V2, _BOOK, _INTERNSHIP, _COLA, _MARBLE, _JUKEMIR)
}  # fmt: skip

PUBLISHED: dict[str, Protocol] = {
    "thesis": dataclasses.replace(
        _THESIS, share="label sets",
        mistakes=("a share of labels is one of the segments of each distinct set of labels, at least one each: "
                  "1 % of MagnaTagATune becomes some 4 % of the segments of more than a third of the clips",),
    ),
    "clmr-v1": dataclasses.replace(
        _CLMR_V1, head=dataclasses.replace(_CLMR_V1.head, keep="last", shuffle=False),
        mistakes=("never shuffles", "keeps the weights of the epoch at which it stopped"),
    ),
    "clmr-v2": dataclasses.replace(
        _CLMR_V2, head=dataclasses.replace(_CLMR_V2.head, keep="last"),
        network=dataclasses.replace(_CLMR_V2.network, keep="last", patience=None),
        mistakes=("keeps the weights of the last epoch", "finetune and scratch never stop early"),
    ),
    "cola": dataclasses.replace(
        _COLA, test_crops="random", split="random",
        mistakes=("a test clip is one random crop",
                  "clips are split at random (60/20/20 here, 80/20 there): songs of one artist on both sides, and "
                  "pre-training heard the test clips"),
    ),
}  # fmt: skip


def choose_protocol(name: str, as_published: bool = False) -> Protocol:
    """The protocol of that name; ``as_published``: with the mistakes of its source.

    Raises:
        ValueError: no such protocol, or none of its mistakes is known.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    if not as_published:
        return PROTOCOLS[name]
    if name not in PUBLISHED:
        raise ValueError(f"--as-published: only {', '.join(PUBLISHED)} have mistakes to repeat, not {name}")
    return PUBLISHED[name]
