"""A stand-in for ``fisao serve --stdio``, with whatever ``--behaviour`` a test asks for.

Rewards: 1 for a token that spells "dog", −1 for "cat". Mentions: the words dog and cat; a cat is
always hallucinated.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

BEHAVIOUR = sys.argv[sys.argv.index("--behaviour") + 1] if "--behaviour" in sys.argv else ""
LOG = os.environ.get("FAKE_SERVER_LOG")


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def note(line):
    if LOG:
        with Path(LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Refused(Exception):
    def __init__(self, code, message, hint=None):
        super().__init__(message)
        self.reply = {"code": code, "message": message}
        if hint is not None:
            self.reply["hint"] = hint


def mentions(text, verdict):
    found = []
    for match in re.finditer("dog|cat", text):
        name = match.group()
        mention = {
            "start": match.start(),
            "end": match.end(),
            "text": name,
            "category": name,
            "form": name,
            "negated": False,
        }
        if verdict:
            likely = 1.0 if name == "cat" else 0.0
            mention.update(score=1.0 - likely, p_hallucinated=likely, hallucinated=likely >= 0.5)
        found.append(mention)
    return found


def check(image):
    if image.get("path", "").endswith("missing.png"):
        raise Refused("invalid-image", f"no image at {image['path']}")
    assert set(image) in ({"path"}, {"base64"}), image


def token_rewards(params):
    samples = []
    for sample in params["samples"]:
        check(sample["image"])
        words = [sample["text"][start:end].strip() for start, end in sample["token_spans"]]
        rewards = [{"dog": 1.0, "cat": -1.0}.get(word, 0.0) for word in words]
        if sample.get("truncated"):
            rewards[-1] -= 10.0
        samples.append({"rewards": rewards, "mentions": mentions(sample["text"], True)})
    return {"samples": samples}


def verify(params):
    samples = []
    for sample in params["samples"]:
        check(sample["image"])
        found = mentions(sample["caption"], True)
        count = sum(mention["hallucinated"] for mention in found)
        samples.append({"caption": sample["caption"], "mentions": found, "hallucinated": count})
    return {"unit": "cosine", "samples": samples}


def score(params):
    check(params["image"])
    if params["names"][0].startswith("error:"):
        raise Refused(params["names"][0][len("error:") :], "it was refused", "ask differently")
    if params["names"] == ["die"]:
        sys.stderr.write("thread 'main' panicked\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if params["names"] == ["sleep"]:
        time.sleep(60)
    return {"unit": "cosine", "scores": [{"name": name, "score": 0.5} for name in params["names"]]}


def caption(params):
    text = {"text": json.dumps(params, sort_keys=True), "tokens": [], "finish_reason": "stop"}
    return {"captions": [[text] for _ in params["images"]]}


METHODS = {
    "token_rewards": token_rewards,
    "verify": verify,
    "score": score,
    "caption": caption,
    "mentions": lambda params: {"mentions": [mentions(text, False) for text in params["texts"]]},
}


def main():
    note("started " + json.dumps(sys.argv[1:]))
    if BEHAVIOUR == "refuse":
        sys.stderr.write("error: no checkpoint folder at /nope\nhint: give a folder or a name\n")
        sys.exit(1)
    if BEHAVIOUR == "silent":
        time.sleep(60)
    protocol = 2 if BEHAVIOUR == "protocol" else 1
    if BEHAVIOUR == "garbage":
        print("hello")
    say({"protocol": protocol, "version": "0.1.0", "unit": "cosine", "methods": sorted(METHODS)})
    for line in sys.stdin:
        request = json.loads(line)
        note(f"{request['method']} {len(request['params'].get('samples', []))}")
        if BEHAVIOUR == "verbose":  # More than a pipe holds, on both outputs.
            sys.stderr.write("x" * 200_000 + "\n")
        if BEHAVIOUR == "unreadable":
            say({"id": None, "error": {"code": "too-large", "message": "a line is too long"}})
            continue
        try:
            reply = {"result": METHODS[request["method"]](request["params"])}
        except Refused as refused:
            reply = {"error": refused.reply}
        if BEHAVIOUR == "verbose":
            reply["padding"] = "y" * 500_000
        say({"id": request["id"], **reply})


if __name__ == "__main__":
    main()
