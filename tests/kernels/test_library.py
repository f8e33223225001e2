"""The compiled library: found, refused, chosen, and run in parallel."""

import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from geossl import kernels
from geossl.kernels import library


def test_missing_library_is_no_error_but_a_reason(tmp_path: Path) -> None:
    found, reason = library.load(tmp_path)
    assert found is None
    assert reason is not None
    assert "C compiler" in reason


def test_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "_cpu.so").write_bytes(b"not a library")
    found, reason = library.load(tmp_path)
    assert found is None
    assert reason is not None
    assert str(tmp_path / "_cpu.so") in reason


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_library_of_another_version_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    source.write_text("int geossl_abi(void) { return -1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "_cpu.so"), str(source)], check=True)
    found, reason = library.load(tmp_path)
    assert found is None
    assert reason is not None
    assert "another version (-1" in reason


def test_version_is_that_of_the_header() -> None:
    header = (Path(library.__file__).parent / "csrc" / "geossl.h").read_text(encoding="utf-8")
    assert f"#define GEOSSL_ABI {library.ABI}\n" in header


def test_backend_is_chosen_by_tensors_and_use() -> None:
    there = "cpu" in kernels.available()
    x = torch.zeros(2)
    assert kernels.cpu_kernels_run(x, None) == there
    assert not kernels.cpu_kernels_run(x, x.double())
    assert not kernels.cpu_kernels_run(x.to("meta"))
    with kernels.use("plain"):
        assert not kernels.cpu_kernels_run(x)
        with kernels.use("auto"):
            assert kernels.cpu_kernels_run(x) == there
        assert not kernels.cpu_kernels_run(x)
    assert kernels.cpu_kernels_run(x) == there


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, plain, cpu or gpu, not 'fast'"), kernels.use("fast"):
        pass


def test_missing_kernels_are_told_once_and_not_where_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "why_missing", lambda: "the CPU kernels were not built.")
    monkeypatch.setattr(kernels, "loaded", lambda: None)
    assert "cpu" not in kernels.available()
    assert kernels.slower(torch.device("cpu")) == "training will be slower than it could be: " + kernels.why_missing()  # type: ignore[operator]
    assert kernels.slower(torch.device("cuda")) is None
    with kernels.use("plain"):
        assert kernels.slower(torch.device("cpu")) is None
    with pytest.raises(ValueError, match="'cpu' cannot be used: the CPU kernels were not built"), kernels.use("cpu"):
        pass


@pytest.mark.parametrize(("batch", "height"), [(1, 192), (3, 64), (4, 10), (5, 5)])
def test_bands_cover_every_row_once(batch: int, height: int) -> None:
    rows = [(sample, row) for sample, first, last in library.bands(batch, height) for row in range(first, last)]
    assert rows == [(sample, row) for sample in range(batch) for row in range(height)]


@pytest.fixture(params=["torch's threads", "threads of our own"])
def two_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "threads of our own":
        monkeypatch.setattr(library, "_openmp", lambda: None)
    elif library._openmp() is None:
        pytest.skip("torch runs on no OpenMP of GCC's interface here")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_parallel_work_is_all_done_and_errors_come_out() -> None:
    done: list[int] = []
    library.in_parallel(done.append, 7)
    assert sorted(done) == list(range(7))

    def fail(index: int) -> None:
        raise KeyError(index)

    with pytest.raises(KeyError):
        library.in_parallel(fail, 3)


@pytest.mark.usefixtures("two_threads")
def test_parallel_work_has_ended_when_an_error_comes_out() -> None:
    calling = threading.get_ident()
    both = threading.Barrier(2, timeout=10)
    ended: list[int] = []

    def work(index: int) -> None:
        both.wait()
        if threading.get_ident() == calling:
            raise KeyError(index)
        time.sleep(0.05)
        ended.append(index)

    with pytest.raises(KeyError):
        library.in_parallel(work, 2)
    assert len(ended) == 1


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    library.in_parallel(lambda index: None, 2)
    context = multiprocessing.get_context("fork")
    done = context.SimpleQueue()
    process = context.Process(target=lambda: library.in_parallel(done.put, 3))
    process.start()
    process.join(30)
    stuck = process.is_alive()
    process.kill()
    assert not stuck
    assert sorted(done.get() for _ in range(3)) == [0, 1, 2]
