"""Monodepth2's objective, one line of the paper after the other.

Every scale's depth is upsampled to the full size, every source is warped by it, and the errors of the unwarped sources
are computed anew for every scale, with noise of 1e-5 against ties.

Convention: integer pixels are centres, and sampling aligns the corners' centres (the published code, written for an
older grid_sample, is half a pixel off with a newer one).
Source: Godard, Mac Aodha, Firman, Brostow, ICCV 2019, eq. 1 to 5. https://arxiv.org/abs/1806.01260
"""

import torch
import torch.nn.functional as F
from torch import nn

MIN_DEPTH, MAX_DEPTH = 0.1, 100.0
TIE_NOISE = 1e-5


def disparity_to_depth(sigmoid):
    nearest, farthest = 1 / MIN_DEPTH, 1 / MAX_DEPTH
    return 1 / (farthest + (nearest - farthest) * sigmoid)


class BackprojectDepth(nn.Module):
    """(B, 1, H, W) depth -> (B, 4, H*W) homogeneous points."""

    def __init__(self, batch, height, width):
        super().__init__()
        v, u = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
        pixels = torch.stack([u.reshape(-1), v.reshape(-1), torch.ones(height * width)], 0)
        self.register_buffer("pixels", pixels[None].repeat(batch, 1, 1))
        self.register_buffer("ones", torch.ones(batch, 1, height * width))

    def forward(self, depth, inverse_K):
        rays = torch.matmul(inverse_K[:, :3, :3], self.pixels)
        points = depth.view(depth.shape[0], 1, -1) * rays
        return torch.cat([points, self.ones], 1)


class Project3D(nn.Module):
    """(B, 4, H*W) points -> (B, H, W, 2) places in [-1, 1] of the image that a camera takes of them."""

    def __init__(self, batch, height, width):
        super().__init__()
        self.batch, self.height, self.width = batch, height, width

    def forward(self, points, K, T):
        P = torch.matmul(K, T)[:, :3, :]
        camera = torch.matmul(P, points)
        pixels = camera[:, :2, :] / (camera[:, 2:, :] + 1e-7)
        pixels = pixels.view(self.batch, 2, self.height, self.width).permute(0, 2, 3, 1)
        span = pixels.new_tensor([self.width - 1, self.height - 1])
        return (pixels / span - 0.5) * 2


class SSIM(nn.Module):
    """Structural dissimilarity of 3x3 windows, reflected at the border."""

    def __init__(self):
        super().__init__()
        self.mean_x, self.mean_y = nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 1)
        self.mean_xx, self.mean_yy, self.mean_xy = nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 1)
        self.pad = nn.ReflectionPad2d(1)

    def forward(self, x, y):
        x, y = self.pad(x), self.pad(y)
        mean_x, mean_y = self.mean_x(x), self.mean_y(y)
        variance_x = self.mean_xx(x**2) - mean_x**2
        variance_y = self.mean_yy(y**2) - mean_y**2
        covariance = self.mean_xy(x * y) - mean_x * mean_y
        numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
        denominator = (mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2)
        return torch.clamp((1 - numerator / denominator) / 2, 0, 1)


def smoothness(disparity, image):
    """Eq. 3: differences of the disparity, cheap where the image has edges."""
    disparity_x = torch.abs(disparity[:, :, :, :-1] - disparity[:, :, :, 1:])
    disparity_y = torch.abs(disparity[:, :, :-1, :] - disparity[:, :, 1:, :])
    image_x = torch.mean(torch.abs(image[:, :, :, :-1] - image[:, :, :, 1:]), 1, keepdim=True)
    image_y = torch.mean(torch.abs(image[:, :, :-1, :] - image[:, :, 1:, :]), 1, keepdim=True)
    disparity_x = disparity_x * torch.exp(-image_x)
    disparity_y = disparity_y * torch.exp(-image_y)
    return disparity_x.mean() + disparity_y.mean()


class Objective(nn.Module):
    """The loss of four scales of disparity; `tie_noise` 0 makes it a function of its arguments."""

    def __init__(self, batch, height, width, tie_noise=TIE_NOISE):
        super().__init__()
        self.height, self.width, self.tie_noise = height, width, tie_noise
        self.backproject = BackprojectDepth(batch, height, width)
        self.project = Project3D(batch, height, width)
        self.ssim = SSIM()

    def photometric(self, prediction, target):
        """Eq. 2."""
        l1 = torch.abs(target - prediction).mean(1, True)
        ssim = self.ssim(prediction, target).mean(1, True)
        return 0.85 * ssim + 0.15 * l1

    def forward(self, targets, sources, K, inverse_K, motions, disparities):
        """
        Args:
            targets: The target at every scale, (B, 3, H / 2^s, W / 2^s).
            sources: The sources at full size.
            K, inverse_K: (B, 4, 4).
            motions: (B, 4, 4) of each source, T_source_target.
            disparities: {scale: (B, 1, H / 2^s, W / 2^s)} in (0, 1).
        """
        total = 0
        for scale, disparity in disparities.items():
            full = F.interpolate(disparity, [self.height, self.width], mode="bilinear", align_corners=False)
            depth = disparity_to_depth(full)
            errors, identity = [], []
            for source, T in zip(sources, motions, strict=True):
                points = self.backproject(depth, inverse_K)
                places = self.project(points, K, T)
                warped = F.grid_sample(source, places, padding_mode="border", align_corners=True)  # eq. 1
                errors.append(self.photometric(warped, targets[0]))
            for source in sources:
                identity.append(self.photometric(source, targets[0]))
            errors, identity = torch.cat(errors, 1), torch.cat(identity, 1)
            identity = identity + torch.randn(identity.shape, device=identity.device) * self.tie_noise
            least, _ = torch.min(torch.cat([identity, errors], 1), dim=1)  # eq. 4 and 5
            loss = least.mean()
            mean = disparity.mean(2, True).mean(3, True)
            loss = loss + 1e-3 * smoothness(disparity / (mean + 1e-7), targets[scale]) / 2**scale
            total = total + loss
        return total / len(disparities)
