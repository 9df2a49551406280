/** What a run left: samples, checkpoints, notes, settings and how they differ from other runs', its process's output. */
import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { Button } from "../../controls";
import { go } from "../../state/route";
import { toast } from "../../state/toasts";
import { api, type Detail, type Difference, type Job } from "./api";
import { ago, count, loss } from "./words";

export function Samples({ detail, live }: { detail: Detail; live: boolean }) {
  if (detail.samples.length === 0)
    return (
      <p class="quiet">
        {live
          ? "The first sample comes after a fifth of the run."
          : "This run wrote no sample: train.sample_every is 0."}
      </p>
    );
  return (
    <ol class="samples" reversed>
      {[...detail.samples].reverse().map((sample) => (
        <li key={`${sample.step} ${sample.time}`}>
          <span class="quiet mono">step {count(sample.step)}</span>
          <pre class="sample">{sample.text}</pre>
        </li>
      ))}
    </ol>
  );
}

export function Checkpoints({ detail, run }: { detail: Detail; run: string }) {
  const found = detail.checkpoints.filter((c) => c.there).reverse();
  const gone = detail.checkpoints.length - found.length;
  if (found.length === 0) return <p class="quiet">No checkpoint yet. One is saved before the first step.</p>;
  return (
    <>
      <ul class="checkpoints">
        {found.map((c) => (
          <li key={c.name}>
            <button
              type="button"
              class="checkpoint"
              data-control="train.checkpoint"
              title="Let it write"
              onClick={() => go("generate", { run, checkpoint: c.latest ? "latest" : c.name })}
            >
              <span class="mono">step {count(c.step)}</span>
              {c.latest && <span class="tag">latest</span>}
              {c.best && <span class="tag tag-good">best</span>}
              <span class="quiet mono">{c.loss === null ? "" : `validation ${loss(c.loss)}`}</span>
              <span class="quiet">{c.time ? ago(c.time) : ""}</span>
              <span class="checkpoint-go">Generate →</span>
            </button>
            <button
              type="button"
              class="button"
              data-control="train.inside"
              title="Its blocks, tensors, attention and certificates"
              onClick={() => go("inside", { run, checkpoint: c.latest ? "latest" : c.name })}
            >
              Inside
            </button>
          </li>
        ))}
      </ul>
      {gone > 0 && (
        <p class="quiet">
          {gone} older {gone === 1 ? "one was" : "ones were"} removed: checkpoint.keep ={" "}
          {String(detail.settings["checkpoint.keep"] ?? 2)}, and the best.
        </p>
      )}
    </>
  );
}

/** notes.md of the run: saved on leaving, and two seconds after the last key. */
export function Notes({ run, text }: { run: string; text: string }) {
  const [now, setNow] = useState(text);
  const [saved, setSaved] = useState(text);
  const state = useRef({ now, saved, run });
  state.current = { now, saved, run };
  const save = async () => {
    const { now: typed, saved: before, run: name } = state.current;
    if (typed === before) return;
    try {
      await api.notes(name, typed);
      setSaved(typed);
    } catch (error) {
      tell(error);
    }
  };
  useEffect(() => {
    if (now === saved) return;
    const timer = setTimeout(() => void save(), 2000);
    return () => clearTimeout(timer);
  }, [now]);
  useEffect(
    () => () => {
      void save();
    },
    [],
  );
  return (
    <div class="field notes">
      <label class="field-label" for="train-notes">
        notes.md of this run · {now === saved ? (saved.trim() ? "saved" : "empty") : "not saved yet"}
      </label>
      <textarea
        id="train-notes"
        data-control="train.notes"
        class="input"
        rows={10}
        value={now}
        placeholder="What you expected, what you saw, what to try next"
        onInput={(e) => setNow(e.currentTarget.value)}
        onBlur={() => void save()}
      />
    </div>
  );
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function Settings({ detail }: { detail: Detail }) {
  const command = detail.job?.command;
  const keys = Object.keys(detail.settings).sort();
  return (
    <>
      {command && <Command text={command} control="train.copy-command" />}
      {keys.length === 0 ? (
        <p class="quiet">Written into run.toml when the training begins.</p>
      ) : (
        <dl class="settings mono">
          {keys.map((key) => (
            <div key={key}>
              <dt>{key}</dt>
              <dd>{shown(detail.settings[key])}</dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}

/** A command line and a button that copies it. */
export function Command({ text, control }: { text: string; control: string }) {
  return (
    <div class="command">
      <code>{text}</code>
      <Button
        control={control}
        kind="quiet"
        onClick={() =>
          void navigator.clipboard.writeText(text).then(
            () => toast("Copied."),
            () => toast("The browser did not allow copying; select the text instead.", "error"),
          )
        }
      >
        Copy
      </Button>
    </div>
  );
}

export function Differences({ runs }: { runs: readonly string[] }) {
  const [found, setFound] = useState<Difference>();
  const key = runs.join("\n");
  useEffect(() => {
    const stop = new AbortController();
    api
      .diff([...runs], stop.signal)
      .then(setFound)
      .catch((error: unknown) => {
        if (!isAbort(error)) tell(error);
      });
    return () => stop.abort();
  }, [key]);
  if (!found) return null;
  if (found.rows.length === 0) return <p class="quiet">The settings of these runs are the same.</p>;
  return (
    <div class="table-frame">
      <table class="table" aria-label="Settings that differ">
        <thead>
          <tr>
            <th scope="col">setting</th>
            {found.runs.map((run) => (
              <th key={run} scope="col">
                {run.replace(/^runs\//, "")}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {found.rows.map((row) => (
            <tr key={row.key}>
              <td class="mono">{row.key}</td>
              {row.values.map((value, i) => (
                <td key={found.runs[i]} class="mono">
                  {shown(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Log({ run, mark, job }: { run: string; mark: string; job: Job | null }) {
  const [text, setText] = useState<string>();
  useEffect(() => {
    let current = true;
    const look = () =>
      api.log(run).then(
        (found) => current && setText(found.log),
        (error: unknown) => current && tell(error),
      );
    void look();
    const timer = job && job.state !== "ended" ? setInterval(() => void look(), 2000) : undefined;
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, [run, mark]);
  const element = useRef<HTMLPreElement>(null);
  useEffect(() => {
    if (element.current) element.current.scrollTop = element.current.scrollHeight;
  }, [text]);
  if (text === undefined) return null;
  if (!text.trim())
    return (
      <p class="quiet">
        {job?.ours
          ? "It has not said anything yet."
          : "This run was not started here; its output is where it was."}
      </p>
    );
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls
    <pre ref={element} class="log mono" role="log" tabIndex={0} aria-label="Output of the training process">
      {text}
    </pre>
  );
}
