from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

import fisao

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


@pytest.fixture
def fake_binary(tmp_path: Path) -> str:
    """An executable that is the fake server."""
    script = tmp_path / "fisao"
    server = HERE / "fake_server.py"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{server}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def server_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], List[str]]:
    """Reads what fake servers noted: a line when one starts, and one for each request."""
    path = tmp_path / "server.log"
    path.touch()
    monkeypatch.setenv("FAKE_SERVER_LOG", str(path))
    return lambda: path.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def make_verifier(fake_binary: str) -> Iterator[Callable[..., fisao.Verifier]]:
    """Verifiers with the fake server, closed after the test."""
    made: List[fisao.Verifier] = []

    def make(behaviour: str = "", **options: Any) -> fisao.Verifier:
        arguments = ["--behaviour", behaviour] if behaviour else []
        made.append(fisao.Verifier(binary=fake_binary, arguments=arguments, **options))
        return made[-1]

    yield make
    for verifier in made:
        verifier.close()


@pytest.fixture
def verifier(make_verifier: Callable[..., fisao.Verifier]) -> fisao.Verifier:
    return make_verifier()


def real_binary() -> str | None:
    """The binary of ``FISAO_BINARY``, of this repository's release build, or an installed one."""
    built = REPOSITORY / "target" / "release" / "fisao"
    if "FISAO_BINARY" not in os.environ and built.is_file():
        return str(built)
    try:
        return fisao.find_binary()
    except fisao.BinaryNotFound:
        return None


def can_serve(binary: str | None) -> bool:
    if binary is None:
        return False
    command = [binary, "serve", "--help"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def binary() -> str:
    """The real binary; tests that need it are skipped where there is none."""
    found = real_binary()
    if found is None or not can_serve(found):
        pytest.skip("no fisao binary with `serve`: build it, or set FISAO_BINARY")
    return found


@pytest.fixture(scope="session")
def world(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of the built-in synthetic dataset and a calibration for its verifier."""
    folder = tmp_path_factory.mktemp("world")
    for split, count in (("calibration", 60), ("test", 8)):
        command = [binary, "scenes", "export", str(folder / split), "--split", split]
        subprocess.run([*command, "--count", str(count)], check=True, capture_output=True)
    command = [binary, "calibrate", "--images", str(folder / "calibration" / "images")]
    command += ["--annotations", str(folder / "calibration" / "instances.json")]
    command += ["--output", str(folder / "calibration.json")]
    subprocess.run(command, check=True, capture_output=True)
    return folder
