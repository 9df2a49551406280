"""Records and compressed files: each record is a document, exactly; what is wrong is counted and named."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.data import prepare
from cllm.data import records as records_module
from cllm.data.sources import Sources, find_sources
from cllm.errors import CllmError, DataError, MissingExtraError

TEXTS = ["first\r\ntext", 'with "quotes", commas\tand tabs', "naïve 🦊\n\nlast", "\ufeffmark", "some words " * 7000]


def find(tmp_path: Path, *paths: Path | str, **options: object) -> Sources:
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    return find_sources([str(p) for p in paths], spool, **options)  # type: ignore[arg-type]


def texts(sources: Sources) -> list[str]:
    return ["".join(d.blocks()) for d in sources.documents]


def jsonl(rows: list[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(path: Path, columns: dict[str, object]) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns), path, row_group_size=2)
    return path.read_bytes()


def arrow_stream(path: Path, columns: dict[str, object]) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    data = arrow.table(columns)
    with importlib.import_module("pyarrow.ipc").new_stream(str(path), data.schema) as writer:
        writer.write_table(data, max_chunksize=2)
    return path.read_bytes()


def in_format(tmp_path: Path, suffix: str) -> bytes:
    rows = [{"n": str(i), "text": text} for i, text in enumerate(TEXTS)]
    columns: dict[str, object] = {"n": list(range(len(TEXTS))), "text": TEXTS}
    if suffix in (".jsonl", ".ndjson"):
        return jsonl(list(rows))
    if suffix in (".csv", ".tsv"):
        return table(rows, "\t" if suffix == ".tsv" else ",")
    return (parquet if suffix == ".parquet" else arrow_stream)(tmp_path / "made", columns)


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [*records_module.KINDS])
def test_every_format_gives_each_record_exactly(tmp_path: Path, suffix: str, compression: str) -> None:
    content = in_format(tmp_path, suffix)
    if compression == ".gz":
        content = gzip.compress(content[:100], mtime=0) + gzip.compress(content[100:])  # two members
    elif compression:
        zstandard = pytest.importorskip("zstandard")
        content = zstandard.compress(content[:100]) + zstandard.compress(content[100:])
    path = tmp_path / f"DATA{suffix.upper()}{compression}"
    path.write_bytes(content)
    assert texts(find(tmp_path, path)) == TEXTS
    assert not (tmp_path / "spool").joinpath("unpacked").exists()
    prepared = prepare(path, tmp_path / "data", vocab_size=300, val_fraction=0)
    assert [t.decode() for t in prepared.train.texts(prepared.tokenizer)] == TEXTS
    assert [(s.documents, s.bytes, s.part) for s in prepared.record.sources] == [
        (5, len("".join(TEXTS).encode()), "train")
    ]
    assert prepare(path, tmp_path / "data", vocab_size=300, val_fraction=0).reused


def test_the_same_records_are_the_same_whatever_the_format(tmp_path: Path) -> None:
    found = set()
    for suffix in (".jsonl", ".csv", ".parquet"):
        (tmp_path / f"x{suffix}").write_bytes(in_format(tmp_path, suffix))
        prepared = prepare(tmp_path / f"x{suffix}", tmp_path / f"data{suffix}", vocab_size=300, seed=3)
        found.add(
            (prepared.train.sha256, prepared.val.sha256 if prepared.val else "", prepared.record.sources[0].sha256)
        )
    assert len(found) == 1


def test_the_field_is_chosen_and_may_be_nested(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"x": {"y": {"z": "deep"}}, "text": "no"}, {"x.y.z": "flat"}]))
    assert texts(find(tmp_path, tmp_path / "a.jsonl", field="x.y.z")) == ["deep", "flat"]
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfbody\tn\nyes\t1\n\n")
    assert texts(find(tmp_path, tmp_path / "a.tsv", field="body")) == ["yes"]
    parquet(tmp_path / "a.parquet", {"x": [{"y": "one", "k": 1}, {"y": "two", "k": 2}, None]})
    with pytest.raises(DataError, match=r'1 bad record: .*a\.parquet, row 3: field "x.y": expected text, got null'):
        find(tmp_path, tmp_path / "a.parquet", field="x.y")
    assert texts(find(tmp_path, tmp_path / "a.parquet", field="x.y", skip_bad=True)) == ["one", "two"]


BAD = [
    (b"not json", "line 2: not JSON: Expecting value (column 1)"),
    (b"[1, 2]", "line 2: expected a JSON object, got a list"),
    (b'{"txt": "x", "id": 3}', 'line 2: no field "text" (it has txt, id)'),
    (b'{"text": null}', 'line 2: field "text": expected text, got null'),
    (b'{"text": 5}', "expected text, got a number"),
    (b'{"text": "\\ud800"}', "it holds the lone surrogate U+D800"),
    (b'{"text": "caf\xe9"}', "line 2: not valid UTF-8 at its byte 13"),
    (b"[" * 100_000, "line 2: not JSON: nested too deeply"),
    (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "line 2: not JSON: Exceeds the limit"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_json_lines_are_refused_by_name_or_left_out_on_request(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\r\n' + line + b'\n\n{"text": "better"}')
    with pytest.raises(DataError) as caught:
        find(tmp_path, path)
    assert "1 bad record: " in str(caught.value)
    assert message in str(caught.value)
    assert "data.skip_bad=true" in str(caught.value)
    found = find(tmp_path, path, skip_bad=True)
    assert texts(found) == ["good", "better"]
    assert [d.name for d in found.documents] == [f"{path}, line 1", f"{path}, line 4"]
    assert found.bad.count == 1
    assert any(n.startswith("left out: 1 bad record: ") and message in n for n in found.notes)


def test_bad_records_are_counted_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" * 4)
    (tmp_path / "b.csv").write_bytes(b'text,n\ngood,1\nshort\n"caf\xe9",2\n"two\nlines",3\n"open,4\n')
    with pytest.raises(DataError) as caught:
        find(tmp_path, tmp_path / "a.jsonl", tmp_path / "b.csv")
    said = str(caught.value)
    assert "7 bad records" in said
    assert "a.jsonl, line 1: no field" in said
    assert "; and 2 more" in said
    found = find(tmp_path, tmp_path / "b.csv", skip_bad=True)
    assert texts(found) == ["good", "two\nlines"]
    assert [d.name.split(", ")[1] for d in found.documents] == ["line 2", "line 5"]
    assert [b.split(", ", 1)[1] for b in found.bad.first] == [
        "line 3: 1 cells, expected 2 as in the header",
        'line 4: field "text": it holds bytes that are not valid UTF-8',
        "line 7: not CSV: unexpected end of data",
    ]
    prepared = prepare([tmp_path / "a.jsonl", tmp_path / "b.csv"], tmp_path / "data", vocab_size=300, skip_bad=True)
    assert any("7 bad records" in note for note in prepared.notes)
    with pytest.raises(DataError, match="every file is empty or bad"):
        find(tmp_path, tmp_path / "a.jsonl", skip_bad=True)


def test_invalid_text_in_a_column_is_a_bad_record(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    column = arrow.array([b"good", b"caf\xe9", b""]).view(arrow.string())
    parquet(tmp_path / "a.parquet", {"text": column})
    with pytest.raises(DataError, match=r"row 2: .*not valid UTF-8 at its byte 3"):
        find(tmp_path, tmp_path / "a.parquet")
    found = find(tmp_path, tmp_path / "a.parquet", skip_bad=True)
    assert texts(found) == ["good"]
    assert "1 records with an empty text are left out" in found.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"body,n\nx,1\n", r'no column "text"; its columns: body, n \(say which holds the text: data.field\)'),
        ("a.csv", b"txt,n\nx,1\n", 'did you mean "txt"'),
        ("a.csv", b"text,text\nx,1\n", 'the column "text" twice'),
        ("a.csv", b"text\n", "it is empty"),
        ("a.jsonl", b"\n \n", "it is empty"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz: not a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"whole" * 999, mtime=0)[:-9], r"a\.txt\.gz: not a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"", mtime=0), "it is empty"),
        ("a.txt.gz", gzip.compress(b"ok caf\xe9", mtime=0), r"a\.txt\.gz: byte 6 \(line 1\): got 0xe9"),
        ("a.parquet", b"PAR1" * 9, "not a readable Parquet file"),
        ("a.arrow", b"ARROW1 no", "not a readable Arrow file"),
        ("a.arrow", b"\0" * 99, "not a readable Arrow file"),
        ("a.tar.gz", b"x", r"\.tar files are not read"),
    ],
)
def test_files_that_cannot_be_read_as_a_whole(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        texts(find(tmp_path, tmp_path / name))


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"text": [1, 2]})
    with pytest.raises(DataError, match='the column "text" holds int64, expected text'):
        find(tmp_path, tmp_path / "a.parquet")


def test_a_zstd_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    plain = "".join(f"line {i} {i * i}\n" for i in range(3000))
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(plain.encode())
    path = tmp_path / "a.txt.zst"
    path.write_bytes(whole)
    assert texts(find(tmp_path, path)) == [plain]
    for size in (1, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a\.txt\.zst: not a (whole )?zstd file"):
            find(tmp_path, path)
    path.write_bytes(whole + b"junk")
    with pytest.raises(DataError, match=r"a\.txt\.zst: not a zstd file, or damaged"):
        find(tmp_path, path)


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [("zstandard", "a.jsonl.zst", "cllm\\[zstd\\]"), ("pyarrow", "a.parquet", "cllm\\[parquet\\]")],
)
def test_a_missing_package_says_the_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(MissingExtraError, match=f"pip install '{command}'"):
        find(tmp_path, tmp_path / name)


def test_folders_and_globs_over_all_formats(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(jsonl([{"text": "1"}, {"text": "2"}]))
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"3", mtime=0))
    (folder / "c.csv.gz").write_bytes(gzip.compress(b"text\n4\n", mtime=0))
    (folder / "d.md").write_text("5")
    (folder / "e.json").write_text("{}")  # not among the formats of a folder
    found = find(tmp_path, folder)
    assert texts(found) == ["1", "2", "3", "4", "5"]
    assert find(tmp_path, folder / "*.gz", folder / "a.jsonl").counts == (2, 2)
    calls: list[tuple[int, int]] = []
    find(tmp_path, folder, read=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == sum(p.stat().st_size for p in folder.iterdir() if p.suffix != ".json")


def saved_dataset(folder: Path, parts: list[list[str]]) -> None:
    """The files that `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(parts):05}.arrow" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        arrow_stream(folder / name, {"text": part, "label": list(range(len(part)))})
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train", "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_hugging_face_data_set(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "set" / "train", [["a", "b", "c"], ["d"]])
    saved_dataset(tmp_path / "set" / "test", [["z"]])
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert texts(find(tmp_path, tmp_path / "set" / "train")) == ["a", "b", "c", "d"]
    with pytest.raises(DataError, match=r"it holds 2 splits; .*name the one to read \(.*set/train, .*set/test\)"):
        find(tmp_path, tmp_path / "set")
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    assert texts(find(tmp_path, tmp_path / "set")) == ["z"]
    (tmp_path / "set" / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match="the data set is not whole"):
        find(tmp_path, tmp_path / "set" / "train")
    state = tmp_path / "set" / "test" / "state.json"
    for content, message in (
        ('{"_data_files": [{"filename": "../x"}]}', "expected the name of a file in it"),
        ('{"_indices_files": [{"filename": "i.arrow"}]}', "flatten_indices"),
        ("[]", "expected a JSON object"),
        ("{", "cannot read it"),
        ("{}", "names of the data files"),
    ):
        state.write_text(content)
        with pytest.raises(DataError, match=message):
            find(tmp_path, tmp_path / "set" / "test")


def test_the_last_batch_format_of_arrow_is_read_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    data = arrow.table({"text": arrow.array(["a", "b", "a"]).dictionary_encode()})
    with importlib.import_module("pyarrow.ipc").new_file(str(tmp_path / "f.arrow"), data.schema) as writer:
        writer.write_table(data)
    assert texts(find(tmp_path, tmp_path / "f.arrow")) == ["a", "b", "a"]


def test_a_line_longer_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "LONGEST", 1 << 20)
    (tmp_path / "a.jsonl").write_bytes(b'[{"text": "' + b"x" * (1 << 20) + b'"}]')
    with pytest.raises(DataError, match="line 1: it is longer than 1 MiB; expected one JSON object on each line"):
        find(tmp_path, tmp_path / "a.jsonl")
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"x" * (1 << 21) + b"\ngood\n")
    assert texts(find(tmp_path, tmp_path / "a.csv", skip_bad=True)) == ["good"]
    assert csv.field_size_limit() == before


def test_copies_are_left_out_on_request_and_the_first_stays(tmp_path: Path) -> None:
    draw = random.Random(5)
    rows = [f"text number {draw.randrange(30)}" for _ in range(200)]
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"text": t} for t in rows]))
    (tmp_path / "b.txt").write_text(rows[0])
    prepared = prepare(
        [tmp_path / "a.jsonl", tmp_path / "b.txt"], tmp_path / "data", vocab_size=300, val_fraction=0, dedup=True
    )
    assert [t.decode() for t in prepared.train.texts(prepared.tokenizer)] == list(dict.fromkeys(rows))
    copies = 201 - len(set(rows))
    assert f"{copies} of the 201 documents are copies of earlier ones and are left out" in prepared.notes
    assert [s.part for s in prepared.record.sources] == ["train", "none"]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.sampled_from([".jsonl", ".csv", ".tsv"]))
@settings(deadline=None, max_examples=80)
def test_any_texts_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[str], suffix: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    records = [{"n": "1", "text": t.replace("\0", "")} for t in rows]
    content = jsonl(list(records)) if suffix == ".jsonl" else table(records, "\t" if suffix == ".tsv" else ",")
    (folder / f"x{suffix}").write_bytes(content)
    kept = [r["text"] for r in records if r["text"]]
    if not kept:
        with pytest.raises(DataError, match="it is empty"):
            find(folder, folder / f"x{suffix}")
        return
    assert texts(find(folder, folder / f"x{suffix}")) == kept


@given(
    st.binary(max_size=60) | st.text('{}[]":,text\\u\n 1', max_size=40).map(str.encode),
    st.sampled_from([*records_module.KINDS, ".txt.gz", ".csv.gz"]),
)
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / f"x{suffix}").write_bytes(content)
    said = ""
    try:
        texts(find(folder, folder / f"x{suffix}", skip_bad=True))
    except CllmError as e:
        said = str(e)
    assert not said or f"x{suffix}" in said
