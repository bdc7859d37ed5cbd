"""Fine-tuning a text encoder on the log: full, LoRA, AdaLoRA or (IA)3 adapters through peft.

Two tasks: contrastive on items that the same users consume, and supervised on labels with a
linear head. The result is a model folder like any other, with a digest of its own. Belongs here: losses, what is
trained, early stopping. Does not: which events and items are trained on (``pipelines.finetune``).
"""

import logging
import re
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.base import unit_rows
from encoders.batching import encode_all, to_device
from encoders.device import Device, single_threaded
from encoders.errors import EncoderError
from encoders.files import model_files
from encoders.settings import FinetuneSettings, ModelChoice, values_of
from encoders.space.alignment import info_nce
from encoders.text import TextEncoder, padded

log = logging.getLogger(__name__)

TEMPERATURE = 0.05
LEARNING_RATE: dict[str, float] = {"full": 5e-5, "adapter": 5e-3, "lora": 5e-4, "adalora": 2e-3}
CLEAR_PEAK = Path("/proc/self/clear_refs")
EVALUATION_BATCH = 1024  # tokens


@dataclass(frozen=True)
class CoConsumption:
    """Pairs of item rows (n, 2) that the same users consume."""

    pairs: np.ndarray


@dataclass(frozen=True)
class Labels:
    """A class of each item and the rows that are trained on and tested on.

    Attributes:
        label: int (n,), any value where a row is in neither set.
        train: item rows.
        test: item rows.
    """

    label: np.ndarray
    train: np.ndarray
    test: np.ndarray


