"""The hot functions: photometric objective, SSIM, census, correlation, lookup, visibility, decoder inputs, jitter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from geossl import kernels
from geossl.appearance import jitter
from geossl.benchmark.contest import OURS, PLAIN, TORCH, Contest
from geossl.benchmark.plain import PlainModules
from geossl.geometry.conversion import mean_normalized, unit_inverse_depth_to_depth
from geossl.geometry.motion import motion_from_axis_angle
from geossl.geometry.pixels import pixel_grid
from geossl.geometry.transforms import area_reduced, upsample
from geossl.geometry.visibility import forward_backward_check, range_map
from geossl.losses.census import census_map
from geossl.losses.photometric import photometric_map
from geossl.losses.smoothness import edge_aware_smoothness, mean_of
from geossl.methods.reprojection import Criterion, Reprojection
from geossl.networks.correlation import correlation
from geossl.networks.depth_decoder import decoder_input
from geossl.networks.raft import lookup_in
from geossl.types import Frame

Work = Callable[[], Any]
SCALES, SMOOTHNESS = 4, 1e-3
FLOW_SIZE = 320, 832
FEATURES = ((64, 80, 208), (128, 20, 52))  # channels and size of two levels of PWC-Net at FLOW_SIZE
DISPLACEMENT = 4
MAX_FLOW_PX = 16.0
LOOKUPS, LEVELS, RADIUS = 12, 4, 4  # of RAFT
DECODER, JOINED = (16, 32, 64, 128, 256), (0, 64, 64, 128, 256)  # channels of ResNet-18's depth decoder, by level


def kernel_contests(
    plain: PlainModules | None,
    device: torch.device,
    batch: int = 4,
    size: tuple[int, int] = (192, 640),
    flow_size: tuple[int, int] = FLOW_SIZE,
    features: tuple[tuple[int, int, int], ...] = FEATURES,
) -> list[Contest]:
    """A contest for each function.

    Args:
        plain: The plain implementation.
        device: Of all tensors.
        batch: Samples.
        size: (height, width) of the images of depth: photometric objective, decoder, colour jitter.
        flow_size: (height, width) of the functions of flow.
        features: (channels, height, width) of the maps that are correlated.
    """
    contests = [photometric_contest(plain, device, batch, *size), ssim_contest(plain, device, batch, *size)]
    contests += [census_contest(plain, device, batch, *flow_size, radius) for radius in (3, 1)]
    contests += [correlation_contest(plain, device, (batch, *shape)) for shape in features]
    contests.append(lookup_contest(plain, device, *(math.ceil(edge / 8) for edge in flow_size)))
    contests += visibility_contests(plain, device, (batch, 2, *flow_size))
    return [*contests, decoder_contest(plain, device, batch, *size), jitter_contest(plain, device, batch, *size)]


def photometric_contest(
    plain: PlainModules | None, device: torch.device, batch: int, height: int, width: int
) -> Contest:
    """Monodepth2's objective of four scales and two sources, with its gradients to disparities and motions.

    Random noise against equal errors, which the plain objective adds, is left out where the results are compared.
    """
    g = torch.Generator().manual_seed(0)
    images = [smooth((batch, 3, height, width), g).to(device) for _ in range(3)]
    K = torch.tensor([[0.58 * width, 0, width / 2], [0, 1.92 * height, height / 2], [0, 0, 1]], device=device)
    K = K.expand(batch, 3, 3).contiguous()
    motions = [
        motion_from_axis_angle(*(0.02 * torch.randn(2, batch, 3, generator=g).to(device))).requires_grad_()
        for _ in range(2)
    ]
    maps = [
        (0.005 + 0.1 * smooth((batch, 1, height // 2**s, width // 2**s), g)).to(device).requires_grad_()
        for s in range(SCALES)
    ]
    target, *sources = (Frame(image, image, K) for image in images)
    pyramid = [area_reduced(target, (height // 2**s, width // 2**s)).image for s in range(SCALES)]

    def ours() -> Tensor:
        explain = Reprojection(target, list(zip(sources, motions, strict=True)), Criterion(), len(sources))
        terms = []
        for scale, unit_inverse_depth in enumerate(maps):
            depth = unit_inverse_depth_to_depth(upsample(unit_inverse_depth, (height, width)), 0.1, 100.0)
            roughness = mean_of(edge_aware_smoothness(mean_normalized(unit_inverse_depth), pyramid[scale]))
            terms.append(explain(depth).loss + SMOOTHNESS / 2**scale * roughness)
        return torch.stack(terms).mean()

    sides = own_sides(loss_with_gradients(ours, [*maps, *motions]))
    checks = None
    if plain is not None:
        matrix = torch.eye(4, device=device).repeat(batch, 1, 1)
        matrix[:, :3, :3] = K
        camera = matrix, torch.linalg.inv(matrix)

        def theirs(noise: float) -> Work:
            objective = plain.reprojection.Objective(batch, height, width, noise).to(device)
            disparities = dict(enumerate(maps))
            return loss_with_gradients(
                lambda: objective(pyramid, images[1:], *camera, motions, disparities), [*maps, *motions]
            )

        checks = {PLAIN: theirs(0.0), **sides}
        sides = {PLAIN: theirs(plain.reprojection.TIE_NOISE), **sides}
    part = f"photometric objective, {SCALES} scales, 2 sources, {batch}x{height}x{width}"
    # A pixel with errors that are equal to the last bits may choose either of them, and then has another gradient.
    return Contest(part, sides, goal=25, tolerance=2e-2, checks=checks)


def ssim_contest(plain: PlainModules | None, device: torch.device, batch: int, height: int, width: int) -> Contest:
    """SSIM and L1 of two images, with the gradient to the one that was warped."""
    g = torch.Generator().manual_seed(2)
    image, warped = (smooth((batch, 3, height, width), g).to(device) for _ in range(2))
    warped.requires_grad_()
    sides = own_sides(loss_with_gradients(lambda: photometric_map(warped, image).mean(), [warped]))
    if plain is not None:
        objective = plain.reprojection.Objective(batch, height, width).to(device)
        sides = {PLAIN: loss_with_gradients(lambda: objective.photometric(warped, image).mean(), [warped]), **sides}
    return Contest(f"SSIM and L1, {batch}x3x{height}x{width}", sides, tolerance=1e-3)


def census_contest(
    plain: PlainModules | None, device: torch.device, batch: int, height: int, width: int, radius: int
) -> Contest:
    """The soft census distance of two images, with the gradients to both."""
    g = torch.Generator().manual_seed(1)
    a, b = (smooth((batch, 3, height, width), g).to(device).requires_grad_() for _ in range(2))
    sides = own_sides(loss_with_gradients(lambda: census_map(a, b, radius)[0].mean(), [a, b]))
    if plain is not None:
        sides = {PLAIN: loss_with_gradients(lambda: plain.flow.census_distance(a, b, radius).mean(), [a, b]), **sides}
    patch = 2 * radius + 1
    goal = {3: 60, 1: 25}.get(radius)
    return Contest(f"census {patch}x{patch}, {batch}x3x{height}x{width}", sides, goal, tolerance=1e-3)


def correlation_contest(plain: PlainModules | None, device: torch.device, shape: tuple[int, int, int, int]) -> Contest:
    """The 9x9 cost volume of two feature maps, with the gradients to both."""
    g = torch.Generator().manual_seed(2)
    a, b = (torch.randn(shape, generator=g).to(device).requires_grad_() for _ in range(2))
    reached = [torch.randn(shape[0], (2 * DISPLACEMENT + 1) ** 2, *shape[2:], generator=g).to(device)]
    sides = own_sides(with_gradients(lambda: [correlation(a, b, DISPLACEMENT)], [a, b], reached))
    if plain is not None:
        published = plain.flow.correlation
        sides = {PLAIN: with_gradients(lambda: [published(a, b, DISPLACEMENT)], [a, b], reached), **sides}
    return Contest(f"correlation 9x9, {'x'.join(map(str, shape))}", sides, goal=20, tolerance=1e-4)


def lookup_contest(plain: PlainModules | None, device: torch.device, height: int, width: int) -> Contest:
    """What RAFT looks up in a step with one pair of images, with the gradient to the pyramid of correlations."""
    g = torch.Generator().manual_seed(4)
    volume = torch.randn(height * width, 1, height, width, generator=g).to(device).requires_grad_()
    pyramid = [volume]
    for _ in range(LEVELS - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1].detach(), 2).requires_grad_())
    places = pixel_grid(height, width, device) + MAX_FLOW_PX / 8 * torch.randn(
        LOOKUPS, 1, 2, height, width, generator=g
    ).to(device)
    reached = [torch.randn(1, LEVELS * (2 * RADIUS + 1) ** 2, height, width, generator=g).to(device)] * LOOKUPS

    def ours() -> list[Tensor]:
        look_up = lookup_in(pyramid, RADIUS)
        return [look_up(p) for p in places]

    sides = own_sides(with_gradients(ours, pyramid, reached))
    if plain is not None:
        published = plain.flow.lookup
        theirs = with_gradients(lambda: [published(pyramid, p, RADIUS) for p in places], pyramid, reached)
        sides = {PLAIN: theirs, **sides}
    return Contest(f"{LOOKUPS} lookups of RAFT, 1x{height}x{width}", sides, goal=3, tolerance=1e-4)


def visibility_contests(
    plain: PlainModules | None, device: torch.device, shape: tuple[int, int, int, int]
) -> list[Contest]:
    """What two views can see of each other, by flows that nearly agree."""
    g = torch.Generator().manual_seed(3)
    flow = MAX_FLOW_PX * (2 * smooth(shape, g, over=64) - 1).to(device)  # neighbours move alike, as in real video
    backward = -flow + torch.randn(shape, generator=g).to(device)
    check = own_sides(lambda: forward_backward_check(flow, backward))
    landed = own_sides(lambda: range_map(backward))
    if plain is not None:
        check = {PLAIN: lambda: plain.flow.forward_backward_visible(flow, backward), **check}
        landed = {PLAIN: lambda: plain.flow.range_map(backward), **landed}
    size = "x".join(map(str, shape))
    return [
        Contest(f"forward-backward check, {size}", check, goal=6, tolerance=1e-4),
        Contest(f"splat visibility, {size}", landed, goal=10, tolerance=1e-4),
    ]


def decoder_contest(plain: PlainModules | None, device: torch.device, batch: int, height: int, width: int) -> Contest:
    """What the ten convolutions of Monodepth2's depth decoder read, with the gradients to what that is made of.

    Maps are in channels_last, on the plain side in torch's default layout, as the convolutions of each give them.
    """
    g = torch.Generator().manual_seed(5)

    def maps(channels: int, level: int) -> Tensor:
        shape = (batch, channels, height // 2**level, width // 2**level)
        return torch.randn(shape, generator=g).to(device, memory_format=torch.channels_last)

    calls: list[tuple[Tensor, Tensor | None, bool]] = []
    gradients = []
    for level, (channels, joined) in enumerate(zip(DECODER, JOINED, strict=True)):
        feature = maps(joined, level) if joined else None
        calls += [(maps(channels, level + 1), feature, True), (maps(channels, level), None, False)]
        gradients += [torch.randn_like(decoder_input(*call)) for call in calls[-2:]]

    def work(function: Callable[..., Tensor], layout: torch.memory_format) -> Work:
        def leaf(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.clone(memory_format=layout).requires_grad_()

        own = [(leaf(x), leaf(feature), upsample) for x, feature, upsample in calls]
        inputs = [x for call in own for x in call[:2] if x is not None]
        reached = [gradient.contiguous(memory_format=layout) for gradient in gradients]

        def outputs() -> list[Tensor]:
            return [function(*call) for call in own]

        return with_gradients(outputs, inputs, reached)

    sides = own_sides(work(decoder_input, torch.channels_last))
    if plain is not None:
        sides = {PLAIN: work(plain.networks.decoder_input, torch.contiguous_format), **sides}
    return Contest(f"decoder inputs, 5 levels, {batch}x{height}x{width}", sides)


def jitter_contest(plain: PlainModules | None, device: torch.device, batch: int, height: int, width: int) -> Contest:
    """Brightness, contrast, saturation and hue of images; on the plain side of one after the other, in PIL.

    PIL rounds to 8 bits after each of the four.
    """
    g = torch.Generator().manual_seed(6)
    levels = smooth((batch, 3, height, width), g).mul(255).byte()
    factors = 0.8 + 0.4 * torch.rand(4, batch, generator=g)
    factors[3] = 0.5 * (factors[3] - 1)
    image, own_factors = (levels / 255).to(device), factors.to(device)
    sides = own_sides(lambda: jitter(image, own_factors))
    checks = None
    if plain is not None:
        pictures = [Image.fromarray(x) for x in levels.permute(0, 2, 3, 1).contiguous().numpy()]

        def theirs() -> list[Image.Image]:
            return [
                plain.samples.jitter_image(picture, range(4), own.tolist())
                for picture, own in zip(pictures, factors.T, strict=True)
            ]

        checks = {PLAIN: lambda: torch.stack([TF.to_tensor(picture) for picture in theirs()]), **sides}
        sides = {PLAIN: theirs, **sides}
    return Contest(f"colour jitter, {batch}x3x{height}x{width}", sides, tolerance=2e-2, checks=checks)


def own_sides(work: Work) -> dict[str, Work]:
    """geossl's work without and with all the kernels there are, the former where there is a difference."""

    def under(backend: str) -> Work:
        def timed() -> Any:
            with kernels.use(backend):
                return work()

        return timed

    best = kernels.available()[-1]
    return {TORCH: under("plain"), OURS: under(best)} if best != "plain" else {OURS: work}


def with_gradients(outputs: Callable[[], list[Tensor]], inputs: list[Tensor], reached: list[Tensor]) -> Work:
    """A function that gives the outputs and, where these gradients reach them, the gradients to the inputs."""

    def work() -> tuple[Tensor, ...]:
        found = outputs()
        return (*(out.detach() for out in found), *torch.autograd.grad(found, inputs, reached))

    return work


def loss_with_gradients(loss: Callable[[], Tensor], inputs: list[Tensor]) -> Work:
    """A function that gives the loss and its gradients."""
    return with_gradients(lambda: [loss()], inputs, [torch.ones((), device=inputs[0].device)])


def smooth(shape: tuple[int, int, int, int], generator: torch.Generator, over: int = 8) -> Tensor:
    """Random numbers in [0, 1] that vary over some pixels."""
    h, w = shape[2:]
    coarse = torch.rand(*shape[:2], 2 + h // over, 2 + w // over, generator=generator)
    return F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True).clamp(0, 1)
