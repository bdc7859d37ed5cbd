"""What recommenders learn from: as of a night, and as of some days before it, to validate on the rest.

Belongs here: ``Inputs`` from a night's reads, the time split, their arrays as files for workers. Does not: any model.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from encoders.modalities import MODALITIES
from encoders.space.alignment import load_aligner
from encoders.space.features import Uploads
from encoders.space.fusion import fuse_users
from encoders.space.ragged import Ragged
from pipelines.federation.statistics import pooled_of
from pipelines.lake.cards import load_arrays, load_card
from pipelines.lake.schemas import rows_in, vectors_to_numpy
from pipelines.lake.storage import StorageError
from pipelines.learning.reasons import Space
from pipelines.night.events import Dataset
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs, Pooled, Validation
from pipelines.recommenders.item_graphs import centred

MOST_DOMAINS = 32  # that are looked at apart


def load_inputs(night: Night, device: str) -> tuple[Dataset, Inputs]:
    """Events and what recommenders see of them at the end of a night, the user without history included."""
    data, features = night.dataset(everyone=True), night.features()
    uploads = night.uploaded(data.users, tuple(features))
    positives = data.positives()
    fused, users = feature_vectors(night, data)
    inputs = Inputs(
        positives=positives,
        content={m: np.where(f.present[:, None], f.matrix, 0).astype(np.float32) for m, f in features.items()},
        uploads={
            m: uploads.means(m) if m in uploads.vectors else _nothing(len(data.users), f.matrix)
            for m, f in features.items()
        },
        fused=fused,
        user_vectors=users,
        has_signal=(np.diff(positives.indptr) > 0) | (uploads.pieces.lengths > 0),
        histories=data.histories(),
        recent=data.recent(),
        graphs=graphs_of(night.item_graphs(), data.items),
        domains=domains_of(night.items()["domain"], positives.getnnz(0)),
        external=places_of(night.external_lists(night.day), data),
        pooled=pooled_at(night, night.day, data),
        device=device,
    )
    return data, inputs


def _nothing(users: int, like: np.ndarray) -> np.ndarray:
    return np.zeros((users, like.shape[1]), np.float32)


def places_of(lists: pa.Table, data: Dataset) -> dict[str, sparse.csr_matrix]:
    """Recommender -> places from 1 of what others list for each user (users, items), of rows of ``external_lists``."""
    known = {"user_id": data.users, "item_id": data.items}
    row, column = (rows_in(lists[c], pa.array(ids, pa.string())) for c, ids in known.items())
    return _matrices(lists["model"], row, column, lists["rank"], (len(data.users), len(data.items)))


def graphs_of(pairs: pa.Table, items: np.ndarray) -> dict[str, sparse.csr_matrix]:
    """Graph -> similarity of items (items, items) by what is known of them, of rows of ``item_graphs``."""
    row, column = (rows_in(pairs[c], pa.array(items, pa.string())) for c in ("item_id", "other_item_id"))
    return _matrices(pairs["graph"], row, column, pairs["similarity"], (len(items), len(items)))


def domains_of(names: pa.ChunkedArray, liked: np.ndarray) -> np.ndarray:
    """Number of each item's domain from 0 (items,), the domains with most feedback first.

    Args:
        names: of each item's domain, null where it has none.
        liked: users who like each item; of more than ``MOST_DOMAINS`` the rest is one, with items that have none.
    """
    known = pc.unique(names.combine_chunks().drop_null()).sort()
    at = rows_in(names, known)
    number = np.bincount(at[at >= 0], liked[at >= 0], len(known))
    place = np.argsort(np.argsort(-number, kind="stable"))
    return np.minimum(np.append(place, len(known))[at], MOST_DOMAINS - 1)  # -1, of none, is the last


def pooled_at(night: Night, day: date, data: Dataset) -> Pooled | None:
    """Sums over the users of several sites as a night up to this one had them; None where it had none."""
    if day > night.day or night.lake.manifest("model_pooled", day) is None:
        return None
    card = load_card(night.lake, "pooled", day)
    if card["round"] is None:
        return None
    rows = rows_in(pa.array(card["item_ids"], pa.string()), pa.array(data.items, pa.string()))
    return pooled_of(load_arrays(night.lake, "pooled", day)["sums"], rows, card.get("noise", (0.0, 0.0, 0.0)))


def _matrices(
    names: pa.ChunkedArray, row: np.ndarray, column: np.ndarray, values: pa.ChunkedArray, shape: tuple[int, int]
) -> dict[str, sparse.csr_matrix]:
    """A matrix a name, of the entries whose row and column are known (not -1)."""
    name, value = names.to_numpy(), values.to_numpy().astype(np.float32)
    found = {}
    for one in sorted(set(name)):
        mine = (name == one) & (row >= 0) & (column >= 0)
        found[one] = sparse.csr_matrix((value[mine], (row[mine], column[mine])), shape=shape)
    return found


def feature_vectors(night: Night, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unified vectors of ``data.items`` and ``data.users`` from the night's tables; zero rows for absent users.

    A night without content has no space: all vectors are zero.

    Raises:
        StorageError: the tables were made from other events.
    """
    if not night.modalities:
        return np.zeros((len(data.items), 1), np.float32), np.zeros((len(data.users), 1), np.float32)
    fused = vectors_to_numpy(night.lake.read("feat_items", night.day, ["vector"])["vector"])
    table = night.lake.read("feat_users", night.day, ["user_id", "vector"])
    stored = vectors_to_numpy(table["vector"], fused.shape[1])
    out = np.zeros((len(data.users), stored.shape[1]), np.float32)
    row = rows_in(table["user_id"], pa.array(data.users, pa.string()))
    if (row < 0).any():
        raise StorageError(f"feat_users of {night.day} has users that its events do not have; run the night again")
    out[row] = stored
    return fused, out


