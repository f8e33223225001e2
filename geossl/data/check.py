"""Looking at every file of a data set before training on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from geossl.data.images import ImageReader, ImageRef
from geossl.data.samples import DataError, Sample, View
from geossl.formats.errors import FormatError

LISTED = 10
THREADS = 8


class UnreadableError(DataError):
    """Files that are missing, cut off or of the wrong size; the message names them with the reasons."""


@dataclass(frozen=True)
class Problem:
    """One file that cannot be used.

    Attributes:
        image: The file.
        reason: Why, without its name.
    """

    image: ImageRef
    reason: str

    def __str__(self) -> str:
        return f"{self.image}: {self.reason}"


def check(samples: Sequence[Sample], progress: Callable[[int, int], None] = lambda done, total: None) -> list[Problem]:
    """Opens every distinct image of the samples, to the last byte.

    Args:
        samples: Their images are checked: there, whole, readable, and of the size that the calibration is for.
        progress: Called with the number of images done and in all.

    Returns:
        What is wrong, in order of the files; empty if nothing is.
    """
    views = list({view.image: view for sample in samples for view in sample.views}.values())
    views.sort(key=lambda view: (str(view.image.file), view.image.frame or 0))
    reader, problems = ImageReader(), []
    with ThreadPoolExecutor(THREADS) as pool:
        for done, problem in enumerate(pool.map(lambda view: check_view(reader, view), views), start=1):
            if problem is not None:
                problems.append(problem)
            progress(done, len(views))
    return problems


def check_view(reader: ImageReader, view: View) -> Problem | None:
    """What is wrong with one image, None if nothing is."""
    try:
        image = reader.read(view.image)
    except (OSError, FormatError) as error:
        return Problem(view.image, reason_of(error))
    size, expected = (image.shape[1], image.shape[0]), view.camera.size
    if size != expected:
        return Problem(view.image, f"is {size[0]}x{size[1]}; its calibration is for {expected[0]}x{expected[1]}")
    return None


def find_missing(samples: Iterable[Sample]) -> list[Problem]:
    """The images that do not exist or are empty; quick, as nothing is read."""
    images = {view.image: None for sample in samples for view in sample.views}
    files = {image.file: None for image in images}
    problems = {}
    for file in files:
        try:
            if file.stamp()[1] == 0:
                problems[file] = "is empty"
        except OSError as error:
            problems[file] = reason_of(error)
    return [Problem(image, problems[image.file]) for image in images if image.file in problems]


def problems_text(problems: Sequence[Problem], lost: int, total: int) -> str:
    """A summary that names the first files."""
    listed = "".join(f"\n  {problem}" for problem in problems[:LISTED])
    more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return f"{lost} of {total} samples use {len(problems)} unreadable image(s):{listed}{more}"


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, without the file's name where the error has it apart."""
    if isinstance(error, FormatError):
        return error.reason
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
