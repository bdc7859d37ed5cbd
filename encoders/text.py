"""Text to vectors with a Transformer: tokenize, pad by length, pool as the model's own files say, normalize.

Cleaning of catalogue text (NFC, white space) belongs to standardization, not here.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import EncoderSpec, unit_rows
from encoders.batching import Batches, padded_length, row_stable, to_device
from encoders.device import Device
from encoders.errors import DecodeError, EncoderError
from encoders.files import load_pretrained
from encoders.settings import ModelChoice

if TYPE_CHECKING:
    import torch

POOLINGS = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")
DEFAULT_TOKENS = 512  # where neither tokenizer nor model states a limit


@dataclass(frozen=True)
class SentenceSettings:
    """What the model's own files say about sentences.

    Attributes:
        max_tokens: longest input.
        pooling: one of ``POOLINGS``.
        prompt: instruction put before each text.
        dense: folders of dense layers after pooling.
    """

    max_tokens: int
    pooling: str
    prompt: str
    dense: tuple[Path, ...] = ()


class TextEncoder:
    """A Hugging Face text model: encoders (BERT, XLNet), decoders (GPT-2, embedding LLMs), towers (CLIP, CLAP).

    Padding is on the right, masked, and depends on the text's own length alone.

    Args:
        choice: model and options.
        device: where it runs.

    Raises:
        EncoderError: the model cannot be loaded, or an option does not fit it.
    """

    def __init__(self, choice: ModelChoice, device: Device):
        files, self.tokenizer, net = load_pretrained("text", choice, device, "AutoTokenizer")
        self.joint = hasattr(net, "get_text_features")
        if not self.joint and net.config.is_encoder_decoder:
            net = net.get_encoder()
        self.model = row_stable(net.eval().requires_grad_(False).to(device.name))
        self.device, self.batches = device, Batches(device)
        self.settings = _sentence_settings(choice, files.folder, self.tokenizer, self.model.config)
        self.layer = -1 if choice.layer is None else choice.layer
        self.dense: list[Any] = [_load_dense(folder, device) for folder in self.settings.dense]
        # SigLIP was trained with padding up to its full length, without a mask
        self.full_length = self.joint and "siglip" in self.model.config.model_type
        self.spec = self._spec(choice, files.revision, files.sha256)

    def _spec(self, choice: ModelChoice, revision: str, sha256: dict[str, str]) -> EncoderSpec:
        config = getattr(self.model.config, "text_config", None) or self.model.config
        layers = int(getattr(config, "num_hidden_layers", 0))
        if choice.layer is not None and not -layers - 1 <= choice.layer <= layers:
            raise EncoderError(f"encoder '{choice.model}': layer = {choice.layer}, but it has layers 0 to {layers}")
        preprocessing = {
            "max_tokens": self.settings.max_tokens,
            "prompt": self.settings.prompt,
            "layer": self.layer,
            "version": 2,
        }
        return EncoderSpec(
            modality="text",
            model=choice.model,
            revision=revision,
            files=sha256,
            preprocessing=preprocessing,
            pooling="joint" if self.joint else self.settings.pooling,
            dtype=self.device.dtype,
            dim=self._dim(config),
            space="shared" if self.joint else "own",
            fixed_batch=self.device.fixed_batch,
        )

    def _dim(self, config: Any) -> int:
        if self.joint:
            width = getattr(self.model.config, "projection_dim", None)
            return int(width if width and not self.full_length else config.projection_size)
        if self.dense:
            return int(self.dense[-1][0].out_features)
        return int(config.hidden_size)

    def prepare(self, payload: bytes) -> list[int]:
        """Token ids of UTF-8 text, cut to the model's length.

        Raises:
            DecodeError: the bytes are not UTF-8.
        """
        try:
            text = self.settings.prompt + payload.decode("utf-8")
        except UnicodeDecodeError as e:
            raise DecodeError("bad_encoding", f"text is not UTF-8: {e}") from e
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.settings.max_tokens)["input_ids"]
        return ids or [self.tokenizer.eos_token_id or 0]

    def bucket(self, prepared: list[int]) -> int:
        """Padded length in tokens."""
        longest = self.settings.max_tokens
        return longest if self.full_length else padded_length(len(prepared), longest)

    def rows(self, bucket: int) -> int:
        """Texts of a padded length that make a full batch."""
        return self.batches.rows(bucket)

    def encode(self, prepared: Sequence[list[int]]) -> np.ndarray:
        """Vectors (n, dim) of token lists from one bucket."""
        length = self.bucket(prepared[0])

        def forward(chunk: Sequence[list[int]]) -> "torch.Tensor":
            ids, mask = padded(chunk, length, self.pad_id())
            return self.pooled(to_device(ids, self.device), to_device(mask, self.device))

        return unit_rows(self.batches.run(forward, prepared, length))

    def pad_id(self) -> int:
        """Token that fills up a batch; masked wherever it stands."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    def pooled(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """Pooled vectors (b, dim) of token ids and mask (b, s)."""
        with self._attention():
            return self._pooled(ids, mask)

    def _attention(self) -> AbstractContextManager[None]:
        """Plain products for grouped queries on CUDA, whose fused kernel gives a row other bits at another place."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        config = getattr(self.model.config, "text_config", None) or self.model.config
        heads = getattr(config, "num_attention_heads", None)
        grouped = getattr(config, "num_key_value_heads", heads) != heads
        return sdpa_kernel(SDPBackend.MATH) if grouped and self.device.name.startswith("cuda") else nullcontext()

    def _pooled(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        if self.joint:
            arguments = {"input_ids": ids} | ({} if self.full_length else {"attention_mask": mask})
            output = self.model.get_text_features(**arguments)
            return getattr(output, "pooler_output", output)
        if self.layer == -1:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        else:
            output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            hidden = output.hidden_states[self.layer]
        pooled = pool(hidden.float(), mask, self.settings.pooling)
        for layer in self.dense:
            pooled = layer(pooled)
        return pooled


def padded(chunk: Sequence[list[int]], length: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (b, length), padded on the right."""
    ids = np.full((len(chunk), length), pad, np.int64)
    mask = np.zeros(ids.shape, np.int64)
    for row, tokens in enumerate(chunk):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return ids, mask


def pool(hidden: "torch.Tensor", mask: "torch.Tensor", how: str) -> "torch.Tensor":
    """One vector a text, over true tokens only.

    Args:
        hidden: token vectors (b, s, d).
        mask: (b, s), 1 where there is a token, padded on the right.
        how: one of ``POOLINGS``, as in sentence-transformers
            (https://sbert.net/docs/package_reference/sentence_transformer/models.html).
    """
    import torch

    weight = mask.unsqueeze(-1).to(hidden.dtype)  # (b, s, 1)
    if how == "cls":
        return hidden[:, 0]
    if how == "max":
        return hidden.masked_fill(weight == 0, float("-inf")).amax(1)
    if how == "lasttoken":
        last = mask.sum(1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if how == "weightedmean":
        weight = weight * torch.arange(1, mask.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)[None, :, None]
    total = (hidden * weight).sum(1)
    return total / weight.sum(1).sqrt() if how == "mean_sqrt_len_tokens" else total / weight.sum(1)


def _sentence_settings(choice: ModelChoice, folder: Path, tokenizer: Any, config: Any) -> SentenceSettings:
    """From the user's choice, else the model's sentence-transformers files, else its kind and limits."""
    modules = _json(folder / "modules.json") or []
    kinds = [(m.get("type", "").rsplit(".", 1)[-1], folder / m.get("path", "")) for m in modules]
    config = getattr(config, "text_config", None) or config
    positions = int(getattr(config, "max_position_embeddings", None) or 0)  # XLNet says -1: any length
    limits = [int(tokenizer.model_max_length), positions if positions > 0 else DEFAULT_TOKENS]
    limits.append(int((_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length") or min(limits)))
    pooling = choice.pooling or _own_pooling(folder, kinds, config)
    if pooling not in POOLINGS:
        raise EncoderError(f"encoder '{choice.model}': pooling '{pooling}' is not one of {', '.join(POOLINGS)}")
    prompts = _json(folder / "config_sentence_transformers.json") or {}
    own = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    return SentenceSettings(
        max_tokens=min(limits),
        pooling=pooling,
        prompt=own if choice.prompt is None else choice.prompt,
        dense=tuple(path for kind, path in kinds if kind == "Dense"),
    )


def _own_pooling(folder: Path, kinds: list[tuple[str, Path]], config: Any) -> str:
    """Pooling of the sentence-transformers files; without them the last token of decoders and XLNet, else the mean."""
    places = [path for kind, path in kinds if kind == "Pooling"] or [folder / "1_Pooling"]
    settings = _json(places[0] / "config.json")
    if settings:
        if isinstance(settings.get("pooling_mode"), str):
            return settings["pooling_mode"]
        names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"} | {p: p for p in POOLINGS}
        on = [name for key, name in names.items() if settings.get(f"pooling_mode_{key}")]
        if len(set(on)) > 1:
            raise EncoderError(f"{places[0]}: several pooling modes at once ({', '.join(on)}) are not supported")
        return on[0] if on else "mean"
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    is_decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "lasttoken" if is_decoder else "mean"


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None


def _load_dense(folder: Path, device: Device) -> Any:
    """A sentence-transformers dense layer with its activation, float32."""
    import torch
    from safetensors.torch import load_file

    settings = _json(folder / "config.json") or {}
    if not (folder / "model.safetensors").is_file():
        raise EncoderError(f"{folder}: a dense layer needs model.safetensors; pickled weights are not read")
    state = load_file(folder / "model.safetensors", device=device.name)
    name = str(settings.get("activation_function", "torch.nn.modules.linear.Identity")).rsplit(".", 1)[-1]
    known = {"Identity": torch.nn.Identity(), "Tanh": torch.nn.Tanh(), "ReLU": torch.nn.ReLU(), "GELU": torch.nn.GELU()}
    if name not in known:
        raise EncoderError(f"{folder}: activation {name} is not one of {', '.join(known)}")
    width, inputs = state["linear.weight"].shape
    layer = torch.nn.Linear(inputs, width, bias="linear.bias" in state)
    layer.load_state_dict({k.removeprefix("linear."): v.float() for k, v in state.items()})
    return row_stable(torch.nn.Sequential(layer, known[name]).eval().requires_grad_(False).to(device.name))
