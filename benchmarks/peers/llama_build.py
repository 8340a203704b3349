"""How llama-cpp-python is built: for this processor's vector instructions, without its matrix tiles.

With AMX switched on, llama.cpp crashes on some hosts that report it; so the instruction set is named switch by switch
instead of being found out by the compiler (`GGML_NATIVE`). Elsewhere than on x86 Linux the build is llama.cpp's own.
"""

from __future__ import annotations

import platform
from pathlib import Path

from benchmarks.environments import Packages

_VERSION = "0.3.36"
_SWITCHES = {
    "sse4_2": "GGML_SSE42",
    "avx": "GGML_AVX",
    "avx2": "GGML_AVX2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
    "bmi2": "GGML_BMI2",
    "avx_vnni": "GGML_AVX_VNNI",
    "avx512f": "GGML_AVX512",
    "avx512_vbmi": "GGML_AVX512_VBMI",
    "avx512vbmi": "GGML_AVX512_VBMI",
    "avx512_vnni": "GGML_AVX512_VNNI",
    "avx512_bf16": "GGML_AVX512_BF16",
}


def llama_packages() -> Packages:
    """llama-cpp-python from its source, with what writes GGUF."""
    switches = build_switches(_processor_flags())
    build = ("--no-binary", "llama-cpp-python", f"llama-cpp-python=={_VERSION}")
    helpers = ("cmake", "ninja", "gguf==0.19.0", "safetensors")
    variables = {"CMAKE_ARGS": " ".join(switches)}
    return Packages("llama_cpp, gguf, safetensors", "llama-cpp-python", _VERSION, (helpers, build), variables)


def build_switches(flags: frozenset[str]) -> list[str]:
    """Of CMake, for a processor with these flags; no flags are a processor of another kind."""
    pictures = "-DLLAVA_BUILD=OFF"
    if not flags:
        return [pictures]
    named = dict.fromkeys(switch for flag, switch in _SWITCHES.items() if flag in flags)
    return [pictures, "-DGGML_NATIVE=OFF", *(f"-D{switch}=ON" for switch in named)]


def _processor_flags() -> frozenset[str]:
    path = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not path.is_file():
        return frozenset()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))
