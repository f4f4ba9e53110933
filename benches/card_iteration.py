"""A whole iteration on a card beside TRL's: `fisao align` and GRPO on the embedded model, in turn, on the same card.

    fisao eval pope build --world train --image-count 256 --output scenes
    pip install torch torchvision transformers peft trl datasets
    python card_iteration.py --fisao fisao --scenes scenes [--device cuda] [--images 64] [--samples 4] [--tokens 96]
        [--iterations 3] [--rounds 3] [--seconds 120] [--set KEY=VALUE …]

64 images, 4 responses each of at most 96 tokens, 2 epochs of 4 optimiser steps, an adapter of rank 16 on all linear layers of the
decoder, KL to the base model, weights in f32; TRL's side is pytorch/trl_iteration.py. In every round each side starts afresh, one after
the other. An iteration's time is the median of a round's, but the first, which warms up; start, calibration and loading are left out. A
ratio is that of one round, above 1 where fisao is faster. No round begins that would not be over after --seconds, by the longest before.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# What timings.jsonl has besides seconds of phases.
OTHERS = {"iteration", "tokens_per_second", "images_encoded"}


def done(command, limit):
    """The output of a command; nothing, and why on stderr, where it fails or takes too long."""
    try:
        ended = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=max(limit, 1))
    except subprocess.TimeoutExpired:
        print(f"{command[0]}: no time left", file=sys.stderr)
        return None
    if ended.returncode:
        print(f"{ended.stderr[-1500:]}\n{command[0]} ended with status {ended.returncode}", file=sys.stderr)
        return None
    return ended.stdout


def fisao(arguments, limit):
    folder = pathlib.Path(tempfile.mkdtemp())
    run = folder / "run"
    settings = [
        f"align.iterations={arguments.iterations}", f"align.images-per-iteration={arguments.images}",
        f"align.samples-per-image={arguments.samples}", f"max-new-tokens={arguments.tokens}", "objective.kind=group-relative",
        "align.warmup-iterations=0", "validation-every=0", "guards.patience=0", *arguments.set,
    ]
    command = [arguments.fisao.resolve(), "align", "--demo", "--device", arguments.device, "--output", run]
    try:
        if done(command + [word for setting in settings for word in ["--set", setting]], limit) is None:
            return None
        phases = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    finally:
        shutil.rmtree(folder)
    seconds = [sum(value for name, value in phase.items() if name not in OTHERS) for phase in phases[1:]]
    longest = max(phases[1:], key=lambda phase: phase["update"])
    parts = ", ".join(f"{name} {value:.2f}" for name, value in longest.items() if name not in OTHERS)
    return statistics.median(seconds), parts


def trl(arguments, limit):
    # One of its iterations more warms up.
    output = done([
        sys.executable, HERE / "pytorch/trl_iteration.py", "--scenes", arguments.scenes, "--device", arguments.device,
        "--iterations", arguments.iterations - 1, "--images", arguments.images, "--samples", arguments.samples, "--tokens", arguments.tokens,
    ], limit)
    return output and json.loads(output.strip().splitlines()[-1])["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fisao", type=pathlib.Path, default=HERE.parent / "target/release/fisao")
    parser.add_argument("--scenes", type=pathlib.Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fisao align")
    arguments = parser.parse_args()
    if arguments.iterations < 2:
        parser.error("the first iteration warms up: --iterations is at least 2")
    begun, longest, ratios = time.monotonic(), 0.0, []
    count = arguments.images * arguments.samples
    for number in range(1, arguments.rounds + 1):
        left = arguments.seconds - (time.monotonic() - begun)
        if left < longest:
            print(f"no time for round {number} of {arguments.rounds}")
            break
        started = time.monotonic()
        ours = fisao(arguments, left)
        theirs = trl(arguments, arguments.seconds - (time.monotonic() - begun))
        longest = max(longest, time.monotonic() - started)
        if ours:
            print(f"round {number}: fisao {ours[0]:.2f} s, {count / ours[0]:.0f} responses/s ({ours[1]})", flush=True)
        if theirs:
            print(f"round {number}: TRL {theirs:.2f} s, {count / theirs:.0f} responses/s", flush=True)
        if not (ours and theirs):
            break
        ratios.append(theirs / ours[0])
    if not ratios:
        sys.exit("no round was completed")
    print(
        f"{arguments.images} images x {arguments.samples} responses on {arguments.device}: fisao is {statistics.median(ratios):.2f} times as "
        f"fast as TRL ({min(ratios):.2f} ... {max(ratios):.2f}, {len(ratios)} rounds)"
    )


if __name__ == "__main__":
    main()
