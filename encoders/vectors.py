"""Precomputed vectors as an encoder: a .npy or Parquet file with one row an item.

``.npy`` (n, d): row i belongs to the item whose id is ``str(i)``, or to line i of ``<name>.ids.txt`` beside it, the
layout of MMRec and Ducho feature files. Parquet: a column ``item_id`` and one column of lists of numbers. The payload
of this encoder is an item id; the file's sha256 is its provenance.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encoders.base import EncoderSpec, unit_rows
from encoders.device import Device
from encoders.errors import DecodeError, EncoderError
from encoders.files import model_files
from encoders.modalities import Modality
from encoders.settings import ModelChoice


class VectorFile:
    """Rows of a file, looked up by item id and scaled to unit length.

    Args:
        modality: what the vectors describe.
        choice: ``model`` is the path.
        device: kept for the protocol; nothing runs on it.

    Raises:
        EncoderError: the file is missing or has another layout than the module says.
    """

    def __init__(self, modality: Modality, choice: ModelChoice, device: Device):
        files = model_files(choice.model)
        path = Path(choice.model).expanduser()
        ids, self.matrix = _read_npy(path) if path.suffix == ".npy" else _read_parquet(path)
        self.row_of = {item: row for row, item in enumerate(ids)}
        if len(self.row_of) != len(ids):
            raise EncoderError(f"{path}: {len(ids) - len(self.row_of)} item ids are there more than once")
        self.device = device
        self.spec = EncoderSpec(
            modality=modality,
            model=choice.model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={"version": 1},
            pooling="none",
            dtype="float32",
            dim=int(self.matrix.shape[1]),
        )

    def prepare(self, payload: bytes) -> int:
        """Row of an item id.

        Raises:
            DecodeError: the file has no usable vector for it.
        """
        item = payload.decode("utf-8")
        row = self.row_of.get(item)
        if row is None:
            raise DecodeError("no_vector", f"no row for item '{item[:200]}' in {Path(self.spec.model).name}")
        vector = np.asarray(self.matrix[row], np.float32)
        if not np.isfinite(vector).all():
            raise DecodeError("non_finite_vector", f"row {row} of {Path(self.spec.model).name} holds NaN or infinity")
        if not vector.any():
            raise DecodeError("zero_vector", f"row {row} of {Path(self.spec.model).name} is zero: a missing feature")
        return row

    def bucket(self, prepared: int) -> int:
        """All vectors share one length."""
        return 0

    def rows(self, bucket: int) -> int:
        """No network, so any number will do."""
        return 1024

    def encode(self, prepared: Sequence[int]) -> np.ndarray:
        """Vectors (n, dim)."""
        return unit_rows(np.asarray(self.matrix[list(prepared)], np.float32))


def _read_npy(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise EncoderError(f"{path}: cannot be read as a .npy file without pickles: {e}") from e
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise EncoderError(f"{path}: expected numbers (items, dimensions), got {matrix.dtype} {matrix.shape}")
    names = path.with_suffix(".ids.txt")
    ids = names.read_text(encoding="utf-8").splitlines() if names.is_file() else [str(i) for i in range(len(matrix))]
    if len(ids) != len(matrix):
        raise EncoderError(f"{names}: {len(ids)} ids, but {path.name} has {len(matrix)} rows")
    return ids, matrix


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as e:
        raise EncoderError(f"{path}: cannot be read as Parquet: {e}") from e
    lists = [f.name for f in table.schema if _holds_numbers(f.type)]
    if "item_id" not in table.column_names or len(lists) != 1:
        raise EncoderError(
            f"{path}: expected a column item_id and one column of number lists, got {table.schema.names}"
        )
    column = table[lists[0]].combine_chunks()
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if column.null_count or len(lengths) != 1 or not lengths[0]:
        raise EncoderError(
            f"{path}: the vectors of '{lists[0]}' are missing or differ in length (lengths {lengths[:5]})"
        )
    matrix = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), lengths[0])
    return [str(i) for i in table["item_id"].to_pylist()], matrix


def _holds_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
