"""Where the binary is searched, and the program that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fisao
from fisao import _binary
from fisao._errors import reason_in


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FISAO_BINARY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    monkeypatch.setattr(_binary.sysconfig, "get_path", lambda *_, **__: str(tmp_path / "scripts"))
    monkeypatch.setattr(_binary, "__file__", str(tmp_path / "a/b/c/site-packages/fisao/_binary.py"))


def test_missing_binary_names_where_it_was_searched_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(fisao.BinaryNotFound) as caught:
        fisao.find_binary()
    message = str(caught.value)
    for place in (
        "venv/bin/fisao",
        "scripts/fisao",
        "site-packages/bin/fisao",
        "PATH",
        "pip install",
    ):
        assert place in message
    assert isinstance(caught.value, FileNotFoundError)


def test_places_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = ["path", "a/bin", "a/b/c/site-packages/bin", "scripts", "venv/bin"]
    for place in places:
        expected = program(tmp_path / place / "fisao")
        assert fisao.find_binary() == expected
    monkeypatch.setenv("FISAO_BINARY", program(tmp_path / "own"))
    assert fisao.find_binary() == str(tmp_path / "own")
    assert fisao.find_binary(tmp_path / "path" / "fisao") == str(tmp_path / "path" / "fisao")


def test_named_binary_that_is_missing_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "path" / "fisao")
    monkeypatch.setenv("FISAO_BINARY", str(tmp_path / "nope"))
    with pytest.raises(fisao.BinaryNotFound, match="FISAO_BINARY is .*nope.*does not exist"):
        fisao.find_binary()
    (tmp_path / "text").write_text("x")
    with pytest.raises(fisao.BinaryNotFound, match="not executable"):
        fisao.find_binary(str(tmp_path / "text"))


def test_scripts_of_the_same_name_are_passed_over(tmp_path: Path) -> None:
    script = Path(program(tmp_path / "venv" / "bin" / "fisao"))
    script.write_text("#!/usr/bin/python\n")
    expected = program(tmp_path / "path" / "fisao")
    assert fisao.find_binary() == expected


def test_module_runs_the_binary(fake_binary: str) -> None:
    Path(fake_binary).write_text('#!/bin/sh\necho "ran $*"\nexit 3\n')
    environment = {**os.environ, "FISAO_BINARY": fake_binary}
    environment["PYTHONPATH"] = str(Path(fisao.__file__).parents[1])
    command = [os.path.realpath("/proc/self/exe"), "-m", "fisao", "score", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("ran score --help\n", 3)
    environment["FISAO_BINARY"] = "/nope"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: FISAO_BINARY is '/nope'")


def test_reason_of_a_failed_program() -> None:
    log = "note: x\n\x1b[31merror: a thing\nand more\nhint: do\nthis\n"
    assert reason_in(log.replace("\x1b[31m", "")) == ("a thing and more", "do this")
    assert reason_in("Traceback") == (None, None)
    usage = "error: unexpected argument '--x'\n\n  tip: a similar one: '--y'\n\nUsage: fisao\n"
    assert reason_in(usage) == ("unexpected argument '--x'", "a similar one: '--y'")
