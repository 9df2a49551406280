/** Choosing what to train on: texts of the workspace, with the beginning of the one that is looked at. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell, words } from "../../api/client";
import { Button, Dialog, TextField } from "../../controls";
import { api, type Inspection, type Preview, type TextFile, type Texts } from "./api";
import { data } from "./draft";
import { bytes, count, short } from "./words";

export function DataPicker() {
  const [texts, setTexts] = useState<Texts>();
  const [problem, setProblem] = useState<string>();
  const [looked, setLooked] = useState<string>();
  const [typed, setTyped] = useState("");
  const [pasting, setPasting] = useState(false);
  const load = () =>
    api.data().then(
      (found) => {
        setTexts(found);
        setProblem(undefined);
        return found;
      },
      (error: unknown) => {
        setProblem(words(error));
        return undefined;
      },
    );
  useEffect(() => {
    void load().then((found) => {
      const first = data.peek()[0] ?? found?.files[0]?.name ?? found?.corpora[0]?.name;
      setLooked(first);
      if (found?.files.length === 1 && first && data.peek().length === 0) data.value = [first];
    });
  }, []);
  if (problem)
    return (
      <p class="quiet">
        {problem}{" "}
        <Button control="train.data-retry" onClick={() => void load()}>
          Try again
        </Button>
      </p>
    );
  if (!texts) return <div class="picker" aria-busy="true" />;
  const all = [...texts.corpora, ...texts.folders, ...texts.files];
  const low = typed.toLowerCase();
  const found = all.filter((t) => t.name.toLowerCase().includes(low));
  const toggle = (name: string) => {
    const now = data.peek();
    data.value = now.includes(name) ? now.filter((n) => n !== name) : [...now, name];
    setLooked(name);
  };
  const paste = (
    <Button control="train.paste" onClick={() => setPasting(true)}>
      Paste a text …
    </Button>
  );
  return (
    <div class="picker">
      <PasteDialog
        open={pasting}
        onClose={() => setPasting(false)}
        onSaved={(name) => {
          setPasting(false);
          void load();
          data.value = [...data.peek(), name];
          setLooked(name);
        }}
      />
      {all.length === 0 ? (
        <div class="picker-none">
          <p>
            There is no text in this workspace. Put <code>.txt</code>, <code>.md</code>, <code>.jsonl</code>,{" "}
            <code>.csv</code> or <code>.parquet</code> files into
          </p>
          <p class="mono picker-path">{texts.workspace}</p>
          <p class="picker-tools">
            {paste}
            <Button control="train.data-again" onClick={() => void load()}>
              Look again
            </Button>
          </p>
        </div>
      ) : (
        <>
          <div class="picker-list">
            <div class="picker-tools">
              <TextField
                control="train.data-filter"
                label="Filter texts"
                quiet
                live
                placeholder="Filter"
                value={typed}
                onChange={setTyped}
              />
              {paste}
              <Button
                control="train.data-again"
                kind="quiet"
                title="Look for texts again"
                onClick={() => void load()}
              >
                ↻
              </Button>
            </div>
            <ul aria-label="Texts">
              {found.map((t) => (
                <TextRow
                  key={`${t.kind}${t.name}`}
                  text={t}
                  on={data.value.includes(t.name)}
                  looked={looked === t.name}
                  onToggle={() => toggle(t.name)}
                />
              ))}
            </ul>
            {texts.files.length === 0 && (
              <p class="quiet">
                Your own texts go into <span class="mono picker-path">{texts.workspace}</span>
              </p>
            )}
            {texts.more && <p class="quiet">Only the first 2000 files are listed; choose their folder.</p>}
          </div>
          <PreviewPane name={looked} />
        </>
      )}
    </div>
  );
}

interface TextRowProps {
  text: TextFile;
  on: boolean;
  looked: boolean;
  onToggle: () => void;
}

function TextRow({ text, on, looked, onToggle }: TextRowProps) {
  return (
    <li>
      <label class={`text-row ${looked ? "text-looked" : ""}`}>
        <input type="checkbox" data-control="train.text" checked={on} onChange={onToggle} />
        <span class="text-name">
          {text.name}
          <span class="quiet mono">
            {text.kind === "text" ? "" : `${text.kind} · `}
            {text.files ? `${text.files} files · ` : ""}
            {bytes(text.bytes)}
          </span>
        </span>
      </label>
    </li>
  );
}

function PreviewPane({ name }: { name: string | undefined }) {
  const [found, setFound] = useState<Preview>();
  const [problem, setProblem] = useState<string>();
  const [whole, setWhole] = useState<Inspection>();
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    setFound(undefined);
    setWhole(undefined);
    setProblem(undefined);
    if (name === undefined) return;
    const stop = new AbortController();
    api.preview(name, stop.signal).then(setFound, (error: unknown) => {
      if (!isAbort(error)) setProblem(words(error));
    });
    return () => stop.abort();
  }, [name]);
  if (name === undefined) return <div class="preview quiet">Choose a text to see its beginning.</div>;
  const inspect = async () => {
    setBusy(true);
    try {
      setWhole(await api.inspect([name]));
    } catch (error) {
      tell(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <section class="preview" aria-label="Preview">
      <header class="preview-head">
        <span class="mono preview-name">{found?.name ?? name}</span>
        <Button
          control="train.inspect"
          kind="quiet"
          disabled={busy}
          title="Read all of it: documents, copies, characters, faults"
          onClick={() => void inspect()}
        >
          {busy ? "Reading …" : "Look through all of it"}
        </Button>
      </header>
      {whole && (
        <p class="preview-facts">
          {count(whole.documents)} {whole.documents === 1 ? "document" : "documents"},{" "}
          {short(whole.characters)} characters
          {whole.duplicates > 0 && `, ${count(whole.duplicates)} copies`}
          {whole.characters_beyond_ascii > 0 && `, ${short(whole.characters_beyond_ascii)} beyond ASCII`}
          {whole.invalid > 0 ? `, ${count(whole.invalid)} that cannot be read` : ", all of it readable"}.
          {whole.documents === 1 && " Its last tenth will be the validation part."}
        </p>
      )}
      {(problem ?? found?.problem) && (
        <p class="field-error" role="alert">
          {problem ?? found?.problem}
        </p>
      )}
      {found && found.records.length > 0 ? (
        <ol class="preview-text">
          {found.records.map((r) => (
            <li key={r.number} class="mono">
              {r.wrong ? <span class="field-error">{r.wrong}</span> : r.text}
            </li>
          ))}
        </ol>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls
        <pre class="preview-text mono" role="document" tabIndex={0} aria-label="Beginning of the text">
          {found?.text}
        </pre>
      )}
    </section>
  );
}

interface PasteDialogProps {
  open: boolean;
  onClose: () => void;
  onSaved: (name: string) => void;
}

function PasteDialog({ open, onClose, onSaved }: PasteDialogProps) {
  const [title, setTitle] = useState("");
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string>();
  const save = async () => {
    try {
      const saved = await api.text(title.trim() || "pasted", text);
      setText("");
      setTitle("");
      setProblem(undefined);
      onSaved(saved.name);
    } catch (error) {
      setProblem(words(error));
    }
  };
  return (
    <Dialog control="train.paste" title="Paste a text" open={open} onClose={onClose} wide>
      <TextField
        control="train.paste-name"
        label="Name (kept in the workspace’s folder texts)"
        live
        placeholder="pasted"
        value={title}
        onChange={setTitle}
        error={problem}
      />
      <textarea
        class="input mono paste-text"
        data-control="train.paste-text"
        aria-label="The text"
        rows={14}
        value={text}
        placeholder="Paste here. A few hundred kilobytes already make a small model speak."
        onInput={(e) => setText(e.currentTarget.value)}
      />
      <div class="row">
        <Button
          control="train.paste-save"
          kind="main"
          disabled={text.trim() === ""}
          onClick={() => void save()}
        >
          Keep it{text.length > 0 ? ` (${short(text.length)} characters)` : ""}
        </Button>
      </div>
    </Dialog>
  );
}
