"""Precision and batch size of a model on this machine: measured once on real inputs.

Of the models that are carried along the vectors' distance in bfloat16 is known, and that a processor gains nothing by
batches of more than one input: what was measured of them is typed here, and only what the user brings is measured.

Belongs here: the measurement, and the rule for accelerators, where nothing is measured but the precision. Does not:
remembering it (``engine.chosen``), cutting batches (``batching``).
"""

import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from encoders.base import Encoder
from encoders.batching import encode_all
from encoders.device import Device, single_threaded
from encoders.errors import cause_of

log = logging.getLogger(__name__)

TUNING_VERSION = 1  # raise it when the same model should be measured, or described, in another way
MIN_COSINE = 0.999  # bfloat16 may turn no vector further than this from its float32 direction
MIN_SPEEDUP = 1.3  # and the machine's matrix product has to gain this; it is 2 with bfloat16 units and 0.5 without
MIN_GAIN = 1.05  # a larger batch has to raise the throughput by this
PATIENCE = 2  # doublings without such a gain, after which no larger batch is tried
SAMPLE = 16
TRIALS = 5
LARGEST = 1 << 16
CARRIED = {  # model -> least cosine between its vectors in bfloat16 and float32, of 16 inputs of the demo
    "minilm": 0.999944,
    "efficientnet-lite0": 0.997424,
    "musicnn": 0.999701,
    "frames": 0.996482,
}
FIXED_BATCH = {"text": 1 << 15, "image": 256, "audio": 64, "video": 64}  # tokens, pictures, windows, pictures


@dataclass(frozen=True)
class Tuning:
    """How a model runs best on this machine.

    Attributes:
        dtype: precision of the forward pass.
        batch: tokens (text) or rows of a forward pass.
        fixed: every batch has exactly this size, as on an accelerator, whose results depend on it.
        measured: bf16_matmul_speedup of the machine; min_cosine and speedup of this model in bfloat16; throughput by
            batch size (rows a second).
    """

    dtype: str = "float32"
    batch: int = 1
    fixed: bool = False
    measured: dict[str, Any] = field(default_factory=dict)

    def device(self, name: str) -> Device:
        """The device with these settings."""
        return Device(name, self.dtype, self.batch, self.fixed)

    def as_json(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return asdict(self)


def machine(device: str) -> str:
    """What makes timings and kernels differ: processor or GPU, and torch's version."""
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)} torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    facts = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    name = "/".join(facts.get(k, "") for k in ("vendor_id", "cpu family", "model", "stepping"))
    has_bf16 = [f for f in ("amx_bf16", "avx512_bf16", "bf16") if f in facts.get("flags", "").split()]
    return f"{platform.machine()} {name} {' '.join(has_bf16)} torch {torch.__version__}"


@single_threaded()
def tune(load_on: Callable[[Device], Encoder], name: str, precision: str, payloads: Sequence[bytes]) -> Tuning:
    """Measure a model on real inputs.

    Args:
        load_on: loads the model on a device.
        name: torch device string.
        precision: a dtype name, or ``auto``: bfloat16 where it is as good as float32 and faster.
        payloads: inputs as they are stored; without one that can be decoded nothing is measured.
    """
    dtype = "float32" if precision == "auto" else precision
    measured: dict[str, Any] = {}
    encoder = load_on(Device(name, dtype))
    if name == "cpu" and payloads and _is_carried(encoder):
        return _known(encoder.spec.model, precision)
    sample = _prepared(encoder, payloads)
    if not sample:
        return Tuning(dtype)
    if precision == "auto" and _has_network(encoder):
        measured["bf16_matmul_speedup"] = bf16_speedup(name)
        if measured["bf16_matmul_speedup"] >= MIN_SPEEDUP:
            fast = load_on(Device(name, "bfloat16"))
            try:
                measured |= _compare(encoder, fast, sample)
            except RuntimeError as e:  # XLNet, for one, mixes in float32 tensors of its own
                measured |= {"min_cosine": 0.0, "bfloat16_fails": cause_of(e)}
            if measured["min_cosine"] >= MIN_COSINE:
                encoder, dtype = fast, "bfloat16"
    batch, fixed = fixed_batch(encoder), True
    if name == "cpu":
        (batch, measured["throughput"]), fixed = _grow(encoder, sample), False
    log.info("%s on %s: %s, batches of %d%s; %s", encoder.spec.model, name, dtype, batch, " fixed" * fixed, measured)
    return Tuning(dtype, batch, fixed, measured)


def _is_carried(encoder: Encoder) -> bool:
    """Whether a model, and those inside it, are carried along."""
    inner = [getattr(encoder, part) for part in ("image", "audio") if hasattr(getattr(encoder, part, None), "spec")]
    return all(e.spec.model in CARRIED for e in (encoder, *inner))


def _known(model: str, precision: str) -> Tuning:
    """How a carried model runs on a processor: one input a batch, in bfloat16 where that is as good and faster."""
    if precision != "auto":
        return Tuning(precision)
    facts = {"bf16_matmul_speedup": bf16_speedup("cpu"), "min_cosine": CARRIED[model]}
    fast = facts["bf16_matmul_speedup"] >= MIN_SPEEDUP and facts["min_cosine"] >= MIN_COSINE
    return Tuning("bfloat16" if fast else "float32", measured=facts)


