/** The list of runs and what is selected; kept up to date by the jobs' topic and the runs' own events. */
import { computed, signal } from "@preact/signals";
import { tell } from "../../api/client";
import { type RunEvent, watchTopic } from "../../api/socket";
import { api, type Row } from "./api";

export const rows = signal<readonly Row[] | undefined>(undefined);
export const problem = signal<string | undefined>(undefined);

export const alive = (row: Pick<Row, "state">): boolean =>
  row.state === "running" || row.state === "paused" || row.state === "stopping" || row.state === "starting";

export const active = computed(() => rows.value?.filter(alive) ?? []);

let asking: Promise<void> | undefined;
let again = false;

/** Fetch the list; while one fetch is on its way, at most one more is made behind it. */
export function refresh(): Promise<void> {
  if (asking) {
    again = true;
    return asking;
  }
  asking = api
    .runs()
    .then((found) => {
      rows.value = found.runs;
      problem.value = undefined;
    })
    .catch((error: unknown) => {
      if (rows.peek() === undefined) problem.value = error instanceof Error ? error.message : String(error);
      else tell(error);
    })
    .finally(() => {
      asking = undefined;
      if (again) {
        again = false;
        void refresh();
      }
    });
  return asking;
}

let watching = false;

/** Begin once: the list follows the jobs, and while any run lives it is looked at every two seconds. */
export function follow(): void {
  void refresh();
  if (watching) return;
  watching = true;
  watchTopic("jobs", () => void refresh());
  setInterval(() => {
    if (!document.hidden && location.hash.startsWith("#train") && active.peek().length > 0) void refresh();
  }, 2000);
  setInterval(() => {
    if (!document.hidden && location.hash.startsWith("#train")) void refresh();
  }, 15_000);
}

/** Figures of a run that a new event changes at once, without asking the server. */
export function take(name: string, events: readonly RunEvent[]): void {
  const list = rows.peek();
  const row = list?.find((r) => r.name === name);
  const step = events.findLast((e) => e.event === "step");
  if (!list || !row || !step) return;
  const number = (key: string, before: number | null) =>
    typeof step[key] === "number" ? (step[key] as number) : before;
  // the speed as the server smooths it (summary.py): a half-life of 20 steps
  let rate = row.tokens_per_s;
  for (const e of events)
    if (e.event === "step" && typeof e.tokens_per_s === "number")
      rate = rate === null ? e.tokens_per_s : e.tokens_per_s + 0.5 ** (1 / 20) * (rate - e.tokens_per_s);
  const now: Row = {
    ...row,
    step: step.step,
    loss: number("loss", row.loss),
    tokens: number("tokens", row.tokens) ?? row.tokens,
    tokens_per_s: rate,
    seen: step.time ?? row.seen,
  };
  rows.value = list.map((r) => (r === row ? now : r));
}
