"""Auto-encoders: an image, or what noise or a hole has taken from it, is put back through the deepest feature alone.

Source of `Variational`: Kingma, Welling: Auto-encoding variational Bayes, ICLR 2014, https://arxiv.org/abs/1312.6114.
Source of `Denoising`: Vincent, Larochelle, Bengio, Manzagol: Extracting and composing robust features with denoising
autoencoders, ICML 2008. Source of `Inpainting`: Pathak, Krahenbuhl, Donahue, Darrell, Efros: Context encoders: feature
learning by inpainting, CVPR 2016. https://arxiv.org/abs/1604.07379

Differs:
    * Encoder and decoder are convolutional, their weights apart (Vincent: two layers with tied weights).
    * The variational code is a vector at each place of the deepest feature; its divergence and the squared error are
      means over places and pixels instead of sums, and weighed by an option.
    * Inpainting's hole is a rectangle anywhere, with half of the sides. Errors are of images in 0..1 (paper: -1..1,
      which makes them four times as large beside the adversary).
    * Its adversary sees the image with the filled hole (paper: what the decoder made, without its surroundings) and
      has no batch norm. Both learn in one step by a reversed gradient (paper: alternating, each with its own
      optimiser), which is the minimax game, not the non-saturating one. `train.grad_clip` clips the norm of both.
"""

from __future__ import annotations

from abc import ABC

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.geometry.pixels import pixel_grid_like, size_of
from geossl.losses.reduction import masked_mean
from geossl.networks.blocks import conv_float32, crop_like
from geossl.networks.flow_layers import leaky_conv
from geossl.pretrain.adversary import Discriminator, adversarial_loss
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.types import Batch, Objective

LEAK = 0.2
FILL = 0.45  # of holes: the mean that encoders subtract


class ReconstructionOptions(PretrainingOptions):
    width: int = Field(64, ge=8, description="Channels of the decoder.")


class VariationalOptions(ReconstructionOptions):
    code: int = Field(32, ge=1, description="Numbers of the code at each place.")
    divergence: float = Field(1e-3, ge=0, description="Weight of the code's divergence from unit normal noise.")


class DenoisingOptions(ReconstructionOptions):
    noise: float = Field(0.25, gt=0, lt=1, description="Share of the pixels that become black.")


class InpaintingOptions(ReconstructionOptions):
    hole: float = Field(0.5, gt=0, lt=1, description="Sides of the hole, as shares of the image's.")
    overlap: float = Field(7 / 128, ge=0, description="Rim of known pixels that count too, as a share of the height.")
    overlap_weight: float = Field(10.0, ge=0, description="Of the rim, relative to the hole.")
    adversary: float = Field(
        0.001, ge=0, lt=1, description="Weight of what tells filled images from real ones; the error has the rest."
    )


class Decoder(nn.Module):
    """From an encoder's deepest feature back to an image, doubling the size as often as the encoder halved it.

    Args:
        channels_in: Of the feature. width: Channels within. doublings: log2 of the feature's stride.
    """

    def __init__(self, channels_in: int, width: int, doublings: int) -> None:
        super().__init__()
        self.first = leaky_conv(channels_in, width, LEAK)
        self.steps = nn.ModuleList(leaky_conv(width, width, LEAK) for _ in range(doublings))
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, deepest: Tensor, like: Tensor) -> Tensor:
        """(B, channels_in, h, w) -> (B, 3, H, W) float32 of the size of `like`."""
        x = self.first(deepest)
        for conv in self.steps:
            x = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return crop_like(conv_float32(self.out, x), like)


