/** A note: read as it looks, written with the look beside it; a save that meets a changed file loses neither text. */
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError, isAbort, tell } from "../../api/client";
import { Button } from "../../controls";
import { useCommands } from "../../state/commands";
import { go } from "../../state/route";
import { toast } from "../../state/toasts";
import { ago, count } from "../train/words";
import { api, type Note } from "./api";
import { Markdown, scrollTo } from "./markdown";
import { Back } from "./measure";
import { type Draft, drafts, forget, keepDraft, opened, saveNote } from "./saving";
import { look, notes } from "./state";
import { placeOf } from "./studies";

const wrongFile = signal<string | undefined>(undefined);

interface NoteProps {
  name: string;
  editing: boolean;
  heading: string | undefined;
}

export function NoteView({ name, editing, heading }: NoteProps) {
  const [note, setNote] = useState<Note>();
  const newest = useRef<Note | undefined>(undefined);
  newest.current = note;
  const saved = (found: Note) => {
    newest.current = found;
    setNote(found);
  };
  const [missing, setMissing] = useState<string>();
  useEffect(() => {
    const stop = new AbortController();
    setNote(undefined);
    setMissing(undefined);
    api
      .note(name, stop.signal)
      .then(setNote)
      .catch((error: unknown) => {
        if (!isAbort(error)) setMissing(error instanceof Error ? error.message : String(error));
      });
    // edited elsewhere meanwhile: read again when the window comes back (a draft keeps the version it began with)
    const again = () => {
      const before = newest.current; // what is saved while this is asked for is newer
      const take = (found: Note) => newest.current === before && setNote(found);
      void api.note(name, stop.signal).then(take, () => {});
    };
    addEventListener("focus", again);
    return () => {
      stop.abort();
      removeEventListener("focus", again);
    };
  }, [name]);
  useEffect(() => {
    if (note && heading) scrollTo(heading);
  }, [note, heading]);
  const draft = drafts.value[name];
  if (missing && !draft)
    return (
      <div class="page">
        <Back />
        <h1>{name}</h1>
        <p class="job-error">{missing}</p>
      </div>
    );
  if ((!note && !draft) || !opened.value) return <div class="page" aria-busy="true" />;
  const open = (to: string, at?: string) => go("bench", { part: "notes", note: to, ...(at ? { at } : {}) });
  if (editing) return <Editor key={name} name={name} note={note} onSaved={saved} />;
  const study = name.endsWith(".toml");
  return (
    <article class="page note">
      <header class="page-head">
        <Back />
        <p class="page-title quiet mono note-name">
          {name}
          {note && <span> · {ago(note.changed)}</span>}
          {draft && <span class="tag">an edit is not saved</span>}
        </p>
        <Button
          control="bench.edit"
          title="Edit (e)"
          onClick={() => go("bench", { part: "notes", note: name, edit: "1" })}
        >
          Edit
        </Button>
      </header>
      {study ? (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys
        <pre tabIndex={0}>{note?.text}</pre>
      ) : note && note.text.trim() === "" ? (
        <p class="quiet">This note is empty. Press e to write it.</p>
      ) : (
        <Markdown text={note?.text ?? draft?.text ?? ""} from={name} onOpen={open} />
      )}
    </article>
  );
}

interface EditorProps {
  name: string;
  note: Note | undefined;
  onSaved: (note: Note) => void;
}

