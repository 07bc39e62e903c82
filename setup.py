"""Builds the extension modules from the source lists that the Makefile uses too.

Everything else is in pyproject.toml.
"""

import re
import sys
from pathlib import Path

from setuptools import Extension, setup

TOP = Path(__file__).parent
# gnu11 and hidden symbols as in m4/beamloop_flags.m4.
COMPILER_OPTIONS = ["-std=gnu11", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]
LINKER_OPTIONS = ["-pthread"]
if sys.platform == "linux":
    # What both compilers have on every processor; whether functions of the C library check for
    # overflows is the interpreter's own choice.
    COMPILER_OPTIONS += ["-fstack-protector-strong"]
    LINKER_OPTIONS += ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]


def listed(fragment, variable):
    """The paths that a local.mk file assigns to a variable."""
    text = (TOP / fragment).read_text().replace("\\\n", " ")
    return re.search(rf"^{variable} *=(.*)$", text, re.MULTILINE).group(1).split()


def extension(name, folder, variable):
    files = listed(f"{folder}/local.mk", variable)
    return Extension(
        f"erlang.{name}",
        sources=[path for path in files if path.endswith(".c")],
        depends=[path for path in files if path.endswith(".h")],
        extra_compile_args=COMPILER_OPTIONS,
        extra_link_args=LINKER_OPTIONS,
    )


def version():
    """The version that configure.ac states."""
    text = (TOP / "configure.ac").read_text()
    return re.search(r"AC_INIT\(\[beamloop\], \[([^]]*)\]\)", text).group(1)


setup(
    version=version(),
    packages=["erlang"],
    package_dir={"": "python"},
    package_data={"erlang": ["*.pyi", "py.typed"]},
    ext_modules=[
        extension("_loop", "c_src/loop", "LOOP_SOURCES"),
        extension("_term", "c_src/term", "TERM_SOURCES"),
    ],
    # Not into build/lib, which is the Erlang application's.
    options={"build": {"build_base": "build/pip/setuptools"}},
)
