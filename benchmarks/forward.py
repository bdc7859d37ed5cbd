"""`python -m benchmarks.forward [--json] [--device cuda] [--model text=NAME ...]`: encoders against bare torch.

What is timed is the forward pass of prepared inputs through ``Encoder.encode``, from arrays of the host to vectors of
the host, as a night cuts its batches. The baseline is the same network at the same precision in batches of the same
size, written as a bare loop without padding to fixed shapes, pooling or normalizing. Wall time, after a warm-up.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from benchmarks.encode import MAKE, MODELS
from benchmarks.figures import Figure, parser, show
from encoders.base import Encoder
from encoders.catalogue import load
from encoders.device import choose_device, single_threaded
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from encoders.tuning import tune

DIFFERENT = 512  # inputs that are prepared, and repeated up to the number that is asked for
GOAL = 1.15


def _wall(work: Callable[[], Any], repeat: int) -> float:
    """Least seconds of some runs, after one that does not count."""
    taken = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def _batches(encoder: Encoder, prepared: Sequence[Any]) -> list[list[Any]]:
    """Prepared inputs in the batches of a night: of one bucket, full where there are enough."""
    found = []
    for bucket, group in groupby(sorted(prepared, key=encoder.bucket), encoder.bucket):
        rows, size = list(group), encoder.rows(bucket)
        found += [rows[a : a + size] for a in range(0, len(rows), size)]
    return found


def _bare(modality: Modality, encoder: Any, batches: list[list[Any]]) -> Callable[[], None]:
    """The network alone on the same batches."""
    name, dtype = encoder.device.name, encoder.device.torch_dtype()

    def tensor(rows: list[Any]) -> Any:
        if modality == "audio":
            return encoder.net(torch.from_numpy(np.concatenate(rows)).to(name, dtype))
        if modality == "image":
            pixels = torch.from_numpy(np.stack(rows)).to(name).permute(0, 3, 1, 2)
            return encoder.net(((pixels.float() - 127.0) / 128.0).to(dtype))
        longest = max(map(len, rows))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows], device=name)
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows], device=name)
        return encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]

    def loop() -> None:
        with torch.inference_mode():
            for rows in batches:
                got = tensor(rows)
                (torch.cat(got, 1) if isinstance(got, tuple) else got).float().cpu().numpy()

    return loop


def bench(modality: Modality, model: str, device: str, items: int, repeat: int) -> Iterator[Figure]:
    """Figures of one modality."""
    payloads = MAKE[modality](min(items, DIFFERENT))
    choice = ModelChoice(model)
    found = tune(lambda d: load(modality, choice, d), device, "auto", payloads)
    encoder: Any = load(modality, choice, found.device(device))
    prepared = [encoder.prepare(p) for p in payloads]
    prepared = [prepared[i % len(prepared)] for i in range(items)]
    batches = _batches(encoder, prepared)
    ours = _wall(lambda: [encoder.encode(rows) for rows in batches], repeat)
    bare = _wall(_bare(modality, encoder, batches), repeat)
    how = f"bare loop on {device} ({found.dtype}, {'fixed ' if found.fixed else ''}batch {found.batch})"
    yield Figure(f"{modality}_forward_wall", items / ours, "items/s", how, ours / bare, GOAL, "lower")
    cosine = found.measured.get("min_cosine")
    if cosine is not None:
        yield Figure(f"{modality}_bfloat16_cosine", cosine, "cosine", "float32", cosine, 0.999, "higher")


def main() -> None:
    """Run the modalities and print each figure with its baseline."""
    command = parser(__doc__)
    command.add_argument("--device", default="auto")
    command.add_argument("--items", type=int, default=2_000)
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--model", nargs="+", default=[f"{m}={name}" for m, name in MODELS.items()])
    args = command.parse_args()
    device = choose_device(args.device).name
    with single_threaded():
        for entry in args.model:
            modality, _, model = entry.partition("=")
            show(bench(modality, model, device, args.items, args.repeat), args.json)


if __name__ == "__main__":
    main()
