"""Modality tokens to one unit vector: projection, a fuser with presence mask, pooling by its weights.

A missing modality is masked, never zero-filled. Belongs here: the network and running it over items and users.
Does not: its training (``alignment``), where vectors come from (``pipelines``).

Notation used for tensor shapes: b batch, t tokens, d dimension of the space, d_m dimension of modality m.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.space.features import Features, Uploads
from encoders.space.ragged import Ragged

BATCH = 512  # rows of one pass; short batches are padded, so a vector does not depend on its neighbours


@dataclass(frozen=True)
class Fused:
    """Items in the unified space.

    Attributes:
        vector: float32 (n, d), unit rows.
        aligned: modality -> float32 (n, d), unit rows, meaningful where present.
        attention: modality -> float32 (n,), shares of the fused vector, sum 1 over present modalities.
    """

    vector: np.ndarray
    aligned: dict[str, np.ndarray]
    attention: dict[str, np.ndarray]


class SequenceProjection(nn.Module):
    """A GRU (https://arxiv.org/abs/1406.1078) over a flat sequence, mean over its true steps; (b, t * f) -> (b, d).

    Args:
        shape: (t, f).
        dim: d.
    """

    def __init__(self, shape: Sequence[int], dim: int):
        super().__init__()
        steps, features = self.shape = tuple(shape)
        self.scale = float(steps * features) ** 0.5  # unit rows come in; the network wants entries of about 1
        self.rnn = nn.GRU(features, dim, batch_first=True)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project flat sequences (b, t * f); steps of zeros are padding and come last."""
        steps = x.view(len(x), *self.shape)
        mask = steps.ne(0).any(2, keepdim=True).to(x.dtype)  # (b, t, 1)
        hidden, _ = self.rnn(steps * self.scale)
        return self.out((hidden * mask).sum(1) / mask.sum(1).clamp(min=1))


def _silent(layer: nn.Linear) -> nn.Linear:
    """The last layer of a residual branch, which adds nothing at first (https://arxiv.org/abs/1901.09321)."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TransformerFuser(nn.Module):
    """Tokens look at each other, then attention pooling (https://arxiv.org/abs/1706.03762, 1703.03130)."""

    def __init__(self, dim: int, layers: int, heads: int):
        super().__init__()
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for last in (m for b in self.encoder.layers for m in (b.self_attn.out_proj, b.linear2)):
            _silent(last)
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (b, t, d) and their mask (b, t) to what is pooled (b, t, d) and logits of its weights (b, t)."""
        hidden = self.encoder(tokens, src_key_padding_mask=~mask)
        return hidden, (hidden @ self.query) / hidden.shape[-1] ** 0.5


class AttentionFuser(nn.Module):
    """Attention pooling alone: tokens do not look at each other (https://arxiv.org/abs/1703.03130)."""

    def __init__(self, dim: int, layers: int, heads: int):
        super().__init__()
        self.key, self.query = nn.Linear(dim, dim), nn.Parameter(torch.randn(dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See ``TransformerFuser.forward``."""
        return tokens, torch.tanh(self.key(tokens)) @ self.query / tokens.shape[-1] ** 0.5


class GatedFuser(nn.Module):
    """A gate a token decides how much of it counts (gated multimodal units, https://arxiv.org/abs/1702.01992)."""

    def __init__(self, dim: int, layers: int, heads: int):
        super().__init__()
        self.value, self.gate = _silent(nn.Linear(dim, dim)), nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See ``TransformerFuser.forward``; a softmax of log-sigmoids shares the whole out by the gates."""
        return tokens + torch.tanh(self.value(tokens)), F.logsigmoid(self.gate(tokens)[..., 0])


class MlpFuser(nn.Module):
    """A residual two-layer network on each token, then their mean."""

    def __init__(self, dim: int, layers: int, heads: int):
        super().__init__()
        last = _silent(nn.Linear(2 * dim, dim))
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), last)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See ``TransformerFuser.forward``."""
        return tokens + self.net(tokens), torch.zeros_like(tokens[..., 0])


class MeanFuser(nn.Module):
    """The mean of the tokens, for maps found in closed form."""

    def __init__(self, dim: int, layers: int, heads: int):
        super().__init__()

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See ``TransformerFuser.forward``."""
        return tokens, torch.zeros_like(tokens[..., 0])


FUSERS: dict[str, type[nn.Module]] = {
    "transformer": TransformerFuser,
    "attention": AttentionFuser,
    "gated": GatedFuser,
    "mlp": MlpFuser,
    "cca": MeanFuser,
    "procrustes": MeanFuser,
    "ridge": MeanFuser,
}


class FusionModel(nn.Module):
    """Items and users as sets of tokens in one space.

    A token is a projected modality vector plus the embedding of its kind; a user's tokens are the fused vectors of
    the history and the projected vectors of uploads.

    Args:
        dims: modality -> length of its vectors.
        sequences: modality -> (steps, features) where the vector is a flat sequence; a GRU takes the place of the
            linear projection.
        kind: of ``FUSERS``.
        dim: length of the unified vector.
        layers: Transformer encoder layers.
        heads: attention heads.

    Attributes:
        frame: (dim, dim), rotation of the night's axes onto those of every night, see ``frame``.
    """

    frame: Tensor

    def __init__(
        self,
        *,
        dims: dict[str, int],
        kind: str,
        dim: int,
        layers: int,
        heads: int,
        sequences: Mapping[str, Sequence[int]] | None = None,
    ):
        super().__init__()
        self.modalities, self.dim = sorted(dims), dim
        shapes = sequences or {}
        self.project = nn.ModuleDict(
            {m: SequenceProjection(shapes[m], dim) if m in shapes else nn.Linear(dims[m], dim) for m in sorted(dims)}
        )
        self.kind = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(dim)) for m in [*self.modalities, "history"]})
        self.empty = nn.Parameter(torch.randn(dim))  # stands in for an item or user without any token
        self.fuser = FUSERS[kind](dim, layers, heads)
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.register_buffer("frame", torch.eye(dim))  # turns what is given out, not what the network works on

    def aligned(self, modality: str, x: Tensor) -> Tensor:
        """Unit vectors (b, d) of one modality's inputs (b, d_m) in the shared space."""
        return F.normalize(self.project[modality](x), dim=-1)

    def item_tokens(self, x: dict[str, Tensor]) -> Tensor:
        """Tokens (b, t, d), one a modality in order of name."""
        return torch.stack([self.aligned(m, x[m]) + self.kind[m] for m in self.modalities], 1)

    def pool(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse sets of tokens.

        Args:
            tokens: (b, t, d).
            mask: bool (b, t), True where there is a token.

        Returns:
            Unit vectors (b, d) and attention weights (b, t) that sum to 1 where there is any token.
        """
        none = ~mask.any(1)
        first = torch.where(none[:, None], self.empty, tokens[:, 0])
        tokens = torch.cat([first[:, None], tokens[:, 1:]], 1)
        mask = torch.cat([(mask[:, 0] | none)[:, None], mask[:, 1:]], 1)
        hidden, logits = self.fuser(tokens, mask)
        weights = logits.masked_fill(~mask, float("-inf")).softmax(1)  # (b, t)
        return F.normalize((weights[..., None] * hidden).sum(1), dim=-1), weights * ~none[:, None]


def _batches(n: int) -> list[tuple[int, int]]:
    return [(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]


def _padded(x: np.ndarray, device: str) -> Tensor:
    out = np.zeros((BATCH, *x.shape[1:]), x.dtype)
    out[: len(x)] = x
    return torch.from_numpy(out).to(device)


def fuse_items(model: FusionModel, features: dict[str, Features], device: str = "cpu") -> Fused:
    """Put items into the unified space.

    Args:
        model: a trained model.
        features: modality -> vectors of the same n items.
        device: torch device.
    """
    model = model.eval().to(device)
    n = len(next(iter(features.values())).present)
    vector = np.zeros((n, model.dim), np.float32)
    aligned = {m: np.zeros((n, model.dim), np.float32) for m in model.modalities}
    attention = {m: np.zeros(n, np.float32) for m in model.modalities}
    with torch.inference_mode():
        for a, b in _batches(n):
            x = {m: _padded(features[m].matrix[a:b], device) for m in model.modalities}
            mask = _padded(np.stack([features[m].present[a:b] for m in model.modalities], 1), device)
            fused, weights = model.pool(model.item_tokens(x), mask)
            vector[a:b] = (fused @ model.frame)[: b - a].cpu().numpy()
            for i, m in enumerate(model.modalities):
                aligned[m][a:b] = (model.aligned(m, x[m]) @ model.frame)[: b - a].cpu().numpy()
                attention[m][a:b] = weights[: b - a, i].cpu().numpy()
    return Fused(vector, aligned, attention)


def fuse_users(
    model: FusionModel, items: np.ndarray, histories: Ragged, uploads: Uploads, length: int, device: str = "cpu"
) -> np.ndarray:
    """Put users into the unified space.

    Args:
        model: a trained model.
        items: fused item vectors (n_items, d).
        histories: item rows of each user, oldest first; the last ``length`` are used.
        uploads: pieces of the same users; the last ``length`` are used.
        length: see above.
        device: torch device.

    Returns:
        Float32 (n_users, d), unit rows.
    """
    model = model.eval().to(device)
    out = np.zeros((len(histories), model.dim), np.float32)
    kind = {name: k.detach().cpu().numpy() for name, k in model.kind.items()}
    with torch.inference_mode():
        for a, b in _batches(len(histories)):
            tokens = np.zeros((BATCH, 2 * length, model.dim), np.float32)
            mask = np.zeros((BATCH, 2 * length), bool)
            recent = histories[a:b].latest(length)
            tokens[recent.owner, recent.place] = items[recent.values]
            tokens = _turned_back(model, tokens, device)
            tokens[recent.owner, recent.place] += kind["history"]
            mask[recent.owner, recent.place] = True
            pieces = uploads.pieces[a:b].latest(length)
            for m in np.unique(uploads.modality[pieces.values]).tolist():
                mine = uploads.modality[pieces.values] == m
                owner, place = pieces.owner[mine], length + pieces.place[mine]
                vectors = uploads.vectors[m][uploads.row[pieces.values[mine]]]
                tokens[owner, place] = _aligned(model, m, vectors, device) + kind[m]
                mask[owner, place] = True
            fused, _ = model.pool(torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device))
            out[a:b] = (fused @ model.frame)[: b - a].cpu().numpy()
    return out


def _turned_back(model: FusionModel, tokens: np.ndarray, device: str) -> np.ndarray:
    """Vectors of the frame as the network has made them."""
    return (torch.from_numpy(tokens).to(device) @ model.frame.T).cpu().numpy()


def _aligned(model: FusionModel, modality: str, x: np.ndarray, device: str) -> np.ndarray:
    """Aligned vectors (n, d) of inputs (n, d_m), in batches of one size."""
    rows = [model.aligned(modality, _padded(x[a:b], device))[: b - a].cpu().numpy() for a, b in _batches(len(x))]
    return np.concatenate(rows)
