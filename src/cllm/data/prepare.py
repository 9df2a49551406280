"""Preparing data: sources → split → tokenizer → two shards, in one folder that appears all at once."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from cllm.data.encode import remove_segments, segment_folder, write_shard
from cllm.data.mix import Mix
from cllm.data.record import RECORD, is_prepared, read_bytes, read_record, write_record
from cllm.data.records import DEFAULT_FIELD
from cllm.data.scan import Survey, survey
from cllm.data.shard import MixPart, Shard, ShardRecord
from cllm.data.sources import find_sources
from cllm.data.split import Split, split
from cllm.data.table import Documents
from cllm.errors import ConfigError, CorruptError, DataError, RunError, closest
from cllm.text import Tokenizer, train_tokenizer
from cllm.text.training import KINDS

VERSION: Final = 1
TOKENIZER: Final = "tokenizer.json"

Progress = Callable[[str, int, int], None]
"""progress(stage, bytes done, bytes in all); the stages are "read" (of files), "scan", "tokenizer" and "encode" (of
text)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What, together with the texts, decides every byte of the shards."""

    tokenizer: str
    """bpe, char, word, or the SHA-256 of the tokenizer.json that was given"""
    vocab_size: int | None
    """asked for; None with a given tokenizer"""
    val_fraction: float
    seed: int
    field: str = DEFAULT_FIELD
    skip_bad: bool = False
    dedup: bool = False
    weights: list[float] | None = None
    """of the paths in their order"""


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file as it was read: a document, or records that are documents."""

    name: str
    bytes: int
    """of its text"""
    sha256: str
    """of its text; of records: of the SHA-256s (32 bytes each) of their texts"""
    part: str
    """train, val, or both for a document cut in two and for records on both sides"""
    documents: int = 1


class PreparedRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `prepared.json`."""

    format: str = "cllm prepared data"
    version: int = VERSION
    settings: Settings
    sources: list[Source]
    notes: list[str]
    tokenizer_sha256: str
    train_sha256: str
    val_sha256: str | None


@dataclass(frozen=True)
class Prepared:
    """Data ready for training: `train` and `val` shards (`val` is None where no validation was asked for),
    their `tokenizer`, and what was read. `notes` are sentences for the user: every fallback that was
    taken."""

    folder: Path
    train: Shard
    val: Shard | None
    tokenizer: Tokenizer
    record: PreparedRecord
    reused: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: fallbacks, left-out files, unknown characters."""
        return tuple(self.record.notes)

    @property
    def statistics(self) -> dict[str, dict[str, int | float | bool]]:
        """Figures of each part ("train", "val"): documents, bytes, characters, tokens, unknown, lossless,
        bytes_per_token."""
        parts = {"train": self.train, "val": self.val}
        return {name: _figures(shard.record) for name, shard in parts.items() if shard is not None}


