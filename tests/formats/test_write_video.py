"""Videos that are written are read back."""

from pathlib import Path

import numpy as np
import pytest

from geossl.data.images import Video
from geossl.formats.video import write_video


@pytest.mark.parametrize(("height", "width"), [(48, 64), (49, 65)])
def test_video_comes_back(tmp_path: Path, height: int, width: int) -> None:
    frames = [np.full((height, width, 3), (40 * k, 30, 200 - 40 * k), np.uint8) for k in range(4)]
    write_video(tmp_path / "new" / "x.mp4", iter(frames), 12.5)
    video = Video(str(tmp_path / "new" / "x.mp4"))
    assert (video.count, video.rate_hz) == (4, 12.5)
    for k, frame in enumerate(frames):
        read = video.read(k)
        assert read.shape == (height + height % 2, width + width % 2, 3)  # even
        assert np.abs(read[:height, :width].astype(int) - frame).mean() < 4  # lossy
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.mp4"]


def test_frames_of_two_sizes_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    frames = [np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)]
    with pytest.raises(ValueError, match="frames of 30x20 and 20x30 cannot share a video"):
        write_video(tmp_path / "x.mp4", frames, 10)
    with pytest.raises(ValueError, match="would hold no frame"):
        write_video(tmp_path / "x.mp4", [], 10)
    assert list(tmp_path.iterdir()) == []
