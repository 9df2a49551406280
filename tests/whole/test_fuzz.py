"""Files from outside, broken in every way we could think of: always a CllmError or a result, never another exception,
never a hang. A sample here; the whole table (10,000 cases and more) with `make prove`.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cllm import config
from cllm.data import Shard, ShardWriter, prepare
from cllm.errors import CllmError
from cllm.evaluation.ablation import read_study
from cllm.evaluation.choices import read_questions
from cllm.text import Tokenizer, train_tokenizer
from cllm.training.run import read_run_file

SAMPLE, WHOLE = 60, 2500  # cases of each kind
SECONDS = 20  # a case that takes longer hangs

VALUES = [
    "1", "0", "-1", "1e-3", "1e400", "nan", "inf", "-inf", "true", '""', '"x"', '"../../etc"', "[]", "[1]", "[[1]]",
    "{}", "{ a = 1 }", "9223372036854775807", "-9223372036854775808", "99999999999999999999", "1979-05-27", "0x10",
    '"\\u0000"', '"' + "a" * 5000 + '"', "[1, 'a']", '"fp16"', '"adamw"', "1.0", "0.5", "2", "64", "[0.9, 0.95]",
]  # fmt: skip
BYTES = [
    b"\0",
    b"\xff",
    b"\n",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b".",
    b",",
    b"\\",
    b"\xf0\x9f",
    b"\r",
    b"#",
    b"'''",
    b"-",
]


@contextmanager
def in_time() -> Iterator[None]:
    def hang(signum: int, frame: object) -> None:
        raise AssertionError(f"a case took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or replaced by what means something."""
    b = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        at = draw.randrange(len(b) + 1)
        kind = draw.randrange(6)
        if kind == 0 and b:
            b[at % len(b)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            b[at : at + draw.choice([1, 3, 50])] = b""
        elif kind == 2:
            b[at:at] = draw.choice(BYTES)
        elif kind == 3:
            b[at:at] = b[max(0, at - 30) : at]
        elif kind == 4:
            b[at:] = b"" if draw.random() < 0.2 else b[at:]
        else:
            b[at : at + 1] = draw.choice(VALUES).encode()
    return bytes(b)


def run_file(draw: random.Random) -> bytes:
    """A run file of known and unknown keys with right and wrong values."""
    keys = config.known_keys()
    lines = []
    for _ in range(draw.randrange(1, 8)):
        key = draw.choice(keys)
        if draw.random() < 0.2:
            key = draw.choice([key + "x", key.upper(), key.replace(".", ".."), key.split(".")[0], '"a.b"', f"{key}.z"])
        lines.append(f"{key} = {draw.choice(VALUES)}")
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("fuzz")
    text = "It was the best of times, it was the worst of times. " * 40
    (base / "t.json").write_bytes(train_tokenizer("bpe", [text], 300).content)
    (base / "run.toml").write_text(config.to_toml(config.load(preset="nano")), encoding="utf-8")
    writer = ShardWriter(base, "train", Tokenizer.load(base / "t.json"))
    for i in range(5):
        writer.add([text[: 200 + i]])
    writer.finish()
    return base


def configs(place: Path, folder: Path, draw: random.Random) -> None:
    file = place / "run.toml"
    file.write_bytes(run_file(draw))
    config.check(config.load(file))


def run_files(place: Path, folder: Path, draw: random.Random) -> None:
    (place / "run.toml").write_bytes(damaged((folder / "run.toml").read_bytes(), draw))
    read_run_file(place)


def tokenizers(place: Path, folder: Path, draw: random.Random) -> None:
    (place / "t.json").write_bytes(damaged((folder / "t.json").read_bytes(), draw))
    tokenizer = Tokenizer.load(place / "t.json")
    tokenizer.decode(tokenizer.encode("It was é 中 \0 <eos>"))


def shards(place: Path, folder: Path, draw: random.Random) -> None:
    names = ("train.json", "train.tokens", "train.documents")
    which = draw.choice(names)
    for name in names:
        content = (folder / name).read_bytes()
        (place / name).write_bytes(damaged(content, draw) if name == which else content)
    shard = Shard(place, "train", verify=draw.random() < 0.5)
    assert shard.tokens.shape[0] == shard.record.tokens


def records(place: Path, folder: Path, draw: random.Random) -> None:
    lines = [json.dumps({"text": f"It was the {i}th of times, é. " * 5, "n": i}) for i in range(6)]
    (place / "r.jsonl").write_bytes(damaged("\n".join(lines).encode(), draw))
    prepare(
        place / "r.jsonl", place / f"out-{draw.random()}", tokenizer=folder / "t.json", skip_bad=draw.random() < 0.5
    )


def questions(place: Path, folder: Path, draw: random.Random) -> None:
    line = json.dumps({"prompt": "The sky is", "choices": [" blue", " red"], "answer": 1}).encode()
    (place / "q.jsonl").write_bytes(damaged(line + b"\n" + line, draw))
    read_questions(place / "q.jsonl")


def studies(place: Path, folder: Path, draw: random.Random) -> None:
    text = b'title = "x"\nseeds = [1, 2]\n[run]\npreset = "nano"\ntrain.steps = 5\ndata.path = ["a"]\n[grid]\n'
    text += b'"optim.lr" = [1e-3]'
    (place / "s.toml").write_bytes(damaged(text, draw))
    read_study(place / "s.toml")


KINDS: list[Callable[[Path, Path, random.Random], None]] = [
    configs,
    run_files,
    tokenizers,
    shards,
    records,
    questions,
    studies,
]


def fuzz(kind: Callable[[Path, Path, random.Random], None], count: int, place: Path, folder: Path) -> tuple[int, int]:
    """Run `count` cases; how many were accepted and how many refused in words."""
    accepted = refused = 0
    for number in range(count):
        draw = random.Random(f"{kind.__name__} {number}")
        try:
            with in_time():
                kind(place, folder, draw)
            accepted += 1
        except CllmError as error:
            refused += 1 if str(error).strip() else 0
        except AssertionError:
            raise
        except BaseException as error:
            raise AssertionError(f"{kind.__name__}, case {number}: {type(error).__name__}: {error}") from error
    return accepted, refused


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damaged_files_are_used_or_refused_in_words(kind, tmp_path: Path, folder: Path):
    _accepted, refused = fuzz(kind, SAMPLE, tmp_path, folder)
    assert refused > 0, "the damage must reach something"


@pytest.mark.prove
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_whole_table(kind, tmp_path: Path, folder: Path):
    accepted, refused = fuzz(kind, WHOLE, tmp_path, folder)
    print(f"{kind.__name__}: {accepted} used, {refused} refused in words, none with a traceback")
    assert refused > 0
