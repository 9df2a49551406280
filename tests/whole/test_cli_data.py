"""`cllm data` and `cllm tokenizer` as people meet them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from cllm import cli
from cllm.data import open_prepared
from cllm.text import Tokenizer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(cli.COMMANDS, "data", ("cllm.cli.data:app", "Look at text and prepare it."))
    monkeypatch.setitem(cli.COMMANDS, "tokenizer", ("cllm.cli.tokenizer:app", "Train a tokenizer, look at one."))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"Line {i % 40} of it. " * 9}) + "\n" for i in range(60))
    )
    (tmp_path / "b.txt").write_text("Some other text, quite plain. " * 200)
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"txt": "bad"}\n')
    return tmp_path


def test_inspect_prints_draws_and_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "inspect", "a.jsonl", "b.txt", "--out", "x.svg"]) == 0
    said = capsys.readouterr()
    assert "documents          61 in 2 files" in said.out
    assert "copies             20 documents" in said.out
    assert (folder / "x.svg").read_text().startswith("<svg")
    assert cli.run(["data", "inspect", "bad.jsonl", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["documents"], found["invalid"]) == (1, 1)
    assert found["invalid_first"] == ['bad.jsonl, line 2: no field "text" (it has txt)']
    assert cli.run(["data", "inspect", "bad.jsonl"]) == 1
    assert "cannot be used: 1" in capsys.readouterr().err
    assert cli.run(["data", "inspect", "a.jsonl", "--out", "x.png"]) == 2
    assert cli.run(["data", "inspect", "a.jsonl", "--outt", "x.svg"]) == 2
    assert "did you mean" in capsys.readouterr().err.lower()


def test_prepare_writes_what_training_opens_and_is_used_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", "a.jsonl", "b.txt", "--out", "p", "--vocab-size", "300", "--dedup"]
    command += ["--weight", "a.jsonl=1", "--weight", "b.txt=3"]
    assert cli.run([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    prepared = open_prepared(folder / "p")
    assert first["shards"]["train"] == prepared.train.sha256
    assert prepared.train.record.mix is not None
    assert [part.weight for part in prepared.train.record.mix] == [1.0, 3.0]
    assert any("20 of the 61 documents are copies" in note for note in first["notes"])
    assert cli.run(command) == 0
    assert "already there, every hash checked" in capsys.readouterr().out
    assert cli.run([*command, "--seed", "1"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "prepare", "bad.jsonl", "--out", "p"], "1 bad record: bad.jsonl, line 2: no field"),
        (["data", "prepare", "a.jsonl", "--out", "p", "--weight", "a.jsonl"], "expected DATA=NUMBER"),
        (["data", "prepare", "a.jsonl", "--out", "p", "--field", "body"], 'no field "body" (it has text)'),
        (["data", "prepare", "a.jsonl", "--out", "p", "--tokenizer", "bp"], "which is not a file"),
        (["tokenizer", "train", "b.txt", "--out", "t.json", "--kind", "bbpe"], 'did you mean "bpe"'),
        (["tokenizer", "train", "b.txt", "--out", "b.txt"], "already there and is not overwritten"),
        (["tokenizer", "inspect", "b.txt"], "not a usable tokenizer.json"),
        (["tokenizer", "convert", "b.txt", "--out", "t.json"], "ends in .tiktoken"),
    ],
)
def test_bad_input_says_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = sorted(folder.iterdir())
    assert cli.run(arguments) == 2
    heard = capsys.readouterr()
    assert said in heard.err
    assert heard.out == ""
    assert sorted(folder.iterdir()) == before


def test_a_tokenizer_is_trained_and_looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tokenizer", "train", "a.jsonl", "b.txt", "--out", "t.json", "--vocab-size", "300", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    tokenizer = Tokenizer.load(folder / "t.json")
    assert (made["sha256"], made["vocab_size"]) == (tokenizer.sha256, tokenizer.vocab_size)
    assert cli.run(["tokenizer", "inspect", "t.json", "b.txt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = (folder / "b.txt").read_text()
    assert found["text"]["tokens"] == len(tokenizer.encode(text))
    assert found["text"]["bytes_per_token"] == len(text) / len(tokenizer.encode(text))
    assert found["specials"] == {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}
    assert cli.run(["tokenizer", "inspect", "t.json", "b.txt"]) == 0
    assert "lossless          yes" in capsys.readouterr().out


def test_ranks_become_a_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranks = [bytes([b]) for b in range(256)] + [b"th", b"the"]
    lines = (base64.b64encode(t) + f" {i}\n".encode() for i, t in enumerate(ranks))
    (folder / "r.tiktoken").write_bytes(b"".join(lines))
    assert cli.run(["tokenizer", "convert", "r.tiktoken", "--out", "t.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["specials"] == {"eos": 258}
    assert Tokenizer.load(folder / "t.json").encode("the th") == [257, 32, 256]
    assert cli.run(["data", "prepare", "b.txt", "--out", "p", "--tokenizer", "r.tiktoken"]) == 0
    assert open_prepared(folder / "p").tokenizer.sha256 == Tokenizer.load(folder / "t.json").sha256


@pytest.mark.parametrize(
    "command", ["data inspect", "data prepare", "tokenizer train", "tokenizer inspect", "tokenizer convert"]
)
def test_help_has_two_examples(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.run([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.count(f"cllm {command}") >= 3
