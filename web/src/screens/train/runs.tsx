/** The list of runs: filter, order, a small curve each, a box to lay it over the chart. */
import { signal } from "@preact/signals";
import { Button, Select, TextField } from "../../controls";
import { moveByArrows } from "../../controls/moving";
import type { Row, State } from "./api";
import { Spark } from "./chart";
import { alive, problem, refresh, rows } from "./state";
import { ago, loss, short } from "./words";

const filter = signal("");
const order = signal("newest");

export const STATE_WORDS: Record<State, string> = {
  starting: "starting",
  running: "running",
  paused: "paused",
  stopping: "stopping",
  done: "done",
  stopped: "stopped",
  failed: "failed",
};

const ORDERS = [
  { value: "newest", label: "Newest first" },
  { value: "best", label: "Lowest loss first" },
  { value: "name", label: "By name" },
];

export function arranged(list: readonly Row[], typed: string, by: string): Row[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const found = list.filter((r) => {
    const text = `${r.name} ${r.preset} ${r.state}`.toLowerCase();
    return words.every((w) => text.includes(w));
  });
  if (by === "name") return found.sort((a, b) => a.name.localeCompare(b.name));
  if (by === "best") return found.sort((a, b) => (a.best ?? Infinity) - (b.best ?? Infinity));
  return found.sort((a, b) => Number(alive(b)) - Number(alive(a)) || b.changed - a.changed);
}

interface RunListProps {
  shown: readonly string[];
  onOpen: (name: string) => void;
  onCompare: (name: string) => void;
  onNew: () => void;
}

export function RunList({ shown, onOpen, onCompare, onNew }: RunListProps) {
  const list = rows.value;
  const found = arranged(list ?? [], filter.value, order.value);
  return (
    <aside class="runs" aria-label="Runs">
      <div class="runs-head">
        <h2>Runs</h2>
        <Button control="train.new" kind="main" onClick={onNew}>
          New run
        </Button>
      </div>
      {list && list.length > 0 && (
        <div class="runs-tools">
          <TextField
            control="train.filter"
            label="Filter runs"
            quiet
            live
            placeholder="Filter"
            value={filter.value}
            onChange={(v) => {
              filter.value = v;
            }}
          />
          <Select
            control="train.order"
            label="Order"
            quiet
            value={order.value}
            options={ORDERS}
            onChange={(v) => {
              order.value = v;
            }}
          />
        </div>
      )}
      {problem.value !== undefined && list === undefined && (
        <div class="runs-note">
          <p>{problem.value}</p>
          <Button control="train.retry" onClick={() => void refresh()}>
            Try again
          </Button>
        </div>
      )}
      {list?.length === 0 && (
        <p class="runs-note">No run in this workspace yet. A new one takes a text and a minute.</p>
      )}
      {list && list.length > 0 && found.length === 0 && <p class="runs-note">No run has that in its name.</p>}
      <ul class="runs-list" onKeyDown={(e) => moveByArrows(e, ".run-open")}>
        {found.map((row) => (
          <RunItem
            key={row.name}
            row={row}
            place={shown.indexOf(row.name)}
            onOpen={onOpen}
            onCompare={onCompare}
          />
        ))}
      </ul>
    </aside>
  );
}

interface RunItemProps {
  row: Row;
  /** Its place among those on the chart; −1 when it is not there. */
  place: number;
  onOpen: (name: string) => void;
  onCompare: (name: string) => void;
}

function RunItem({ row, place, onOpen, onCompare }: RunItemProps) {
  const share = row.steps ? Math.min(1, row.step / row.steps) : 0;
  const name = row.name.replace(/^runs\//, "");
  const on = place >= 0;
  return (
    <li class={`run ${place === 0 ? "run-current" : ""}`}>
      <button
        type="button"
        class="run-open"
        data-control="train.open"
        aria-current={place === 0 ? "true" : undefined}
        title={row.words}
        onClick={() => onOpen(row.name)}
      >
        <span class={`dot dot-${row.state}`} aria-hidden="true" />
        <span class="run-name">{name}</span>
        <Spark values={row.curve} colour={on ? colourOf(place) : "quiet"} />
        <span class="run-facts mono">
          {alive(row) ? (
            <>
              {STATE_WORDS[row.state]} ·{" "}
              {row.steps ? `${Math.floor(share * 100)}\u202f%` : `step ${row.step}`}
            </>
          ) : (
            <>
              {row.state === "done" ? "" : `${STATE_WORDS[row.state]} · `}
              {row.preset && row.preset !== "?" ? row.preset : ""}
              {row.changed ? ` · ${ago(row.changed)}` : ""}
            </>
          )}
        </span>
        <span class="run-loss mono" title={`lowest validation loss; ${short(row.tokens)} tokens seen`}>
          {loss(row.best ?? row.loss)}
        </span>
        {alive(row) && (
          <span class="run-bar" aria-hidden="true">
            <span style={{ width: `${share * 100}%` }} />
          </span>
        )}
      </button>
      <label class="run-compare" title={on ? "Take it off the chart" : "Lay it over the chart"}>
        <input
          type="checkbox"
          data-control="train.compare"
          checked={on}
          disabled={place === 0}
          aria-label={`${name} on the chart`}
          onChange={() => onCompare(row.name)}
        />
        <span
          class="swatch"
          style={on ? { background: `var(--${colourOf(place)})` } : {}}
          aria-hidden="true"
        />
      </label>
    </li>
  );
}

/** The colour of the n-th run on the chart. */
export function colourOf(place: number): string {
  return `plot-${(place % 6) + 1}`;
}
