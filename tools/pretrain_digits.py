"""Pre-training on scikit-learn's 8 x 8 digits: which methods learn, and which must collapse.

    pip install scikit-learn
    python tools/pretrain_digits.py -o runs/pretrain_digits    # about 10 minutes on one core

1297 images to learn from without labels, 500 to test. Each row: on the features, accuracy of a linear classifier with
100 labels (mean of three draws of them) and of the nearest neighbour; on the method's own embedding, or the features
where it has none, alignment and uniformity of two views, and spread (1 uniform, 0 collapsed). Three rows are broken on
purpose: what keeps their method from collapsing was taken away. Writes digits.json with the line that each row should
pass.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.commands.console import text_table
from geossl.evaluation.encoder import linear_classification_accuracy, spread
from geossl.formats.atomic import write_text_atomic
from geossl.methods import build_method
from geossl.pretrain.align_uniform import AlignUniform
from geossl.pretrain.byol import BYOL
from geossl.pretrain.heads import pooled
from geossl.pretrain.method import Pretraining
from geossl.pretrain.moco import Embedder
from geossl.pretrain.objectives import alignment, uniformity
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Frame, Objective

IMAGES, SIDE, TEST, LABELS, DRAWS = 1797, 16, 500, 100, 3
CALIBRATION = 30  # batches of which a random encoder's batch norm takes statistics
VIEWS = Views(zoom=(0.9, 1.3), rotation_deg=15.0, saturation=0.0, hue=0.0, grey=0.0, blur_px=1.0)
Row = Mapping[str, float]


class NoStop(BYOL):
    """BYOL whose target is the online network itself, gradients and all."""

    def forward(self, batch: Batch) -> Objective:
        both = torch.cat([draw_view(batch.target.image, self.options.views).image for _ in range(2)])
        projected = self.online(both)
        predicted, targets = self.predictor(projected), projected.roll(len(batch), 0)
        return Objective({"prediction": (2 - 2 * F.cosine_similarity(predicted, targets)).mean()})


def without_predictor(options: Mapping[str, Any]) -> Pretraining:
    method = BYOL(BYOL.Options(**options))
    method.predictor = nn.Identity()  # type: ignore[assignment]
    return method


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Attributes:
        build: Options of every method -> the method; None leaves the encoder random.
        embeds: Whether the method has an embedding of its own.
        passes: (own figures, the random encoder's) -> whether the row is as it should be; None: no line is known.
        line: The same in words.
    """

    build: Callable[[Mapping[str, Any]], Pretraining] | None
    passes: Callable[[Row, Row], bool] | None = None
    line: str = ""
    embeds: bool = True


def named(name: str, views: bool = True, **options: Any) -> Callable[[Mapping[str, Any]], Pretraining]:
    def build(common: Mapping[str, Any]) -> Pretraining:
        values = {**common, **({"views": VIEWS} if views else {}), **options}
        return build_method(f"pretrain_{name}", values)  # type: ignore[return-value]

    return build