@single_threaded()  # sums of several threads differ from run to run
def finetune(
    choice: ModelChoice,
    texts: Sequence[str],
    task: CoConsumption | Labels,
    settings: FinetuneSettings,
    evaluate: Callable[[np.ndarray], float],
    device: str = "cpu",
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Fine-tune a text encoder and keep the epoch that validates best; the untouched model counts as epoch 0.

    Args:
        choice: the model to start from.
        texts: text of each of n items.
        task: what is learned.
        settings: how.
        evaluate: vectors (n, dim) -> validation metric, higher is better.
        device: torch device.

    Returns:
        Files of the new model folder, and a card: losses and metric by epoch, parameters, memory, seconds.

    Raises:
        EncoderError: the model is no text model whose layers can be trained.
    """
    torch.manual_seed(settings.seed)
    _reset_peak(device)
    trainer = _Trainer(choice, texts, task, settings, device)
    started = time.monotonic()
    best, state = evaluate(trainer.vectors()), trainer.trained_state()
    history: list[dict[str, float]] = [{"epoch": 0, "validation": round(best, 5)}]
    at = 0
    for epoch in range(1, settings.epochs + 1):
        losses = trainer.epoch(epoch)
        metric = evaluate(trainer.vectors())
        history.append({"epoch": epoch, "validation": round(metric, 5)} | {k: round(v, 5) for k, v in losses.items()})
        log.info("finetune: epoch %d of %d, %s", epoch, settings.epochs, history[-1])
        if metric > best:
            best, state, at = metric, trainer.trained_state(), epoch
        elif epoch - at >= settings.patience:
            break
    files = trainer.files(state) if at else {}
    card = {
        "base": choice.model,
        "task": type(task).__name__,
        "settings": values_of(settings, FinetuneSettings) | {"learning_rate": trainer.learning_rate},
        "history": history,
        "best_epoch": at,
        "trained_parameters": trainer.n_trained,
        "all_parameters": trainer.n_all,
        "frozen_share": round(1 - trainer.n_trained / trainer.n_all, 6),
    }
    if isinstance(task, Labels):
        common = np.bincount(task.label[task.train]).argmax()
        card["test_share_of_commonest_class"] = round(float((task.label[task.test] == common).mean()), 5)
    measured = {"seconds": round(time.monotonic() - started, 1), "peak_memory_mb": round(_peak_mb(device))}
    log.info("finetune: %s, %s", card, measured)
    return files, card | {"measured": measured}


def _reset_peak(device: str) -> None:
    """Let ``_peak_mb`` count from now on, where the system can."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_PEAK.exists():
        CLEAR_PEAK.write_text("5")  # resets the peak of resident memory, see proc(5)


def _peak_mb(device: str) -> float:
    """Most memory in use since ``_reset_peak``, of the device or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return (int(peak) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


class _Trainer:
    """The network with what is trained of it, its head, and the optimizer."""

    def __init__(
        self,
        choice: ModelChoice,
        texts: Sequence[str],
        task: CoConsumption | Labels,
        settings: FinetuneSettings,
        device: str,
    ):
        self.choice, self.task, self.settings = choice, task, settings
        self.encoder = TextEncoder(choice, Device(device, "float32", EVALUATION_BATCH))
        if self.encoder.joint or self.encoder.layer != -1:
            raise EncoderError(f"finetune: '{choice.model}' must be no joint tower and be pooled at its last layer")
        self.tokens = [self.encoder.prepare(t.encode()) for t in texts]
        self.short = [t[: settings.max_tokens] for t in self.tokens]
        steps = settings.epochs * max(1, -(-self._examples() // settings.batch_size))
        self.peft = self._adapted(steps)
        self.head = self._head(device)
        self.trained = [p for p in self._modules().parameters() if p.requires_grad]
        self.n_trained = sum(p.numel() for p in self.trained)
        self.n_all = sum(p.numel() for p in self._modules().parameters())
        self.learning_rate = settings.learning_rate or LEARNING_RATE[settings.method]
        self.optimizer = torch.optim.AdamW(self.trained, self.learning_rate, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.05, steps)
        self.rng, self.step = np.random.default_rng(settings.seed), 0

    def _modules(self) -> torch.nn.ModuleList:
        parts = [self.peft or self.encoder.model, *([self.head] if self.head is not None else [])]
        return torch.nn.ModuleList(parts)

    def _head(self, device: str) -> torch.nn.Linear | None:
        if isinstance(self.task, CoConsumption):
            return None
        return torch.nn.Linear(self.encoder.spec.dim, int(self.task.label[self.task.train].max()) + 1).to(device)

    def _examples(self) -> int:
        """Pairs or items of one epoch."""
        rows = self.task.pairs if isinstance(self.task, CoConsumption) else self.task.train
        return min(self.settings.examples, len(rows))

    def _adapted(self, steps: int) -> Any:
        """Make the top layers trainable: themselves, or through peft, whose wrapper is returned."""
        model, settings = self.encoder.model, self.settings
        layers = int(model.config.num_hidden_layers)
        top = set(range(max(0, layers - settings.train_layers), layers))
        names = [n for n, _ in model.named_parameters() if _layer_of(n) in top]
        if not names:
            raise EncoderError(f"finetune: found no numbered layers in {type(model).__name__}")
        if settings.method == "full":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in names)
            return None
        import peft

        linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and _layer_of(n) in top}
        shared: dict[str, Any] = {"target_modules": sorted(linear)}
        if settings.method == "adapter":
            down = [n for n, m in linear.items() if m.in_features > m.out_features]
            config: Any = peft.IA3Config(**shared, feedforward_modules=down)
        elif settings.method == "lora":
            config = peft.LoraConfig(**shared, r=settings.rank, lora_alpha=2 * settings.rank)
        else:
            config = peft.AdaLoraConfig(
                **shared,
                init_r=settings.rank + settings.rank // 2,
                target_r=settings.rank,
                tinit=steps // 10,
                tfinal=steps // 3,
                deltaT=10,
                lora_alpha=2 * settings.rank,
                total_step=max(steps, 4),
            )
        return peft.get_peft_model(model, config)

    def vectors(self) -> np.ndarray:
        """Unit vectors of all items as the network is now."""
        self.encoder.model.eval()
        return encode_all(self.encoder, self.tokens)

    def epoch(self, number: int) -> dict[str, float]:
        """One pass over the epoch's examples; mean losses and, for labels, the accuracy on the test rows."""
        rows = self.task.pairs if isinstance(self.task, CoConsumption) else self.task.train
        order = self.rng.permutation(len(rows))[: self._examples()]
        losses = []
        for start in range(0, len(order), self.settings.batch_size):
            batch = rows[order[start : start + self.settings.batch_size]]
            if len(batch) < 2:
                continue
            loss = self._pair_loss(batch) if batch.ndim == 2 else self._label_loss(batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"finetune: loss is {loss.item()} in epoch {number}; lower finetune.learning_rate"
                )
            self._update(loss)
            losses.append(loss.item())
        found = {"train_loss": float(np.mean(losses)) if losses else 0.0}
        return found | (self._tested(self.task.test) if isinstance(self.task, Labels) else {})

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        if self.settings.method == "adalora":
            self.peft.base_model.update_and_allocate(self.step)

    def _pooled(self, rows: Sequence[int]) -> Tensor:
        """Pooled vectors (b, dim), with gradients."""
        chunk = [self.short[i] for i in rows]
        ids, mask = padded(chunk, max(map(len, chunk)), self.encoder.pad_id())
        return self.encoder.pooled(to_device(ids, self.encoder.device), to_device(mask, self.encoder.device))

    def _pair_loss(self, pairs: np.ndarray) -> Tensor:
        """Symmetric InfoNCE of co-consumed items; the same item elsewhere in the batch is no negative."""
        distinct, at = np.unique(pairs, return_inverse=True)
        vectors = F.normalize(self._pooled(distinct.tolist()), dim=-1)
        a, b = (vectors[torch.from_numpy(at.reshape(pairs.shape)[:, i])] for i in (0, 1))
        first, second = pairs[:, 0][:, None], pairs[:, 1][:, None]
        same = torch.from_numpy((second == second.T) | (first == second.T))
        return info_nce(a, b, torch.tensor(TEMPERATURE, device=a.device), same=same.to(a.device))

    def _label_loss(self, rows: np.ndarray) -> Tensor:
        logits, target = self._classified(rows)
        return F.cross_entropy(logits, target)

    def _classified(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) and labels (b,) of item rows."""
        if not isinstance(self.task, Labels) or self.head is None:
            raise TypeError("only a task with labels has classes")
        target = torch.from_numpy(self.task.label[rows]).to(self.encoder.device.name)
        return self.head(self._pooled(rows.tolist())), target

    def _tested(self, test: np.ndarray) -> dict[str, float]:
        """Loss and accuracy on the test rows."""
        losses, right = [], 0
        with torch.no_grad():
            for start in range(0, len(test), self.settings.batch_size):
                logits, target = self._classified(test[start : start + self.settings.batch_size])
                losses.append(F.cross_entropy(logits, target, reduction="sum").item())
                right += int((logits.argmax(1) == target).sum())
        n = max(1, len(test))
        return {"test_loss": sum(losses) / n, "test_accuracy": right / n}

    def trained_state(self) -> list[Tensor]:
        """A copy of what is trained."""
        return [p.detach().clone() for p in self.trained]

    def files(self, state: list[Tensor]) -> dict[str, bytes]:
        """The model folder with these trained weights, adapters merged; tokenizer and pooling files as they were."""
        with torch.no_grad():
            for parameter, value in zip(self.trained, state, strict=True):
                parameter.copy_(value)
        model = self.encoder.model if self.peft is None else self.peft.merge_and_unload()
        origin = model_files(self.choice.model, self.choice.revision)
        with tempfile.TemporaryDirectory() as name:
            model.save_pretrained(name)
            made = {str(p.relative_to(name)): p.read_bytes() for p in sorted(Path(name).rglob("*")) if p.is_file()}
        replaced = {n for n in origin.sha256 if "/" not in n and (n == "config.json" or n.endswith(".safetensors"))}
        kept = {n: (origin.folder / n).read_bytes() for n in origin.sha256 if n not in replaced}
        return kept | made


def _layer_of(name: str) -> int | None:
    """Number of the layer that a parameter or module belongs to."""
    found = re.search(r"\.(\d+)(\.|$)", name)
    return int(found[1]) if found else None


def content_recall(
    vectors: np.ndarray, histories: Sequence[np.ndarray], future: Sequence[np.ndarray], k: int = 20
) -> float:
    """Recall@k of recommending by the mean vector of a user's history, seen items left out, mean over users.

    Args:
        vectors: unit rows (n, d).
        histories: item rows of each user before the split.
        future: item rows of each user after it; users without either do not count.
        k: list length.
    """
    centred = unit_rows(vectors - vectors.mean(0))
    found = []
    for seen, wanted in zip(histories, future, strict=True):
        new = np.setdiff1d(wanted, seen)
        if not len(seen) or not len(new):
            continue
        scores = centred @ centred[seen].mean(0)
        scores[seen] = -np.inf
        top = np.argsort(-scores, kind="stable")[:k]
        found.append(len(np.intersect1d(top, new)) / min(k, len(new)))
    return float(np.mean(found)) if found else 0.0
