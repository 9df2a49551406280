/** Inside: a checkpoint on a text: its blocks, tensors, attention, logit lens, embedding and certificates. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Button, Empty, Segmented, Select } from "../../controls";
import { useCommands } from "../../state/commands";
import { go, keep, route } from "../../state/route";
import { checkpointOptions, runOptions } from "../sources";
import { AttentionView } from "./attention";
import { CertificateView } from "./certificate";
import { CloudView } from "./cloud";
import { Diagram } from "./diagram";
import { LensView } from "./lens";
import {
  block,
  cell,
  certificate,
  choose,
  colour,
  equal,
  head,
  load,
  loadStructure,
  loadTrace,
  place,
  placeKey,
  sources,
  sourcesError,
  spot,
  structure,
  structureError,
  tensor,
  text,
  token,
  trace,
  traceError,
  tracing,
  VIEWS,
  type View,
  view,
} from "./state";
import { Tensors } from "./tensors";

const TITLES: Record<View, string> = {
  blocks: "Blocks",
  tensors: "Tensors",
  attention: "Attention",
  lens: "Logit lens",
  embedding: "Embedding",
  certificate: "Certificate",
};
/** Views that read the text. */
const READ: readonly View[] = ["blocks", "attention", "lens"];

function take(params: Readonly<Record<string, string>>): void {
  if (params.run) choose(params.run, params.checkpoint ?? "latest");
  if (params.text !== undefined) text.value = params.text;
  if (params.view && (VIEWS as readonly string[]).includes(params.view)) view.value = params.view as View;
  if (params.block) block.value = params.block;
  if (params.tensor) tensor.value = params.tensor;
  if (params.head) {
    const [layer = 0, number = 0] = params.head.split(".").map(Number);
    head.value = { layer: layer || 0, head: number || 0 };
  }
  if (params.query) cell.value = { query: Number(params.query) || 0, key: -1 };
  if (params.at) {
    const [at = 0, of = 0] = params.at.split(".").map(Number);
    spot.value = { at: at || 0, place: of || 0 };
  }
  if (params.token) token.value = params.token;
  if (params.colour) colour.value = params.colour;
  if (params.view === "embedding") equal.value = params.scale !== "one";
  if (params.file) certificate.value = params.file;
}

/** What a link must hold to bring this view back. */
function address(): Record<string, string> {
  const now = view.value;
  const of: Record<string, string | false> = {
    run: place.value.run,
    checkpoint: place.value.checkpoint,
    view: now,
    text: READ.includes(now) && text.value.slice(0, 1000),
    block: now === "blocks" && block.value,
    tensor: now === "tensors" && tensor.value,
    head: now === "attention" && `${head.value.layer}.${head.value.head}`,
    query: now === "attention" && cell.value.query >= 0 && String(cell.value.query),
    at: now === "lens" && spot.value.place >= 0 && `${spot.value.at}.${spot.value.place}`,
    token: now === "embedding" && token.value,
    colour: now === "embedding" && colour.value,
    scale: now === "embedding" && !equal.value && "one",
    file: now === "certificate" && certificate.value,
  };
  return Object.fromEntries(Object.entries(of).filter(([, value]) => value)) as Record<string, string>;
}

export default function Inside() {
  const params = route.value.params;
  const key = JSON.stringify(params);
  useEffect(() => {
    take(params);
    void load();
  }, [key]);
  const said = JSON.stringify(address());
  useEffect(() => {
    if (place.peek().run && location.hash.startsWith("#inside")) keep("inside", address());
  }, [said]);
  useEffect(() => {
    void loadStructure();
    void loadTrace();
  }, [placeKey.value]);
  useCommands(
    "inside",
    () =>
      VIEWS.map((name, i) => ({
        id: `inside.${name}`,
        group: "Inside",
        title: TITLES[name],
        keys: String(i + 1),
        run: () => {
          view.value = name;
        },
      })),
    [],
  );
  const list = sources.value;
  if (sourcesError.value !== undefined && list === undefined)
    return (
      <Empty title="The checkpoints could not be read">
        <p>{sourcesError.value}</p>
        <p>
          <Button control="inside.retry" onClick={() => void load()}>
            Try again
          </Button>
        </p>
      </Empty>
    );
  if (list === undefined) return <div aria-busy="true" />;
  if (list.length === 0)
    return (
      <Empty title="No model to look into yet">
        <p>
          A run has its first checkpoint a few seconds after it starts. Then its blocks, its attention and
          what each layer would say can be seen here.
        </p>
        <p>
          <Button control="inside.train" kind="main" onClick={() => go("train", { new: "1" })}>
            Train one
          </Button>
        </p>
      </Empty>
    );
  const now = view.value;
  return (
    <div class="inside">
      <Head />
      {structureError.value ? (
        <Empty title="This checkpoint cannot be looked into">
          <p>{structureError.value}</p>
        </Empty>
      ) : (
        <div class="inside-view" aria-busy={!structure.value}>
          {now === "blocks" && <Diagram />}
          {now === "tensors" && <Tensors />}
          {now === "attention" && <AttentionView />}
          {now === "lens" && <LensView />}
          {now === "embedding" && <CloudView />}
          {now === "certificate" && <CertificateView />}
        </div>
      )}
    </div>
  );
}

