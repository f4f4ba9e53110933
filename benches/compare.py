"""`fisao bench` beside PyTorch, onnxruntime or TRL: the same cases, in turn, in one run.

    cargo build --release
    pip install torch transformers peft onnx onnxscript onnxruntime
    python benches/compare.py [CASE …] [--engine eager …] [--rounds 5] [--seconds 3] [--threads 2 …]
        [--fisao target/release/fisao] [--markdown FILE] [--json FILE]

How both scale with threads, on a machine with many cores:

    pip install torchvision trl datasets
    target/release/fisao eval pope build --world train --image-count 256 --output scenes
    python benches/compare.py decode-1024-4-bf16 lora-1024-f32 --threads 1 2 4 8 16
    python benches/compare.py iteration-group --engine trl --scenes scenes --threads 1 2 4 8 16

In every round each side does the case in a process of its own, one after the other, so that what else the machine
does falls on both. A ratio is that of one round; given are the median over the rounds and the range. Above 1 means
that fisao is faster, or takes less memory. On Linux both sides are kept to so many cores as they have threads: one
thread to a core, those of one NUMA node before those of the next. Counts of threads that there are no cores for are
named and left out. The engine `onnxruntime` has the image towers in f32, `trl` a whole iteration.
"""

import argparse
import itertools
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
CPUS = pathlib.Path("/sys/devices/system/cpu")


def cores_by_node():
    """One CPU of each core that this process may run on, those of a NUMA node together; None where a system does not pin."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    first_of_core = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        of_cpu = CPUS / f"cpu{cpu}"
        siblings = of_cpu / "topology/thread_siblings_list"
        core = siblings.read_text() if siblings.exists() else str(cpu)
        node = min((int(node.name[4:]) for node in of_cpu.glob("node[0-9]*")), default=0)
        first_of_core.setdefault(core, (node, cpu))
    return [cpu for _, cpu in sorted(first_of_core.values())]


def measured(command, cpus):
    pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=pin)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--engine", nargs="+", choices=["eager", "compile", "transformers", "onnxruntime", "trl"], default=["eager"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, nargs="+", help="of both sides; several are measured one after the other (default: all cores)")
    parser.add_argument("--scenes", type=pathlib.Path, help="images of the engine trl, as `fisao eval pope build` writes them")
    parser.add_argument("--fisao", type=pathlib.Path, default=HERE.parent / "target/release/fisao")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    arguments = parser.parse_args()
    cores = cores_by_node()
    available = len(cores) if cores else os.cpu_count()
    seconds = ["--seconds", str(arguments.seconds)]
    lines = [
        "| case | engine | threads | theirs per s | fisao per s | faster | their MB | fisao MB | memory of theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    if "trl" in arguments.engine and (arguments.scenes is None or arguments.cases != ["iteration-group"]):
        parser.error("--engine trl has one case, iteration-group, and needs --scenes")
    if min(arguments.threads or [1]) < 1:
        parser.error("--threads takes numbers from 1 on")

    def theirs(case, engine, threads):
        works = {
            "onnxruntime": [HERE / "onnx/works.py", case, *seconds],
            "trl": [HERE / "pytorch/trl_iteration.py", "--scenes", arguments.scenes],
        }
        work = works.get(engine, [HERE / "pytorch/works.py", case, "--engine", engine, *seconds])
        return [sys.executable, *map(str, work), "--threads", str(threads)]

    print("\n".join(lines), flush=True)
    results = []
    for case, engine, threads in itertools.product(arguments.cases, arguments.engine, arguments.threads or [available]):
        if threads > available:
            print(f"skipped: {case} beside {engine} with {threads} threads, as there are {available} cores", file=sys.stderr)
            continue
        cpus = cores and cores[:threads]
        rounds = []
        for _ in range(arguments.rounds):
            ours = measured([arguments.fisao, "bench", "--here", "--quiet", *seconds, case], cpus)
            other = measured(theirs(case, engine, threads), cpus)
            if ours["count"] != other["count"]:
                sys.exit(f"{case}: {ours['count']} {ours['unit']} here, {other['count']} there")
            rounds.append((ours, other))
        faster = [ours["rate"] / other["rate"] for ours, other in rounds]
        memory = [ours["peak_memory_mb"] / other["peak_memory_mb"] for ours, other in rounds]
        middle = lambda side, key: statistics.median(pair[side][key] for pair in rounds)
        line = (
            f"| {case} | {engine} | {threads} | {middle(1, 'rate'):.4g} | {middle(0, 'rate'):.4g} | {spread(faster)} "
            f"| {middle(1, 'peak_memory_mb'):.0f} | {middle(0, 'peak_memory_mb'):.0f} | {spread(memory)} |"
        )
        print(line, flush=True)
        lines.append(line)
        pairs = [{"fisao": ours, "theirs": other} for ours, other in rounds]
        results.append({"case": case, "engine": engine, "threads": threads, "rounds": pairs})
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