class AutoEncoder(Pretraining, ABC):
    """An encoder with a decoder."""

    def __init__(self, options: ReconstructionOptions) -> None:
        super().__init__(options)
        self.decoder = Decoder(self.encoder.channels[-1], options.width, len(self.encoder.channels))

    def reconstruct(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W) float32."""
        return self.decoder(self.encoder(image)[-1], image)  # type: ignore[no-any-return]


class Plain(AutoEncoder):
    """The image itself: mean of (x - g(f(x)))^2."""

    Options = ReconstructionOptions

    def forward(self, batch: Batch) -> Objective:
        image = batch.target.image
        found = self.reconstruct(image)
        maps = {"target": image, "found": found.detach().clamp(0, 1)}
        return Objective({"reconstruction": F.mse_loss(found, image.float())}, maps)


class Variational(Pretraining):
    """The image out of a noisy code, which is held near to unit normal noise."""

    Options = VariationalOptions

    def __init__(self, options: VariationalOptions) -> None:
        super().__init__(options)
        self.code = nn.Conv2d(self.encoder.channels[-1], 2 * options.code, 1)
        self.decoder = Decoder(options.code, options.width, len(self.encoder.channels))

    def forward(self, batch: Batch) -> Objective:
        image = batch.target.image
        mean, log_variance = conv_float32(self.code, self.encoder(image)[-1]).chunk(2, dim=1)
        noise = torch.randn(mean.shape).to(mean)
        found = self.decoder(mean + noise * (log_variance / 2).exp(), image)
        terms = {
            "reconstruction": F.mse_loss(found, image.float()),
            "divergence": self.options.divergence * normal_divergence(mean, log_variance).mean(),
        }
        return Objective(terms, {"target": image, "found": found.detach().clamp(0, 1)})


class Denoising(AutoEncoder):
    """The clean image out of one with black pixels: mean of (x - g(f(x~)))^2."""

    Options = DenoisingOptions

    def forward(self, batch: Batch) -> Objective:
        image = batch.target.image
        black = (torch.rand(len(image), 1, *size_of(image)) < self.options.noise).to(image.device)
        noisy = image.masked_fill(black, 0.0)
        found = self.reconstruct(noisy)
        maps = {"noisy": noisy, "found": found.detach().clamp(0, 1)}
        return Objective({"reconstruction": F.mse_loss(found, image.float())}, maps)


class Inpainting(AutoEncoder):
    """What is in the hole, out of what is around it."""

    Options = InpaintingOptions

    def __init__(self, options: InpaintingOptions) -> None:
        super().__init__(options)
        self.discriminator = Discriminator() if options.adversary else None

    def forward(self, batch: Batch) -> Objective:
        image, options = batch.target.image, self.options
        rim = round(options.overlap * image.shape[-2])
        hole, wide = draw_hole(image, options.hole, rim)
        given = image.masked_fill(hole, FILL)
        found = self.reconstruct(given)
        error = (found - image.float()).square().mean(1, keepdim=True)
        weight = torch.where(wide & ~hole, options.overlap_weight, 1.0)
        # Over the mean weight, so that the loss keeps its size whatever the rim.
        loss = masked_mean(error * weight, wide) / masked_mean(weight, wide).clamp_min(1e-6)
        terms, health = {"inpainting": (1 - options.adversary) * loss}, {}
        filled = torch.where(hole, found, image.float())
        if self.discriminator is not None:
            # Its weight is in the gradient that reaches the decoder; the discriminator itself learns with the whole.
            terms["adversary"], health["discriminator"] = adversarial_loss(
                self.discriminator, image.float(), filled, options.adversary
            )
        return Objective(terms, {"given": given, "found": filled.detach().clamp(0, 1)}, health)


def normal_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of normal distributions from the unit one, (B, C, h, w) twice -> (B, h, w), summed over C.

    Convention: 0 for mean 0 and variance 1; 1/2 for mean 1 and variance 1.
    Source: Kingma & Welling, ICLR 2014, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def draw_hole(image: Tensor, share: float, rim: int) -> tuple[Tensor, Tensor]:
    """A rectangle of each image.

    Args:
        image: (B, C, H, W). share: Of height and width. rim: Pixels around.

    Returns:
        hole: (B, 1, H, W) bool. wide: The same with its rim.
    """
    size = torch.tensor([image.shape[-1], image.shape[-2]])
    sides = (size * share).round().long().clamp_min(1)
    corner = (torch.rand(len(image), 2) * (size - sides + 1)).long()  # (B, 2) pixels (u, v)
    grid = pixel_grid_like(image)
    first, last = (x.to(image)[:, :, None, None] for x in (corner, corner + sides - 1))
    hole, wide = (((grid >= first - r) & (grid <= last + r)).all(1, keepdim=True) for r in (0, rim))
    return hole, wide
