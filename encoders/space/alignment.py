"""Training of the unified space: cross-modal InfoNCE plus an interaction loss, with modality dropout.

Projections start from ridge regression onto collaborative factors (``closed_form.ridge``), so that training begins
where content already predicts who likes what. Belongs here: losses, batches, the training loop, saving without pickle.
Does not: the network (``fusion``), maps found without training (``closed_form``).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.device import single_threaded
from encoders.settings import AlignerSettings, values_of
from encoders.space.closed_form import MAPS, Map, ridge
from encoders.space.features import Features
from encoders.space.frame import frame_digest, rotation
from encoders.space.fusion import FusionModel, fuse_items
from encoders.space.ragged import Ragged

log = logging.getLogger(__name__)

TRAIN_HISTORY = 20  # most recent items that describe a user in training
EPOCHS = 20  # passes over the events at most, whatever ``steps`` says
CROSS_MODAL = 0.01  # weight of the cross-modal loss beside the interaction loss
HELD_OUT = 0.1  # share of items kept out of the cross-modal loss to measure retrieval
MIN_HELD_OUT = 50


def info_nce(
    a: Tensor, b: Tensor, temperature: Tensor, correction: Tensor | None = None, same: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE (https://arxiv.org/abs/1807.03748) of paired unit vectors.

    Args:
        a: (b, d).
        b: (b, d), row i is the positive of row i of ``a``.
        temperature: scalar.
        correction: (b,) log sampling probability of each row of ``b`` (https://research.google/pubs/pub48840).
        same: bool (b, b), pairs off the diagonal that are no negatives.
    """
    logits = a @ b.T / temperature
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(len(a), dtype=torch.bool, device=a.device), float("-inf"))
    target = torch.arange(len(a), device=a.device)
    forward = logits if correction is None else logits - correction[None]
    return (F.cross_entropy(forward, target) + F.cross_entropy(logits.T, target)) / 2


