"""ResNet encoders for one or several stacked images, with torchvision's parameter names under `encoder`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torchvision import models

from geossl.networks.blocks import Encoder, Standardize
from geossl.networks.weights import inflate_conv, load_named, read_state_dict, strip_prefixes

RESNETS = {
    18: (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1, (64, 64, 128, 256, 512)),
    34: (models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1, (64, 64, 128, 256, 512)),
    50: (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1, (64, 256, 512, 1024, 2048)),
}
MEAN, STD = 0.45, 0.225  # of the input, as Monodepth2 trained its weights


class ResnetEncoder(Encoder):
    """A torchvision ResNet without its classifier.

    Args:
        depth: 18, 34 or 50.
        weights: None for torchvision's random initialisation; 'imagenet' for its ImageNet weights (downloaded
            once); or a path to a .safetensors or .pth state dict with torchvision's names, optionally behind
            `encoder.` as in Monodepth2's files. A first convolution for one image is spread over `images`.
        images: RGB images stacked along the channels of the input.

    Raises:
        ValueError: If `depth` is unknown, or the weights are those of another network.
        FileNotFoundError: If the weights file does not exist.
        ConnectionError: If ImageNet weights are neither cached nor downloadable.

    Differs: the published encoder keeps ResNet's classifier `fc`, which depth never uses; it is left out here,
    and ignored in files.
    Source: Godard et al., ICCV 2019 (all three channels normalised by 0.45 and 0.225).
    https://arxiv.org/abs/1806.01260
    """

    def __init__(self, depth: int = 18, weights: str | Path | None = None, images: int = 1) -> None:
        super().__init__()
        if depth not in RESNETS:
            raise ValueError(f"ResNet depth is {depth}; expected one of {', '.join(map(str, RESNETS))}.")
        build, _, self.channels = RESNETS[depth]
        self.images = images
        self.standardize = Standardize(MEAN, STD, images)
        self.encoder = build(weights=None)
        self.encoder.fc = nn.Identity()
        if images != 1:
            self.encoder.conv1 = nn.Conv2d(3 * images, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            state = imagenet_state_dict(depth) if weights == "imagenet" else read_state_dict(weights)
            self._load(state, where=f"weights '{weights}'", depth=depth)

    def _load(self, state: Mapping[str, Tensor], where: str, depth: int) -> None:
        state = {k: v for k, v in strip_prefixes(state).items() if not k.startswith("fc.")}
        conv1 = state.get("conv1.weight")
        if conv1 is not None and conv1.shape[1] == 3 and self.images > 1:
            state["conv1.weight"] = inflate_conv(conv1, self.images)
        found = guess_resnet_depth(state)
        hint = f" of depth {depth}"
        if found is not None and found != depth:
            hint += f" (they look like a ResNet {found}; use encoder resnet{found})"
        load_named(self.encoder, state, where, hint)

    def forward(self, image: Tensor) -> list[Tensor]:
        self.check_input(image)
        net = self.encoder
        features = [net.relu(net.bn1(net.conv1(self.standardize(image))))]
        features.append(net.layer1(net.maxpool(features[-1])))
        for layer in (net.layer2, net.layer3, net.layer4):
            features.append(layer(features[-1]))
        return features


def imagenet_state_dict(depth: int) -> dict[str, Tensor]:
    """torchvision's first ImageNet weights, from torch's cache or by download.

    Raises:
        ConnectionError: If they cannot be had; names the file and what to do.
    """
    weights = RESNETS[depth][1]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        file = weights.url.rpartition("/")[2]
        raise ConnectionError(
            f"ImageNet weights of ResNet {depth} are not cached and cannot be downloaded from {weights.url} "
            f"({error}). Fetch {file} elsewhere and give its path as `weights`, put it into torch's cache "
            f"(~/.cache/torch/hub/checkpoints/{file}), or train from scratch with weights none."
        ) from None


def guess_resnet_depth(state: Mapping[str, Tensor]) -> int | None:
    """The depth of the ResNet whose tensors these are, or None."""
    if "layer1.0.conv1.weight" not in state:
        return None
    blocks = {name.split(".")[1] for name in state if name.startswith("layer3.")}
    bottleneck = "layer1.0.conv3.weight" in state
    return {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}.get(
        (bottleneck, len(blocks))
    )
