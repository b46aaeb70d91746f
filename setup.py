"""
The compiled half of the build: the same .py files, with the .pxd beside each, turned into C.

Without a C compiler the package installs and runs all the same, slower. `REQUIRE_CYTHON=1` makes a failed
compilation an error; `WATCHER_PURE=1` leaves the compilation out.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(Path("src").rglob("*.pxd"))


class BuildOrLeave(build_ext):
    """Compiles all modules or, where one cannot be compiled, leaves all of them as Python: they refer to each other."""

    def run(self):
        """Build, unless the compiler is missing or fails."""
        try:
            super().run()
        except Exception as error:
            if os.environ.get("REQUIRE_CYTHON"):
                raise
            self.warn(f"the package is installed without compiled modules, and is slower: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)


def extensions():
    """Return the modules to compile, none where that is not wanted."""
    if os.environ.get("WATCHER_PURE"):
        return []
    from Cython.Build import cythonize

    modules = [
        Extension(
            ".".join(path.with_suffix("").parts[1:]),
            [str(path.with_suffix(".py"))],
            extra_compile_args=["-O1", "-g0"],
        )
        for path in SOURCES
    ]
    return cythonize(
        modules,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "annotation_typing": False,
            "infer_types": False,
        },
        nthreads=os.cpu_count() or 1,
        quiet=True,
    )


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildOrLeave},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
