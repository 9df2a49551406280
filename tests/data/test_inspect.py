"""Inspecting: figures that are counted by hand, faults that are named, a picture that is whole."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data.inspect import inspect
from cllm.data.picture import draw
from cllm.errors import DataError
from cllm.text import train_tokenizer


def rows(path: Path, texts: list[str], more: str = "") -> Path:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts) + more, encoding="utf-8")
    return path


def test_the_figures_are_those_counted_by_hand(tmp_path: Path) -> None:
    data = rows(tmp_path / "a.jsonl", ["abc", "é🦊é", "abc", "x" * 100, "a\r\nb"], '{"id": 1}\nnope\n')
    (tmp_path / "b.txt").write_bytes(b"abc")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    found = inspect([data, tmp_path / "b.txt", tmp_path / "c.txt"])
    assert found.lengths.tolist() == [3, 3, 3, 100, 4, 3]
    assert (found.files, found.bytes, found.characters) == (2, 3 + 8 + 3 + 100 + 4 + 3, 116)
    assert (found.duplicates, found.crlf, found.beyond_ascii) == (2, 1, 3)
    assert found.commonest == (("é", 2), ("🦊", 1))
    assert (found.shortest, found.longest) == (f"{data}, line 1", f"{data}, line 4")
    assert [found.quantile(q) for q in (0.0, 0.5, 0.8, 0.9, 1.0)] == [3, 3, 4, 100, 100]
    assert found.histogram()[0] == (2, 3, 4)
    assert [n for *_, n in found.histogram()] == [4, 1, 0, 0, 0, 1]
    assert found.invalid == 3
    assert found.invalid_first[0].startswith(f"{data}, line 6: no field")
    assert found.invalid_first[1].startswith(f"{data}, line 7: not JSON")
    assert found.invalid_first[2].startswith(f"{tmp_path}/c.txt: byte 3 (line 1): got 0xe9")
    assert json.loads(json.dumps(found.to_dict()))["quantiles"]["0.5"] == 3


def test_with_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("char", ["abcé"], 100)
    found = inspect([rows(tmp_path / "a.jsonl", ["abca", "zé"])], tokenizer=tokenizer)
    assert found.usage is not None
    assert (found.usage.tokens, found.usage.unknown, found.usage.bytes) == (6, 1, 7)
    assert found.to_dict()["tokenizer"]["bytes_per_token"] == 7 / 6


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"nothing can be read: 1 bad record: .*c\.txt: byte 3"):
        inspect([tmp_path / "c.txt"])


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_the_picture_shows_every_document(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    folder = tmp_path_factory.mktemp("picture")
    found = inspect([rows(folder / "a<&\x1b.jsonl", ["x" * n for n in lengths])])
    assert sum(n for *_, n in found.histogram()) == len(lengths)
    root = ElementTree.fromstring(draw(found))
    space = "{http://www.w3.org/2000/svg}"
    bars = [e.findtext(f"{space}title") or "" for e in root.iter(f"{space}rect")]
    assert sum(int(t.split(": ")[1].split()[0]) for t in bars if t) == len(lengths)
    heights = [float(e.get("height", "0")) for e in root.iter(f"{space}rect") if e.find(f"{space}title") is not None]
    counts = [n for *_, n in found.histogram() if n]
    assert heights == pytest.approx(
        [n / max(counts) * max(heights) for n in counts], abs=0.11
    )  # 0.05 is rounded away twice
    marks = [e.findtext(f"{space}title") or "" for e in root.iter(f"{space}circle")]
    assert marks[-1].endswith("100.0%")
    for e in root.iter(f"{space}rect"):
        assert 0 <= float(e.get("x", "0")) <= float(e.get("x", "0")) + float(e.get("width", "0")) <= 960