def prepare(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] = "bpe",
    vocab_size: int = 1000,
    val_fraction: float = 0.1,
    seed: int = 0,
    field: str | None = None,
    skip_bad: bool = False,
    dedup: bool = False,
    weights: Mapping[str, float] | None = None,
    progress: Progress | None = None,
    stdin: BinaryIO | None = None,
    workers: int | None = None,
) -> Prepared:
    """Reads the text that `paths` name (see `find_sources`), splits it, trains or loads the tokenizer, and
    writes the shards to the folder `out_dir` (a run's is RUN/data).

    `tokenizer`: "bpe", "char" or "word" to train one with at most `vocab_size` tokens on the training part
    alone, or the path of a tokenizer.json (or of gpt2.tiktoken). `field`: where the text of a record is (default
    "text"; `a.b` is nested). `skip_bad`: leave out records that cannot be used instead of refusing them. `dedup`:
    leave out documents whose text an earlier one has. `weights`: for each of `paths` its share of the training
    rows (of any sum; see `Mix`); each path is then split by itself. `workers`: processes that encode (default: one a
    core for more than a few megabytes); the bytes written do not depend on it.

    The folder appears complete or not at all. Encoding that was stopped goes on where it was (finished segments lie
    in a hidden folder beside it until then). A folder that already holds the same texts prepared with the same
    settings is checked (all hashes) and used again; one with other texts or settings is never overwritten. The
    shards are a function of the texts, their order and the settings.

    Raises DataError (text that cannot be used), ConfigError (settings), MissingExtraError (a named corpus),
    RunError (the folder), CorruptError (an existing folder that is damaged).
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    out = Path(out_dir)
    given = None if str(tokenizer) in KINDS else _given(tokenizer)
    settings = Settings(
        tokenizer=str(tokenizer) if given is None else given.sha256,
        vocab_size=vocab_size if given is None else None,
        val_fraction=float(val_fraction),
        seed=seed,
        field=field or DEFAULT_FIELD,
        skip_bad=skip_bad,
        dedup=dedup,
        weights=_weights(paths, weights, seed),
    )
    work = out.parent / f".{out.name}.preparing-{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        spool = work / "spool"
        spool.mkdir()
        read = None if progress is None else lambda done, total: progress("read", done, total)
        sources = find_sources(paths, spool, stdin, field=field, skip_bad=skip_bad, read=read)
        found = survey(sources.documents, _Report("scan", sources.documents, progress))
        notes = [*sources.notes, *_remarks(found)]
        kept = _without_copies(found, notes) if dedup else np.ones(len(sources.documents), dtype=bool)
        parts, mix = _split(sources.documents, sources.counts, kept, settings)
        listed = _listed(sources.documents, found, parts)
        if (out / RECORD).exists():
            return _reuse(out, settings, listed)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out}: it exists and holds something else than prepared data; choose another folder")
        notes += parts.notes
        chosen = given if given is not None else _train(settings, parts, progress)
        notes += chosen.notes
        chosen.save(work / TOKENIZER)
        key = msgspec.json.encode([settings, listed])
        expected = _digests(sources.documents, found)
        hashes = _encode(work, out, chosen, parts, mix, expected, key, notes, progress, workers)
        shutil.rmtree(spool)
        write_record(
            work / RECORD,
            PreparedRecord(
                settings=settings,
                sources=listed,
                notes=notes,
                tokenizer_sha256=chosen.sha256,
                train_sha256=hashes["train"],
                val_sha256=hashes.get("val"),
            ),
        )
        publish(work, out)
        remove_segments(out)
    except OSError as e:
        hint = "; free some space" if e.errno == errno.ENOSPC else ""
        raise RunError(f"{e.filename or out}: cannot write the prepared data: {e.strerror}{hint}") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_prepared(out, verify=False)


def open_prepared(folder: str | os.PathLike[str], *, verify: bool = True) -> Prepared:
    """The prepared data in `folder`. With `verify` every byte is hashed and compared; without it, only
    records, headers, lengths and the tokenizer are. Raises RunError (nothing there, another version) or
    CorruptError."""
    folder = Path(folder)
    if not is_prepared(folder):
        raise RunError(f"{folder}: no prepared data here ({RECORD} is missing); prepare it first")
    record, _ = read_record(folder / RECORD, PreparedRecord, VERSION)
    content = read_bytes(folder / TOKENIZER)
    if hashlib.sha256(content).hexdigest() != record.tokenizer_sha256:
        raise CorruptError(f"{folder / TOKENIZER}: it is not the tokenizer with which the data was prepared")
    tokenizer = Tokenizer(content, name=str(folder / TOKENIZER))
    shards: dict[str, Shard] = {}
    for name, expected in (("train", record.train_sha256), ("val", record.val_sha256)):
        if expected is None:
            continue
        shard = Shard(folder, name, verify=verify)
        if shard.sha256 != expected or shard.record.tokenizer_sha256 != tokenizer.sha256:
            raise CorruptError(f"{folder / name}.json: it does not belong to this folder's {RECORD}")
        shards[name] = shard
    return Prepared(folder, shards["train"], shards.get("val"), tokenizer, record)


def _given(tokenizer: str | os.PathLike[str]) -> Tokenizer:
    if not Path(tokenizer).is_file():
        raise DataError(
            f'tokenizer: expected bpe, char, word or the path of a tokenizer.json, got "{os.fspath(tokenizer)}", '
            "which is not a file"
        )
    return Tokenizer.load(tokenizer)


def _weights(
    paths: Sequence[str | os.PathLike[str]], weights: Mapping[str, float] | None, seed: int
) -> list[float] | None:
    """The weight of each path, in their order. Raises ConfigError unless there is one for each and no other."""
    if not weights:
        return None
    names = [os.fspath(path) for path in paths]
    for name in weights:
        if name not in names:
            raise ConfigError(f'data.weights: got "{name}", which is not among the data{closest(name, names)}')
    for name in names:
        if name not in weights:
            raise ConfigError(f'data.weights: expected a weight for "{name}", too: either all data have one or none')
    if len(set(names)) < len(names):
        raise ConfigError("data.weights: the same data are named twice")
    found = [float(weights[name]) for name in names]
    Mix(found, seed)  # checks them
    return found


def _without_copies(found: Survey, notes: list[str]) -> np.typing.NDArray[np.bool_]:
    kept = found.first_copies()
    if copies := int(len(kept) - np.count_nonzero(kept)):
        notes.append(f"{copies} of the {len(kept)} documents are copies of earlier ones and are left out")
    return kept


def _split(
    documents: Documents, counts: Sequence[int], kept: np.typing.NDArray[np.bool_], settings: Settings
) -> tuple[Split, list[MixPart] | None]:
    """The two parts of the kept documents; with weights each path's documents are split by themselves."""
    if settings.weights is None:
        return split(documents.take(kept), settings.val_fraction, settings.seed), None
    halves, mix, first = [], [], 0
    for number, (count, weight) in enumerate(zip(counts, settings.weights, strict=True), 1):
        group = documents.between(first, first + count).take(kept[first : first + count])
        first += count
        if not len(group):
            raise DataError(f"data.weights: source {number} has no document of its own; leave it out")
        halves.append(split(group, settings.val_fraction, settings.seed))
        mix.append(MixPart(documents=len(halves[-1].train), weight=weight))
    train, val = halves[0].train, halves[0].val
    for half in halves[1:]:
        train, val = train.joined(half.train), val.joined(half.val)
    return Split(train, val, tuple(note for half in halves for note in half.notes)), mix


