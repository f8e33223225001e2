"""Every packaged config is valid and trains one step."""

import pytest
import torch

from geossl.config import configs_dir, load_experiment
from geossl.engine.model_folder import without_pretrained
from geossl.methods import build_method
from geossl.types import Batch, Frame

NAMES = sorted(path.stem for path in configs_dir().glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_config_trains_one_step(name: str) -> None:
    experiment = load_experiment(name)
    options = without_pretrained(experiment.method, experiment.model)
    if experiment.method == "smurf":
        options = {**options, "student_margin": 8}  # the paper's 64 leave nothing of so small an image
    method = build_method(experiment.method, options)
    generator = torch.Generator().manual_seed(0)
    size = (64, 96)

    def frame() -> Frame:
        image = torch.rand(2, 3, *size, generator=generator)
        return Frame(image, image, torch.tensor([[56.0, 0, 47.0], [0, 56.0, 31.0], [0, 0, 1]]).repeat(2, 1, 1))

    offsets = experiment.data.source_offsets
    T = torch.eye(4).repeat(2, 1, 1)
    T[:, 0, 3] = -0.54
    stereo = frame() if experiment.data.stereo else None
    batch = Batch(
        frame(),
        tuple(frame() for _ in offsets),
        offsets,
        stereo,
        T if experiment.data.stereo else None,
        tuple(frame() for _ in offsets) if experiment.data.stereo_sources else (),
        index=torch.arange(2),
        names=("a", "b"),
    )
    objective = method(batch)
    objective.total.backward()
    assert objective.total.isfinite()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_config_header_tells_what_it_is(name: str) -> None:
    header = (configs_dir() / f"{name}.yaml").read_text().splitlines()[:8]
    assert header[0].startswith("# ") and any("geossl " in line or "python tools/" in line for line in header)
