"""The tokens' table and picture against plain definitions."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sympy import prime

from cllm.cli import run as cli
from cllm.errors import DomainError, MissingExtraError
from cllm.lattice import token_coordinates
from cllm.lattice.geometry import token_geometry, token_scene, write_geometry
from cllm.text import train_tokenizer


@pytest.mark.parametrize("vocab", [6, 300, 2000])
def test_neighbours_are_the_nearest_points(vocab: int):
    found = token_geometry(vocab, neighbours=4)
    xyz = token_coordinates(vocab)
    far = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    np.fill_diagonal(far, np.inf)
    nearest = np.sort(far, axis=1)[:, :4]
    np.testing.assert_allclose(np.take_along_axis(far, found.neighbours, axis=1), nearest, rtol=1e-12)
    np.testing.assert_allclose(found.distances, nearest, rtol=1e-12)
    assert found.primes[5] == prime(6)


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch):
    for vocab, neighbours in ((5, 5), (5, -1)):
        with pytest.raises(DomainError, match="neighbours"):
            token_geometry(vocab, neighbours=neighbours)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    assert token_geometry(5, neighbours=0).neighbours.shape == (5, 0)
    with pytest.raises(MissingExtraError, match=r"cllm\[geometry\]"):
        token_geometry(5, neighbours=2)


def test_table_and_picture(tmp_path: Path):
    found = token_geometry(40, neighbours=3, classes="prime")
    words = [f'w{i},"' for i in range(40)]
    write_geometry(tmp_path / "t.csv", found, words)
    write_geometry(tmp_path / "t.jsonl", found, words)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="")))
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()]
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        assert (int(row["id"]), row["token"], int(row["prime"])) == (i, words[i], prime(i + 1))
        assert line["class"] == int(row["class"]) == prime(i + 1) % 12
        assert (float(row["x"]), line["z"]) == (found.xyz[i, 0], found.xyz[i, 2])
        assert line["neighbours"] == [int(n) for n in row["neighbours"].split()] == found.neighbours[i].tolist()
    scene = token_scene(found, "t")
    assert scene.dots is not None
    colours = {int(c): tuple(scene.dots.colours[i]) for i, c in enumerate(found.classes)}
    assert len(set(colours.values())) == len(colours)  # a colour a class
    with pytest.raises(DomainError, match=r"\.csv or \.jsonl"):
        write_geometry(tmp_path / "t.txt", found, words)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenizer = train_tokenizer("bpe", ["the cat sat on the mat " * 30], 280)
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.content)
    picture, table = tmp_path / "p.svg", tmp_path / "t.csv"
    assert cli(["lattice", "tokens", str(tmp_path), "--out", str(table), "--picture", str(picture)]) == 0
    assert f"{tokenizer.vocab_size:,} tokens" in capsys.readouterr().out
    assert picture.read_text(encoding="utf-8").count("<circle") >= tokenizer.vocab_size
    assert len(table.read_text(encoding="utf-8").splitlines()) >= tokenizer.vocab_size + 1
    assert cli(["lattice", "tokens", str(tmp_path / "tokenizer.json"), "--json", "--show", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["prime"] for row in found["rows"]] == [2, 3]
    assert cli(["lattice", "tokens", str(tmp_path / "nothing")]) == 2
