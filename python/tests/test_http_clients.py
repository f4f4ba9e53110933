"""Other projects' clients of OpenAI's protocol, unchanged, against ``fisao serve --http``."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

PROMPT = "Describe the image."
TOKENS = 40


@pytest.fixture(scope="module")
def images(world: Path) -> List[Path]:
    return sorted((world / "test" / "images").iterdir())[:8]


@pytest.fixture(scope="module")
def server(binary: str) -> Iterator[str]:
    """The address of a server with the built-in model."""
    command = [binary, "serve", "--http", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            address = re.search(r"listening on (http://\S+)/", line)
            if address:
                break
        assert address, "the server ended"
        yield address.group(1) + "/v1"
        process.terminate()


@pytest.fixture(scope="module")
def own_captions(binary: str, images: List[Path]) -> List[str]:
    """What the command says of the images."""
    command = [binary, "caption", "--images", *map(str, images), "--format", "json"]
    command += ["--max-new-tokens", str(TOKENS), "--prompt", PROMPT]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line)["caption"] for line in printed.splitlines()]


def question(image: Path) -> List[Dict[str, Any]]:
    data = base64.b64encode(image.read_bytes()).decode()
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return [{"role": "user", "content": [{"type": "text", "text": PROMPT}, shown]}]


def test_official_client(server: str, images: List[Path], own_captions: List[str]) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=server, api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    ask = {"model": model, "temperature": 0, "max_tokens": TOKENS}
    create = client.chat.completions.create
    for image, caption in zip(images, own_captions):
        answer = create(messages=question(image), **ask)
        assert answer.choices[0].message.content == caption
        assert answer.usage.total_tokens > answer.usage.completion_tokens > 0
    chunks = create(messages=question(images[0]), stream=True, **ask)
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(parts) > 2
    assert "".join(parts) == own_captions[0]
    sampling = {"model": model, "temperature": 1, "n": 2, "seed": 3, "logprobs": True}
    two = create(messages=question(images[0]), max_tokens=12, **sampling)
    assert [choice.finish_reason for choice in two.choices] == ["length"] * 2
    assert [len(choice.logprobs.content) for choice in two.choices] == [12, 12]
    for wrong in ({"temperature": -1}, {"messages": []}, {"model": "nobody"}):
        with pytest.raises(openai.BadRequestError):
            create(**{"messages": question(images[0]), **ask, **wrong})


def test_lmms_eval(server: str, images: List[Path], own_captions: List[str]) -> None:
    module = pytest.importorskip("lmms_eval.models.simple.openai")
    instance = pytest.importorskip("lmms_eval.api.instance")
    pil = pytest.importorskip("PIL.Image")
    model = module.OpenAICompatible(model="fisao-embedded-llava", base_url=server, api_key="none")
    model.task_dict = {"captions": {"test": [pil.open(image) for image in images]}}
    options = {"max_new_tokens": TOKENS, "temperature": 0}
    requests = [
        instance.Instance(
            request_type="generate_until",
            arguments=(PROMPT, options, lambda document: [document], at, "captions", "test"),
            idx=at,
            metadata={"task": "captions", "doc_id": at, "repeats": 1},
        )
        for at in range(len(images))
    ]
    found = [getattr(answer, "text", answer) for answer in model.generate_until(requests)]
    assert found == own_captions
