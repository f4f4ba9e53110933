"""``python -m fisao``: the command line program."""

from __future__ import annotations

import os
import subprocess
import sys

from ._binary import find_binary
from ._errors import BinaryNotFound


def main() -> int:
    """Replaces this process by the binary, with the same arguments."""
    try:
        binary = find_binary()
    except BinaryNotFound as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    arguments = [binary, *sys.argv[1:]]
    if os.name != "nt":
        os.execv(binary, arguments)
    return subprocess.run(arguments, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