function Head() {
  const ref = useRef<HTMLElement>(null);
  useEffect(() => {
    // on a narrow page the choices scroll
    const chosen = ref.current?.querySelector(".segmented [aria-checked=true]");
    chosen?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [view.value]);
  const list = sources.value ?? [];
  const of = place.value;
  const source = list.find((s) => s.run === of.run);
  return (
    <header ref={ref} class="inside-head">
      <div class="inside-of">
        <Select
          control="inside.run"
          label="Run"
          quiet
          value={of.run}
          options={runOptions(list)}
          onChange={(v) => choose(v, "latest")}
        />
        <Select
          control="inside.checkpoint"
          label="Checkpoint"
          quiet
          value={of.checkpoint}
          options={checkpointOptions(source)}
          onChange={(v) => choose(of.run, v)}
        />
      </div>
      <Segmented
        control="inside.view"
        label="What to look at"
        quiet
        value={view.value}
        options={VIEWS.map((name) => ({ value: name, label: TITLES[name] }))}
        onChange={(v) => {
          view.value = v as View;
        }}
      />
      {READ.includes(view.value) && <TextRead />}
    </header>
  );
}

/** The text that is read, and how much of it. */
function TextRead() {
  const [typed, setTyped] = useState(text.value);
  const [editing, setEditing] = useState(false);
  const found = trace.value;
  const own = found && text.value === "" ? found.text : text.value;
  const commit = () => {
    if (typed === text.peek()) return;
    text.value = typed;
    void loadTrace();
  };
  useEffect(() => {
    if (!editing) setTyped(own);
  }, [own, editing]);
  useEffect(() => {
    if (!editing || typed === own) return;
    const timer = setTimeout(commit, 350);
    return () => clearTimeout(timer);
  }, [typed]);
  const losses = (found?.nats ?? []).filter((x) => x !== null);
  const mean = losses.reduce((sum, x) => sum + x, 0) / Math.max(losses.length, 1);
  return (
    <div class="text-read">
      <label class="visually-hidden" for="inside-text">
        Text that the model reads
      </label>
      <textarea
        id="inside-text"
        class="input"
        data-control="inside.text"
        rows={2}
        spellcheck={false}
        value={typed}
        placeholder="The text that the model reads. Empty: the beginning of the run's own."
        aria-describedby="inside-text-facts"
        onFocus={() => setEditing(true)}
        onBlur={() => {
          if (typed !== own) commit();
          setEditing(false);
        }}
        onInput={(e) => {
          setEditing(true);
          setTyped(e.currentTarget.value);
        }}
      />
      <p id="inside-text-facts" class="text-facts quiet" role="status">
        {traceError.value ? (
          <span class="field-error">{traceError.value}</span>
        ) : !found ? (
          "Reading the text …"
        ) : (
          <>
            <span class={tracing.value ? "working" : ""}>
              <b class="mono">{found.tokens.length}</b> tokens
              {found.asked > found.tokens.length && (
                <b class="cut">
                  , the first of {found.asked}
                  {found.context <= found.tokens.length ? ": the context is full" : ": no more are shown"}
                </b>
              )}
            </span>
            {losses.length > 0 && (
              <span title="mean surprise of the text's own next tokens">
                {mean.toFixed(2)} nats, perplexity {Math.exp(mean).toFixed(1)}
              </span>
            )}
            {found.end && (
              <span>
                <code>{found.end}</code> ends a document
                {found.masked ? "; attention stays within one" : ""}
              </span>
            )}
            <span class="mono">{found.kernels}</span>
          </>
        )}
      </p>
    </div>
  );
}
