#!/usr/bin/env python3
"""Checks that no preprocessor conditional, stray Kokkos include or named execution space enters the sources."""

import re

from common import complaint, includes, main, numbered_lines, sources

CONDITIONAL = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|else)\b")
KOKKOS_CORE = re.compile(r"^(Kokkos_|impl/Kokkos|Kokkos/)")
KOKKOS_LIBRARY = re.compile(r"^Kokkos(Blas|Batched|Kernels|Sparse|Graph)")
NAMED_SPACE = re.compile(
    r"\bKokkos::(Experimental::)?"
    r"(Serial|Threads|HPX|OpenMP(Target)?|OpenACC|(Cuda(UVM|HostPinned)?|HIP(Managed|HostPinned)?|SYCL)(Space)?)\b"
)
KOKKOS_HEADER = "src/tensor/kokkos.hpp"
KOKKOS_KERNELS = "backends/kokkos_kernels/"


def may_look_at_versions(name):
    return re.fullmatch(r"src/tensor/kokkos\w*\.hpp", name) is not None


def bad_include(name, target):
    if KOKKOS_CORE.match(target) and name != KOKKOS_HEADER:
        return f'<{target}>: include "tensor/kokkos.hpp" instead'
    if KOKKOS_LIBRARY.match(target) and not name.startswith(KOKKOS_KERNELS):
        return f"<{target}>: only {KOKKOS_KERNELS} uses Kokkos Kernels"
    return None


def check(root):
    for path in sources(root, "src", "checkpoints", "backends"):
        name = path.relative_to(root).as_posix()
        for line, _, target in includes(path):
            reason = bad_include(name, target)
            if reason:
                yield complaint(root, path, line, reason)
        if name.startswith("backends/"):
            continue
        for line, text in numbered_lines(path, keep_strings=False):
            if CONDITIONAL.match(text) and not may_look_at_versions(name):
                yield complaint(root, path, line, "preprocessor conditional: make it a folder in backends, or plain C++")
            space = NAMED_SPACE.search(text)
            if space:
                yield complaint(root, path, line, f"names {space.group(0)}: take the space that is handed in")


GOOD = {
    "src/tensor/kokkos.hpp": "#pragma once\n#include <Kokkos_Core.hpp>\n#if KOKKOS_VERSION < 30400\n#endif\n",
    "src/ops/x.cpp": (
        '#include "tensor/kokkos.hpp"\n// #if Kokkos::Serial\nauto a = "Kokkos::Serial";\n'
        "using H = Kokkos::DefaultHostExecutionSpace;\n"
    ),
    "backends/kokkos_kernels/gemm.cpp": "#include <KokkosBlas3_gemm.hpp>\n",
    "backends/onednn/gemm.cpp": "#include <dnnl.hpp>\n#ifdef DNNL_VERSION_MAJOR\n#endif\n",
}
BAD = [
    ({"src/ops/y.cpp": "int a;\n  # ifdef NDEBUG\n#endif\n"}, "src/ops/y.cpp:2:"),
    ({"src/ops/y.hpp": "#ifndef Y\n#endif\n"}, "src/ops/y.hpp:1:"),
    ({"checkpoints/y.cpp": "#if 1\n#endif\n"}, "checkpoints/y.cpp:1:"),
    ({"src/ops/y.cpp": "#include <Kokkos_Core.hpp>\n"}, "src/ops/y.cpp:1:"),
    ({"src/ops/y.cpp": "#include <KokkosBlas.hpp>\n"}, "src/ops/y.cpp:1:"),
    ({"backends/onednn/y.cpp": "#include <Kokkos_Core.hpp>\n"}, "backends/onednn/y.cpp:1:"),
    ({"src/ops/y.cpp": "/* a\nb */ Kokkos::RangePolicy<Kokkos::Serial> p;\n"}, "src/ops/y.cpp:2:"),
    ({"src/ops/y.cpp": "auto n = 1'000; Kokkos::Experimental::HIP h; auto m = 2'000;\n"}, "src/ops/y.cpp:1:"),
    ({"src/ops/y.cpp": "Kokkos::View<float*, Kokkos::CudaSpace> v;\n"}, "src/ops/y.cpp:1:"),
]

if __name__ == "__main__":
    main(check, GOOD, BAD)
