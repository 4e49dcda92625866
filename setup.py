"""Build of the native core; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Extension(
    "blocksync._copy",
    ["src/blocksync/_copy.pyx"],
    extra_compile_args=["-O3", "-std=gnu11"],
)

setup(ext_modules=cythonize([CORE], language_level=3))
