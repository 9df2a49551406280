"""`cllm tokenizer`: train one, look at one, or make one of GPT-2's ranks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from cllm.cli.arguments import Text, data_names

if TYPE_CHECKING:
    from cllm.text import Tokenizer
    from cllm.text.usage import Usage

app = App(
    name="tokenizer",
    help="Train a tokenizer, look at one, or make one of GPT-2's ranks.",
    help_epilogue="""\
Examples:

  cllm tokenizer train book.txt --out tokenizer.json --vocab-size 4000
  cllm tokenizer inspect tokenizer.json book.txt""",
    help_format="plaintext",
)


@app.command
def train(
    *data: Text,
    out: Path,
    kind: str = "bpe",
    vocab_size: int = 1000,
    field: str | None = None,
    skip_bad: bool = False,
    json: bool = False,
) -> int:
    """Train a tokenizer on text: byte-level BPE, characters or words.

    The same text gives the same file. All of the text is used: to keep a validation part unseen, let `cllm train` or
    `cllm data prepare` train the tokenizer. An existing file is never overwritten.

    Examples:

      cllm tokenizer train corpus/ --out tokenizer.json --vocab-size 8000

      cllm tokenizer train book.txt --out letters.json --kind char --vocab-size 200

    Parameters
    ----------
    data: str
        Files (text, .jsonl, .csv, .tsv, .parquet, .arrow, each also .gz or .zst), folders, globs, - or a named corpus.
    out: Path
        The tokenizer.json to write.
    kind: str
        bpe, char or word.
    vocab_size: int
        Tokens at most, the five special ones included.
    field: str
        The field or column of a record that holds the text; a.b is nested. Default: text.
    skip_bad: bool
        Leave out records that cannot be used, and say so, instead of refusing them.
    json: bool
        Print one JSON object.
    """
    names = data_names(data, train)
    import tempfile

    from cllm.data.sources import find_sources
    from cllm.text import train_tokenizer
    from cllm.training.progress import bar_for

    _refuse_existing(out)
    with tempfile.TemporaryDirectory(prefix="cllm-tokenizer-") as spool, bar_for("bytes") as bar:
        sources = find_sources(names, Path(spool), field=field, skip_bad=skip_bad, read=bar)
        total, done = int(sources.documents.sizes.sum()), 0

        def texts() -> Iterator[str]:
            nonlocal done
            for document in sources.documents:
                yield from document.pieces()
                done += document.size
                bar(done, total)

        found = train_tokenizer(kind, texts(), vocab_size)
    for note in (*sources.notes, *found.notes):
        print(note, file=sys.stderr)
    _save(found, out)
    return _show(found, None, json)


@app.command(name="inspect")
def inspect(
    tokenizer: Path,
    /,
    *data: Text,
    field: str | None = None,
    skip_bad: bool = False,
    json: bool = False,
) -> int:
    """What a tokenizer is and, with text, how it fares on it: compression, rare and unused tokens.

    Examples:

      cllm tokenizer inspect runs/book/tokenizer.json

      cllm tokenizer inspect gpt2.tiktoken book.txt --json

    Parameters
    ----------
    tokenizer: Path
        A tokenizer.json (or gpt2.tiktoken).
    data: str
        Text to try it on: files, folders, globs, - or a named corpus.
    field: str
        The field or column of a record that holds the text; a.b is nested. Default: text.
    skip_bad: bool
        Leave out records that cannot be used, and say so, instead of refusing them.
    json: bool
        Print one JSON object.
    """
    names = data_names(data, inspect)
    import tempfile

    from cllm.data.sources import find_sources
    from cllm.text import Tokenizer
    from cllm.text.usage import measure
    from cllm.training.progress import bar_for

    found = Tokenizer.load(tokenizer)
    usage = None
    if names:
        with tempfile.TemporaryDirectory(prefix="cllm-tokenizer-") as spool, bar_for("bytes") as bar:
            sources = find_sources(names, Path(spool), field=field, skip_bad=skip_bad, read=bar)
            usage = measure(found, (document.pieces() for document in sources.documents))
        for note in sources.notes:
            print(note, file=sys.stderr)
    return _show(found, usage, json)


@app.command
def convert(ranks: Path, /, *, out: Path, json: bool = False) -> int:
    """Make a tokenizer.json of GPT-2's ranks (gpt2.tiktoken): exactly the same ids.

    `cllm train --set data.tokenizer=gpt2.tiktoken` needs no conversion; this is for other programs.

    Examples:

      cllm tokenizer convert gpt2.tiktoken --out tokenizer.json

      cllm tokenizer convert r50k_base.tiktoken --out gpt2.json --json

    Parameters
    ----------
    ranks: Path
        The ranks: a token in base64 and its rank on each line.
    out: Path
        The tokenizer.json to write.
    json: bool
        Print one JSON object.
    """
    from cllm.errors import UsageError
    from cllm.text import Tokenizer

    if ranks.suffix != ".tiktoken":
        raise UsageError(f"{ranks}: expected a file of ranks, whose name ends in .tiktoken")
    _refuse_existing(out)
    found = Tokenizer.load(ranks)
    _save(found, out)
    return _show(found, None, json)


def _refuse_existing(out: Path) -> None:
    from cllm.errors import UsageError

    if out.exists():
        raise UsageError(f"--out: {out} is already there and is not overwritten; choose another name")


def _save(tokenizer: Tokenizer, out: Path) -> None:
    from cllm.errors import UsageError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
    except OSError as e:
        raise UsageError(f"--out: {out} cannot be written: {e.strerror}") from None
    print(f"written: {out}", file=sys.stderr)


def _facts(tokenizer: Tokenizer, usage: Usage | None) -> dict[str, Any]:
    from cllm.text.usage import longest

    facts: dict[str, Any] = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "sha256": tokenizer.sha256,
        "lossless": tokenizer.lossless,
        "specials": {
            role: getattr(tokenizer, f"{role}_id")
            for role in ("pad", "unk", "bos", "eos", "mask")
            if getattr(tokenizer, f"{role}_id") is not None
        },
        "longest": [{"id": i, "token": token} for i, token in longest(tokenizer)],
        "notes": list(tokenizer.notes),
    }
    return facts | ({"text": usage.to_dict()} if usage is not None else {})


def _show(tokenizer: Tokenizer, usage: Usage | None, json: bool) -> int:
    facts = _facts(tokenizer, usage)
    if json:
        import msgspec

        print(msgspec.json.encode(facts).decode())
        return 0
    from cllm.text.usage import RARE, shown

    print(f"kind              {tokenizer.kind}")
    print(f"vocabulary        {tokenizer.vocab_size:,}")
    print(f"special tokens    {', '.join(f'{role} {i}' for role, i in facts['specials'].items()) or 'none'}")
    print(f"lossless          {'yes, on every text' if tokenizer.lossless else 'not on every text'}")
    print(f"sha256            {tokenizer.sha256}")
    print(f"longest tokens    {' '.join(repr(entry['token']) for entry in facts['longest'])}")
    if usage is not None:
        print(f"text              {usage.bytes:,} bytes in {usage.documents:,} documents")
        print(f"tokens            {usage.tokens:,}: {usage.bytes_per_token:.3f} bytes a token")
        print(f"unknown           {usage.unknown:,}")
        common = "  ".join(f"{shown(tokenizer, i)!r} {n:,}" for i, n in usage.commonest())
        print(f"used most         {common}")
        rare, unused = usage.rare, usage.unused
        print(f"rare (below {RARE})   {len(rare):,}{_some(tokenizer, rare)}")
        print(f"never used        {len(unused):,}{_some(tokenizer, unused)}")
    return 0


def _some(tokenizer: Tokenizer, ids: list[int]) -> str:
    from cllm.text.usage import shown

    return ("  as " + " ".join(repr(shown(tokenizer, i)) for i in ids[-8:])) if ids else ""
