"""The extension modules; pyproject.toml says all else.

Environment: RECLAIM_DEBUG=1 checks bounds, None and initialisation, and audits; RECLAIM_TRACE=1
records line coverage; RECLAIM_SANITIZE=address,undefined adds -fsanitize; RECLAIM_OPT is the
optimisation, -O3 if unset.
"""

import glob
import os
import sys

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

debug = os.environ.get("RECLAIM_DEBUG") == "1"
trace = os.environ.get("RECLAIM_TRACE") == "1"
sanitize = os.environ.get("RECLAIM_SANITIZE", "")
optimise = os.environ.get("RECLAIM_OPT", "-O3").split()

macros = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("RECLAIM_DEBUG", str(int(debug)))]
if trace:
    macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
compile_args, link_args = [*optimise, "-g0"], []
if sanitize:
    link_args = [f"-fsanitize={sanitize}"]
    compile_args += [*link_args, "-g", "-fno-omit-frame-pointer"]
    if "undefined" in sanitize:
        compile_args.append("-fno-sanitize-recover=undefined")

headers = sorted(glob.glob("reclaim/*.pxd") + glob.glob("reclaim/_mm/*.pxd"))
extensions = [
    Extension(path.removesuffix(".pyx").replace("/", "."), [path],
              include_dirs=[numpy.get_include()], define_macros=macros, depends=headers,
              extra_compile_args=compile_args, extra_link_args=link_args)
    for path in sorted(glob.glob("reclaim/*.pyx"))
    if path != "reclaim/_probe.pyx" or sys.platform == "linux"      # it measures what only Linux has
]
setup(
    ext_modules=cythonize(
        extensions,
        # Keeps the generated C out of the tree and the packages; Cython sees no change of
        # directives by itself, so each set has its own.
        build_dir=f"build/cython{'-debug' * debug}{'-trace' * trace}",
        annotate=debug,
        compiler_directives={
            "language_level": 3, "wraparound": False, "cdivision": True,
            "boundscheck": debug, "initializedcheck": debug, "nonecheck": debug,
            "linetrace": trace, "embedsignature": True, "freethreading_compatible": False,
        }),
    # Always from the start: build_ext does not see a change of flags either.
    options={"build_ext": {"parallel": os.cpu_count() or 1, "force": True}},
)
