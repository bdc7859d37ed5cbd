"""Files of a model: all that is loaded is hashed, what can run code is not loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.catalogue import check_model, files_of, load
from encoders.device import Device
from encoders.errors import EncoderError
from encoders.files import model_files
from encoders.settings import ModelChoice
from tests import tiny


def pickled(folder: Path) -> Path:
    """The same model with its weights in a pickle alone."""
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_pickled_weights_are_refused_with_a_sentence(made: Any, tmp_path: Path) -> None:
    folder = pickled(Path(shutil.copytree(made(tiny.gpt2), tmp_path / "model")))
    problems = check_model("text", ModelChoice(str(folder)))
    assert len(problems) == 1
    assert "has pytorch_model.bin, which only a pickle reader opens" in problems[0]
    assert "expected model.safetensors" in problems[0]
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin"):
        load("text", ModelChoice(str(folder)), Device())


def test_a_folder_without_weights_is_refused(made: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made(tiny.gpt2), tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    assert "has no weights; expected model.safetensors" in check_model("text", ModelChoice(str(folder)))[0]


def test_a_pickle_beside_safetensors_is_not_read(made: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made(tiny.gpt2), tmp_path / "model"))
    before = load("text", ModelChoice(str(folder)), Device()).spec.digest()
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert check_model("text", ModelChoice(str(folder))) == []
    assert load("text", ModelChoice(str(folder)), Device()).spec.digest() == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "extra.tiktoken", "merges"])
def test_every_file_that_may_be_loaded_is_part_of_the_identity(made: Any, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(made(tiny.gpt2), tmp_path / "model"))
    before = model_files(str(folder)).sha256
    with (folder / name).open("ab") as f:
        f.write(b" ")
    after = model_files(str(folder)).sha256
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} == {name}


def test_a_model_without_weights_of_its_own_has_no_files_and_parts_have_theirs() -> None:
    assert files_of(ModelChoice("mfcc")) == [{}]
    assert files_of(ModelChoice("frames", image="patch-rnn", audio="mfcc")) == [{}, {}, {}]
    assert files_of(ModelChoice("frames", image="patch-rnn", audio="")) == [{}, {}]
