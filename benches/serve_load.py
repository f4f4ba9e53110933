"""Clients that ask `fisao serve --http` without a pause, beside `fisao caption` on the same images.

    python benches/serve_load.py IMAGES --binary target/release/fisao [--clients 64] [--seconds 120] [--max-tokens 64]
        [--abuse]

IMAGES is a folder of scenes that `fisao scenes export` wrote. Prints requests, failures, tokens per second and resident memory
during the run, the same work's tokens per second by `fisao caption`, and the ratio. With --abuse other clients misbehave meanwhile:
connections that say nothing, garbage, halves of bodies, answers that nobody reads, and 10,000 requests that cannot be answered.
Standard library only.
"""

import argparse
import base64
import collections
import http.client
import json
import pathlib
import re
import socket
import subprocess
import threading
import time


def resident(pid: int) -> float:
    """Megabytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


class Client(threading.Thread):
    def __init__(self, address: tuple, bodies: list, end: float):
        super().__init__()
        self.address, self.bodies, self.end = address, bodies, end
        self.requests, self.tokens, self.failures, self.slowest = 0, 0, [], 0.0

    def run(self) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=300)
        while time.time() < self.end:
            body = self.bodies[self.requests % len(self.bodies)]
            begun = time.time()
            try:
                connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    raise RuntimeError(f"{response.status} {text[:200]!r}")
                self.tokens += json.loads(text)["usage"]["completion_tokens"]
                self.requests += 1
                self.slowest = max(self.slowest, time.time() - begun)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = http.client.HTTPConnection(*self.address, timeout=300)


class Abuser(threading.Thread):
    """A client that does one wrong thing again and again; `sent` counts how often."""

    def __init__(self, address: tuple, body: bytes, end: float, kind: str):
        super().__init__(daemon=True)
        self.address, self.body, self.end, self.kind = address, body, end, kind
        self.sent, self.statuses, self.held = 0, collections.Counter(), []

    def head(self, length: int) -> bytes:
        return f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()

    def run(self) -> None:
        while time.time() < self.end:
            try:
                self.once()
                self.sent += 1
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)

    def once(self) -> None:
        if self.kind == "bad requests":
            if self.sent >= 10_000:
                time.sleep(0.1)
                return
            connection = http.client.HTTPConnection(*self.address, timeout=60)
            wrong = [b"{", b"[]", b'{"messages":[]}', b'{"messages":[{"role":"user","content":"no image"}]}', self.body.replace(b"base64,", b"base64,????")]
            connection.request("POST", "/v1/chat/completions", wrong[self.sent % len(wrong)])
            self.statuses[connection.getresponse().status] += 1
            connection.close()
            return
        stream = socket.create_connection(self.address, timeout=60)
        if self.kind == "garbage":
            stream.sendall(bytes(self.sent * 7 + at & 255 for at in range(4096)))
            stream.recv(4096)
            stream.close()
        elif self.kind == "unread":
            body = self.body.replace(b'"temperature"', b'"stream": true, "temperature"')
            stream.sendall(self.head(len(body)) + body)
            self.held.append(stream)
            time.sleep(1)
        else:
            part = self.head(len(self.body)) + self.body[: len(self.body) // 2]
            stream.sendall(part if self.kind == "half a body" else b"")
            self.held.append(stream)
            time.sleep(0.2)
        while len(self.held) > 30:
            self.held.pop(0).close()


KINDS = ("silent", "half a body", "garbage", "unread", "bad requests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=pathlib.Path)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--abuse", action="store_true")
    options = parser.parse_args()

    bodies = []
    for seed, file in enumerate(sorted(options.images.iterdir())):
        url = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
        content = [{"type": "text", "text": "Describe the image."}, {"type": "image_url", "image_url": {"url": url}}]
        question = {"messages": [{"role": "user", "content": content}], "temperature": 1, "seed": seed, "max_tokens": options.max_tokens}
        bodies.append(json.dumps(question).encode())

    server = subprocess.Popen([options.binary, "serve", "--http", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    try:
        address = next(match for line in server.stderr if (match := re.match(r"listening on http://([\d.]+):(\d+)/", line)))
        threading.Thread(target=server.stderr.read, daemon=True).start()
        begun = time.time()
        place = (address.group(1), int(address.group(2)))
        clients = [Client(place, bodies[at:] + bodies[:at], begun + options.seconds) for at in range(options.clients)]
        abusers = [Abuser(place, bodies[0], begun + options.seconds, kind) for kind in KINDS if options.abuse]
        for client in abusers + clients:
            client.start()
        memory = []
        while any(client.is_alive() for client in clients):
            time.sleep(min(5, options.seconds / 10))
            memory.append(resident(server.pid))
        seconds = time.time() - begun
    finally:
        server.terminate()
        server.wait()
    failures = [failure for client in clients for failure in client.failures]
    served = sum(client.tokens for client in clients) / seconds
    print(f"{sum(client.requests for client in clients)} requests of {options.clients} clients in {seconds:.0f} s, {len(failures)} failed {failures[:3]}")
    print(f"slowest answer {max(client.slowest for client in clients):.2f} s; memory {memory[0]:.0f} MB at first, {memory[len(memory) // 2]:.0f} MB, {memory[-1]:.0f} MB at the end")
    for abuser in abusers:
        print(f"{abuser.kind}: {abuser.sent} times {dict(abuser.statuses) or ''}")

    command = [options.binary, "caption", "--images", str(options.images), "--temperature", "1", "--max-new-tokens", str(options.max_tokens), "--format", "json", "--quiet"]
    rates = []
    for _ in range(3):
        begun = time.time()
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
        rates.append(sum(len(json.loads(line)["tokens"]) for line in lines) / (time.time() - begun))
    offline = sorted(rates)[1]
    print(f"served {served:.0f} tokens/s, fisao caption {offline:.0f} tokens/s, ratio {served / offline:.2f}")


if __name__ == "__main__":
    main()
