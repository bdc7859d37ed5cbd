"""What the configuration points at is checked before any work."""

import re
from pathlib import Path

import pytest

from pipelines.config import ConfigError, load_config
from pipelines.verify import verify
from tests.shop import write_config


def test_what_it_points_at_is_checked_before_any_work(tmp_path: Path) -> None:
    models = {"text": "no-such-org/no-such-model", "image": "minilm", "audio": str(tmp_path / "nowhere")}
    path = write_config(
        tmp_path, models, extra='[compute]\nrunner = "DaskRunner"\n[user_content]\ncolumns = { userid = "u" }'
    )
    with pytest.raises(ConfigError) as e:
        verify(load_config(path))
    text = "\n".join(e.value.problems)
    for part in (
        "no 'interactions'",
        "no 'items'",
        "encoders.text",
        "embeds text, not image",
        "encoders.audio",
        "DaskRunner",
        "'userid' is not one of our columns",
    ):
        assert part in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('models = ["ease"]\nserve = "hybrid"', "serve = 'hybrid' is not in models"),
        ('models = ["hybrid"]', "only the hybrid"),
        ('models = ["ease", "ease", "hybrid"]', "names one twice"),
        ("k = 1", "new_items .1. must be smaller than k"),
        ("[recommend.settings.ease]\nrigde = 5", "recommend.settings.ease: unknown rigde; known here: ridge, items"),
        ('[recommend.settings.item_cf]\nsimilarity = "jaccard"', "'jaccard': Input should be 'shrunk', 'cosine'"),
        ('[recommend.settings.ease]\nridge = "abc"', "ease: ridge = 'abc': Input should be a valid number"),
        ("[recommend.settings.ease]\nridge = -50", "ease: ridge = -50: Input should be greater than 0"),
        ("[recommend.settings.ease]\nridge = true", "ease: ridge = True: Input should be a valid number"),
        ("[recommend.settings.ease]\nridge = inf", "ease: ridge = inf: Input should be a finite number"),
        ("[recommend.settings.ease]\nitems = -3", "ease: items = -3: Input should be greater than or equal to 1"),
        ("[recommend.settings.user_cf]\nneighbours = -1", "user_cf: neighbours = -1"),
        ("[recommend.settings.lightgcn]\nlayers = 2.5", "lightgcn: layers = 2.5: Input should be a valid integer"),
        ('models = ["eases", "hybrid"]', "'eases' is no recommender; known are popularity"),
        ("[recommend.settings.hybrid]\nx = 1", "no recommender with settings"),
    ],
)
def test_which_recommenders_run_is_checked(shop: Path, text: str, message: str) -> None:
    own = shop.read_text()
    shop.write_text(own + text if text[0] == "[" else re.sub(r"\[recommend\][^\[]*", f"[recommend]\n{text}\n", own))
    with pytest.raises(ConfigError, match=message):
        verify(load_config(shop))


def test_cuda_is_never_replaced_in_silence(shop: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    shop.write_text(shop.read_text() + '\n[compute]\ndevice = "cuda"\n')
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        verify(load_config(shop))


def test_a_threshold_of_no_number_is_said(shop: Path) -> None:
    shop.write_text(shop.read_text() + "\n[guards.numbers.evnts]\nwarn_below = 3\n")
    with pytest.raises(ConfigError, match="guards.numbers: 'evnts' is no number of a night; known are events, users"):
        verify(load_config(shop))