class _Batches:
    """Seeded batches of items and of (history, next item) pairs."""

    def __init__(self, histories: Ragged, n_items: int, settings: AlignerSettings, trained: np.ndarray):
        self.rng = np.random.default_rng(settings.seed)
        self.size, self.trained, self.values = settings.batch_size, trained, histories.values
        self.next = np.flatnonzero(histories.place > 0)  # places of items that follow others
        self.begin = np.repeat(histories.bounds[:-1], np.maximum(histories.lengths - 1, 0))
        counts = np.bincount(self.values[self.next], minlength=n_items)
        self.log_q = np.log((counts + 1) / (counts + 1).sum()).astype(np.float32)

    def items(self) -> np.ndarray:
        return self.rng.choice(self.trained, min(self.size, len(self.trained)), replace=False)

    def next_items(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the history (b, t), its mask, and the next item (b,)."""
        chosen = self.rng.integers(len(self.next), size=min(self.size, len(self.next)))
        at = self.next[chosen]
        first = np.maximum(self.begin[chosen], at - TRAIN_HISTORY)
        places = first[:, None] + np.arange(TRAIN_HISTORY)
        mask = places < at[:, None]
        rows = np.where(mask, self.values[np.where(mask, places, 0)], 0)
        return rows, mask, self.values[at]


class _Trainer:
    def __init__(self, features: dict[str, Features], settings: AlignerSettings, maps: dict[str, Map], device: str):
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, device
        dims = {m: f.matrix.shape[1] for m, f in features.items()}
        self.sequences = {m: f.sequence for m, f in features.items() if f.sequence}
        self.model = _untrained(dims, self.sequences, values_of(settings, AlignerSettings))
        _project_by(self.model, maps, alone=False)
        self.model.to(device)
        self.x = {m: torch.from_numpy(features[m].matrix).to(device) for m in self.model.modalities}
        self.views = {m: torch.from_numpy(v).to(device) for m, f in features.items() if (v := f.views) is not None}
        self.present = torch.from_numpy(np.stack([features[m].present for m in self.model.modalities], 1)).to(device)
        self.drawn = torch.Generator().manual_seed(settings.seed + 1)

    def masks(self, rows: Tensor) -> list[Tensor]:
        """Presence (b, modalities) of some items, and without each modality in turn; an item's only one stays."""
        whole = self.present[rows]
        found = [whole]
        if self.settings.modality_dropout and whole.shape[1] > 1:
            for column in range(whole.shape[1]):
                less = whole.clone()
                less[:, column] = False
                found.append(torch.where(less.any(1, keepdim=True), less, whole))
        return found

    def cross_modal(self, rows: Tensor) -> Tensor:
        """Mean InfoNCE over the pairs of modalities that enough items of the batch have."""
        losses = []
        for i, j in combinations(range(len(self.model.modalities)), 2):
            both = rows[self.present[rows, i] & self.present[rows, j]]
            if len(both) > 1:
                a, b = (
                    self.model.aligned(m, self.x[m][both]) for m in (self.model.modalities[i], self.model.modalities[j])
                )
                losses.append(info_nce(a, b, self.model.log_temperature.exp()))
        losses += self.same_under_augmentation(rows)
        return torch.stack(losses).mean() if losses else torch.zeros((), device=self.device)

    def same_under_augmentation(self, rows: Tensor) -> list[Tensor]:
        """InfoNCE of a modality and a view of it, a random one each time (https://arxiv.org/abs/2002.05709)."""
        losses = []
        for m, views in self.views.items():
            mine = rows[self.present[rows, self.model.modalities.index(m)]]
            if len(mine) > 1:
                chosen = views[int(torch.randint(len(views), (), generator=self.drawn)), mine]
                a, b = self.model.aligned(m, self.x[m][mine]), self.model.aligned(m, chosen)
                losses.append(info_nce(a, b, self.model.log_temperature.exp()))
        return losses

    def interaction(self, rows: np.ndarray, mask: np.ndarray, target: np.ndarray, log_q: np.ndarray) -> Tensor:
        """InfoNCE of the user (fused from the history) and the next item.

        What modality dropout (https://arxiv.org/abs/1501.00102) draws at random is averaged in every step: items
        without each modality in turn, for users whose histories lack it too and for users whose histories lack nothing.
        """
        distinct, at = np.unique(np.concatenate([rows[mask], target]), return_inverse=True)
        items = torch.from_numpy(distinct).to(self.device)
        tokens = self.model.item_tokens({m: x[items] for m, x in self.x.items()})
        in_history = torch.from_numpy(mask).to(self.device)
        history, goal = (torch.from_numpy(x).to(self.device) for x in (at[: mask.sum()], at[mask.sum() :]))
        same = goal[:, None] == goal[None]
        correction = torch.from_numpy(log_q[target]).to(self.device)

        def fused(present: Tensor) -> tuple[Tensor, Tensor]:
            vectors, _ = self.model.pool(tokens, present)
            past = torch.zeros((*rows.shape, self.model.dim), device=self.device)
            past[in_history] = vectors[history] + self.model.kind["history"]
            return self.model.pool(past, in_history)[0], vectors[goal]

        def loss(users: Tensor, liked: Tensor) -> Tensor:
            return info_nce(users, liked, self.model.log_temperature.exp(), correction, same)

        whole, *lacking = self.masks(items)
        users, liked = fused(whole)
        total, share = loss(users, liked), self.settings.modality_dropout
        if lacking:
            less = [(loss(u, i) + loss(users, i)) / 2 for u, i in map(fused, lacking)]
            total = (1 - share) * total + share * torch.stack(less).mean()
        return total


@single_threaded()  # sums of several threads differ from run to run
def train_aligner(
    features: dict[str, Features],
    histories: Sequence[np.ndarray],
    settings: AlignerSettings,
    device: str = "cpu",
    encoders: Mapping[str, str] = MappingProxyType({}),
) -> tuple[bytes, dict[str, Any]]:
    """Train the unified space, and turn it into the frame that all nights share.

    Args:
        features: modality -> vectors of the same n items.
        histories: item rows of each user, oldest first.
        settings: shape and training.
        device: torch device.
        encoders: modality -> identity of its encoder, which the frame depends on.

    Returns:
        Weights as safetensors bytes, and a card: dims, settings, losses, retrieval between modalities.
    """
    histories = histories if isinstance(histories, Ragged) else Ragged.of(histories)
    if not features:
        raise ValueError("no item has content in any modality; the aligner needs text, images or sounds to start from")
    n = len(next(iter(features.values())).present)
    held = np.random.default_rng(settings.seed).permutation(n)[: int(HELD_OUT * n)]
    held = held if len(held) >= MIN_HELD_OUT else held[:0]
    known = np.setdiff1d(np.arange(n), held)
    if settings.kind in MAPS:
        features = {m: replace(f, sequence=None) for m, f in features.items()}
        model, curve = _in_closed_form(features, histories, settings, known), list[dict[str, float]]()
    else:
        flat = {m: f for m, f in features.items() if not f.sequence}
        maps = ridge(flat, histories, settings.dim, known) if flat else {}
        trainer, batches = _Trainer(features, settings, maps, device), _Batches(histories, n, settings, known)
        steps = min(settings.steps, max(20, -(-EPOCHS * max(len(batches.next), n) // settings.batch_size)))
        model, curve = trainer.model, _optimize(trainer, batches, steps, settings.learning_rate)
    fused = fuse_items(model, features, device)
    model.frame.copy_(torch.from_numpy(rotation(fused.vector, features, encoders)))
    card = {
        "frame": frame_digest(encoders, settings.dim),
        "dims": {m: f.matrix.shape[1] for m, f in features.items()},
        "sequences": {m: f.sequence for m, f in features.items() if f.sequence},
        "settings": values_of(settings, AlignerSettings),
        "steps": curve[-1]["step"] + 1 if curve else 0,
        "temperature": round(model.log_temperature.exp().item(), 4),
        "curve": curve,
        "retrieval": _retrieval(fused.aligned, features, held if len(held) else np.arange(n)),
        "retrieval_held_out": bool(len(held)),
    }
    state = {k: v.detach().cpu().contiguous() for k, v in sorted(model.state_dict().items())}
    return save_tensors(state), card


def _untrained(dims: dict[str, int], sequences: dict[str, tuple[int, int]], settings: dict[str, Any]) -> FusionModel:
    shape = {name: settings[name] for name in ("kind", "dim", "layers", "heads")}
    return FusionModel(dims=dims, sequences=sequences, **shape)


def _in_closed_form(
    features: dict[str, Features], histories: Ragged, settings: AlignerSettings, known: np.ndarray
) -> FusionModel:
    """A model whose projections are found without training; tokens have no kind."""
    torch.manual_seed(settings.seed)
    model = _untrained({m: f.matrix.shape[1] for m, f in features.items()}, {}, values_of(settings, AlignerSettings))
    _project_by(model, MAPS[settings.kind](features, histories, settings.dim, known), alone=True)
    with torch.no_grad():
        for kind in model.kind.values():
            kind.zero_()
    return model.eval()


def _project_by(model: FusionModel, maps: dict[str, Map], alone: bool) -> None:
    """Set projections. Directions without any weight stay random, or are emptied if maps are used ``alone``.

    A map without any direction (nobody has liked anything yet) leaves the whole projection random.
    """
    with torch.no_grad():
        for m, found in maps.items():
            linear, used = cast(nn.Linear, model.project[m]), np.flatnonzero(found.matrix.any(0))
            if alone and len(used):
                used = np.arange(found.matrix.shape[1])
            linear.weight[used] = torch.from_numpy(found.matrix.T[used])
            linear.bias[used] = torch.from_numpy(-found.mean @ found.matrix[:, used])


def _optimize(trainer: _Trainer, batches: _Batches, steps: int, learning_rate: float) -> list[dict[str, float]]:
    """Train for a number of steps; the learning curve, about fifty points of it."""
    optimizer = torch.optim.AdamW(trainer.model.parameters(), learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve = []
    for step in range(steps):
        cross, inter = _losses(trainer, batches)
        loss = CROSS_MODAL * cross + inter
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            trainer.model.log_temperature.clamp_(np.log(0.02), np.log(0.5))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"aligner loss is {loss.item()} at step {step}; lower aligner.learning_rate")
        if step % max(1, steps // 50) == 0 or step == steps - 1:
            point = {"cross_modal": round(cross.item(), 4), "interaction": round(inter.item(), 4)}
            curve.append({"step": step} | point)
        if step % max(1, steps // 5) == 0:
            at = (step, steps, cross.item(), inter.item())
            log.info("aligner: step %d of %d, cross-modal %.3f, interaction %.3f", *at)
    return curve


def _losses(trainer: _Trainer, batches: _Batches) -> tuple[Tensor, Tensor]:
    """Cross-modal and interaction loss of the next batches; zero where there is nothing to learn from."""
    cross = inter = torch.zeros(())
    if len(trainer.present) > 1:
        cross = trainer.cross_modal(torch.from_numpy(batches.items()).to(trainer.device))
    if len(batches.next):
        inter = trainer.interaction(*batches.next_items(), batches.log_q)
    return cross, inter


def _retrieval(aligned: dict[str, np.ndarray], features: dict[str, Features], rows: np.ndarray) -> dict[str, Any]:
    """Recall@10 of finding an item's vector in one modality by its vector in another, among ``rows``."""
    out: dict[str, Any] = {}
    for a, b in combinations(aligned, 2):
        both = rows[features[a].present[rows] & features[b].present[rows]]
        if len(both) > 1:
            scores = aligned[a][both] @ aligned[b][both].T
            rank = (scores > np.diag(scores)[:, None]).sum(1)
            out[f"{a}_to_{b}"] = {
                "recall_at_10": round(float((rank < 10).mean()), 4),
                "items": len(both),
                "chance": round(min(1.0, 10 / len(both)), 4),
            }
    return out


def load_aligner(weights: bytes, card: dict[str, Any]) -> FusionModel:
    """Model of saved weights and their card."""
    model = _untrained(card["dims"], card["sequences"], card["settings"])
    model.load_state_dict({"frame": model.frame} | load_tensors(weights))  # earlier versions had no frame
    return model.eval()


def card_bytes(card: dict[str, Any]) -> bytes:
    """A card as it is stored."""
    return (json.dumps(card, indent=1, sort_keys=True) + "\n").encode()