function Editor({ name, note, onSaved }: EditorProps) {
  const draft: Draft | undefined = drafts.value[name];
  const text = draft?.text ?? note?.text ?? "";
  const dirty = draft !== undefined && draft.text !== note?.text;
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<Note | null>();
  const [checked, setChecked] = useState<string>();
  const box = useRef<HTMLTextAreaElement>(null);
  const study = name.endsWith(".toml");
  useLayoutEffect(() => {
    box.current?.focus({ preventScroll: true });
    box.current?.setSelectionRange(0, 0);
  }, []);
  // what the text on the page began with; set at once by a save, for keys that come before it is drawn
  const base = useRef<string | null>(null);
  base.current = draft?.version ?? note?.version ?? null;
  const type = (typed: string) => keepDraft(name, typed, base.current);

  const save = async (version: string | null = base.current): Promise<boolean> => {
    if (busy) return false;
    setBusy(true);
    const sent = box.current?.value ?? text;
    try {
      const saved = await saveNote(name, sent, version);
      if ("conflict" in saved) {
        setFound(saved.conflict);
        return false;
      }
      base.current = saved.version;
      if (box.current && box.current.value !== sent) keepDraft(name, box.current.value, saved.version);
      else forget(name);
      setFound(undefined);
      onSaved(saved);
      void look.notes();
      if (study) void check();
      return true;
    } catch (error) {
      tell(error);
      return false;
    } finally {
      setBusy(false);
    }
  };
  const check = async () => {
    try {
      const read = await api.study(undefined, name);
      const runs = read.cells.length * read.seeds.length;
      wrongFile.value = undefined;
      setChecked(
        `${count(read.cells.length)} cells × ${count(read.seeds.length)} seeds = ${count(runs)} runs of ${count(read.steps)} steps.`,
      );
      void look.studies();
    } catch (error) {
      setChecked(undefined);
      wrongFile.value = error instanceof ApiError ? error.message : String(error);
    }
  };
  useEffect(() => {
    wrongFile.value = undefined;
    if (study && note && !dirty) void check();
  }, [name, note === undefined]);
  const done = () =>
    study ? go("bench", { part: "studies", study: name }) : go("bench", { part: "notes", note: name });
  const close = async () => {
    const typed = drafts.peek()[name]; // now, not when this was drawn
    if (!typed || typed.text === note?.text || (await save())) done();
  };
  const beside = async () => {
    const copy = copyName(name, new Set(notes.peek()?.map((n) => n.name)));
    const saved = await saveNote(copy, text, null).catch((error: unknown) => {
      tell(error);
      return undefined;
    });
    if (!saved || "conflict" in saved) return;
    forget(name);
    toast(`Your text is in ${copy}.`);
    await look.notes();
    go("bench", { part: "notes", note: copy });
  };
  useCommands(
    "bench-editor",
    () => [
      { id: "bench.save", group: "Note", title: "Save", keys: "Ctrl+s", run: () => void save() },
      { id: "bench.done", group: "Note", title: "Save and read", run: () => void close() },
    ],
    [name, note, busy],
  );
  return (
    <div class="page editor" data-dirty={dirty}>
      <header class="page-head">
        <Back />
        <p class="page-title mono note-name">
          {name} <span class="quiet">{dirty ? "· not saved" : note ? "· saved" : ""}</span>
        </p>
        {dirty && (
          <Button
            control="bench.revert"
            kind="quiet"
            title="Give the edit up: back to the file as it is"
            onClick={() => {
              forget(name);
              setFound(undefined);
              if (note) void api.note(name).then(onSaved).catch(tell);
            }}
          >
            Give up
          </Button>
        )}
        <Button
          control="bench.save"
          disabled={busy || !dirty}
          title="Save (Ctrl+S)"
          onClick={() => void save()}
        >
          Save
        </Button>
        <Button control="bench.done" kind="main" disabled={busy} onClick={() => void close()}>
          {study ? "To the study" : dirty ? "Save and read" : "Read"}
        </Button>
      </header>
      {found !== undefined && (
        <section class="conflict" role="alert">
          <p>
            <b>
              {found === null ? "The file was removed on disk." : "The file was changed on disk meanwhile."}
            </b>{" "}
            Nothing was written; your text is below{found ? ", theirs at the right" : ""}.
          </p>
          <div class="page-actions">
            <Button control="bench.conflict-copy" kind="main" onClick={() => void beside()}>
              Save mine beside it
            </Button>
            <Button control="bench.conflict-mine" onClick={() => void save(found?.version ?? null)}>
              {found === null ? "Write it again" : "Replace it with mine"}
            </Button>
            {found && (
              <Button
                control="bench.conflict-theirs"
                onClick={() => {
                  forget(name);
                  onSaved(found);
                  setFound(undefined);
                }}
              >
                Take theirs
              </Button>
            )}
          </div>
        </section>
      )}
      <div class="editor-panes">
        <textarea
          ref={box}
          class="input mono editor-text"
          data-control="bench.text"
          aria-label={`The text of ${name}`}
          spellcheck={false}
          value={text}
          onInput={(e) => type(e.currentTarget.value)}
          onKeyDown={(e) => {
            if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "s") {
              e.preventDefault();
              e.stopPropagation();
              void save();
            }
          }}
        />
        <section class="editor-look" aria-label={found ? "The file on disk" : "As it looks"}>
          {found ? (
            <pre>{found.text}</pre>
          ) : study ? (
            <div class="study-check">
              <h2>The study file</h2>
              {wrongFile.value !== undefined ? (
                <p class="job-error" role="alert">
                  {wrongFile.value}
                </p>
              ) : checked ? (
                <p class="study-good">
                  <b>It can be trained.</b> {checked}
                </p>
              ) : (
                <p class="quiet">It is checked when it is saved.</p>
              )}
              <p class="quiet">
                Every combination of [grid] is a cell; a [[cell]] has a name and a set of its own. The first
                one, or the one that <code>baseline</code> names, is what the others are compared with. [run]
                holds the keys of a run file: all that Train lists under All settings.
              </p>
              <p class="quiet">
                Five seeds are a good beginning: with fewer, only large differences can be told from chance.
                Results are kept in <code>{placeOf(name)}</code>.
              </p>
            </div>
          ) : (
            <Markdown text={text} from={name} onOpen={(to) => go("bench", { part: "notes", note: to })} />
          )}
        </section>
      </div>
    </div>
  );
}

/** A name that is free: notes.md, notes-mine.md, notes-mine-2.md … */
export function copyName(name: string, used: ReadonlySet<string>): string {
  const cut = name.lastIndexOf(".");
  const [stem, suffix] = [name.slice(0, cut), name.slice(cut)];
  for (let n = 1; ; n++) {
    const copy = `${stem}-mine${n === 1 ? "" : `-${n}`}${suffix}`;
    if (!used.has(copy)) return copy;
  }
}
