"""Builds the CPU kernels: one C library without Python's interface, which any Python loads by ctypes.

All other metadata is in setup.cfg. Where there is no C compiler the installation succeeds without the library.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("geossl/kernels/csrc")
# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
OPTIMIZE = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]


class BuildLibrary(build_ext):
    """Names the library without a Python version, and exports no module initialiser."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_suffix(".dll" if self.compiler_is_msvc() else ".so"))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def compiler_is_msvc(self) -> bool:
        return getattr(self.compiler, "compiler_type", "unix") == "msvc"


class PlatformWheel(bdist_wheel):
    """py3-none-PLATFORM: of Python's interface nothing is used."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "geossl.kernels._cpu",
            sources=sorted(path.as_posix() for path in FOLDER.glob("*.c")),
            depends=sorted(path.as_posix() for path in FOLDER.glob("*.h")),
            extra_compile_args=[*OPTIMIZE, "-fvisibility=hidden"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