def _listed(documents: Documents, found: Survey, parts: Split) -> list[Source]:
    """The record of the files. One whose documents are in both parts, or that is itself cut, is in "both"."""
    train, val = (set(np.unique(part.columns[:, 0]).tolist()) for part in (parts.train, parts.val))
    numbers, first = np.unique(documents.columns[:, 0], return_index=True)
    sizes = documents.sizes
    listed = []
    for file, start, stop in zip(numbers.tolist(), first, [*first[1:], len(documents)], strict=True):
        digests = found.digests[start:stop].tobytes()
        in_records = bool(documents.files[file].record)
        listed.append(
            Source(
                name=documents.files[file].name,
                bytes=int(sizes[start:stop].sum()),
                sha256=hashlib.sha256(digests).hexdigest() if in_records else digests.hex(),
                part={(1, 0): "train", (0, 1): "val", (1, 1): "both"}.get((file in train, file in val), "none"),
                documents=int(stop - start),
            )
        )
    return listed


def _digests(documents: Documents, found: Survey) -> dict[Path, bytes]:
    """The hash of each file that is read where the user has it (and might change)."""
    return {
        documents.files[file].path: found.digests[i].tobytes()
        for i, file in enumerate(documents.columns[:, 0].tolist())
        if not documents.files[file].copied
    }


def _remarks(found: Survey) -> list[str]:
    return [f"the text has {found.crlf} Windows line ends (CRLF); they are kept as they are"] if found.crlf else []


