/** The sampling settings, the distribution they leave behind the text as it stands, and the same as command and Python. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { Button, NumberField, Section, Segmented, Slider, TextField } from "../../controls";
import { toast } from "../../state/toasts";
import { api, type Following, type Options } from "./api";
import { asked, columns, DEFAULTS, drawSeed, options, prompt, writing } from "./state";
import { Bars, percent } from "./text";
import { visible } from "./tree";

function set<K extends keyof Options>(key: K, value: Options[K]): void {
  options.value = { ...options.peek(), [key]: value };
}

/** `\n` and `\t` as one types them. */
export function readStops(text: string): string[] {
  return text
    .split(",")
    .map((t) => t.replace(/\\n/g, "\n").replace(/\\t/g, "\t"))
    .filter((t) => t !== "" && t !== " ");
}

export function writeStops(stops: readonly string[]): string {
  return stops.map((t) => t.replace(/\n/g, "\\n").replace(/\t/g, "\\t")).join(",");
}

export function Panel() {
  const o = options.value;
  const changed = (Object.keys(DEFAULTS) as (keyof Options)[]).some(
    (key) => key !== "seed" && JSON.stringify(o[key]) !== JSON.stringify(DEFAULTS[key]),
  );
  return (
    <aside class="panel" aria-label="Sampling">
      <Section control="generate.section-sampling" title="Sampling">
        <Slider
          control="generate.temperature"
          label="Temperature"
          min={0}
          max={2}
          step={0.05}
          value={o.temperature}
          shown={o.temperature === 0 ? "greedy" : o.temperature.toFixed(2)}
          onChange={(v) => set("temperature", v)}
        />
        <Slider
          control="generate.top-k"
          label="Top k: the k likeliest"
          min={0}
          max={100}
          step={1}
          value={o.top_k}
          shown={o.top_k === 0 ? "off" : String(o.top_k)}
          onChange={(v) => set("top_k", v)}
        />
        <Slider
          control="generate.top-p"
          label="Top p: the likeliest up to a sum of p"
          min={0.05}
          max={1}
          step={0.01}
          value={o.top_p}
          shown={o.top_p === 1 ? "off" : o.top_p.toFixed(2)}
          onChange={(v) => set("top_p", v)}
        />
        <Slider
          control="generate.min-p"
          label="Min p: relative to the likeliest"
          min={0}
          max={0.5}
          step={0.01}
          value={o.min_p}
          shown={o.min_p === 0 ? "off" : o.min_p.toFixed(2)}
          onChange={(v) => set("min_p", v)}
        />
        <Slider
          control="generate.repetition"
          label="Repetition penalty"
          min={1}
          max={2}
          step={0.05}
          value={o.repetition_penalty}
          shown={o.repetition_penalty === 1 ? "off" : o.repetition_penalty.toFixed(2)}
          onChange={(v) => set("repetition_penalty", v)}
        />
        <div class="row">
          <NumberField
            control="generate.seed"
            label="Seed"
            whole
            min={0}
            max={2 ** 32 - 1}
            value={o.seed}
            onChange={(v) => set("seed", v)}
          />
          <Button control="generate.new-seed" title="Another seed (R)" onClick={drawSeed}>
            ⚄
          </Button>
        </div>
        <div class="row">
          <NumberField
            control="generate.max-tokens"
            label="Tokens"
            whole
            min={1}
            max={100_000}
            step={50}
            value={o.max_tokens}
            onChange={(v) => set("max_tokens", v)}
          />
          <TextField
            control="generate.stops"
            label="Stop before"
            mono
            placeholder="\n\n"
            value={writeStops(o.stop)}
            onChange={(v) => set("stop", readStops(v))}
          />
        </div>
        <Segmented
          control="generate.past-context"
          label="When the context is full"
          value={o.past_context}
          options={[
            { value: "stop", label: "stop" },
            { value: "slide", label: "slide" },
          ]}
          onChange={(v) => set("past_context", v as Options["past_context"])}
        />
        {changed && (
          <Button
            control="generate.reset"
            onClick={() => {
              options.value = { ...DEFAULTS, seed: options.peek().seed };
            }}
          >
            Back to the defaults
          </Button>
        )}
      </Section>
      <Section control="generate.section-next" title="The next token">
        <Next />
      </Section>
      <Section control="generate.section-copy" title="The same elsewhere" open={false}>
        <Elsewhere />
      </Section>
    </aside>
  );
}

/** The distribution behind the text as it stands: before the filters faint, behind them full. */
function Next() {
  const [found, setFound] = useState<Following>();
  const [problem, setProblem] = useState<string>();
  const column = columns[0];
  const still = !writing.value;
  const request = asked(column);
  const key = JSON.stringify({
    ...request,
    options: { ...request.options, max_tokens: 0, seed: 0, stop: [] },
  });
  useEffect(() => {
    if (!still || request.run === "") return;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      api.next(request, stop.signal).then(
        (answer) => {
          setFound(answer);
          setProblem(undefined);
        },
        (error: unknown) => {
          if (!isAbort(error)) setProblem(error instanceof Error ? error.message : String(error));
        },
      );
    }, 150);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key, still]);
  if (problem) return <p class="field-error">{problem}</p>;
  if (!found) return <p class="quiet">Reading the model …</p>;
  const top = found.top.slice(0, 14);
  const most = Math.max(...top.map(([, , p, q]) => Math.max(p, q)), 1e-9);
  const full = found.prompt > found.context;
  return (
    <div class={`next ${still ? "" : "next-old"}`}>
      <p class="quiet next-facts">
        {found.kept === found.vocab ? (
          <>All {found.vocab.toLocaleString("en")} tokens stay</>
        ) : (
          <>
            <b>{found.kept.toLocaleString("en")}</b> of {found.vocab.toLocaleString("en")} tokens stay, which
            held {percent(found.mass)}
          </>
        )}
        ; entropy {found.entropy[0].toFixed(2)} → <b>{found.entropy[1].toFixed(2)}</b> nats.
        {full && " The prompt is longer than the context: only its end is read."}
      </p>
      <ol class="next-list" aria-label="Likeliest next tokens, before and behind the filters">
        {top.map(([id, text, p, q]) => (
          <li key={id} class={q === 0 ? "removed" : ""}>
            <span class="mono next-text">{visible(text)}</span>
            <Bars p={p} q={q} most={most} />
            <span class="mono">{percent(q)}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}

function Elsewhere() {
  const [found, setFound] = useState<{ command: string; python: string }>();
  const column = columns[0];
  const request = { ...asked(column), path: [], prompt: prompt.value };
  const key = JSON.stringify(request);
  useEffect(() => {
    if (request.run === "") return;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      api.text(request, stop.signal).then(setFound, (error: unknown) => {
        if (!isAbort(error)) tell(error);
      });
    }, 150);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key]);
  if (!found) return null;
  const copy = (text: string) =>
    void navigator.clipboard.writeText(text).then(
      () => toast("Copied."),
      () => toast("The browser did not allow copying; select the text instead.", "error"),
    );
  return (
    <>
      <pre class="code mono">{found.command}</pre>
      <Button control="generate.copy-command" onClick={() => copy(found.command)}>
        Copy the command
      </Button>
      <pre class="code mono">{found.python}</pre>
      <Button control="generate.copy-python" onClick={() => copy(found.python)}>
        Copy the Python
      </Button>
      <p class="quiet">Run in the workspace, both write the same text from the prompt, token for token.</p>
    </>
  );
}
