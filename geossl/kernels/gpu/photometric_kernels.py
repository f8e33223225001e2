"""The four kernels that `photometric` launches one after the other."""

from __future__ import annotations

import triton
import triton.language as tl

SUMS, SUMS_OF_VIEW = tl.constexpr(3), tl.constexpr(12)
TOLERANCE = tl.constexpr(1e-3)  # pixel; as geometry.pixels.in_image
C1, C2 = tl.constexpr(0.01**2), tl.constexpr(0.03**2)  # as losses/photometric.py
THIRD, NINTH = tl.constexpr(1 / 3), tl.constexpr(1 / 9)


@triton.jit
def projected(
    depth: tl.tensor, x: tl.tensor, y: tl.tensor, projection: tl.tensor, min_z: float
) -> tuple[tl.tensor, ...]:
    """Pixels (x, y) -> their rays in the source's pixels (3 values a unit of depth), u, v, 1 / z, and z > min_z.

    Behind the camera nothing is divided: 1 / z is 1.
    """
    column, row = x.to(tl.float32), y.to(tl.float32)
    ray_x = tl.load(projection) * column + (tl.load(projection + 1) * row + tl.load(projection + 2))
    ray_y = tl.load(projection + 3) * column + (tl.load(projection + 4) * row + tl.load(projection + 5))
    ray_z = tl.load(projection + 6) * column + (tl.load(projection + 7) * row + tl.load(projection + 8))
    z = depth * ray_z + tl.load(projection + 11)
    front = z > min_z
    inverse = 1.0 / tl.where(front, z, 1.0)
    u = (depth * ray_x + tl.load(projection + 9)) * inverse
    v = (depth * ray_y + tl.load(projection + 10)) * inverse
    return ray_x, ray_y, ray_z, u, v, inverse, front


@triton.jit
def between(place: tl.tensor, size: int) -> tuple[tl.tensor, tl.tensor]:
    """A coordinate -> the first of its two neighbours inside, at most size - 2, and the weight of the second."""
    clamped = tl.where(place > 0, place, 0.0)  # not a number is 0 as well, and nothing foreign is read
    clamped = tl.where(clamped < size - 1, clamped, size - 1.0)
    first = tl.minimum(clamped.to(tl.int32), size - 2)
    return first, clamped - first.to(tl.float32)


