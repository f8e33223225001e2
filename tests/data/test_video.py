from pathlib import Path

import cv2
import numpy as np
import pytest

from geossl.config import Data, Video
from geossl.data.dataset import SampleDataset
from geossl.data.images import Video as OpenVideo
from geossl.data.samples import DataError
from geossl.data.video import decodable_frames, samples, taken_frames, video_samples

INTRINSICS = (60.0, 60.0, 31.5, 23.5)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames at 20 Hz, frame i of shade 5 i."""
    path = tmp_path_factory.mktemp("video") / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for i in range(40):
        writer.write(np.full((48, 64, 3), 5 * i, np.uint8))
    writer.release()
    return path


def test_samples_take_every_nth_frame(video: Path) -> None:
    found = samples(Video(root=video, intrinsics=INTRINSICS, stride=3), Data(source_offsets=(-1, 1)))
    assert [s.name for s in found[:2]] == ["drive/000003", "drive/000006"] and len(found) == 12
    assert [v.image.frame for v in found[0].sources] == [0, 6]
    batch = SampleDataset(found, 32, 64)[1]
    shades = [frame.image.float().mean().item() / 5 for frame in batch.frames]
    assert shades == pytest.approx([6, 3, 9], abs=0.5)


def test_a_sample_s_views_are_read_onwards(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = samples(Video(root=video, intrinsics=INTRINSICS), Data(source_offsets=(1, -2, -1)))
    dataset = SampleDataset(found, 32, 64)
    read, seen = OpenVideo.read, []

    def noted(opened: OpenVideo, frame: int) -> np.ndarray:
        seen.append(frame)
        return read(opened, frame)

    monkeypatch.setattr(OpenVideo, "read", noted)
    batch = dataset[0]
    assert seen == [0, 1, 2, 3]
    shades = [frame.image.float().mean().item() / 5 for frame in batch.frames]
    assert shades == pytest.approx([2, 3, 0, 1], abs=0.5)


def test_taken_frames_follow_the_rate() -> None:
    def taken(rate: float) -> list[int]:
        return taken_frames(40, 20.0, Video(root="v", rate_hz=rate)).tolist()

    assert taken(20) == list(range(40))
    assert taken(10) == list(range(0, 40, 2))
    assert taken(8)[:5] == [0, 3, 5, 8, 10]
    assert taken_frames(10, 0.0, Video(root="v", stride=4)).tolist() == [0, 4, 8]
    with pytest.raises(DataError, match="has 20 frames a second; rate_hz: 30 is more"):
        taken(30)
    with pytest.raises(DataError, match="does not say its frame rate"):
        taken_frames(40, 0.0, Video(root="v", rate_hz=5))


def test_frames_are_counted_where_the_header_is_wrong(video: Path) -> None:
    opened = OpenVideo(str(video))
    assert decodable_frames(opened) == 40
    opened.count = 45
    assert decodable_frames(opened) == 40


def test_video_samples_need_no_intrinsics(video: Path) -> None:
    found = video_samples(Video(root=video))
    assert len(found) == 40 and not found[0].target.camera.known


def test_what_is_missing_is_named(video: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs intrinsics"):
        samples(Video(root=video), Data())
    with pytest.raises(DataError, match=r"has no other camera.*A video has one camera"):
        samples(Video(root=video, intrinsics=INTRINSICS), Data(stereo=True))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        samples(Video(root=tmp_path / "none.mp4", intrinsics=INTRINSICS), Data())
    with pytest.raises(DataError, match="1 frames are taken, too few"):
        samples(Video(root=video, intrinsics=INTRINSICS, stride=50), Data())
