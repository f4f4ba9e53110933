"""`fisao bench` beside PyTorch or onnxruntime: the same cases, in turn, in one run.

    cargo build --release
    pip install torch transformers peft onnx onnxscript onnxruntime
    python benches/compare.py [CASE …] [--engine eager …] [--rounds 5] [--seconds 3] [--threads 2]
        [--fisao target/release/fisao] [--markdown FILE] [--json FILE]

In every round each side does the case in a process of its own, one after the other, so that what else the machine
does falls on both. A ratio is that of one round; given are the median over the rounds and the range. Above 1 means
that fisao is faster, or takes less memory. Threads are those of the other side; fisao takes all cores it may run on, so run
this under `taskset` to give both fewer. The engine `onnxruntime` has the image towers in f32.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CASES = [
    "product-1-f32", "product-1-bf16", "product-4-f32", "product-4-bf16", "decode-embedded-32", "decode-1024-1-f32",
    "decode-1024-4-f32", "decode-1024-1-bf16", "decode-1024-1-bf16-rounded", "decode-1024-4-bf16",
    "decode-1024-4-bf16-rounded", "train-256", "lora-1024-f32", "lora-1024-bf16", "lora-1024-bf16-rounded",
    *(f"encode-{encoder}-{form}" for encoder in ("vit-l-336", "vit-g-224", "so400m-384", "qformer") for form in ("f32", "bf16", "bf16-rounded")),
    *(f"encode-{tower}-f32" for tower in ("1-vit-b-32-224", "vit-b-32-224", "1-siglip-b-16-224", "siglip-b-16-224", "1-vit-l-336")),
]


def measured(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--engine", nargs="+", choices=["eager", "compile", "transformers", "onnxruntime"], default=["eager"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--fisao", type=pathlib.Path, default=HERE.parent / "target/release/fisao")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    arguments = parser.parse_args()
    seconds = ["--seconds", str(arguments.seconds)]
    lines = [
        "| case | engine | theirs per s | fisao per s | faster | their MB | fisao MB | memory of theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    results = []
    for case in arguments.cases:
        for engine in arguments.engine:
            rounds = []
            for _ in range(arguments.rounds):
                ours = measured([arguments.fisao, "bench", "--here", "--quiet", *seconds, case])
                works = [HERE / "onnx/works.py", case] if engine == "onnxruntime" else [HERE / "pytorch/works.py", case, "--engine", engine]
                theirs = measured([sys.executable, *works, *seconds, "--threads", str(arguments.threads)])
                if ours["count"] != theirs["count"]:
                    sys.exit(f"{case}: {ours['count']} {ours['unit']} here, {theirs['count']} there")
                rounds.append((ours, theirs))
            faster = [ours["rate"] / theirs["rate"] for ours, theirs in rounds]
            memory = [ours["peak_memory_mb"] / theirs["peak_memory_mb"] for ours, theirs in rounds]
            middle = lambda side, key: statistics.median(pair[side][key] for pair in rounds)
            line = (
                f"| {case} | {engine} | {middle(1, 'rate'):.4g} | {middle(0, 'rate'):.4g} | {spread(faster)} "
                f"| {middle(1, 'peak_memory_mb'):.0f} | {middle(0, 'peak_memory_mb'):.0f} | {spread(memory)} |"
            )
            print(line, flush=True)
            lines.append(line)
            results.append({"case": case, "engine": engine, "rounds": [{"fisao": a, "pytorch": b} for a, b in rounds]})
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
