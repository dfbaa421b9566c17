#!/usr/bin/env python3
"""Let the CUDA build of torch import on a machine without CUDA and without the ~2 GB of nvidia-* wheels.

usage: make_cuda_stubs.py [SITE_PACKAGES]   (default: the running interpreter's)

For every CUDA library that torch's shared objects name as NEEDED, builds a stub with that SONAME into torch/lib, which
is on torch's RUNPATH.  The stubs define the missing symbols; each function returns 100 (cudaErrorNoDevice), so
torch.cuda.is_available() is False and the CPU kernels are those of the unmodified wheel.  Needs readelf, nm and cc.
"""
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile

CUDA_LIBRARY = re.compile(
    r"^lib(cuda|cudart|cublas|cublasLt|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|cusparseLt|nccl|nvrtc|"
    r"nvJitLink|nvshmem_host|nvToolsExt)\.so")
C_SYMBOL = re.compile(
    r"^_?_?(cu[A-Z_]|cuda|cublas|cudnn|cufft|cufile|cuFile|cupti|cusolver|cusparse|nccl|nvrtc|nvJit|nvshmem|pnccl|nvtx)")
CXX_SYMBOL = re.compile(r"^_Z.*(nvshmem|cudnn|nccl|cublas)")
RETURNS_TEXT = re.compile(r"GetErrorString$|GetErrorName$|^ncclGetLastError$")
SYMBOL_STUB = "libcuda_stub_syms.so"


def output_lines(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def torch_objects(lib):
    """torch's own shared objects: neither CUDA libraries nor stubs of an earlier run."""
    return [p for p in sorted(lib.iterdir())
            if ".so" in p.name and not CUDA_LIBRARY.match(p.name) and p.name != SYMBOL_STUB]


def needed_libraries(objects):
    names = set()
    for path in objects:
        for line in output_lines("readelf", "-d", path):
            match = re.search(r"NEEDED.*\[(.*)\]", line)
            if match and CUDA_LIBRARY.match(match[1]):
                names.add(match[1])
    return sorted(names)


def missing_symbols(objects):
    """(C symbols, C++ symbols) of CUDA libraries that no object defines."""
    undefined, defined = set(), set()
    for path in objects:
        for line in output_lines("nm", "-D", path):
            fields = line.split()
            if len(fields) == 2 and fields[0] == "U":
                undefined.add(fields[1].split("@")[0])
            elif len(fields) == 3:
                defined.add(fields[2].split("@")[0])
    missing = sorted(undefined - defined)
    return [s for s in missing if C_SYMBOL.match(s)], [s for s in missing if CXX_SYMBOL.match(s)]


def stub_source(c_symbols, cxx_symbols):
    lines = []
    for s in c_symbols:
        if RETURNS_TEXT.search(s):
            lines.append(f'const char* {s}(void){{return "stub: no CUDA device";}}')
        else:
            lines.append(f"int {s}(void){{return 100;}}")
    for i, s in enumerate(cxx_symbols):
        lines.append(f'int stub_cxx_{i}(void) __asm__("{s}"); int stub_cxx_{i}(void){{return 100;}}')
    return "\n".join(lines) + "\n"


def compile_stub(lib, name, source, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(source)
        file.flush()
        subprocess.check_call(["cc", "-shared", "-fPIC", "-w", "-O1", "-fno-builtin", f"-Wl,-soname,{name}",
                               "-o", lib / name, file.name, *options])


def main():
    site = sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["purelib"]
    lib = pathlib.Path(site, "torch", "lib")
    objects = torch_objects(lib)
    libraries, (c_symbols, cxx_symbols) = needed_libraries(objects), missing_symbols(objects)
    # One stub holds the symbols; the others are empty and depend on it, so that any load order resolves.
    compile_stub(lib, SYMBOL_STUB, stub_source(c_symbols, cxx_symbols))
    for name in libraries:
        compile_stub(lib, name, "", "-Wl,--no-as-needed", f"-L{lib}", f"-l:{SYMBOL_STUB}", "-Wl,-rpath,$ORIGIN")
    print(f"{len(libraries)} stub libraries, {len(c_symbols)} C symbols, {len(cxx_symbols)} C++ symbols")


if __name__ == "__main__":
    main()
