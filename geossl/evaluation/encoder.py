"""What an encoder's features are worth as they are: neighbours, linear probes, and how much of their space they use.

All take (N, D) features in float32 or float64 of samples in any order.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def retrieval(features: Tensor, same: Tensor) -> float:
    """How often the nearest other sample, by cosine, is one that shows the same.

    Args:
        features: (N, D).
        same: (N, N) bool, pairs of samples that show the same; the diagonal is ignored.

    Returns:
        Share in [0, 1] of the samples that have another of their own; NaN where none has.
    """
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    unit = F.normalize(features, dim=1)
    nearest = (unit @ unit.T).masked_fill(itself, -torch.inf).argmax(1)
    has_one = (same & ~itself).any(1)
    hit = same.gather(1, nearest[:, None])[:, 0]
    return float(hit[has_one].double().mean())


def spread(features: Tensor) -> float:
    """Standard deviation of unit vectors' components times sqrt(D), mean: 1 where directions are uniform, 0 where all
    are the same."""
    unit = F.normalize(features, dim=1)
    return float(unit.std(0, correction=0).mean()) * math.sqrt(features.shape[1])


def effective_rank(features: Tensor) -> float:
    """How many directions features spread over: e to the entropy of their singular values as shares of their sum.

    Convention: k equal singular values give k; one alone gives 1.
    Source: Roy & Vetterli, EUSIPCO 2007; of features, Garrido et al., ICML 2023 (RankMe), who do not centre them.
    """
    share = torch.linalg.svdvals((features - features.mean(0)).double())
    share = share / share.sum().clamp_min(1e-12)
    return float(torch.special.entr(share).sum().exp())


def linear_regression_r2(
    train: Tensor, train_values: Tensor, test: Tensor, test_values: Tensor, penalty: float = 1e-3
) -> float:
    """How much of a quantity's variance a linear function of the features explains on samples it was not fitted to.

    Args:
        train, test: (N, D) and (M, D). train_values, test_values: (N,) and (M,).
        penalty: As in `linear_regression`.

    Returns:
        R^2 <= 1; 0 is no better than the mean of the test values.
    """
    y_test = test_values.double()
    residual = y_test - linear_regression(train, train_values[:, None], test, penalty)[:, 0]
    return 1 - float(residual.square().mean() / y_test.var(correction=0).clamp_min(1e-12))


def linear_regression(train: Tensor, train_values: Tensor, test: Tensor, penalty: float = 1e-3) -> Tensor:
    """What a linear function of the features, fitted by least squares, says of other samples.

    Args:
        train, test: (N, D) and (M, D). train_values: (N, K).
        penalty: On squared weights, of features that have been standardised by the training samples.

    Returns:
        (M, K) float64.
    """
    deviation, mean = torch.std_mean(train.double(), 0, correction=0)
    x, x_test = ((values.double() - mean) / deviation.clamp_min(1e-6) for values in (train, test))
    y = train_values.double()
    gram = x.T @ x / len(x) + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.T @ (y - y.mean(0)) / len(x))
    return x_test @ weights + y.mean(0)


def angle_figures(estimated: Tensor, true: Tensor) -> dict[str, float]:
    """Errors of directions.

    Args:
        estimated, true: (N, 3) of any length but 0.

    Returns:
        mean_deg, median_deg: Of the angles between them, the lower of two medians. within_11.25_deg, within_22.5_deg,
        within_30_deg: Share of smaller angles.

    Source: Fouhey, Gupta, Hebert, ICCV 2013, which the field follows for normals.
    """
    estimated, true = estimated.double(), true.double()
    across = torch.linalg.cross(estimated, true, dim=1).norm(dim=1)
    angle = torch.rad2deg(torch.atan2(across, (estimated * true).sum(1)))  # exact near 0 too, unlike the arc cosine
    shares = {f"within_{limit:g}_deg": float((angle < limit).double().mean()) for limit in (11.25, 22.5, 30)}
    return {"mean_deg": float(angle.mean()), "median_deg": float(angle.median()), **shares}


def linear_classification_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, penalty: float = 1e-3
) -> float:
    """Accuracy of a logistic regression on frozen features, fitted by L-BFGS.

    Args:
        train, test: (N, D) and (M, D). train_labels, test_labels: (N,) and (M,) int64.
        penalty: On squared weights, of features that have been standardised by the training samples.
    """
    deviation, mean = torch.std_mean(train.double(), 0, correction=0)
    x, x_test = ((values.double() - mean) / deviation.clamp_min(1e-6) for values in (train, test))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    weights = torch.zeros(x.shape[1], classes, dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = F.cross_entropy(x @ weights + bias, train_labels) + penalty * weights.square().sum()
            value.backward()
        return float(value.detach())

    optimizer.step(loss)
    return float(((x_test @ weights + bias).argmax(1) == test_labels).double().mean())
