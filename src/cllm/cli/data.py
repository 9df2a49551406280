"""`cllm data`: look at text before training on it; prepare it once for many runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from cllm.cli.arguments import Text, data_names

if TYPE_CHECKING:
    from cllm.data.inspect import Inspection
    from cllm.data.prepare import Progress

app = App(
    name="data",
    help="Look at text before training on it; prepare it once for many runs.",
    help_epilogue="""\
Examples:

  cllm data inspect book.txt --out lengths.svg
  cllm data prepare corpus/ --out prepared --vocab-size 8000""",
    help_format="plaintext",
)


@app.command
def inspect(
    *data: Text,
    field: str | None = None,
    tokenizer: Path | None = None,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Documents, lengths, copies, characters, and what is wrong, without changing anything.

    Exit code 1 when something cannot be used (training would refuse it).

    Examples:

      cllm data inspect corpus/*.jsonl --field body --out lengths.svg

      cllm data inspect shakespeare --tokenizer runs/book/tokenizer.json --json

    Parameters
    ----------
    data: str
        Files (text, .jsonl, .csv, .tsv, .parquet, .arrow, each also .gz or .zst), folders, globs, - or a named corpus.
    field: str
        The field or column of a record that holds the text; a.b is nested. Default: text.
    tokenizer: Path
        A tokenizer.json: also say how it fares on this text.
    out: Path
        Draw the lengths of the documents into this file (SVG).
    json: bool
        Print one JSON object.
    """
    names = data_names(data, inspect)
    from cllm.data import inspect as room
    from cllm.text import Tokenizer

    chosen = Tokenizer.load(tokenizer) if tokenizer is not None else None
    with _bar() as progress:
        found = room.inspect(names, field=field, tokenizer=chosen, progress=progress)
    if out is not None:
        _draw(found, out)
    if json:
        import msgspec

        print(msgspec.json.encode(found.to_dict()).decode())
    else:
        _print(found)
    return 1 if found.invalid else 0


@app.command
def prepare(
    *data: Text,
    out: Path,
    field: str | None = None,
    tokenizer: str = "bpe",
    vocab_size: int = 1000,
    val_fraction: float = 0.1,
    seed: int = 0,
    weight: Sequence[str] = (),
    dedup: bool = False,
    skip_bad: bool = False,
    json: bool = False,
) -> int:
    """Split, train or load the tokenizer, write hashed token shards; what `cllm train` does first.

    `cllm train FOLDER` then trains on it as it is, in as many runs as you like. The folder appears whole or not at
    all. The same command again checks every hash and uses it as it is; with other texts or settings it is refused,
    never overwritten.

    Examples:

      cllm data prepare book.txt --out prepared

      cllm data prepare web.jsonl.gz books/ --out prepared --weight web.jsonl.gz=1 --weight books/=3 --dedup

    Parameters
    ----------
    data: str
        Files (text, .jsonl, .csv, .tsv, .parquet, .arrow, each also .gz or .zst), folders, globs, - or a named corpus.
    out: Path
        The folder to make.
    field: str
        The field or column of a record that holds the text; a.b is nested. Default: text.
    tokenizer: str
        bpe, char or word to train one on the training part, or a tokenizer.json, or gpt2.tiktoken.
    vocab_size: int
        Tokens of a tokenizer that is trained, at most.
    val_fraction: float
        The part set aside for validation, 0 to below 1.
    seed: int
        Decides the split.
    weight: Sequence[str]
        DATA=NUMBER: that source's share of the training rows; for all data or none; may be repeated.
    dedup: bool
        Leave out documents whose text an earlier one has.
    skip_bad: bool
        Leave out records that cannot be used, and say so, instead of refusing them.
    json: bool
        Print one JSON object.
    """
    names = data_names(data, prepare)
    from cllm.data import prepare as make

    with _bar() as progress:
        found = make(
            names,
            out,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            val_fraction=val_fraction,
            seed=seed,
            field=field,
            skip_bad=skip_bad,
            dedup=dedup,
            weights=_weights(weight) or None,
            progress=progress,
        )
    for note in found.notes:
        print(note, file=sys.stderr)
    if json:
        import msgspec

        facts = {
            "folder": str(found.folder),
            "reused": found.reused,
            "tokenizer": {"sha256": found.tokenizer.sha256, "vocab_size": found.tokenizer.vocab_size},
            "parts": found.statistics,
            "shards": {s.name: s.sha256 for s in (found.train, found.val) if s is not None},
            "notes": list(found.notes),
        }
        print(msgspec.json.encode(facts).decode())
        return 0
    print(f"{found.folder}: {'already there, every hash checked' if found.reused else 'prepared'}")
    print(f"{'':<12}{'documents':>12}{'bytes':>16}{'tokens':>16}{'bytes/token':>13}")
    for name, part in found.statistics.items():
        print(
            f"{name:<12}{part['documents']:>12,}{part['bytes']:>16,}{part['tokens']:>16,}{part['bytes_per_token']:>13.3f}"
        )
    print(f"tokenizer   {found.tokenizer.kind}, {found.tokenizer.vocab_size:,} tokens, {found.tokenizer.sha256[:16]}…")
    return 0


