"""The command `cllm`: one file a command, each imported only when it is called (`cllm --help` needs no torch)."""

from __future__ import annotations

import os
import sys
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from cllm import __version__ as VERSION
from cllm.errors import CllmError

HELP = "Crystalline trains transformer language models from scratch and proves its own arithmetic."
EPILOGUE = """\
Examples:

  cllm train book.txt --preset small          train on your own text
  cllm generate runs/book --prompt "It was"   let the model write

Every command has --help, with examples. Documentation: docs/start.md"""

# command → (where it lives, the line `cllm --help` shows); kept here so that help imports nothing
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("cllm.cli.train:train", "Train a language model on text."),
    "generate": ("cllm.cli.generate:generate", "Let a trained model write."),
    "eval": ("cllm.cli.eval:evaluate", "Score text: loss, perplexity, bits per byte, accuracy."),
    "plan": ("cllm.cli.plan:plan", "Before training: memory, measured speed, time to finish."),
    "find-lr": ("cllm.cli.find_lr:find_lr", "Find a learning rate: a range test on a throw-away model."),
    "replay": ("cllm.cli.replay:replay", "Run a step again, op by op: where a format gave out, and by how much."),
    "runs": ("cllm.cli.runs:runs", "List runs: progress, losses, speed, how each ended."),
    "data": ("cllm.cli.data:app", "Look at text before training; prepare it once for many runs."),
    "tokenizer": ("cllm.cli.tokenizer:app", "Train a tokenizer, look at one, or make one of GPT-2's ranks."),
    "ablate": ("cllm.cli.ablate:ablate", "Compare settings on several seeds, in pairs, with intervals."),
    "bench": ("cllm.cli.bench:app", "Measure speed and memory, beside the peers, in one run."),
    "calc": ("cllm.cli.calc:calc", "Calculate with proven digits."),
    "primes": ("cllm.cli.primes:app", "Primes, exactly: count, n-th, ranges, proofs, factors, tables."),
    "studio": ("cllm.cli.studio:studio", "The studio in your browser: lattice, numbers, training, models."),
    "lattice": ("cllm.cli.lattice:app", "The lattice: its formula with proven digits, pictures of its maps."),
    "certify": ("cllm.cli.certify:certify", "Prove how far a step's gradients are from the exact ones."),
    "gradcheck": ("cllm.cli.gradcheck:gradcheck", "Certify anyone's op: a formula, a kernel, its backward."),
    "info": ("cllm.cli.info:info", "Parameters, memory and FLOPs of a preset or a run."),
}


def build(*, listing: bool = True) -> App:
    """The application with every command registered lazily.

    listing: give each command its one line, so that `cllm --help` imports none of them; a line given here would
    replace the command's own help.
    """
    app = App(
        name="cllm",
        help=HELP,
        help_epilogue=EPILOGUE if listing else None,
        version=VERSION,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=()),
    )
    for name, (where, line) in COMMANDS.items():
        app.command(where, name=name, **({"help": line} if listing else {}))
    return app


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    # Threads that wait without spinning: as fast alone, and 5 times faster when something else uses a core. It has
    # to be said before torch is loaded, so it is the command line that says it, not an import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    argv = sys.argv[1:] if argv is None else argv
    app = build(listing=not argv or argv[0].startswith("-"))
    try:
        result: Any = app(argv, exit_on_error=False, print_error=True, result_action="return_value")
        sys.stdout.flush()  # what cannot be written is said here, not at the interpreter's end
    except CycloptsError:  # printed already, with the closest name
        print("Try 'cllm --help', or 'cllm COMMAND --help'.", file=sys.stderr)
        return 2
    except CllmError as error:
        print(f"cllm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cllm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `cllm … | head`: the reader has gone
        _drop_output()
        return 0
    except OSError as error:  # the last resort: a full disk, a folder that may not be written
        what = error.strerror or str(error) or type(error).__name__
        print(f"cllm: {f'{error.filename}: ' if error.filename is not None else ''}{what}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return 1
    return result if isinstance(result, int) else 0


def _drop_output() -> None:
    """What is still buffered for a standard output that takes no more goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
