"""Notes: what is saved is what is there, a conflict loses nothing, and nothing outside the workspace is reached."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.errors import CllmError, DataError, LimitError, RunError, UsageError
from cllm.studio import notes_files
from cllm.studio.notes_files import Conflict, listing, picture, read, save
from cllm.studio.workspace import Missing, Outside, Workspace

serving = sys.modules["serving"]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return Workspace(folder)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("notes") / "workspace"
    folder.mkdir()
    (folder / "one.md").write_text("# One\n")
    (folder / "curves.svg").write_bytes(SVG)
    with serving.in_thread(folder) as (found, _):
        found.workspace = folder
        yield found


def test_a_note_is_made_read_and_replaced(workspace: Workspace) -> None:
    made = save(workspace, "ideas/first note.md", "# A\n", None)
    path = workspace.root / "ideas" / "first note.md"
    assert path.read_bytes() == b"# A\n"
    assert made == read(workspace, "ideas/first note.md")
    path.chmod(0o600)
    changed = save(workspace, "ideas/first note.md", "# B\n", made["version"])
    assert path.read_bytes() == b"# B\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert changed["version"] != made["version"]
    assert [entry.name for entry in path.parent.iterdir()] == ["first note.md"]  # no temporary file is left


def test_a_conflict_is_told_and_nothing_is_written(workspace: Workspace) -> None:
    made = save(workspace, "a.md", "mine", None)
    path = workspace.root / "a.md"
    path.write_text("theirs")
    with pytest.raises(Conflict, match="changed on disk") as caught:
        save(workspace, "a.md", "mine, longer", made["version"])
    assert path.read_text() == "theirs"
    assert caught.value.found is not None
    assert caught.value.found["text"] == "theirs"
    assert save(workspace, "a.md", "mine, longer", caught.value.found["version"])["text"] == "mine, longer"
    with pytest.raises(Conflict, match="already"):
        save(workspace, "a.md", "new", None)
    path.unlink()
    with pytest.raises(Conflict, match="removed") as caught:
        save(workspace, "a.md", "mine", made["version"])
    assert caught.value.found is None
    assert not path.exists()


def test_a_file_that_comes_at_the_last_moment_is_not_lost(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the rename of a new file."""
    real = os.link

    def late(source: Any, target: Any) -> None:
        Path(target).write_text("theirs")
        real(source, target)

    monkeypatch.setattr(notes_files.os, "link", late)
    with pytest.raises(Conflict) as caught:
        save(workspace, "a.md", "mine", None)
    assert (workspace.root / "a.md").read_text() == "theirs"
    assert caught.value.found is not None
    assert [entry.name for entry in workspace.root.iterdir()] == ["a.md"]


def test_a_disk_that_fails_leaves_the_old_text(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made = save(workspace, "a.md", "old", None)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notes_files.os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save(workspace, "a.md", "new", made["version"])
    assert (workspace.root / "a.md").read_text() == "old"
    assert [entry.name for entry in workspace.root.iterdir()] == ["a.md"]


def test_of_many_saves_at_once_one_wins(workspace: Workspace) -> None:
    made = save(workspace, "a.md", "start", None)
    outcomes: list[str] = []

    def one(number: int) -> None:
        try:
            save(workspace, "a.md", f"text {number}", made["version"])
            outcomes.append("saved")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["saved"]


def test_line_ends_and_marks_stay(workspace: Workspace) -> None:
    path = workspace.root / "dos.md"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    found = read(workspace, "dos.md")
    assert found["text"] == "a\nb\n"
    save(workspace, "dos.md", "a\nc\n", found["version"])
    assert path.read_bytes() == b"\xef\xbb\xbfa\r\nc\r\n"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=200))
@settings(deadline=None, max_examples=60)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    here = Workspace(tmp_path_factory.mktemp("any"))
    saved = save(here, "a.md", text, None)
    assert saved["text"] == text.removeprefix("\ufeff")
    assert (here.root / "a.md").read_bytes() == text.encode()


@pytest.mark.parametrize(
    "name",
    [
        "../a.md", "/etc/a.md", "a/../../b.md", "~/a.md", "link/a.md", "out.md", ".git/a.md", ".hidden.md", "x/.y/a.md",
        ".cllm-studio/a.md", "a\\b.md", "a\0.md", "folder/../../a.md",
    ],
)  # fmt: skip
def test_nothing_outside_is_reached(workspace: Workspace, name: str) -> None:
    outside = workspace.root.parent / "outside"
    outside.mkdir()
    (outside / "a.md").write_text("secret")
    (workspace.root / "link").symlink_to(outside)
    (workspace.root / "out.md").symlink_to(outside / "a.md")
    for act in (lambda: read(workspace, name), lambda: save(workspace, name, "x", None)):
        with pytest.raises((Outside, Missing)):
            act()
    with pytest.raises((Outside, Missing)):
        picture(workspace, name.replace(".md", ".svg"))
    assert (outside / "a.md").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["a.md"]


