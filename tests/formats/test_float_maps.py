"""Round trips and refusals of the float formats: flo, pfm, npy, velodyne, ply."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geossl.formats.errors import FormatError
from geossl.formats.flo import read_flo, write_flo
from geossl.formats.npy import read_npy, write_npy
from geossl.formats.pfm import read_pfm, write_pfm
from geossl.formats.ply import write_ply
from geossl.formats.velodyne import read_velodyne, write_velodyne

FAST = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FINITE = st.floats(-1e6, 1e6, width=32)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)


@FAST
@given(hnp.arrays(np.float32, SHAPES.map(lambda s: (*s, 2)), elements=FINITE))
def test_flo_round_trip_is_exact(tmp_path: Path, flow: np.ndarray) -> None:
    write_flo(tmp_path / "f.flo", flow)
    np.testing.assert_array_equal(read_flo(tmp_path / "f.flo"), flow)
    assert np.frombuffer((tmp_path / "f.flo").read_bytes()[:4], "<f4")[0] == np.float32(202021.25)
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(tmp_path / "f.flo")), flow)


def test_flo_unknown_is_nan(tmp_path: Path) -> None:
    flow = np.ones((2, 3, 2), np.float32)
    flow[0, 1, 0] = np.nan
    write_flo(tmp_path / "f.flo", flow)
    assert np.isnan(read_flo(tmp_path / "f.flo")).sum() == 2


def test_flo_refuses_wrong_magic_and_length(tmp_path: Path) -> None:
    path = tmp_path / "f.flo"
    write_flo(path, np.zeros((4, 6, 2)))
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    with pytest.raises(FormatError, match=r"f.flo: says 6 x 4 pixels, so 204 bytes, but has 200"):
        read_flo(path)
    path.write_bytes(b"HIEP" + data[4:])
    with pytest.raises(FormatError, match="starts with b'HIEP'"):
        read_flo(path)
    path.write_bytes(b"PIEH")
    with pytest.raises(FormatError):
        read_flo(path)


def test_read_flo_of_real_files(shared_data: Path) -> None:
    assert read_flo(shared_data / "flying_chairs" / "0000000-gt.flo").shape == (384, 512, 2)


@FAST
@given(hnp.arrays(np.float32, st.one_of(SHAPES, SHAPES.map(lambda s: (*s, 3))), elements=FINITE))
def test_pfm_round_trip_is_exact(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "x.pfm"
    write_pfm(path, values)
    np.testing.assert_array_equal(read_pfm(path), values)
    oracle = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(oracle if values.ndim == 2 else oracle[..., ::-1], values)


def test_pfm_reads_big_endian(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "x.pfm").write_bytes(b"Pf\n3 2\n1.0\n" + rows[::-1].astype(">f4").tobytes())
    np.testing.assert_array_equal(read_pfm(tmp_path / "x.pfm"), rows)


def test_pfm_refuses_wrong_magic_and_length(tmp_path: Path) -> None:
    path = tmp_path / "x.pfm"
    write_pfm(path, np.zeros((3, 4)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="says 4 x 3 pixels of 1 channel"):
        read_pfm(path)
    path.write_bytes(b"P6\n4 3\n255\n")
    with pytest.raises(FormatError, match="starts with b'P6"):
        read_pfm(path)


@FAST
@given(hnp.arrays(np.float32, SHAPES, elements=FINITE))
def test_npy_round_trip_is_exact(tmp_path: Path, values: np.ndarray) -> None:
    write_npy(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), values)


def test_npy_never_unpickles(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"x.npy: cannot be read as an array of numbers"):
        read_npy(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(FormatError, match=r"is not a .npy file"):
        read_npy(path)
    write_npy(path, np.zeros((10, 10)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match="cannot be read"):
        read_npy(path)


@FAST
@given(hnp.arrays(np.float32, st.integers(1, 20).map(lambda n: (n, 4)), elements=FINITE))
def test_velodyne_round_trip_is_exact(tmp_path: Path, points: np.ndarray) -> None:
    write_velodyne(tmp_path / "x.bin", points)
    np.testing.assert_array_equal(read_velodyne(tmp_path / "x.bin"), points)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_velodyne_refuses_a_cut_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(length))
    with pytest.raises(FormatError, match=f"x.bin: has {length} bytes"):
        read_velodyne(tmp_path / "x.bin")


def test_ply_header_and_values(tmp_path: Path) -> None:
    points = np.array([[1.0, 2.0, 3.0], [np.nan, 0, 0], [-1.0, 0.5, 9.0]])
    colours = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    write_ply(tmp_path / "x.ply", points, colours)
    header, body = (tmp_path / "x.ply").read_bytes().split(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\n")
    assert len(body) == 2 * 15
    assert np.frombuffer(body[15:27], "<f4").tolist() == [-1.0, 0.5, 9.0] and list(body[27:]) == [7, 8, 9]
    write_ply(tmp_path / "y.ply", points)
    assert (tmp_path / "y.ply").read_bytes().endswith(np.array([-1.0, 0.5, 9.0], "<f4").tobytes())
    with pytest.raises(ValueError, match="colours"):
        write_ply(tmp_path / "z.ply", points, colours / 255)


def test_ply_holds_more_properties(tmp_path: Path) -> None:
    points = np.array([[1.0, 2.0, 3.0], [np.nan, 0, 0]])
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    write_ply(tmp_path / "x.ply", points, colours, {"speed": np.array([0.5, 9.0]), "age": np.array([2.0, 9.0])})
    header, body = (tmp_path / "x.ply").read_bytes().split(b"end_header\n")
    assert header.endswith(b"property uchar blue\nproperty float speed\nproperty float age\n")
    assert np.frombuffer(body[15:], "<f4").tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match=r"property speed has shape \(3,\); expected \(2,\)"):
        write_ply(tmp_path / "z.ply", points, colours, {"speed": np.zeros(3)})
