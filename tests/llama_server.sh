#!/bin/sh
# Builds llama.cpp's server for the tests marked `upstream`, from the sources inside the package llama-cpp-python.
# Usage: tests/llama_server.sh [FOLDER]      (default .llama; does nothing where FOLDER/bin/llama-server is)
# Needs cmake, a C++ compiler, 1.5 GB of disk; half an hour on one core. PYTHON: with pip. JOBS: compilers at a time.
#
# AMX is left out: on processors that have it this version crashes in its AMX kernels (ggml-org/llama.cpp#20824,
# #26954). GGML_NATIVE would switch them on by the compiler's flags, whatever the options say, so the instruction sets
# are named: those of this machine's /proc/cpuinfo.
set -eu
folder=${1:-.llama}
python=${PYTHON:-python3}
version=0.3.36
[ -x "$folder/bin/llama-server" ] && exit 0
mkdir -p "$folder"
"$python" -m pip --disable-pip-version-check -q download --no-deps --no-binary llama-cpp-python -d "$folder" \
    "llama-cpp-python==$version"
tar -xzf "$folder/llama_cpp_python-$version.tar.gz" -C "$folder"
has() { grep -qw "$1" /proc/cpuinfo 2> /dev/null && echo ON || echo OFF; }
# shellcheck disable=SC2046
cmake -S "$folder/llama_cpp_python-$version/vendor/llama.cpp" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DGGML_NATIVE=OFF \
    -DGGML_SSE42=$(has sse4_2) -DGGML_AVX=$(has avx) -DGGML_AVX2=$(has avx2) -DGGML_BMI2=$(has bmi2) \
    -DGGML_F16C=$(has f16c) -DGGML_FMA=$(has fma) -DGGML_AVX_VNNI=$(has avx_vnni) -DGGML_AVX512=$(has avx512bw) \
    -DGGML_AVX512_VBMI=$(has avx512vbmi) -DGGML_AVX512_VNNI=$(has avx512_vnni) -DGGML_AVX512_BF16=$(has avx512_bf16) \
    -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF
cmake --build "$folder/build" --target llama-server -j "${JOBS:-1}"
mkdir -p "$folder/bin"
cp "$folder/build/bin/llama-server" "$folder/bin/"
