"""The kinds of data a config may name under `data.train` and `data.validation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from geossl.config.strict import Strict

Exclude = Literal["benchmarks", "none"]
_BY_METHOD = "null is benchmarks where a method of optical or scene flow is trained, else none."


class Source(Strict):
    """What every kind of data source shares."""

    weight: float = Field(1.0, gt=0, description="Relative number of batches drawn from this source.")
    stereo: bool | None = Field(None, description="Load the other camera; null inherits data.stereo.")
    source_offsets: tuple[int, ...] | None = Field(None, description="Null inherits data.source_offsets.")


class KittiRaw(Source):
    """KITTI raw recordings (unpacked or the official zips), and the synthetic street, which has the same layout."""

    kind: Literal["kitti_raw"] = "kitti_raw"
    root: Path = Field(description="Folder with 2011_09_26/... or with the official zip files.")
    split: str | None = Field(
        None, description="eigen_zhou_train, eigen_zhou_val, eigen_test, a file list's path, or null for all frames."
    )
    drives: tuple[str, ...] | None = Field(None, description="Only these drives, e.g. 2011_09_26_drive_0001_sync.")
    cameras: tuple[Literal["image_00", "image_01", "image_02", "image_03"], ...] = ("image_02", "image_03")
    intrinsics: Literal["calibrated", "nominal"] = Field(
        "calibrated", description="Each date's calibration, or Monodepth2's nominal (0.58 W, 1.92 H, W/2, H/2)."
    )
    depth_root: Path | None = Field(None, description="Root of KITTI's improved depth ground truth, for evaluation.")
    exclude: Exclude | None = Field(
        None, description=f"benchmarks: without the 10 frames around each pair of KITTI 2012 and 2015; {_BY_METHOD}"
    )


class KittiOdometry(Source):
    """KITTI odometry sequences."""

    kind: Literal["kitti_odometry"] = "kitti_odometry"
    root: Path = Field(description="Folder with sequences/ and poses/.")
    sequences: tuple[str, ...] = Field(("00", "01", "02", "03", "04", "05", "06", "07", "08"))
    cameras: tuple[Literal["image_0", "image_1", "image_2", "image_3"], ...] | None = Field(
        None, description="Target cameras; null takes colour left and right where present, else grey."
    )
    exclude: Exclude | None = Field(
        None, description=f"benchmarks: without the 10 frames around each pair of KITTI 2012 and 2015; {_BY_METHOD}"
    )


class KittiStereo(Source):
    """KITTI 2012 and 2015 stereo/flow pairs (and their multi-view extension where unpacked beside them)."""

    kind: Literal["kitti_stereo"] = "kitti_stereo"
    root: Path = Field(description="Folder that contains training/ (or testing/).")
    year: Literal[2012, 2015] = 2015
    subset: Literal["training", "testing"] = "training"
    cameras: tuple[Literal["left", "right"], ...] = Field(("left",), description="Target cameras; labels are left's.")
    frames: Literal["reference", "all"] = Field(
        "reference", description="Targets: only image _10, which has the labels, or every image unpacked."
    )
    calibration: Literal["files", "by_size"] = Field(
        "files", description="by_size: of the recording day that has images of this size; for copies without files."
    )
    exclude: Exclude | None = Field(
        None, description=f"benchmarks: without windows that use one of a scene's frames 9 to 12; {_BY_METHOD}"
    )


class Sintel(Source):
    """MPI Sintel: rendered scenes with exact optical flow."""

    kind: Literal["sintel"] = "sintel"
    root: Path = Field(description="Folder that contains training/ (or test/).")
    subset: Literal["training", "test"] = "training"
    passes: tuple[Literal["clean", "final"], ...] = Field(("clean",), description="Renderings of the same scenes.")
    scenes: tuple[str, ...] | None = Field(None, description="Only these scenes, e.g. alley_1; null takes all.")


class FlyingChairs(Source):
    """FlyingChairs: pairs of chairs that move over photographs, with exact optical flow."""

    kind: Literal["flying_chairs"] = "flying_chairs"
    root: Path = Field(description="Folder with the files, or with data/ and FlyingChairs_train_val.txt.")
    split: Literal["train", "val"] | None = Field(
        None, description="Of FlyingChairs_train_val.txt; null takes all pairs and needs no such file."
    )


class Folder(Source):
    """A folder of images in name order, optionally with the right camera's folder."""

    kind: Literal["folder"] = "folder"
    root: Path = Field(description="Folder of images; every subfolder with images is one clip.")
    intrinsics: tuple[float, float, float, float] | None = Field(
        None,
        description="fx, fy, cx, cy in pixels of the files; null reads intrinsics.txt or intrinsics.json in root.",
    )
    right: Path | None = Field(None, description="Folder of the right camera's images, same names.")
    baseline_m: float | None = Field(None, gt=0, description="Distance of the two cameras in metres.")


class Video(Source):
    """A video file."""

    kind: Literal["video"] = "video"
    root: Path = Field(description="The video file.")
    intrinsics: tuple[float, float, float, float] | None = Field(None, description="fx, fy, cx, cy in pixels.")
    stride: int = Field(1, ge=1, description="Take every n-th frame.")
    rate_hz: float | None = Field(None, gt=0, description="Take frames at about this rate instead of `stride`.")


AnySource = Annotated[
    KittiRaw | KittiOdometry | KittiStereo | Sintel | FlyingChairs | Folder | Video, Field(discriminator="kind")
]
SOURCE_KINDS: dict[str, type[Source]] = {
    "kitti_raw": KittiRaw,
    "kitti_odometry": KittiOdometry,
    "kitti_stereo": KittiStereo,
    "sintel": Sintel,
    "flying_chairs": FlyingChairs,
    "folder": Folder,
    "video": Video,
}
