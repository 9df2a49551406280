/** One checkpoint and what it wrote: the choice of it, the text, its branches and figures. */
import { Select } from "../../controls";
import { checkpointOptions, runOptions } from "../sources";
import { type Column, choose, halt, sources } from "./state";
import { Text } from "./text";
import { listed, meanNats, pathOf, prune, visible } from "./tree";

export function ColumnView({ column, number }: { column: Column; number: number | undefined }) {
  const list = sources.value ?? [];
  const source = list.find((s) => s.run === column.run.value);
  const path = pathOf(column.tree.value);
  const mean = meanNats(path);
  const room = column.room.value;
  const suffix = column.name === "b" ? "-b" : "";
  return (
    <section class="column" aria-label={number ? `Text ${number}` : "Text"}>
      <header class="column-head">
        <Select
          control={`generate.run${suffix}`}
          label="Run"
          quiet
          value={column.run.value}
          options={runOptions(list)}
          onChange={(v) => choose(column, v, "latest")}
        />
        <Select
          control={`generate.checkpoint${suffix}`}
          label="Checkpoint"
          quiet
          value={column.checkpoint.value}
          options={checkpointOptions(source)}
          onChange={(v) => choose(column, column.run.value, v)}
        />
        <p class="column-facts mono" aria-live="off">
          {path.length > 0 && <span title="tokens written">{path.length} tokens</span>}
          {mean !== undefined && (
            <span title={`mean surprise of what it drew; perplexity ${Math.exp(mean).toFixed(1)}`}>
              {mean.toFixed(2)} nats
            </span>
          )}
          {column.rate.value !== undefined && <span>{Math.round(column.rate.value)} tokens/s</span>}
          {room && (
            <span title="tokens of the prompt and the text, of the model's context">
              {Math.min(room.prompt + path.length, room.context)}/{room.context}
            </span>
          )}
        </p>
      </header>
      <Text column={column} />
      <Branches column={column} />
    </section>
  );
}

function Branches({ column }: { column: Column }) {
  const tree = column.tree.value;
  if (tree.branches.length < 2) return null;
  const all = listed(tree);
  const suffix = column.name === "b" ? "-b" : "";
  return (
    <nav class="branches" aria-label="Branches">
      <h3>Branches</h3>
      <ul>
        {all.map(({ branch: b, depth }) => {
          const begin = b.parent < 0 ? "from the prompt" : visible(b.own[0]?.text ?? "");
          const rest = b.own
            .slice(b.parent < 0 ? 0 : 1, 14)
            .map((t) => t.text)
            .join("");
          return (
            <li key={b.id} class={b.id === tree.current ? "branch-current" : ""}>
              <button
                type="button"
                class="branch"
                data-control={`generate.branch${suffix}`}
                aria-current={b.id === tree.current ? "true" : undefined}
                style={{ paddingLeft: `${10 + depth * 18}px` }}
                onClick={() => {
                  halt(column);
                  column.tree.value = { ...tree, current: b.id };
                }}
              >
                {depth > 0 && <span class="branch-mark" aria-hidden="true" />}
                <b class={b.parent < 0 ? "quiet" : "mono"}>{begin}</b>
                <span class="branch-rest">{rest}</span>
                <span class="quiet mono">{pathOf(tree, b.id).length}</span>
              </button>
              {b.parent >= 0 && (
                <button
                  type="button"
                  class="branch-prune"
                  data-control={`generate.prune${suffix}`}
                  title="Take this branch away"
                  aria-label={`Take the branch ${begin} away`}
                  onClick={() => {
                    halt(column);
                    column.tree.value = prune(tree, b.id);
                  }}
                >
                  ✕
                </button>
              )}
            </li>
          );
        })}
      </ul>
    </nav>
  );
}
