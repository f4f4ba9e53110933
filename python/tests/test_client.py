"""The client and the verifier against a fake server."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

import fisao
from fisao import _client

Make = Callable[..., fisao.Verifier]


class WordTokenizer:
    """One token for each word, a leading space its own; 0 is special."""

    words = ["</s>", "a", " dog", " cat", " and", "."]
    all_special_ids = [0]
    eos_token_id = 0
    pad_token_id = 0

    def decode(self, ids: List[int], skip_special_tokens: bool = False) -> str:
        return "".join(self.words[token] for token in ids if token or not skip_special_tokens)


TOKENIZER = WordTokenizer()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return stat.split(")")[-1].split()[0] != "Z"


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(fisao.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_token_rewards_are_one_row_for_each_completion(verifier: fisao.Verifier) -> None:
    ids = [[1, 2, 4, 1, 3, 5, 0], [1, 3]]
    rewards = verifier.token_rewards(
        "a.png", ["a dog anda cat.", "a cat"], ids, TOKENIZER, truncated=[False, True]
    )
    assert rewards == [[0.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0], [0.0, -11.0]]


def test_rewarded_completions_hold_mentions(verifier: fisao.Verifier) -> None:
    [completion] = verifier.rewarded_completions(["a.png"], None, [[1, 3, 0]], TOKENIZER)
    assert [mention.text for mention in completion.mentions] == ["cat"]
    assert completion.mentions[0].p_hallucinated == 1.0


def test_ids_of_another_tokenizer_are_refused(verifier: fisao.Verifier) -> None:
    with pytest.raises(fisao.TokenizerMismatch, match=r"completions\[1\].*cat.*dog"):
        verifier.token_rewards("a.png", ["a dog", "a dog"], [[1, 2], [1, 3]], TOKENIZER)


def test_counts_that_differ_are_refused(verifier: fisao.Verifier) -> None:
    with pytest.raises(fisao.InvalidParams, match="1 completions for 2"):
        verifier.token_rewards("a.png", ["a dog"], [[1, 2], [1, 3]], TOKENIZER)
    with pytest.raises(fisao.InvalidImage, match="1 images for 2"):
        verifier.verify(["a.png"], ["a dog", "a cat"])


def test_verify_score_mentions_and_caption(verifier: fisao.Verifier) -> None:
    [verified] = verifier.verify("a.png", "a dog and a cat", heat_maps=True)
    assert verified.hallucinated == 1
    assert [mention.hallucinated for mention in verified.mentions] == [False, True]
    assert verifier.score("a.png", "dog") == [fisao.NameScore("dog", 0.5)]
    assert [mention.category for mention in verifier.mentions("a cat")[0]] == ["cat"]
    [[caption]] = verifier.caption("a.png", seed=3, max_new_tokens=5)
    asked = json.loads(caption.text)
    assert asked == {"images": [{"path": os.path.abspath("a.png")}], "max_new_tokens": 5, "seed": 3}


def test_greedy_captions_are_asked_for_in_parts(make_verifier: Make, server_log: Any) -> None:
    verifier = make_verifier()
    assert len(verifier.caption(["a.png"] * 40)) == 40
    assert len(verifier.caption(["a.png"] * 40, temperature=1.0)) == 40
    assert [line.split()[0] for line in server_log()[1:]] == ["caption"] * 4


@pytest.mark.parametrize("kind", [fisao.BinaryNotFound, fisao.RequestTimeout, fisao.ServerDied])
def test_every_exception_can_be_pickled(kind: type[fisao.FisaoError]) -> None:
    error = kind("what", hint="do", log="said")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.log) == (kind, "what\nhint: do", "said")


def test_empty_batches_have_empty_answers(verifier: fisao.Verifier) -> None:
    assert verifier.token_rewards([], [], [], TOKENIZER) == []
    assert verifier.verify([], []) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid-image", fisao.InvalidImage),
        ("invalid-params", fisao.InvalidParams),
        ("unsupported-protocol", fisao.UnsupportedProtocol),
        ("unknown-method", fisao.UnknownMethod),
        ("too-large", fisao.TooLarge),
        ("unavailable", fisao.Unavailable),
        ("busy", fisao.Busy),
        ("deadline-exceeded", fisao.DeadlineExceeded),
        ("internal", fisao.InternalError),
        ("of-a-later-version", fisao.FisaoError),
    ],
)
def test_every_code_has_its_exception(
    verifier: fisao.Verifier, code: str, kind: type[fisao.FisaoError]
) -> None:
    with pytest.raises(kind) as caught:
        verifier.score("a.png", [f"error:{code}"])
    assert str(caught.value) == "it was refused\nhint: ask differently"
    assert caught.value.code == code
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.code) == (kind, str(caught.value), code)
    assert verifier.score("a.png", ["dog"])


def test_one_bad_sample_raises_and_the_next_call_is_answered(verifier: fisao.Verifier) -> None:
    images = ["a.png"] * 40 + ["missing.png"] + ["a.png"] * 40
    with pytest.raises(fisao.InvalidImage, match="missing.png"):
        verifier.verify(images, ["a dog"] * 81)
    assert len(verifier.verify("a.png", ["a dog"] * 81)) == 81


def test_killed_server_raises_with_what_it_wrote(verifier: fisao.Verifier) -> None:
    with pytest.raises(fisao.ServerDied, match="killed by signal 9") as caught:
        verifier.score("a.png", ["die"])
    assert "panicked" in str(caught.value)
    with pytest.raises(fisao.ServerDied):
        verifier.score("a.png", ["dog"])


def test_server_killed_from_outside_ends_all_waiting_requests(verifier: fisao.Verifier) -> None:
    caught: List[BaseException] = []

    def ask() -> None:
        try:
            verifier.score("a.png", ["sleep"])
        except fisao.FisaoError as error:
            caught.append(error)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    os.kill(verifier._client().pid, signal.SIGKILL)
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in caught] == [fisao.ServerDied] * 5


def test_request_times_out_and_the_server_is_still_of_use(make_verifier: Make) -> None:
    verifier = make_verifier(timeout=0.5)
    with pytest.raises(fisao.RequestTimeout, match="no answer to score after 0.5 seconds"):
        verifier.score("a.png", ["sleep"])
    assert isinstance(fisao.RequestTimeout("x"), TimeoutError)


def test_start_timeout_ends_the_server(make_verifier: Make, server_log: Any) -> None:
    with pytest.raises(fisao.RequestTimeout, match="not ready after 0.5"):
        make_verifier("silent", start_timeout=0.5)
    assert not list(_client._clients)


def test_refused_start_has_the_servers_sentence_and_hint(make_verifier: Make) -> None:
    with pytest.raises(fisao.StartFailed) as caught:
        make_verifier("refuse")
    assert caught.value.message == "no checkpoint folder at /nope"
    assert caught.value.hint == "give a folder or a name"


def test_other_protocol_is_refused(make_verifier: Make) -> None:
    with pytest.raises(fisao.UnsupportedProtocol, match="protocol 2.*speaks 1"):
        make_verifier("protocol")


def test_output_that_is_no_reply_ends_the_server(make_verifier: Make) -> None:
    with pytest.raises(fisao.FisaoError, match="no reply"):
        make_verifier("garbage")


def test_error_without_id_is_that_of_the_oldest_request(make_verifier: Make) -> None:
    with pytest.raises(fisao.TooLarge, match="a line is too long"):
        make_verifier("unreadable").score("a.png", ["dog"])


def test_large_batches_are_answered_by_a_server_that_writes_much(make_verifier: Make) -> None:
    verifier = make_verifier("verbose", timeout=60)
    image = os.urandom(1_000_000)
    verified = verifier.verify([image] * 40, ["a dog"] * 40)
    assert [row.hallucinated for row in verified] == [0] * 40


def test_samples_are_sent_in_parts(make_verifier: Make, server_log: Any) -> None:
    def counts() -> List[int]:
        return [int(line.split()[1]) for line in server_log() if line.startswith("verify")]

    verifier = make_verifier()
    verifier.verify("a.png", ["a dog"] * 35)
    assert counts() == [16, 16, 3]
    verifier.verify([bytes(3_000_000)] * 5, ["a dog"] * 5)
    assert counts()[3:] == [2, 2, 1]


def test_threads_get_their_own_answers(verifier: fisao.Verifier) -> None:
    wrong: List[int] = []

    def ask(number: int) -> None:
        for length in range(1, 12):
            captions = ["a dog"] * number + ["a cat"] * length
            counts = [row.hallucinated for row in verifier.verify("a.png", captions)]
            if counts != [0] * number + [1] * length:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_close_ends_the_server_and_refuses_requests(make_verifier: Make) -> None:
    with make_verifier() as verifier:
        pid = verifier._client().pid
        assert alive(pid)
    assert not alive(pid)
    verifier.close()
    with pytest.raises(fisao.FisaoError, match="closed"):
        verifier.score("a.png", ["dog"])
    assert "closed" in repr(verifier)


def test_interrupting_python_does_not_interrupt_the_server(verifier: fisao.Verifier) -> None:
    # Ctrl-C goes to the group of processes that has the terminal.
    assert os.getpgid(verifier._client().pid) != os.getpgid(0)


def test_forgotten_verifier_leaves_no_server(fake_binary: str) -> None:
    verifier = fisao.Verifier(binary=fake_binary)
    pid = verifier._client().pid
    del verifier
    gc.collect()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_end_of_python_ends_the_server(fake_binary: str) -> None:
    program = (
        "import fisao, sys\n"
        f"verifier = fisao.Verifier(binary={fake_binary!r})\n"
        "print(verifier._client().pid, flush=True)\n"
    )
    done = run_python(program)
    assert done.returncode == 0, done.stderr
    assert not alive(int(done.stdout))


def test_killed_python_leaves_no_server(fake_binary: str) -> None:
    program = (
        "import fisao, os, signal\n"
        f"verifier = fisao.Verifier(binary={fake_binary!r})\n"
        "print(verifier._client().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = run_python(program)
    deadline = time.monotonic() + 10
    while alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(done.stdout))


def _ask_in_child(verifier: fisao.Verifier, connection: Any) -> None:
    rows = verifier.verify("a.png", ["a cat"])
    connection.send((rows[0].hallucinated, verifier._client().pid))
    verifier.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_process_starts_its_own_server(verifier: fisao.Verifier, method: str) -> None:
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_ask_in_child, args=(verifier, theirs))
    process.start()
    assert ours.poll(60)
    hallucinated, pid = ours.recv()
    process.join(30)
    assert hallucinated == 1
    assert pid != verifier._client().pid
    assert verifier.verify("a.png", ["a cat"])[0].hallucinated == 1


def test_client_of_another_process_is_refused(verifier: fisao.Verifier) -> None:
    client = verifier._client()
    client._connection.pid += 1
    try:
        with pytest.raises(fisao.FisaoError, match="belongs to process"):
            client.submit("score", {})
    finally:
        client._connection.pid -= 1


def test_fork_does_not_keep_the_server_alive(make_verifier: Make) -> None:
    verifier = make_verifier()
    child = os.fork()
    if child == 0:
        time.sleep(5)
        os._exit(0)
    started = time.monotonic()
    verifier.close()
    assert time.monotonic() - started < 3
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_options_reach_the_command_line(
    make_verifier: Make, server_log: Any, tmp_path: Path
) -> None:
    make_verifier(
        verifier="clip",
        model=tmp_path,
        calibration="c.json",
        vocabulary="coco",
        device="cpu",
        settings={"reward": {"repetition-penalty": 0.5, "placement": "last"}, "score.noise": 0},
    )
    arguments = json.loads(server_log()[0].split(" ", 1)[1])
    expected = ["serve", "--stdio", "--model", str(tmp_path), "--verifier", "clip"]
    expected += ["--calibration", "c.json", "--device", "cpu"]
    expected += ["--set", "reward.repetition-penalty=0.5", "--set", "reward.placement=last"]
    expected += ["--set", "score.noise=0", "--vocabulary", "coco"]
    assert arguments == expected


def test_vocabulary_of_python_becomes_a_file(make_verifier: Make, server_log: Any) -> None:
    make_verifier(vocabulary={"dog": ("dog", "puppy")})
    arguments = json.loads(server_log()[0].split(" ", 1)[1])
    path = arguments[arguments.index("--vocabulary") + 1]
    assert path.endswith(".json") and not Path(path).exists()


def test_texts_that_have_no_utf8_are_sent(verifier: fisao.Verifier) -> None:
    [[mention]] = verifier.mentions("\ud83d dog")
    assert (mention.start, mention.end) == (2, 5)


def test_messages_are_completions(verifier: fisao.Verifier) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " dog"}]
    completions = [
        [{"role": "assistant", "content": "a dog"}],
        [{"role": "assistant", "content": parts}],
        {"role": "assistant", "content": "a dog"},
    ]
    rewards = verifier.token_rewards("a.png", completions, [[1, 2]] * 3, TOKENIZER)
    assert rewards == [[0.0, 1.0]] * 3
    with pytest.raises(fisao.InvalidParams, match="a completion is 7"):
        verifier.token_rewards("a.png", [7], [[1]], TOKENIZER)


def test_verify_once(fake_binary: str) -> None:
    assert fisao.verify("a.png", ["a cat"], binary=fake_binary)[0].hallucinated == 1
