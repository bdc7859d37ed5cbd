"""Which encoder a night uses: identity, precision and batch size, measured once a machine and remembered.

Belongs here: what is remembered between nights, the loaded model of this process. Does not: the measurement
(``encoders.tuning``), its use (``blocks``).
"""

import gc
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from encoders.base import Encoder, EncoderSpec
from encoders.batching import free_memory
from encoders.catalogue import files_of, load
from encoders.device import Device, choose_device
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from encoders.tuning import TUNING_VERSION, Tuning, machine, tune
from pipelines.config import digest_of
from pipelines.lake.cards import load_card
from pipelines.lake.storage import Lake
from pipelines.operation import Compute


@dataclass(frozen=True)
class Chosen:
    """The encoder of a night.

    Attributes:
        choice: the model and its options.
        spec: its identity.
        digest: of the spec.
        device: where and how it runs.
    """

    choice: ModelChoice
    spec: EncoderSpec
    digest: str
    device: Device


@lru_cache(maxsize=1)
def _loaded(modality: Modality, choice: ModelChoice, device: Device) -> Encoder:
    return load(modality, choice, device)


_loading = threading.Lock()


def loaded(modality: Modality, choice: ModelChoice, device: Device) -> Encoder:
    """The encoder, loaded once a process."""
    with _loading:
        return _loaded(modality, choice, device)


def unload() -> None:
    """Give the memory of the last encoder back, that of a device too."""
    _loaded.cache_clear()
    gc.collect()  # networks hold cycles, and tensors in them would stay on the device
    free_memory()


def choose(
    modality: Modality, choice: ModelChoice, compute: Compute, cache: Path, sample: Callable[[], list[bytes]]
) -> Chosen:
    """Identity, precision and batch size of a model on this machine; measured once, so that an idle night loads none.

    Args:
        modality: what it embeds.
        choice: the model and its options.
        compute: device and precision.
        cache: folder that remembers.
        sample: gives some payloads to measure on; none leaves the model unmeasured and nothing remembered as measured.
    """
    device = choose_device(compute.device).name
    payloads: list[bytes] = []
    facts = _facts(modality, choice, compute, device)
    path = _remembered(cache, facts, measured=True)
    if not path.is_file():
        payloads = sample()
        path = _remembered(cache, facts, measured=bool(payloads))
    if not path.is_file():
        tuning = (
            tune(lambda d: loaded(modality, choice, d), device, compute.precision, payloads) if payloads else Tuning()
        )
        spec = loaded(modality, choice, tuning.device(device)).spec
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        partial.write_text(json.dumps({"tuning": tuning.as_json(), "spec": asdict(spec), "digest": spec.digest()}))
        partial.replace(path)
    known = json.loads(path.read_text())
    tuning = Tuning(**known["tuning"])
    spec = EncoderSpec(**known["spec"] | {"measured": tuning.measured})
    return Chosen(choice, spec, known["digest"], tuning.device(device))


def _facts(modality: Modality, choice: ModelChoice, compute: Compute, device: str) -> list[Any]:
    """All that the measurement and the spec depend on."""
    return [modality, asdict(choice), files_of(choice), machine(device), device, compute.precision, TUNING_VERSION]


def _remembered(cache: Path, facts: list[Any], measured: bool) -> Path:
    return cache / "encoders" / f"{digest_of([*facts, measured])}.json"


def choice_of(lake: Lake, day: date, modality: Modality, choice: ModelChoice, finetuned: bool) -> ModelChoice:
    """The configured model, or what fine-tuning had made of it by the end of the day.

    Args:
        lake: where models are.
        day: the night.
        modality: what the model embeds; fine-tuning trains that of text.
        choice: the configured model.
        finetuned: whether models are fine-tuned at all.
    """
    if modality != "text" or not finetuned:
        return choice
    trained_on = date.fromisoformat(load_card(lake, "finetuned", day)["trained_on"])
    folder = lake.folder("model_finetuned", trained_on) / "encoder"
    return replace(choice, model=str(folder), revision=None) if folder.is_dir() else choice
