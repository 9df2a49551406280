/** What is being written: checkpoints, prompt, sampling options, and for each of one or two columns its tree. It stays
 * while other screens are looked at. */
import { batch, computed, type Signal, signal } from "@preact/signals";
import { isAbort, lines, tell, words } from "../../api/client";
import { listSources, type Source } from "../sources";
import { type Asked, api, type Line, type Options } from "./api";
import { EMPTY, grow, type Piece, pathOf, type Tree } from "./tree";

export const DEFAULTS: Options = {
  max_tokens: 200,
  temperature: 0.8,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  seed: 1,
  stop: [],
  past_context: "stop",
};

export const sources = signal<readonly Source[] | undefined>(undefined);
export const problem = signal<string | undefined>(undefined);
export const prompt = signal("");
export const options = signal<Options>(DEFAULTS);
export const two = signal(false);

export interface Column {
  name: "a" | "b";
  run: Signal<string>;
  checkpoint: Signal<string>;
  tree: Signal<Tree>;
  /** The prompt that its text stands behind. */
  prompt: Signal<string>;
  busy: Signal<"" | "loading" | "writing">;
  error: Signal<string | undefined>;
  rate: Signal<number | undefined>;
  /** Tokens of the prompt and of the context, once they are known. */
  room: Signal<{ prompt: number; context: number } | undefined>;
  stop: AbortController | undefined;
}

function column(name: "a" | "b"): Column {
  return {
    name,
    run: signal(""),
    checkpoint: signal("latest"),
    tree: signal<Tree>(EMPTY),
    prompt: signal(""),
    busy: signal<"" | "loading" | "writing">(""),
    error: signal<string | undefined>(undefined),
    rate: signal<number | undefined>(undefined),
    room: signal<{ prompt: number; context: number } | undefined>(undefined),
    stop: undefined,
  };
}

/** Another seed: 32 random bits. */
export function drawSeed(): void {
  options.value = { ...options.peek(), seed: crypto.getRandomValues(new Uint32Array(1))[0]! };
}

export const columns: readonly [Column, Column] = [column("a"), column("b")];
export const shown = computed(() => (two.value ? columns : columns.slice(0, 1)));
export const writing = computed(() => shown.value.some((c) => c.busy.value !== ""));
export const written = computed(() => shown.value.some((c) => pathOf(c.tree.value).length > 0));

export async function load(): Promise<void> {
  try {
    const found = await listSources();
    sources.value = found;
    problem.value = undefined;
    for (const each of columns) settle(each, found);
  } catch (error) {
    if (sources.peek() === undefined) problem.value = words(error);
    else tell(error);
  }
}

/** A column names a run and a checkpoint that there are. The second takes the one before the newest, to compare. */
function settle(each: Column, runs: readonly Source[]): void {
  const source = runs.find((s) => s.run === each.run.peek());
  if (!source) {
    const first = runs[each.name === "b" && runs.length > 1 ? 1 : 0];
    if (first) choose(each, first.run, "latest");
    return;
  }
  const known = ["latest", "best", ...source.checkpoints];
  if (!known.includes(each.checkpoint.peek())) choose(each, source.run, "latest");
}

/** Another checkpoint: the text is another model's, so it goes. */
export function choose(each: Column, run: string, checkpoint: string): void {
  if (each.run.peek() === run && each.checkpoint.peek() === checkpoint) return;
  halt(each);
  batch(() => {
    each.run.value = run;
    each.checkpoint.value = checkpoint;
    each.tree.value = EMPTY;
    each.error.value = undefined;
    each.rate.value = undefined;
    each.room.value = undefined;
  });
}

export function asked(each: Column): Asked {
  return {
    run: each.run.value,
    checkpoint: each.checkpoint.value,
    prompt: pathOf(each.tree.value).length > 0 ? each.prompt.value : prompt.value,
    path: pathOf(each.tree.value).map((t) => t.id),
    options: options.value,
  };
}

export function halt(each: Column): void {
  each.stop?.abort();
  each.stop = undefined;
}

export function haltAll(): void {
  for (const each of columns) halt(each);
}

/** Write from the prompt, in every shown column. */
export function write(): void {
  for (const each of shown.peek()) {
    halt(each);
    each.tree.value = EMPTY;
    each.prompt.value = prompt.peek();
    void run(each);
  }
}

/** Go on behind what is there. */
export function goOn(): void {
  for (const each of shown.peek()) {
    if (pathOf(each.tree.peek()).length === 0) each.prompt.value = prompt.peek();
    void run(each);
  }
}

const WHY: Record<string, string> = {
  tokens: "",
  eos: "The text ends here: the model drew its end token.",
  stop: "Stopped before a stop text.",
  context: "The model's context is full. Let it slide, or write from a shorter prompt.",
};

/** Let one column's current branch go on, until it ends or is halted. */
export async function run(each: Column): Promise<void> {
  halt(each);
  const stop = new AbortController();
  each.stop = stop;
  const id = each.tree.peek().current;
  each.error.value = undefined;
  each.busy.value = "loading";
  let waiting: Piece[] = [];
  let frame = 0;
  let count = 0;
  let first = 0; // seconds, as the model's process counts them
  let newest = 0;
  const flush = () => {
    frame = 0;
    if (waiting.length === 0) return;
    const now = waiting;
    waiting = [];
    batch(() => {
      each.tree.value = grow(each.tree.peek(), id, now);
      if (newest > first) each.rate.value = (count - 1) / (newest - first);
    });
  };
  try {
    const response = await api.stream(asked(each), stop.signal);
    for await (const line of lines<Line>(response)) {
      if (stop.signal.aborted) break;
      if ("error" in line) throw new Error(line.error);
      if ("context" in line) {
        each.room.value = { prompt: line.prompt, context: line.context };
        each.busy.value = "writing";
      } else if ("end" in line) {
        flush();
        each.tree.value = ended(each.tree.peek(), id, WHY[line.end] ?? line.end, line.cut ?? 0);
      } else {
        count += 1;
        newest = line.seconds ?? 0;
        if (count === 1) first = newest;
        waiting.push(line);
        frame ||= requestAnimationFrame(flush);
        if (document.hidden) flush(); // no frames come then
      }
    }
  } catch (error) {
    if (!isAbort(error)) each.error.value = words(error);
  } finally {
    cancelAnimationFrame(frame);
    flush();
    // halted, or at its end; but not when another writing has begun in the meantime
    if (each.stop === stop || each.stop === undefined) {
      each.stop = undefined;
      each.busy.value = "";
    }
  }
}

/** The end of a branch: why, and so many characters of a stop text taken off. */
function ended(tree: Tree, id: number, why: string, cut: number): Tree {
  const grown = grow(tree, id, [], why);
  if (cut <= 0) return grown;
  return {
    ...grown,
    branches: grown.branches.map((b) => {
      if (b.id !== id) return b;
      let left = cut;
      const own = [...b.own];
      while (left > 0 && own.length > 0) {
        const last = own[own.length - 1]!;
        if (last.text.length > left) {
          own[own.length - 1] = { ...last, text: last.text.slice(0, last.text.length - left) };
          break;
        }
        left -= last.text.length;
        own.pop();
      }
      return { ...b, own };
    }),
  };
}