@triton.jit
def sampled(
    corner: tl.tensor, width: int, along: tl.tensor, down: tl.tensor, inside: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Bilinear samples of a colour, from the upper left of four pixels, and their derivatives along u and v."""
    upper_left = tl.load(corner, mask=inside, other=0.0)
    upper_right = tl.load(corner + 1, mask=inside, other=0.0)
    left_step = tl.load(corner + width, mask=inside, other=0.0) - upper_left
    right_step = tl.load(corner + width + 1, mask=inside, other=0.0) - upper_right
    left = upper_left + down * left_step
    step = upper_right + down * right_step - left
    return left + along * step, step, left_step + along * (right_step - left_step)


@triton.jit
def reflected(index: tl.tensor, size: int) -> tl.tensor:
    """-1 -> 1, size -> size - 2."""
    index = tl.abs(index)
    return tl.where(index < size, index, 2 * size - 2 - index)


@triton.jit
def warp_kernel(
    sources: tl.tensor,
    depth: tl.tensor,
    projections: tl.tensor,
    min_z: float,
    warped: tl.tensor,
    batch: int,
    height: int,
    width: int,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """sources, warped: (V, B, 3, H, W). depth: (B, H, W). projections: (V, B, 12)."""
    view = tl.program_id(2).to(tl.int64)  # and sample
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane, here = height * width, y * width + x
    d = tl.load(depth + view % batch * plane + here, mask=inside, other=1.0)
    _, _, _, u, v, _, _ = projected(d, x, y, projections + view * SUMS_OF_VIEW, min_z)
    left, along = between(u, width)
    top, down = between(v, height)
    for colour in tl.static_range(3):
        first = (view * 3 + colour) * plane
        value, _, _ = sampled(sources + first + top * width + left, width, along, down, inside)
        tl.store(warped + first + here, value, mask=inside)


@triton.jit
def error_kernel(
    images: tl.tensor,
    target: tl.tensor,
    depth: tl.tensor,
    projections: tl.tensor,
    min_z: float,
    errors: tl.tensor,
    slopes: tl.tensor,
    ssim_weight: float,
    batch: int,
    height: int,
    width: int,
    IGNORE: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """images: (V, B, 3, H, W). target: (B, 3, H, W). errors: (V, B, H, W).

    slopes: (V, B, 9, H, W) or None, of each colour the derivatives to its window's mean, mean square and mean product.
        The factor 1/9 of the box is in them.
    """
    view = tl.program_id(2).to(tl.int64)  # and sample
    sample = view % batch
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane, here = height * width, y * width + x
    of_ssim, of_l1 = ssim_weight * THIRD, (1 - ssim_weight) * THIRD
    above, below = reflected(y - 1, height), reflected(y + 1, height)
    left, right = reflected(x - 1, width), reflected(x + 1, width)
    error = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    for colour in tl.static_range(3):
        image, goal = images + (view * 3 + colour) * plane, target + (sample * 3 + colour) * plane
        sum_a = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
        sum_b, square_a, square_b, product = sum_a, sum_a, sum_a, sum_a
        for dy in tl.static_range(-1, 2):
            row = (above if dy < 0 else (below if dy > 0 else y)) * width
            for dx in tl.static_range(-1, 2):
                there = row + (left if dx < 0 else (right if dx > 0 else x))
                a = tl.load(image + there, mask=inside, other=0.0)
                b = tl.load(goal + there, mask=inside, other=0.0)
                sum_a, sum_b, product = sum_a + a, sum_b + b, product + a * b
                square_a, square_b = square_a + a * a, square_b + b * b
        mean_a, mean_b = sum_a * NINTH, sum_b * NINTH
        variance_a, variance_b = square_a * NINTH - mean_a * mean_a, square_b * NINTH - mean_b * mean_b
        n1, n2 = 2 * mean_a * mean_b + C1, 2 * (product * NINTH - mean_a * mean_b) + C2
        d1, d2 = mean_a * mean_a + mean_b * mean_b + C1, variance_a + variance_b + C2
        inverse = 1.0 / (d1 * d2)
        ssim = n1 * n2 * inverse
        raw = (1 - ssim) * 0.5
        a = tl.load(image + here, mask=inside, other=0.0)
        b = tl.load(goal + here, mask=inside, other=0.0)
        error += of_ssim * tl.minimum(tl.maximum(raw, 0.0), 1.0) + of_l1 * tl.abs(a - b)
        if slopes is not None:
            of_raw = tl.where((raw >= 0) & (raw <= 1), inverse * (-0.5 * NINTH * of_ssim), 0.0)
            at = slopes + (view * 9 + colour * 3) * plane + here
            to_mean = 2 * of_raw * (mean_b * (n2 - n1) - ssim * mean_a * (d2 - d1))
            tl.store(at, to_mean, mask=inside)
            tl.store(at + plane, -of_raw * ssim * d1, mask=inside)
            tl.store(at + 2 * plane, 2 * of_raw * n1, mask=inside)
    if IGNORE:
        d = tl.load(depth + sample * plane + here, mask=inside, other=1.0)
        _, _, _, u, v, _, front = projected(d, x, y, projections + view * SUMS_OF_VIEW, min_z)
        seen = front & (u >= -TOLERANCE) & (u <= width - 1 + TOLERANCE)
        seen = seen & (v >= -TOLERANCE) & (v <= height - 1 + TOLERANCE)
        error = tl.where(seen, error, float("inf"))
    tl.store(errors + view * plane + here, error, mask=inside)


@triton.jit
def decide_kernel(
    errors: tl.tensor,
    still: tl.tensor,
    share: tl.tensor,
    error: tl.tensor,
    moving: tl.tensor,
    sums: tl.tensor,
    batch: int,
    height: int,
    width: int,
    VIEWS: tl.constexpr,
    MINIMUM: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """errors: (V, B, H, W). share: the same, how much of the pixel's error is this view's, or None.

    still: (B, H, W) or None. error, moving: (B, H, W). sums: (programs, 3), of the error, of its least over views
    where any has one, and of such pixels.
    """
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane = height * width
    here = sample * plane + y * width + x
    step = tl.cast(plane, tl.int64) * batch  # from view to view
    best = tl.full((TILE_Y, TILE_X), float("inf"), tl.float32)
    total = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    count = total  # of views that have an error
    for view in tl.static_range(VIEWS):
        e = tl.load(errors + view * step + here, mask=inside, other=float("inf"))
        known = e < float("inf")
        best = tl.minimum(best, e)
        count += tl.where(known, 1.0, 0.0)
        total += tl.where(known, e, 0.0)
    any_known = best < float("inf")
    if MINIMUM:
        total = best
        count = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)  # of views that share the least
        for view in tl.static_range(VIEWS):
            count += tl.where(tl.load(errors + view * step + here, mask=inside, other=0.0) == best, 1.0, 0.0)
    else:
        total = total / tl.maximum(count, 1.0)
    constant = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    moves = any_known
    if still is not None:
        constant = tl.load(still + here, mask=inside, other=0.0)
        moves = any_known & (total < constant)
    total = tl.where(moves, total, constant)  # still pixels keep their constant error
    tl.store(error + here, total, mask=inside)
    tl.store(moving + here, moves.to(tl.uint8), mask=inside)
    if share is not None:
        part = tl.where(moves, 1.0 / tl.maximum(count, 1.0), 0.0)
        for view in tl.static_range(VIEWS):
            e = tl.load(errors + view * step + here, mask=inside, other=0.0)
            mine = (e == best) if MINIMUM else (e < float("inf"))
            tl.store(share + view * step + here, tl.where(mine, part, 0.0), mask=inside)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    at = sums + program * SUMS
    counted = inside & any_known
    tl.store(at, tl.sum(tl.where(inside, total, 0.0)))
    tl.store(at + 1, tl.sum(tl.where(counted, best, 0.0)))
    tl.store(at + 2, tl.sum(tl.where(counted, 1.0, 0.0)))


@triton.jit
def slope(slopes: tl.tensor, plane: int, a: tl.tensor, b: tl.tensor, exists: tl.tensor) -> tl.tensor:
    """Derivative of a window's error to one of its pixels, of value a in the image and b in the target."""
    to_mean = tl.load(slopes, mask=exists, other=0.0)
    to_square = tl.load(slopes + plane, mask=exists, other=0.0)
    to_product = tl.load(slopes + 2 * plane, mask=exists, other=0.0)
    return to_mean + 2 * a * to_square + b * to_product


@triton.jit
def gradient_kernel(
    sources: tl.tensor,
    target: tl.tensor,
    warped: tl.tensor,
    share: tl.tensor,
    slopes: tl.tensor,
    depth: tl.tensor,
    projections: tl.tensor,
    min_z: float,
    of_depth: tl.tensor,
    sums: tl.tensor,
    of_l1: float,
    scale: float,
    batch: int,
    height: int,
    width: int,
    views: int,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """sources, warped: (V, B, 3, H, W). target: (B, 3, H, W). share: (V, B, H, W). slopes: (V, B, 9, H, W).

    of_depth: (B, H, W). sums: (B, programs, V, 12), gradients to homography and epipole.
    """
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane, here = height * width, y * width + x
    column, row = x.to(tl.float32), y.to(tl.float32)
    at_target = target + sample * 3 * plane + here
    d = tl.load(depth + sample * plane + here, mask=inside, other=1.0)
    to_depth = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    for index in range(views):
        view = index * batch + sample
        ray_x, ray_y, ray_z, u, v, inverse, front = projected(d, x, y, projections + view * SUMS_OF_VIEW, min_z)
        left, along = between(u, width)
        top, down = between(v, height)
        mine = tl.load(share + view * plane + here, mask=inside, other=0.0)
        at_source, at_warped = sources + view * 3 * plane + top * width + left, warped + view * 3 * plane + here
        a0, b0 = tl.load(at_warped, mask=inside, other=0.0), tl.load(at_target, mask=inside, other=0.0)
        a1, b1 = tl.load(at_warped + plane, mask=inside, other=0.0), tl.load(at_target + plane, mask=inside, other=0.0)
        a2 = tl.load(at_warped + 2 * plane, mask=inside, other=0.0)
        b2 = tl.load(at_target + 2 * plane, mask=inside, other=0.0)
        g0 = mine * tl.where(a0 > b0, of_l1, tl.where(a0 < b0, -of_l1, 0.0))
        g1 = mine * tl.where(a1 > b1, of_l1, tl.where(a1 < b1, -of_l1, 0.0))
        g2 = mine * tl.where(a2 > b2, of_l1, tl.where(a2 < b2, -of_l1, 0.0))
        for dy in tl.static_range(-1, 2):
            # The windows of the border rows see the row next to it twice; those of columns likewise.
            twice_y = (y == 1) if dy < 0 else ((y == height - 2) if dy > 0 else (y < 0))
            row_exists = inside & (y + dy >= 0) & (y + dy < height)
            for dx in tl.static_range(-1, 2):
                twice_x = (x == 1) if dx < 0 else ((x == width - 2) if dx > 0 else (x < 0))
                exists = row_exists & (x + dx >= 0) & (x + dx < width)
                at = here + dy * width + dx
                part = tl.load(share + view * plane + at, mask=exists, other=0.0)
                part *= tl.where(twice_y, 2.0, 1.0) * tl.where(twice_x, 2.0, 1.0)
                at_slopes = slopes + view * 9 * plane + at
                g0 += part * slope(at_slopes, plane, a0, b0, exists)
                g1 += part * slope(at_slopes + 3 * plane, plane, a1, b1, exists)
                g2 += part * slope(at_slopes + 6 * plane, plane, a2, b2, exists)
        _, along_u0, along_v0 = sampled(at_source, width, along, down, inside)
        _, along_u1, along_v1 = sampled(at_source + plane, width, along, down, inside)
        _, along_u2, along_v2 = sampled(at_source + 2 * plane, width, along, down, inside)
        to_u = g0 * along_u0 + g1 * along_u1 + g2 * along_u2
        to_v = g0 * along_v0 + g1 * along_v1 + g2 * along_v2
        # A clamped coordinate has no gradient, nor has a point behind the camera to its z.
        to_x = tl.where(inside & (u > 0) & (u < width - 1), to_u * inverse * scale, 0.0)
        to_y = tl.where(inside & (v > 0) & (v < height - 1), to_v * inverse * scale, 0.0)
        to_z = tl.where(front, -(to_x * u + to_y * v), 0.0)
        to_depth += to_x * ray_x + to_y * ray_y + to_z * ray_z
        at = sums + (program * views + index) * SUMS_OF_VIEW
        tl.store(at, tl.sum(to_x * d * column))
        tl.store(at + 1, tl.sum(to_x * d * row))
        tl.store(at + 2, tl.sum(to_x * d))
        tl.store(at + 3, tl.sum(to_y * d * column))
        tl.store(at + 4, tl.sum(to_y * d * row))
        tl.store(at + 5, tl.sum(to_y * d))
        tl.store(at + 6, tl.sum(to_z * d * column))
        tl.store(at + 7, tl.sum(to_z * d * row))
        tl.store(at + 8, tl.sum(to_z * d))
        tl.store(at + 9, tl.sum(to_x))
        tl.store(at + 10, tl.sum(to_y))
        tl.store(at + 11, tl.sum(to_z))
    tl.store(of_depth + sample * plane + here, to_depth, mask=inside)
