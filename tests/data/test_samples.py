import numpy as np
import pytest

from geossl.config import Data, Folder
from geossl.data.images import ImageRef
from geossl.data.samples import Clip, DataError, Wanted, clip_samples, make_camera, nominal_K
from geossl.formats.files import FileRef

K = np.array([[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]])
SIZE = (1242, 375)


def clip(frames: list[int], name: str = "left") -> Clip:
    images = {f: (f"{name}/{f}", ImageRef(FileRef(f"{name}/{f}.png"))) for f in frames}
    return Clip(name, images, make_camera(K, SIZE, name), "drive", first_frame=1100)


def test_clip_samples_leave_out_ends_and_gaps() -> None:
    found = clip_samples(clip([0, 1, 2, 3, 5, 6, 7, 8]), Wanted((-1, 1)))
    assert [s.frame for s in found] == [1, 2, 6, 7]
    sample = found[0]
    assert sample.name == "left/1" and sample.clip == "left" and sample.source_offsets == (-1, 1)
    assert [str(v.image) for v in sample.sources] == ["left/0.png", "left/2.png"]
    assert sample.target.frame == 1101 and sample.target.recording == "drive"


def test_clip_samples_share_views() -> None:
    first, second = clip_samples(clip([0, 1, 2, 3]), Wanted((-1, 1)))
    assert first.target is second.sources[0] and first.sources[1] is second.target


def test_clip_samples_with_stereo_need_both_images() -> None:
    left, right = clip([0, 1, 2, 3, 4]), clip([0, 1, 2, 3], "right")
    left.partner, left.T_partner_this = right, np.eye(4)
    assert [s.frame for s in clip_samples(left, Wanted((-1,), stereo=True))] == [1, 2, 3]
    both = clip_samples(left, Wanted((-1, 1), stereo=True, stereo_sources=True))
    assert [s.frame for s in both] == [1, 2]
    assert [str(v.image) for v in both[0].stereo_sources] == ["right/0.png", "right/2.png"]
    assert len(both[0].views) == 6


def test_clip_samples_without_other_camera_say_so() -> None:
    with pytest.raises(DataError, match=r"left has no other camera, and stereo: true asks for it\. Set stereo: false"):
        clip_samples(clip([0]), Wanted(stereo=True))


def test_clip_samples_of_a_list_keep_what_is_missing() -> None:
    listed = clip([0, 1])
    listed.expect = lambda frame: (f"left/{frame}", ImageRef(FileRef(f"left/{frame}.png")))
    found = clip_samples(listed, Wanted((1,)), frames=[9, 0])
    assert [(s.name, str(s.sources[0].image)) for s in found] == [("left/9", "left/10.png"), ("left/0", "left/1.png")]


def test_wanted_takes_the_sources_own_settings_first() -> None:
    data = Data(source_offsets=(-1, 1), stereo=True, stereo_sources=True)
    assert Wanted.of(Folder(root="x"), data) == Wanted((-1, 1), True, True)
    assert Wanted.of(Folder(root="x", stereo=False), data) == Wanted((-1, 1), False, False)
    assert Wanted.of(Folder(root="x", source_offsets=()), data) == Wanted((), True, False)
    with pytest.raises(DataError, match=r"source_offsets \[0, 1\] should be distinct and not 0"):
        Wanted.of(Folder(root="x", source_offsets=(0, 1)), data)


def test_nominal_K_is_monodepth2s() -> None:
    assert nominal_K((1000, 100)).tolist() == [[580, 0, 500], [0, 192, 50], [0, 0, 1]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((0.58, 1.92, 0.5, 0.5), "field of view of 179"),
        ((721.5, 721.5, 1300, 172.9), "principal point lies outside the image"),
        ((721.5, 721.5, 609.6, -1), "principal point lies outside the image"),
        ((-721.5, 721.5, 609.6, 172.9), "focal lengths should be positive"),
        ((72150, 721.5, 609.6, 172.9), "horizontal field of view of 0.98"),
        ((float("nan"), 721.5, 609.6, 172.9), "not of the form"),
    ],
)
def test_make_camera_refuses_a_K_that_does_not_fit(values: tuple[float, ...], reason: str) -> None:
    fx, fy, cx, cy = values
    with pytest.raises(DataError, match=rf"somewhere: K .* does not fit images of 1242x375: .*{reason}"):
        make_camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), SIZE, "somewhere")


def test_make_camera_warns_of_another_sizes_K() -> None:
    with pytest.warns(UserWarning, match="far from the middle of 640x192"):
        make_camera(K, (640, 192), "half the size")


def test_camera_K_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make_camera(K, SIZE, "here").K[0, 0] = 1
