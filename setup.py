"""Build of the native core; everything else is in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g", "-O1"]
EXTRA = SANITIZE if os.environ.get("BLOCKSYNC_SANITIZE") else ["-O3"]

CORE = Extension(
    "blocksync._copy",
    [
        "src/blocksync/_copy.pyx",
        "src/blocksync/native/xxh3_base.c",
        "src/blocksync/native/xxh3_avx2.c",
        "src/blocksync/native/xxh3_avx512.c",
    ],
    depends=[f"src/blocksync/native/{name}.h" for name in ("clock", "xxh3", "xxh3_body")],
    include_dirs=["src/blocksync/native"],
    extra_compile_args=["-std=gnu11", "-pthread", *EXTRA],
    extra_link_args=["-pthread", *(SANITIZE[:1] if os.environ.get("BLOCKSYNC_SANITIZE") else [])],
)

REST = [
    Extension(
        f"blocksync.{name}",
        [f"src/blocksync/{name}.pyx"],
        depends=["src/blocksync/native/clock.h"],
        include_dirs=["src/blocksync/native"],
        extra_compile_args=["-std=gnu11", *EXTRA],
        extra_link_args=SANITIZE[:1] if os.environ.get("BLOCKSYNC_SANITIZE") else [],
    )
    for name in ("_memory", "_runs", "_flow")
]

setup(ext_modules=cythonize([CORE, *REST], language_level=3))