ENTRIES = {
    "random": Entry(None, embeds=False),
    "simclr": Entry(
        named("simclr", temperature=0.2),
        lambda row, random: row["lin100"] >= random["lin100"] + 0.10 and row["uniformity"] <= -2.5,
        "lin100 >= random + 0.10, uniformity <= -2.5",
    ),
    "moco": Entry(
        named("moco", queue=1024, momentum=0.99),
        lambda row, random: row["lin100"] >= random["lin100"] + 0.10 and row["uniformity"] <= -2.2,
        "lin100 >= random + 0.10, uniformity <= -2.2",
    ),
    "align_uniform": Entry(
        named("align_uniform"),
        lambda row, random: row["lin100"] >= random["lin100"] + 0.12,
        "lin100 >= random + 0.12",
    ),
    "byol": Entry(
        named("byol", momentum=0.99),
        lambda row, random: row["lin100"] >= random["lin100"] + 0.05 and row["spread"] >= 0.5,
        "lin100 >= random + 0.05, spread >= 0.5",
    ),
    "byol without stop": Entry(
        lambda common: NoStop(NoStop.Options(**common, views=VIEWS)),
        lambda row, random: row["spread"] <= 0.1 and row["lin100"] < random["lin100"],
        "collapses: spread <= 0.1, lin100 < random",
    ),
    "byol without predictor": Entry(
        lambda common: without_predictor({**common, "views": VIEWS, "momentum": 0.99}),
        lambda row, random: row["spread"] <= 0.2,
        "collapses: spread <= 0.2",
    ),
    "alignment alone": Entry(
        lambda common: AlignUniform(AlignUniform.Options(**common, views=VIEWS, uniform_weight=0.0)),
        lambda row, random: row["spread"] <= 0.1,
        "collapses: spread <= 0.1",
    ),
    "instance": Entry(named("instance", samples=IMAGES - TEST)),
    "instance, softmax": Entry(named("instance", samples=IMAGES - TEST, loss="softmax")),
    "denoise": Entry(
        named("denoise", views=False),
        lambda row, random: row["lin100"] >= random["lin100"] + 0.07,
        "lin100 >= random + 0.07",
        embeds=False,
    ),
    "rotation": Entry(named("rotation", views=False), embeds=False),
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("-o", "--out", type=Path, default=Path("runs/pretrain_digits"))
    made.add_argument("--steps", type=int, default=300)
    made.add_argument("--batch-size", type=int, default=256)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--only", choices=list(ENTRIES), action="append", help="beside random; may be repeated")
    arguments = made.parse_args()
    images, labels = digits()
    figures: dict[str, Row] = {}
    rows = []
    for name in ["random", *(n for n in ENTRIES if n != "random" and n in (arguments.only or ENTRIES))]:
        entry = ENTRIES[name]
        method = learned(entry, images[:-TEST], arguments.steps, arguments.batch_size, arguments.seed)
        figures[name] = scored(method, entry.embeds, images, labels)
        came_out = "" if entry.passes is None else "yes" if entry.passes(figures[name], figures["random"]) else "no"
        rows.append({"method": name, **figures[name], "line": entry.line, "passes": came_out})
        print(text_table(rows[-1:]), flush=True)
    print(f"\n{text_table(rows)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"steps": arguments.steps, "batch_size": arguments.batch_size, "seed": arguments.seed}
    write_text_atomic(arguments.out / "digits.json", json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


def digits() -> tuple[Tensor, Tensor]:
    """(IMAGES, 3, SIDE, SIDE) in [0, 1], grey, in a fixed order of their own, and (IMAGES,) labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("the digits come with scikit-learn: pip install scikit-learn") from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = torch.from_numpy(found.images[order]).float()[:, None] / 16
    images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(found.target[order]).long()


def learned(entry: Entry, images: Tensor, steps: int, batch_size: int, seed: int) -> Pretraining:
    """A method after so many steps of Adam."""
    torch.manual_seed(seed)
    build = entry.build or named("rotation", views=False)
    method = build({"encoder": "compact"})
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    for step in range(steps if entry.build else CALIBRATION):
        chosen = torch.randperm(len(images))[:batch_size]
        method.progress = step / steps
        objective = method(batch_of(images, chosen))
        if entry.build is None:  # batch norm alone takes in what images look like
            continue
        optimizer.zero_grad()
        objective.total.backward()
        optimizer.step()
        method.after_step()
    return method.eval()


def batch_of(images: Tensor, chosen: Tensor) -> Batch:
    """Every digit is a recording of its own: none is a false negative."""
    image = images[chosen]
    names = tuple(f"digit{i}/0" for i in chosen.tolist())
    return Batch(Frame(image, image, torch.eye(3).repeat(len(image), 1, 1)), index=chosen, names=names)


@torch.no_grad()
def scored(method: Any, embeds: bool, images: Tensor, labels: Tensor) -> Row:
    """The figures of a row."""
    features = pooled(method.encoder(images))
    train, test = features[:-TEST], features[-TEST:]
    own, true = labels[:-TEST], labels[-TEST:]
    accuracies = []
    for draw in range(DRAWS):
        few = torch.randperm(len(train), generator=torch.Generator().manual_seed(draw))[:LABELS]
        accuracies.append(linear_classification_accuracy(train[few], own[few], test, true))
    unit, unit_test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    nearest = (unit_test @ unit.T).argmax(1)
    torch.manual_seed(0)
    embed = Embedder(method.encoder, method.head) if embeds else lambda x: pooled(method.encoder(x))
    first, second = (embed(draw_view(images[-TEST:], VIEWS).image) for _ in range(2))
    return {
        "lin100": float(np.mean(accuracies)),
        "nearest": float((own[nearest] == true).double().mean()),
        "alignment": float(alignment(first, second)),
        "uniformity": float(uniformity(first)),
        "spread": spread(first),
    }


if __name__ == "__main__":
    main()