def space_of(night: Night, fused: np.ndarray) -> Space:
    """The unified space of the night's items; ``fused`` are their vectors. Without content it is empty."""
    aligned, attention = dict[str, np.ndarray](), dict[str, np.ndarray]()
    if night.modalities:
        columns = [f"{c}_{m}" for m in MODALITIES for c in ("has", "vector", "attention")]
        table = night.lake.read("feat_items", night.day, columns)
        for m in MODALITIES:
            has = np.asarray(table[f"has_{m}"].to_numpy(), bool)
            if has.any():
                aligned[m] = np.zeros_like(fused)
                aligned[m][has] = vectors_to_numpy(table[f"vector_{m}"].drop_null())
                attention[m] = table[f"attention_{m}"].to_numpy()
    return Space(centred(fused), aligned, attention)


def load_validation(night: Night, data: Dataset, now: Inputs, history: int, filter_seen: bool, k: int) -> Validation:
    """Cut the last days off; the aligner has not seen them either.

    Args:
        night: the night.
        data: its events.
        now: what recommenders see at its end.
        history: most recent items that describe a user.
        filter_seen: whether lists leave out what a user has met.
        k: length of the lists that are judged.
    """
    days = data.validation_days()
    past = data.before(days)
    positives, histories = past.positives(), past.histories()
    users = now.user_vectors
    if night.modalities:
        weights = (night.lake.folder("model_aligner", night.day) / "aligner.safetensors").read_bytes()
        aligner = load_aligner(weights, load_card(night.lake, "aligner", night.day))
        users = fuse_users(aligner, now.fused, histories, Uploads.none(len(data.users)), history, now.device)
    before = replace(
        now,
        positives=positives,
        uploads={},
        user_vectors=users,
        has_signal=np.diff(positives.indptr) > 0,
        histories=histories,
        recent=past.recent(),
        external=places_of(night.external_lists(night.day - timedelta(days=days)), data),
        pooled=pooled_at(night, night.day - timedelta(days=days), data),
    )
    seen = past.seen() if filter_seen else None
    return Validation(days, before, relevant_after(data, days, seen), seen, k)


def relevant_after(data: Dataset, age_days: float, seen: sparse.csr_matrix | None) -> sparse.csr_matrix:
    """Items (users, items) that users came to like in the last ``age_days``, without those in ``seen``."""
    late = (data.age_days <= age_days) & (data.weight > 0)
    shape = (len(data.users), len(data.items))
    liked = sparse.csr_matrix((np.ones(late.sum(), np.float32), (data.user[late], data.item[late])), shape=shape)
    liked.data[:] = 1
    if seen is not None:
        liked = (liked - liked.multiply(seen)).tocsr()
    liked.eliminate_zeros()
    return liked


def save_inputs(inputs: Inputs, folder: Path) -> None:
    """Write everything that scoring reads as .npy files, which workers map into memory."""
    folder.mkdir(exist_ok=True)
    for name in ("fused", "user_vectors", "has_signal"):
        np.save(folder / f"{name}.npy", getattr(inputs, name))
    for m, matrix in inputs.content.items():
        np.save(folder / f"content.{m}.npy", matrix)
    for m, matrix in inputs.uploads.items():
        np.save(folder / f"uploads.{m}.npy", matrix)
    save_sparse(inputs.positives, folder, "positives")
    np.save(folder / "histories.bounds.npy", inputs.histories.bounds)
    np.save(folder / "histories.values.npy", inputs.histories.values)


def load_inputs_from(folder: Path, device: str) -> Inputs:
    """What ``save_inputs`` wrote; pages are read when they are used."""

    def array(name: str) -> np.ndarray:
        matrix: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r")
        return matrix

    return Inputs(
        positives=load_sparse(folder, "positives"),
        content=arrays_of(folder, "content"),
        uploads=arrays_of(folder, "uploads"),
        fused=array("fused"),
        user_vectors=array("user_vectors"),
        has_signal=array("has_signal"),
        histories=Ragged(array("histories.bounds"), array("histories.values")),
        device=device,
    )


def arrays_of(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """Modality -> array of the files ``<kind>.<modality>.npy``, mapped into memory."""
    paths = sorted(folder.glob(f"{kind}.*.npy"))
    return {p.name.split(".")[1]: np.load(p, mmap_mode="r") for p in paths}


def save_sparse(matrix: sparse.csr_matrix, folder: Path, name: str) -> None:
    """A sparse matrix as .npy files."""
    for part in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.{part}.npy", getattr(matrix, part))
    np.save(folder / f"{name}.shape.npy", np.array(matrix.shape))


def load_sparse(folder: Path, name: str) -> sparse.csr_matrix:
    """What ``save_sparse`` wrote."""
    parts = tuple(np.load(folder / f"{name}.{p}.npy", mmap_mode="r") for p in ("data", "indices", "indptr"))
    return sparse.csr_matrix(parts, shape=tuple(np.load(folder / f"{name}.shape.npy")), copy=False)
