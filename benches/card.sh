#!/usr/bin/env bash
# Parity and speed of the CUDA path on a machine with an NVIDIA card, in under ten minutes.
#
#   benches/card.sh pack FOLDER                where Rust is: builds, and copies what is needed, stripped
#   benches/card.sh run FOLDER RESULTS [CHECKPOINTS]
#                                              where the card is: RESULTS gets a file for each part, and summary.txt
#
# The second machine needs the card's driver, NVRTC, cuBLASLt (from a toolkit, or pip install nvidia-cuda-nvrtc nvidia-cublas), and for
# comparisons Python with torch, transformers and peft; what is missing is skipped by name. CHECKPOINTS is a folder of checkpoints,
# one a folder, whose captions are compared with those of the CPU path there. A part that fails does not end the others.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

pack() {
    local folder=$1
    mkdir -p "$folder"
    cd "$here/.."
    cargo build --release --workspace --bins --example time_decoder
    local tests
    tests=$(cargo test --release -p fisao-cuda --test it --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    cp target/release/fisao target/release/examples/time_decoder "$folder"
    cp "$tests" "$folder/kernel-tests"
    strip "$folder/fisao" "$folder/time_decoder" "$folder/kernel-tests"
    du -h "$folder"/*
}

run() {
    local bin results checkpoints
    bin=$(realpath "$1")
    mkdir -p "$2"
    results=$(realpath "$2")
    checkpoints=${3:+$(realpath "$3")}
    cd "$results"
    export FISAO_CACHE=$results/cache
    : >summary.txt
    part machine 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
    FISAO_TEST_CARD=0 part kernels 150 "$bin/kernel-tests" --test-threads 1
    part scenes 20 "$bin/fisao" scenes export scenes --count 32
    compare embedded scenes/images
    if [[ -n $checkpoints ]]; then
        for checkpoint in "$checkpoints"/*/; do
            compare "$(basename "$checkpoint")" scenes/images --model "$checkpoint" --max-new-tokens 16
        done
    else
        say "skipped: no folder of checkpoints was given"
    fi
    part demo 120 "$bin/fisao" demo --device cuda --output demo
    part decoder 90 "$bin/time_decoder"
    if python3 -c 'import torch, transformers, peft; assert torch.cuda.is_available()' 2>/dev/null; then
        part pytorch 200 python3 "$here/pytorch/card.py"
    else
        say "skipped: torch on the card, transformers and peft, to compare with"
    fi
    cat summary.txt
}

say() {
    echo "$*" | tee -a summary.txt
}

# A part's name, its limit in seconds, and its command; its output is NAME.txt.
part() {
    local name=$1 limit=$2 begun=$SECONDS status=0
    shift 2
    timeout "$limit" "$@" >"$name.txt" 2>&1 || status=$?
    say "$name: exit status $status, $((SECONDS - begun)) s"
    tail -12 "$name.txt" >>summary.txt
}

# Captions on the card and on the CPU: the same words, log-probabilities as close as sums in another order are.
compare() {
    local name=$1 images=$2
    shift 2
    local caption=("$bin/fisao" caption --image "$images" --format json "$@")
    part "$name-cpu" 60 "${caption[@]}"
    part "$name-card" 60 "${caption[@]}" --device cuda
    part "$name-parity" 20 python3 "$here/same_captions.py" "$name-cpu.txt" "$name-card.txt"
}

case ${1:-} in
pack) pack "${2:?a folder}" ;;
run) run "${2:?the folder that pack has filled}" "${3:?a folder for results}" "${4:-}" ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