@pytest.mark.parametrize(
    "name", ["a.txt", "a", "run.toml", "runs/x/run.toml", "a.py", "a.md/b.md", "-a.md", "a b\t.md", "x" * 200 + ".md"]
)
def test_only_notes_and_studies_are_written(workspace: Workspace, name: str) -> None:
    (workspace.root / "a.md").write_text("a")
    with pytest.raises(CllmError):
        save(workspace, name, "x", None)
    assert sorted(path.name for path in workspace.root.iterdir()) == ["a.md"]


def test_a_link_within_is_followed_and_stays_a_link(workspace: Workspace) -> None:
    (workspace.root / "real.md").write_text("old")
    (workspace.root / "short.md").symlink_to("real.md")
    found = read(workspace, "short.md")
    save(workspace, "short.md", "new", found["version"])
    assert (workspace.root / "short.md").is_symlink()
    assert (workspace.root / "real.md").read_text() == "new"
    (workspace.root / "disguised.md").symlink_to("data.bin")
    (workspace.root / "data.bin").write_bytes(b"x")
    with pytest.raises(UsageError):
        read(workspace, "disguised.md")


def test_limits(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes_files, "LIMIT", 10)
    with pytest.raises(LimitError):
        save(workspace, "a.md", "x" * 11, None)
    with pytest.raises(LimitError):
        save(workspace, "a.md", "ä" * 6, None)  # 12 bytes
    assert not (workspace.root / "a.md").exists()
    (workspace.root / "big.md").write_text("x" * 11)
    with pytest.raises(LimitError):
        read(workspace, "big.md")
    (workspace.root / "latin.md").write_bytes(b"\xe4\xf6")
    with pytest.raises(DataError, match="not UTF-8 at byte 0"):
        read(workspace, "latin.md")
    with pytest.raises(UsageError, match="half a character"):
        save(workspace, "b.md", "\ud800", None)
    (workspace.root / "p.png").write_bytes(b"x")
    monkeypatch.setattr(notes_files, "PICTURE_LIMIT", 0)
    with pytest.raises(LimitError):
        picture(workspace, "p.png")


def test_the_list(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.root / "a.md").write_text("intro\n# Title of A\n")
    (workspace.root / "sub").mkdir()
    (workspace.root / "sub" / "b.markdown").write_text("no heading")
    (workspace.root / ".hidden").mkdir()
    (workspace.root / ".hidden" / "c.md").write_text("# C")
    (workspace.root / "d.txt").write_text("# D")
    (workspace.root / "e.md").symlink_to("/etc/hostname")
    found = listing(str(workspace.root))
    assert [(one["name"], one["title"]) for one in found["notes"]] == [("a.md", "Title of A"), ("sub/b.markdown", None)]
    assert not found["more"]
    monkeypatch.setattr(notes_files, "MOST", 1)
    assert listing(str(workspace.root))["more"]


# ------------------------------------------------------------------------------------------------------------- routes


def test_the_routes(client: Any) -> None:
    listed = client.ask("/api/notes")
    assert [note["name"] for note in listed["notes"]] == ["one.md"]
    assert listed["workspace"] == str(client.workspace)
    note = client.ask("/api/notes/read", name="one.md")
    saved = client.ask("/api/notes/save", {"name": "one.md", "text": "# Two\n", "version": note["version"]})
    assert (client.workspace / "one.md").read_text() == "# Two\n"
    conflict = client.post("/api/notes/save", {"name": "one.md", "text": "x", "version": note["version"]})
    assert conflict.status == 409
    assert conflict.json["kind"] == "Conflict"
    assert conflict.json["found"] == saved
    for name, status in (("../x.md", 403), ("none.md", 404), ("one.txt", 404), ("run.toml", 404)):
        assert client.get("/api/notes/read", name=name).status == status, name
    assert client.post("/api/notes/save", {"name": "../x.md", "text": "", "version": None}).status == 403
    assert client.post("/api/notes/save", {"name": "x.md", "text": "y" * (300 << 10), "version": None}).status == 400
    assert client.post("/api/notes/save", {"name": "x.md", "text": "", "more": 1}).status == 400
    assert not (client.workspace / "x.md").exists()


def test_a_picture_is_a_picture_only(client: Any) -> None:
    """An SVG may hold a script: as a picture it is not run, and opened by itself it is saved, not shown."""
    answer = client.get("/api/notes/picture", name="curves.svg")
    assert (answer.status, answer.body) == (200, SVG)
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    for name, status in (("one.md", 404), ("../curves.svg", 403), ("/etc/x.png", 403), ("none.png", 404)):
        assert client.get("/api/notes/picture", name=name).status == status, name