def _train(settings: Settings, parts: Split, progress: Progress | None) -> Tokenizer:
    report = _Report("tokenizer", parts.train, progress)

    def texts() -> Iterator[str]:
        for document in parts.train:
            yield from document.pieces(lambda block: report(len(block)))

    assert settings.vocab_size is not None
    return train_tokenizer(settings.tokenizer, texts(), settings.vocab_size)


def _encode(
    folder: Path,
    out: Path,
    tokenizer: Tokenizer,
    parts: Split,
    mix: list[MixPart] | None,
    expected: dict[Path, bytes],
    key: bytes,
    notes: list[str],
    progress: Progress | None,
    workers: int | None,
) -> dict[str, str]:
    """Writes the shards; returns the hash of each. Checks that the files are still what `survey` read."""
    report = _Report("encode", parts.train.joined(parts.val), progress)
    digests = {path: hashlib.sha256() for path in expected}
    hashes = {}
    kept = segment_folder(out, key + bytes.fromhex(tokenizer.sha256))
    remove_segments(out, but=kept)
    for name, documents in (("train", parts.train), ("val", parts.val)):
        if not documents:
            continue
        record, hashes[name] = write_shard(
            folder,
            name,
            documents,
            tokenizer,
            folder / TOKENIZER,
            kept,
            mix=mix if name == "train" else None,
            digests=digests,
            workers=workers,
            progress=report,
        )
        if record.unknown:
            notes.append(
                f"{record.unknown} of the {record.tokens} tokens of the {name} part are <unk>: what they stood for "
                "is lost, so there are no bits per byte for it"
            )
        elif not record.lossless:
            notes.append(f"the tokenizer does not give the {name} part back exactly: no bits per byte for it")
    read = {d.path for part in (parts.train, parts.val) for d in part} if digests else set()
    for path in read & digests.keys():
        if digests[path].digest() != expected[path]:
            remove_segments(out)
            raise DataError(f"{path}: it changed while it was being read; try again")
    return hashes


def _reuse(out: Path, settings: Settings, listed: list[Source]) -> Prepared:
    """The existing folder, if it is what would be made now; else RunError saying what differs."""
    found = open_prepared(out)
    record = found.record
    differs = [
        f"{name} was {getattr(record.settings, name)!r}, is {getattr(settings, name)!r}"
        for name in settings.__struct_fields__
        if getattr(record.settings, name) != getattr(settings, name)
    ]
    before, now = [s.sha256 for s in record.sources], [s.sha256 for s in listed]
    if before != now:
        changed = len(set(before) ^ set(now))
        differs.append(
            f"{changed} documents are new, changed or missing" if changed else "the documents are in another order"
        )
    if differs:
        raise RunError(
            f"{out}: it holds data prepared otherwise: {'; '.join(differs)}; choose another folder, or remove this one"
        )
    return replace(found, reused=True)


def publish(work: Path, out: Path) -> None:
    """Makes the finished folder appear under its name, durably."""
    for path in (*work.iterdir(), work):
        _sync(path)
    if out.is_dir():
        out.rmdir()  # it is empty (checked)
    work.rename(out)
    _sync(out.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(out: Path) -> None:
    """Removes what a killed process left of the same work."""
    prefix = f".{out.name}.preparing-"
    for path in out.parent.iterdir():
        if path.name.startswith(prefix) and path.name.removeprefix(prefix).isdigit():
            try:
                os.kill(int(path.name.removeprefix(prefix)), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except (OSError, OverflowError):
                pass


def _figures(record: ShardRecord) -> dict[str, int | float | bool]:
    return {
        "documents": record.documents,
        "bytes": record.bytes,
        "characters": record.characters,
        "tokens": record.tokens,
        "unknown": record.unknown,
        "lossless": record.lossless,
        "bytes_per_token": record.bytes / record.tokens,
    }


class _Report:
    """Adds up the bytes of a stage for the progress callback."""

    def __init__(self, stage: str, documents: Documents, progress: Progress | None) -> None:
        self._stage, self._progress = stage, progress
        self._done, self._total = 0, int(documents.sizes.sum())

    def __call__(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._stage, self._done, self._total)