def _weights(given: Sequence[str]) -> dict[str, float]:
    from cllm.errors import UsageError

    found = {}
    for item in given:
        name, _, number = item.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f'--weight: got "{item}", expected DATA=NUMBER, as in books/=3')
    return found


@contextmanager
def _bar() -> Iterator[Progress]:
    from cllm.training.progress import bar_for

    with bar_for("bytes") as bar:
        yield lambda stage, done, total: bar(done, total)


def _draw(found: Inspection, out: Path) -> None:
    from cllm.data.picture import draw
    from cllm.errors import UsageError

    if out.suffix.lower() != ".svg":
        raise UsageError(f"--out: got {out}, expected a file that ends in .svg")
    try:
        out.write_text(draw(found), encoding="utf-8")
    except OSError as e:
        raise UsageError(f"--out: {out} cannot be written: {e.strerror}") from None
    print(f"written: {out}", file=sys.stderr)


def _print(found: Inspection) -> None:
    lengths = found.lengths
    print(f"documents          {len(lengths):,} in {found.files:,} file{'s' if found.files != 1 else ''}")
    print(f"bytes              {found.bytes:,}")
    print(f"characters         {found.characters:,}")
    print(f"beyond ASCII       {found.beyond_ascii:,} ({found.beyond_ascii / max(found.characters, 1):.2%})", end="")
    print("  " + " ".join(f"{_visible(c)} {n:,}" for c, n in found.commonest) if found.commonest else "")
    print(f"shortest           {int(lengths.min()):,} characters ({found.shortest})")
    print(
        f"median             {found.quantile(0.5):,}   (5 %: {found.quantile(0.05):,}, 95 %: {found.quantile(0.95):,})"
    )
    print(f"longest            {int(lengths.max()):,} characters ({found.longest})")
    print(f"copies             {found.duplicates:,} documents have the text of an earlier one")
    print(f"Windows line ends  {found.crlf:,}")
    bars = found.histogram()
    most = max(count for *_, count in bars)
    print("\n  length in characters             documents")
    for low, high, count in bars:
        bar = "█" * round(40 * count / most) or ("▏" if count else "")
        print(f"  {low:>13,} to {high:>13,} {count:>12,}  {bar}".rstrip())
    if found.usage is not None:
        usage = found.usage
        print(f"\ntokens             {usage.tokens:,} ({usage.bytes_per_token:.3f} bytes a token)")
        print(f"unknown            {usage.unknown:,}")
        print(f"unused             {len(usage.unused):,} tokens of the vocabulary; {len(usage.rare):,} used rarely")
    for note in found.notes:
        print(note, file=sys.stderr)
    if found.invalid:
        print(f"\ncannot be used: {found.invalid:,}", file=sys.stderr)
        for line in found.invalid_first:
            print(f"  {line}", file=sys.stderr)
        if found.invalid > len(found.invalid_first):
            print(f"  and {found.invalid - len(found.invalid_first):,} more", file=sys.stderr)


def _visible(character: str) -> str:
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"
