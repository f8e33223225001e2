"""What optical flow is made of: census, correlation, RAFT's lookup, forward-backward check, range map.

Sources: Meister et al., AAAI 2018, eq. 1 and section 3; Dosovitskiy et al., ICCV 2015, eq. 1; Teed and Deng, ECCV
2020, section 3.2; Wang et al., CVPR 2018, eq. 2.
"""

import torch
import torch.nn.functional as F


def census_distance(a, b, radius):
    """(B, 3, H, W) twice -> (B, 1, H, W) soft Hamming distance of ternary transforms; 0 where the patch leaves."""
    difference = ternary_transform(a, radius) - ternary_transform(b, radius)  # (B, (2r + 1)^2, H, W)
    squared = difference**2
    distance = (squared / (0.1 + squared)).sum(1, keepdim=True)
    inside = torch.zeros_like(distance)
    inside[:, :, radius:-radius, radius:-radius] = 1
    return distance * inside


def ternary_transform(image, radius):
    size = 2 * radius + 1
    red, green, blue = (255 * image).unbind(1)
    grey = (0.2989 * red + 0.5870 * green + 0.1140 * blue)[:, None]
    h, w = grey.shape[-2:]
    patches = F.unfold(grey, size, padding=radius).view(-1, size * size, h, w)
    difference = patches - grey
    return difference / torch.sqrt(0.81 + difference**2)


def correlation(a, b, max_displacement):
    """(B, C, H, W) twice -> (B, (2d + 1)^2, H, W) mean products with the displaced second map."""
    d = max_displacement
    h, w = a.shape[-2:]
    padded = F.pad(b, (d, d, d, d))
    costs = []
    for row in range(2 * d + 1):
        for column in range(2 * d + 1):
            costs.append((a * padded[:, :, row : row + h, column : column + w]).mean(1, keepdim=True))
    return torch.cat(costs, 1)


def lookup(pyramid, places, radius):
    """(B h w, 1, h', w') a level, (B, 2, h, w) places -> (B, levels (2 r + 1)^2, h, w) correlations around them."""
    b, _, h, w = places.shape
    steps = torch.linspace(-radius, radius, 2 * radius + 1, device=places.device)
    around = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), 2)[None]  # du changes slowly, dv fast
    found = []
    for level, volume in enumerate(pyramid):
        centres = places.permute(0, 2, 3, 1).reshape(b * h * w, 1, 1, 2) / 2**level
        u, v = (centres + around).unbind(3)
        rows, columns = volume.shape[-2:]
        grid = torch.stack([2 * u / (columns - 1) - 1, 2 * v / (rows - 1) - 1], 3)
        found.append(F.grid_sample(volume, grid, align_corners=True).view(b, h, w, -1))
    return torch.cat(found, 3).permute(0, 3, 1, 2).contiguous()


def pixel_coordinates(flow):
    b, _, h, w = flow.shape
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([u, v], 0)[None].repeat(b, 1, 1, 1).to(flow)


def forward_backward_visible(forward, backward):
    """(B, 2, H, W) twice -> (B, 1, H, W) bool: there and back leads near the start, and not out of the image."""
    h, w = forward.shape[-2:]
    places = pixel_coordinates(forward) + forward
    u, v = places[:, 0], places[:, 1]
    grid = torch.stack([2 * u / (w - 1) - 1, 2 * v / (h - 1) - 1], 3)
    warped = F.grid_sample(backward, grid, padding_mode="border", align_corners=True)
    difference = torch.sum((forward + warped) ** 2, 1, keepdim=True)
    size = torch.sum(forward**2, 1, keepdim=True) + torch.sum(warped**2, 1, keepdim=True)
    inside = (u >= 0) & (u <= w - 1) & (v >= 0) & (v <= h - 1)
    return (difference <= 0.01 * size + 0.5) & inside[:, None]


def range_map(backward):
    """(B, 2, H, W) -> (B, 1, H, W) how much of the second image lands on every pixel of the first."""
    b, _, h, w = backward.shape
    places = pixel_coordinates(backward) + backward
    landed = []
    for sample in range(b):
        u, v = places[sample, 0].reshape(-1), places[sample, 1].reshape(-1)
        total = torch.zeros(h * w, device=backward.device)
        for column in (torch.floor(u), torch.floor(u) + 1):
            for row in (torch.floor(v), torch.floor(v) + 1):
                share = (1 - torch.abs(u - column)) * (1 - torch.abs(v - row))
                inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
                index = (row * w + column).long()
                total = total.index_add(0, index[inside], share[inside])
        landed.append(total.view(1, h, w))
    return torch.stack(landed, 0)
