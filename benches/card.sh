#!/usr/bin/env bash
# Parity and speed of the CUDA path on a machine with an NVIDIA card, in under ten minutes.
#
#   benches/card.sh pack FOLDER                where Rust is: builds, and copies what is needed, stripped
#   benches/card.sh run FOLDER RESULTS [CHECKPOINTS]
#                                              where the card is: RESULTS gets a file for each part, and summary.txt
#   benches/card.sh rehearse FOLDER RESULTS    the same on the CPU, small, to see that every part runs
#
# The second machine needs the card's driver, NVRTC, cuBLASLt (from a toolkit, or pip install nvidia-cuda-nvrtc nvidia-cublas), and for
# comparisons Python with torch, transformers, peft, trl and datasets; what is missing is skipped by name. CHECKPOINTS is a folder of
# checkpoints, one a folder, whose captions are compared with those of the CPU path there. A part that fails does not end the others.
# Each part has a limit, and all together CARD_SECONDS (570); parts that no time is left for are skipped by name.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
limit=${CARD_SECONDS:-570}
device=cuda

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
    SECONDS=0
    : >summary.txt
    if [[ $device = cuda ]]; then
        part machine 10 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
        FISAO_TEST_CARD=0 part kernels 120 "$bin/kernel-tests" --test-threads 1
    else
        part kernels 120 "$bin/kernel-tests" --test-threads 1 projector
    fi
    part scenes 10 "$bin/fisao" scenes export scenes --count "$scenes"
    compare embedded scenes/images
    if [[ $device = cuda ]]; then
        part decoder 60 "$bin/time_decoder"
    fi
    iteration
    if python3 -c "import torch, transformers, peft; assert '$device' == 'cpu' or torch.cuda.is_available()" 2>/dev/null; then
        part pytorch 110 python3 "$here/pytorch/card.py" "${small[@]}"
    else
        say "skipped: torch on the card, transformers and peft, to compare with"
    fi
    if [[ $device = cuda ]]; then
        part demo 90 "$bin/fisao" demo --device cuda --output demo
    fi
    if [[ -n $checkpoints ]]; then
        for checkpoint in "$checkpoints"/*/; do
            compare "$(basename "$checkpoint")" scenes/images --model "$checkpoint" --max-new-tokens 16
        done
    else
        say "skipped: no folder of checkpoints was given"
    fi
    cat summary.txt
}

say() {
    echo "$*" | tee -a summary.txt
}

# A part's name, its limit in seconds, and its command; its output is NAME.txt.
part() {
    local name=$1 seconds=$2 begun=$SECONDS status=0 left
    shift 2
    left=$((limit - SECONDS))
    if ((left < 5)); then
        say "skipped: $name: no time left"
        return
    fi
    timeout $((seconds < left ? seconds : left)) "$@" >"$name.txt" 2>&1 || status=$?
    say "$name: exit status $status, $((SECONDS - begun)) s"
    tail -12 "$name.txt" >>summary.txt
}

# Captions on the card and on the CPU: the same words, log-probabilities as close as sums in another order are.
compare() {
    local name=$1 images=$2
    shift 2
    local caption=("$bin/fisao" caption --image "$images" --format json "$@")
    part "$name-cpu" 40 "${caption[@]}"
    part "$name-card" 40 "${caption[@]}" --device "$device"
    part "$name-parity" 10 python3 "$here/same_captions.py" "$name-cpu.txt" "$name-card.txt"
}

# A whole iteration, 64 images with 4 responses each, beside TRL's GRPO on the same card.
iteration() {
    if ! python3 -c "import torch, torchvision, trl, datasets; assert '$device' == 'cpu' or torch.cuda.is_available()" 2>/dev/null; then
        say "skipped: torch on the card, torchvision, trl and datasets, for an iteration beside TRL's"
        return
    fi
    part world 10 "$bin/fisao" eval pope build --world train --image-count "$world" --output world
    local left=$((limit - SECONDS))
    part iteration "$rounds" python3 "$here/card_iteration.py" --fisao "$bin/fisao" --scenes world --device "$device" \
        --seconds $((left < rounds ? left : rounds)) "${sizes[@]}"
}

scenes=32
world=256
# Seconds for rounds of an iteration here and there.
rounds=140
sizes=()
small=()
case ${1:-} in
pack) pack "${2:?a folder}" ;;
run) run "${2:?the folder that pack has filled}" "${3:?a folder for results}" "${4:-}" ;;
rehearse)
    device=cpu
    scenes=2
    world=16
    rounds=900
    sizes=(--images 4 --samples 2 --tokens 48 --iterations 2 --rounds 1)
    small=(--device cpu --small)
    run "${2:?the folder that pack has filled}" "${3:?a folder for results}"
    ;;
*)
    sed -n '2,14s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
