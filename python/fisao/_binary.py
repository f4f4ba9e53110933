"""Where the ``fisao`` binary is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Iterator, Optional, Tuple, Union

from ._errors import BinaryNotFound

_NAME = "fisao" + (sysconfig.get_config_var("EXE") or "")


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_script(path: Path) -> bool:
    """Whether it begins with ``#!``: a wrapper that would start this package again."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _candidates() -> Iterator[Tuple[str, Path]]:
    yield "next to Python", Path(sys.executable or "python").parent / _NAME
    yield "scripts of this environment", Path(sysconfig.get_path("scripts")) / _NAME
    if sys.version_info >= (3, 10):
        user_scheme = sysconfig.get_preferred_scheme("user")
    elif os.name == "nt":
        user_scheme = "nt_user"
    elif sys.platform == "darwin" and sysconfig.get_config_var("PYTHONFRAMEWORK"):
        user_scheme = "osx_framework_user"
    else:
        user_scheme = "posix_user"
    yield "scripts of this user", Path(sysconfig.get_path("scripts", scheme=user_scheme)) / _NAME
    # `pip install --target DIR` and `--prefix DIR` put scripts beside the package.
    package = Path(__file__).resolve().parent
    yield "beside the package (--target)", package.parent / "bin" / _NAME
    if len(package.parents) > 3:
        yield "beside the package (--prefix)", package.parents[3] / "bin" / _NAME


def find_binary(binary: Optional[Union[str, os.PathLike[str]]] = None) -> str:
    """Path of the ``fisao`` binary.

    ``binary`` itself if it is given, else the environment variable ``FISAO_BINARY``, else the
    scripts of this Python environment, else ``PATH``.

    Raises ``BinaryNotFound``, which names every place that was searched.
    """
    for name, given in (("binary", binary), ("FISAO_BINARY", os.environ.get("FISAO_BINARY"))):
        if given is None or given == "":
            continue
        path = Path(given).expanduser()
        if _is_program(path):
            return str(path)
        what = "is not executable" if path.is_file() else "does not exist"
        hint = f"give the path of a fisao binary, or leave {name} out to search for one"
        raise BinaryNotFound(f"{name} is {str(path)!r}, which {what}", hint=hint)
    searched = []
    for place, path in _candidates():
        if _is_program(path) and not _is_script(path):
            return str(path)
        searched.append(f"{path} ({place})")
    found = shutil.which(_NAME)
    if found is not None and not _is_script(Path(found)):
        return found
    searched.append("PATH")
    places = "".join(f"\n  {place}" for place in searched)
    raise BinaryNotFound(
        f"the fisao binary was not found; searched:{places}",
        hint="install the wheel that contains it (pip install --force-reinstall fisao), or build "
        "it (cargo install --path crates/fisao) and set FISAO_BINARY to its path",
    )
