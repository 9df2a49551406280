/** Generate: a prompt, tokens as they are drawn, branches, two checkpoints side by side. */
import { useEffect } from "preact/hooks";
import { Button, Empty, Toggle } from "../../controls";
import { useCommands } from "../../state/commands";
import { go, keep, route } from "../../state/route";
import { ColumnView } from "./column";
import { Panel } from "./panel";
import {
  choose,
  columns,
  drawSeed,
  goOn,
  haltAll,
  load,
  problem,
  prompt,
  shown,
  sources,
  two,
  write,
  writing,
  written,
} from "./state";

export default function Generate() {
  const params = route.value.params;
  useEffect(() => {
    if (params.run) choose(columns[0], params.run, params.checkpoint ?? "latest");
    if (params.run2) {
      choose(columns[1], params.run2, params.checkpoint2 ?? "latest");
      two.value = true;
    }
    if (params.prompt !== undefined && prompt.peek() === "") prompt.value = params.prompt;
    void load();
  }, [params.run, params.checkpoint, params.run2, params.checkpoint2]);
  const [a, b] = columns;
  const address = {
    ...(a.run.value ? { run: a.run.value, checkpoint: a.checkpoint.value } : {}),
    ...(two.value && b.run.value ? { run2: b.run.value, checkpoint2: b.checkpoint.value } : {}),
    ...(prompt.value ? { prompt: prompt.value.slice(0, 500) } : {}),
  };
  const key = JSON.stringify(address);
  useEffect(() => {
    if (a.run.value && location.hash.startsWith("#generate")) keep("generate", address);
  }, [key]);
  useEffect(() => haltAll, []);
  useCommands(
    "generate",
    () => [
      {
        id: "generate.write",
        group: "Generate",
        title: "Write from the prompt",
        keys: "Ctrl+Enter",
        run: write,
      },
      { id: "generate.more", group: "Generate", title: "Go on", keys: "c", run: goOn },
      { id: "generate.halt", group: "Generate", title: "Stop writing", keys: "Escape", run: haltAll },
      {
        id: "generate.seed",
        group: "Generate",
        title: "Another seed",
        keys: "r",
        run: drawSeed,
      },
      {
        id: "generate.two",
        group: "Generate",
        title: "Two checkpoints side by side",
        run: () => {
          two.value = !two.peek();
        },
      },
    ],
    [],
  );
  const list = sources.value;
  if (problem.value !== undefined && list === undefined)
    return (
      <Empty title="The checkpoints could not be read">
        <p>{problem.value}</p>
        <p>
          <Button control="generate.retry" onClick={() => void load()}>
            Try again
          </Button>
        </p>
      </Empty>
    );
  if (list === undefined) return <div aria-busy="true" />;
  if (list.length === 0)
    return (
      <Empty title="No model to write with yet">
        <p>
          A run has its first checkpoint a few seconds after it starts; a nano model says words within a
          minute.
        </p>
        <p>
          <Button control="generate.train" kind="main" onClick={() => go("train", { new: "1" })}>
            Train one
          </Button>
        </p>
      </Empty>
    );
  const busy = writing.value;
  return (
    <div class={`generate ${two.value ? "generate-two" : ""}`}>
      <div class="generate-main">
        <div class="prompt">
          <label class="visually-hidden" for="generate-prompt">
            Prompt
          </label>
          <textarea
            id="generate-prompt"
            class="input"
            data-control="generate.prompt"
            rows={3}
            value={prompt.value}
            placeholder="How does it begin? Empty begins a new text."
            onInput={(e) => {
              prompt.value = e.currentTarget.value;
            }}
            onKeyDown={(e) => {
              if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) {
                e.preventDefault();
                e.stopPropagation();
                write();
              }
            }}
          />
          <div class="prompt-tools">
            <Button
              control="generate.write"
              kind="main"
              title="Write from the prompt (Ctrl+Enter)"
              onClick={write}
            >
              {written.value ? "Write again" : "Write"}
            </Button>
            {busy ? (
              <Button control="generate.stop" title="Stop (Escape)" onClick={haltAll}>
                Stop
              </Button>
            ) : (
              written.value && (
                <Button control="generate.continue" title="Go on behind the text (C)" onClick={goOn}>
                  Go on
                </Button>
              )
            )}
            <Toggle
              control="generate.two"
              label="side by side"
              hint="Two checkpoints write from the same prompt with the same seed"
              value={two.value}
              onChange={(v) => {
                two.value = v;
              }}
            />
            <Legend />
          </div>
        </div>
        <div class="columns">
          {shown.value.map((column, i) => (
            <ColumnView key={column.name} column={column} number={two.value ? i + 1 : undefined} />
          ))}
        </div>
      </div>
      <Panel />
    </div>
  );
}

function Legend() {
  return (
    <span class="tints" role="img" aria-label="The tint of a token: its surprise, from 0 to 6 nats and more">
      <span class="quiet">expected</span>
      {Array.from({ length: 9 }, (_, i) => (
        <span key={i} class={`token t${i}`} title={i < 8 ? `from ${i * 0.75} nats` : "6 nats and more"} />
      ))}
      <span class="quiet">surprising</span>
    </span>
  );
}