def fixed_batch(encoder: Encoder) -> int:
    """Tokens or rows of every batch on an accelerator, whose kernels give other bits for other batch sizes.

    It is part of an encoder's identity, so it follows from the modality by rule: a measurement would differ from one
    hour to the next, and each other result would embed the whole catalogue again. 0 where no network runs.
    """
    return FIXED_BATCH[encoder.spec.modality] if _has_network(encoder) else 0


def _has_network(encoder: Encoder) -> bool:
    return any(hasattr(encoder, part) for part in ("net", "model", "image"))


def _prepared(encoder: Encoder, payloads: Sequence[bytes]) -> list[Any]:
    found = []
    for payload in payloads[:SAMPLE]:
        try:
            found.append(encoder.prepare(payload))
        except Exception as e:  # the stage quarantines it with its reason; here it is only no good to measure on
            log.debug("not measured on: %s", e)
    return found


@cache
def bf16_speedup(name: str) -> float:
    """How much faster a matrix product of 1024 is in bfloat16 than in float32 on this device.

    A model's own timing decides nothing: it is noisy where it is short, and would make tables depend on the noise.
    """
    import torch

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones((1024, 1024), dtype=dtype, device=name)

        def product() -> None:
            (a @ a)[0, 0].item()  # waits for the device

        product()
        return min(_seconds(product) for _ in range(5))

    return round(seconds(torch.float32) / max(seconds(torch.bfloat16), 1e-9), 1)


def _compare(exact: Encoder, fast: Encoder, sample: Sequence[Any]) -> dict[str, Any]:
    a, b = encode_all(exact, sample), encode_all(fast, sample)
    slow_s, fast_s = (min(_seconds(lambda e=e: encode_all(e, sample)) for _ in range(TRIALS)) for e in (exact, fast))  # type: ignore[misc]
    return {
        "inputs": len(sample),
        "min_cosine": round(float((a * b).sum(1).min()), 6),
        "speedup": round(slow_s / max(fast_s, 1e-9), 2),
    }


def _seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def _grow(encoder: Encoder, sample: Sequence[Any]) -> tuple[int, dict[str, float]]:
    """Double the batch while throughput grows and vectors keep their bits.

    Returns:
        Batch size, rows a second by batch size.
    """
    rows, unit = _typical(encoder, sample)
    device = replace(encoder.device, batch=unit)
    alone = np.concatenate([encoder_on(encoder, device).encode([row]) for row in rows])
    best, size, top, since = unit, unit, 0.0, 0
    curve: dict[str, float] = {}
    while size <= LARGEST and since < PATIENCE:
        tried, n = encoder_on(encoder, replace(device, batch=size)), max(1, size // unit)
        if not all(_same_bits(tried, rows, alone, m) for m in _sizes_of_batches(n)):
            break
        full = [rows[i % len(rows)] for i in range(n)]
        # one thread does a CPU's forward pass, and its own time does not count what else the machine is doing
        seconds = min(_seconds(lambda t=tried, r=full: t.encode(r), time.thread_time) for _ in range(TRIALS))  # type: ignore[misc]
        rate = n / max(1e-9, seconds)
        curve[str(size)] = round(rate, 2)
        best, top, since = (size, rate, 0) if rate >= top * MIN_GAIN else (best, top, since + 1)
        size *= 2
    return best, curve


def _sizes_of_batches(n: int) -> list[int]:
    """Numbers of rows that a night's batches of ``n`` may have: full, one less, odd ones; the last is seldom full."""
    return sorted({m for m in (n, n - 1, 2 * n // 3, n // 2 + 1, 3, 2) if 0 < m <= n}, reverse=True)


def _same_bits(encoder: Encoder, rows: Sequence[Any], alone: np.ndarray, n: int) -> bool:
    """Whether a batch of ``n`` different rows has the vectors that they have alone, wherever they stand in it."""
    at = [(i + n) % len(rows) for i in range(n)]
    return np.array_equal(encoder.encode([rows[i] for i in at]), alone[at])


def _typical(encoder: Encoder, sample: Sequence[Any]) -> tuple[list[Any], int]:
    """Different inputs that share the bucket of the median one, and the batch units that each takes.

    Texts of one bucket differ in length: the median one is also tried shorter by a token or two, and at full length.
    """
    ordered = sorted(sample, key=encoder.bucket)
    one = ordered[len(ordered) // 2]
    bucket = encoder.bucket(one)
    rows = [one, *(s for s in sample if s is not one and encoder.bucket(s) == bucket)]
    if encoder.spec.modality != "text" or not bucket:
        return rows, 1
    others = [one[:-1], one[:-2], one + one[-1:] * (bucket - len(one))]
    return rows + [t for t in others if t and t != one and encoder.bucket(t) == bucket], bucket


def encoder_on(encoder: Encoder, device: Device) -> Encoder:
    """The same loaded network, and those inside it, with other batch settings."""
    from copy import copy

    from encoders.batching import Batches

    other = copy(encoder)
    other.device = device
    other.batches = Batches(device)  # type: ignore[attr-defined]
    for part in ("image", "audio"):  # of a video
        inner: Any = getattr(encoder, part, None)
        if hasattr(inner, "batches"):
            setattr(other, part, encoder_on(inner, device))
    return other
