"""How fast several processes are beside one with as many threads, and over a slow network.

    cargo build --release -p fisao --features mpi
    python benches/processes.py                                 # one process and as many as there are cores, in turn
    sudo python benches/processes.py --delay 1 10 --loss 0.01   # two processes, on a network of their own
    python benches/processes.py --predict                       # a 7B model on many machines, by arithmetic alone

With --delay the processes are in two network namespaces; a program between them holds every packet back for so many milliseconds
and loses some. Rounds alternate, and a ratio is of one round. Needs Open MPI's mpirun, and root for the network.
"""

import argparse
import contextlib
import fcntl
import heapq
import itertools
import json
import math
import os
import pathlib
import random
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
NAMESPACES = ["fisao0", "fisao1"]
ADDRESSES = ["10.99.0.1", "10.99.0.2"]
NETWORK = "10.99.0.0/24"
# Of a process that leaves out what differs between runs of the same settings.
RESULTS = ["adapter/adapter_model.safetensors", "metrics.jsonl", "validation.jsonl"]


def ip(*arguments):
    subprocess.run(["ip", *map(str, arguments)], check=True)


def tunnel(name):
    """A network device whose packets this process reads and writes."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    TUNSETIFF, TUN, NO_HEADER = 0x400454CA, 0x0001, 0x1000
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), TUN | NO_HEADER))
    os.set_blocking(device, False)
    return device


@contextlib.contextmanager
def network(delay, loss):
    """Two namespaces; packets between them take `delay` seconds each way, and a fraction of them is lost."""
    for namespace in NAMESPACES:
        subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)
    devices = []
    for number, (namespace, address) in enumerate(zip(NAMESPACES, ADDRESSES)):
        ip("netns", "add", namespace)
        devices.append(tunnel(f"fisao{number}"))
        ip("link", "set", f"fisao{number}", "netns", namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "addr", "add", f"{address}/24", "dev", f"fisao{number}")
        ip("-n", namespace, "link", "set", f"fisao{number}", "up", "mtu", "9000")
    over = threading.Event()
    counts = {"sent": 0, "lost": 0}

    def carry():
        chance, waiting, numbers = random.Random(0), [], itertools.count()
        while not over.is_set():
            until = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            for device in select.select(devices, [], [], until)[0]:
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(device, 65536):
                        counts["sent"] += 1
                        if chance.random() < loss:
                            counts["lost"] += 1
                            continue
                        other = devices[1 - devices.index(device)]
                        heapq.heappush(waiting, (time.monotonic() + delay, next(numbers), other, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(waiting)
                with contextlib.suppress(BlockingIOError):
                    os.write(device, packet)

    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        yield counts
    finally:
        over.set()
        carrier.join()
        for device, namespace in zip(devices, NAMESPACES):
            os.close(device)
            ip("netns", "del", namespace)


def mpirun(count, folder, apart):
    """How mpirun is called, in two namespaces if `apart`."""
    if not apart:
        return ["mpirun", "--bind-to", "none", "-n", str(count)]
    agent = folder / "agent.sh"
    # Called as ssh would be, with a host and a command. A host name of its own, so that MPI takes it for another machine.
    agent.write_text(f'#!/bin/sh\nshift\nexec ip netns exec {NAMESPACES[1]} unshare --uts sh -c "hostname {NAMESPACES[1]}; $*"\n')
    agent.chmod(0o755)
    hosts = ",".join(f"{address}:1" for address in ADDRESSES)
    only = ["btl_tcp_if_include", NETWORK, "--mca", "oob_tcp_if_include", NETWORK, "--mca", "btl", "tcp,self"]
    return ["ip", "netns", "exec", NAMESPACES[0], "mpirun", "--bind-to", "none", "--mca", "plm_rsh_agent", str(agent), "--mca", *only, "--host", hosts, "-n", "2"]


def trained(arguments, exact, output, before=()):
    """Seconds of all iterations but the first, and what must be the same."""
    settings = [f"align.iterations={arguments.iterations}", f"align.exact={str(exact).lower()}", *arguments.set]
    command = [*before, arguments.fisao, "demo", "--quick", "--quiet", "--output", output]
    command += itertools.chain.from_iterable(["--set", setting] for setting in settings)
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}: {done.stderr[-2000:]}")
    timings = [json.loads(line) for line in (output / "timings.jsonl").read_text().splitlines()][1:]
    phases = ["encode", "sample", "score", "compare", "reward", "advantages", "update"]
    return sum(timing[phase] for timing in timings for phase in phases), [(output / name).read_bytes() for name in RESULTS]


# A LLaVA-1.5-7B in one iteration: 576 image tokens, 40 of prompt, 100 of response, an adapter of rank 16, 2 epochs of 4 minibatches.
PARAMETERS, TOKENS, RESPONSE, STEPS = 6.7e9, 716, 100, 8
# Of its weights in 16 bits, of its adapter and critic, of an image's pixels and of its features; bytes.
WEIGHTS, ADAPTER, PIXELS, FEATURES = 13.5e9, 160e6, 3 * 336**2 * 4, 576 * 4096 * 4
# Passes through the decoder for each image: prompt and response sampled, read with the adapter on and off, forward and twice as much
# backward in each epoch (gradients of activations, and activations again).
PASSES = 1 + 2 + 2 * 3
# Features come back once, and go out with sampling, reading and each epoch.
TRIPS = 1 + 1 + 1 + 2
NODES = {
    "CPU nodes": {"flops": 4e12, "memory": 400e9, "network": 12e9},
    "cards": {"flops": 300e12, "memory": 3e12, "network": 50e9},
}
# How fast one thread makes and reads messages, bytes a second: `cargo test --release -p fisao-align -- --ignored speed_of_messages --nocapture`.
MESSAGES = 1.4e9


def predicted(node, processes, images):
    """Seconds of an iteration: computing, and what of it is waited for."""
    computing = images * PASSES * 2 * PARAMETERS * TOKENS / node["flops"] + RESPONSE * WEIGHTS / node["memory"]
    if processes == 1:
        return computing, 0.0
    each = 1 / node["network"] + 1 / MESSAGES
    # Images one process after the other, adapters and gradients along the tree.
    waiting = (processes - 1) * images * (PIXELS + TRIPS * FEATURES) * each
    return computing, waiting + STEPS * 2 * math.ceil(math.log2(processes)) * ADAPTER * each


def predict():
    print("| machines | processes | images each | computing, s | waiting, s | efficiency |\n|---|---|---|---|---|---|")
    for name, node in NODES.items():
        for scaling, all_images in [("weak", None), ("strong", 512)]:
            for processes in [8, 64, 512]:
                images = 8 if all_images is None else all_images // processes
                computing, waiting = predicted(node, processes, images)
                efficiency = computing / (computing + waiting)
                if all_images:
                    alone, _ = predicted(node, 1, all_images)
                    efficiency = alone / processes / (computing + waiting)
                print(f"| {name}, {scaling} scaling | {processes} | {images} | {computing:.1f} | {waiting:.1f} | {efficiency:.0%} |")


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} … {max(values):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--delay", type=float, nargs="+", default=[], help="milliseconds each way; several are measured one after the other")
    parser.add_argument("--loss", type=float, default=0.0, help="fraction of packets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=11)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the runs")
    parser.add_argument("--fisao", type=pathlib.Path, default=HERE.parent / "target/release/fisao")
    parser.add_argument("--predict", action="store_true")
    arguments = parser.parse_args()
    if arguments.predict:
        return predict()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        numbers = itertools.count()
        run = lambda exact, before=(): trained(arguments, exact, folder / f"run{next(numbers)}", before)
        if not arguments.delay:
            several = mpirun(arguments.processes, folder, False)
            print(f"| {arguments.processes} processes beside one | seconds of one | rate of that of one |\n|---|---|---|", flush=True)
            for name, one_exact, exact in [("fast", False, False), ("exact", True, True), ("one exact process", False, True)]:
                rounds = []
                for _ in range(arguments.rounds):
                    one = run(one_exact)
                    other = run(exact, () if name.startswith("one") else several)
                    if one_exact and one[1] != other[1]:
                        sys.exit("exact runs differ")
                    rounds.append((one[0], other[0]))
                ratios = [one / other for one, other in rounds]
                print(f"| {name} | {statistics.median(one for one, _ in rounds):.2f} | {spread(ratios)} |", flush=True)
            return
        print("| delay each way, ms | packets lost | of packets | rate of that without a network |\n|---|---|---|---|", flush=True)
        here = mpirun(2, folder, False)
        expected = run(True, here)[1]
        for delay in arguments.delay:
            ratios = []
            for _ in range(arguments.rounds):
                near = run(True, here)
                with network(delay / 1000, arguments.loss) as counts:
                    far = run(True, mpirun(2, folder, True))
                if near[1] != expected or far[1] != expected:
                    sys.exit("runs differ")
                ratios.append(near[0] / far[0])
            print(f"| {delay:g} | {counts['lost']} | {counts['sent']} | {spread(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
