"""Pictures: the published network on our pixels."""

import pytest

from encoders.carried.weights import weights_dir
from encoders.catalogue import load
from encoders.device import choose_device
from encoders.settings import ModelChoice
from tests.payloads import need
from tests.shop import real_data


@pytest.mark.data
def test_lite0_class_scores_are_those_of_the_published_network() -> None:
    """The published classifier on our features must know a zebra crossing of stripes from noise: finite, calibrated."""
    need("efficientnet-lite0")
    import torch

    encoder = load("image", ModelChoice("efficientnet-lite0"), choose_device("cpu"))
    state = torch.load(weights_dir("efficientnet-lite0") / "efficientnet-lite0-57934424.pth", weights_only=True)
    net = encoder.net  # type: ignore[attr-defined]
    for path in sorted((real_data("tuxpaint_stamps") / "images").glob("animals__birds__*flamingo*"))[:1]:
        with torch.inference_mode():
            pixels = torch.tensor(encoder.prepare(path.read_bytes())[None]).permute(0, 3, 1, 2)
            features = net((pixels.float() - 127) / 128)
            top = (features @ state["_fc.weight"].T + state["_fc.bias"]).softmax(1)[0]
        assert int(top.argmax()) == 130  # ImageNet class 130 is flamingo
        return
    pytest.skip("no flamingo in the stamps")
