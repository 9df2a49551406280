"""The command `cllm`: one file a command, each imported only when it is called (`cllm --help` needs no torch)."""

from __future__ import annotations

import os
import sys
from typing import Any

from cyclopts import App

from cllm.errors import CllmError

VERSION = "0.1.0"

HELP = """\
Crystalline trains transformer language models from scratch and proves its own arithmetic.

Examples:

  cllm train book.txt --preset small          train on your own text
  cllm generate runs/book --prompt "It was"   let the model write

Every command has `--help`. Documentation: docs/start.md
"""

# command → (where it lives, the line `cllm --help` shows); kept here so that help imports nothing
COMMANDS: dict[str, tuple[str, str]] = {}


def build() -> App:
    """The application with every command registered lazily."""
    app = App(name="cllm", help=HELP, version=VERSION, help_format="plaintext")
    for name, (where, line) in COMMANDS.items():
        app.command(where, name=name, help=line)
    return app


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    app = build()
    try:
        result: Any = app(argv, exit_on_error=False, print_error=True, result_action="return_value")
    except CllmError as error:
        print(f"cllm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cllm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `cllm … | head`: the reader has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    return result if isinstance(result, int) else 0
