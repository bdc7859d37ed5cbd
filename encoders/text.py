"""Text to vectors with a Transformer: tokenize, bucket by length, pool, normalize.

Cleaning of catalogue text (NFC, white space) belongs to standardization, not here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.base import DecodeError, Device, EncoderError, EncoderSpec, model_files, quiet_transformers, unit_rows

LENGTH_STEP = 16  # tokens; a text is padded to the next multiple of its own length, whatever its neighbours are


class TextEncoder:
    """A Hugging Face encoder with masked-mean or CLS pooling.

    Args:
        model: Hugging Face id, local folder or built-in name.
        device: where it runs.
        revision: hub commit.
    """

    def __init__(self, model: str, device: Device, revision: str | None = None):
        from transformers import AutoModel, AutoTokenizer

        quiet_transformers()
        files = model_files(model, revision)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(files.folder)
            self.model: Any = AutoModel.from_pretrained(files.folder, dtype=device.torch_dtype())
        except (OSError, ValueError, KeyError) as e:
            raise EncoderError(f"cannot load text encoder '{model}' from {files.folder}: {e}") from e
        self.model.eval().requires_grad_(False).to(device.name)
        self.device = device
        self.max_tokens, self.pooling = _sentence_settings(files.folder, self.tokenizer, self.model.config)
        self.spec = EncoderSpec(
            modality="text",
            model=model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={"max_tokens": self.max_tokens, "length_step": LENGTH_STEP, "version": 1},
            pooling=self.pooling,
            dtype=device.dtype,
            dim=int(self.model.config.hidden_size),
        )

    def prepare(self, payload: bytes) -> list[int]:
        """Token ids of UTF-8 text, cut to the model's length.

        Raises:
            DecodeError: the bytes are not UTF-8.
        """
        try:
            text = payload.decode("utf-8")
        except UnicodeDecodeError as e:
            raise DecodeError("bad_encoding", f"text is not UTF-8: {e}") from e
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return ids

    def bucket(self, prepared: list[int]) -> int:
        """Padded length in tokens."""
        return min(-(-len(prepared) // LENGTH_STEP) * LENGTH_STEP, self.max_tokens)

    def encode(self, prepared: Sequence[list[int]]) -> np.ndarray:
        """Vectors (n, dim) of token lists from one bucket; each batch has the same fixed shape."""
        import torch

        length, size = self.bucket(prepared[0]), self.device.batch_size
        pad = self.tokenizer.pad_token_id or 0
        out = []
        for start in range(0, len(prepared), size):
            chunk = prepared[start : start + size]
            ids = np.full((size, length), pad, np.int64)
            mask = np.zeros((size, length), np.int64)
            mask[:, 0] = 1  # padding rows attend to something, or softmax yields NaN
            for row, tokens in enumerate(chunk):
                ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            with torch.inference_mode():
                t_ids = torch.from_numpy(ids).to(self.device.name)
                t_mask = torch.from_numpy(mask).to(self.device.name)
                hidden = self.model(input_ids=t_ids, attention_mask=t_mask).last_hidden_state.float()
                pooled = hidden[:, 0] if self.pooling == "cls" else _masked_mean(hidden, t_mask)
            out.append(pooled[: len(chunk)].cpu().numpy())
        return unit_rows(np.concatenate(out))


def _masked_mean(hidden: Any, mask: Any) -> Any:
    """Mean over true tokens. hidden (b, s, d), mask (b, s) -> (b, d)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def _sentence_settings(folder: Path, tokenizer: Any, config: Any) -> tuple[int, str]:
    """Length and pooling from the model's own sentence-transformers files, else its limits and the mean."""
    limits = [int(tokenizer.model_max_length), int(getattr(config, "max_position_embeddings", 512))]
    settings = folder / "sentence_bert_config.json"
    if settings.is_file():
        limits.append(int(json.loads(settings.read_text()).get("max_seq_length") or 512))
    pooling = folder / "1_Pooling" / "config.json"
    cls = pooling.is_file() and json.loads(pooling.read_text()).get("pooling_mode_cls_token", False)
    return min(limits), "cls" if cls else "mean"


def load_text(model: str, device: Device, revision: str | None = None) -> TextEncoder:
    """Load a text encoder by built-in name, Hugging Face id or folder."""
    return TextEncoder(model, device, revision)
