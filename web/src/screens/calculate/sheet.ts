/** The rows of the sheet and their values. A row is asked for again only when its text, or that of a row it may depend
 * on, or the digits have changed. */
import { signal } from "@preact/signals";
import { isAbort, post, words } from "../../api/client";

export interface Value {
  kind?: string;
  text?: string;
  exact?: string;
  lower?: string;
  upper?: string;
  proven?: number;
  name?: string;
  integer?: string;
  value?: unknown;
  cut?: boolean;
  milliseconds?: number;
  error?: string;
  start?: number;
  end?: number;
}

export interface Row {
  id: number;
  text: string;
  value: Value | undefined;
  busy: boolean;
}

let ids = 1;
export const makeRow = (text = ""): Row => ({ id: ids++, text, value: undefined, busy: false });

export const rows = signal<readonly Row[]>([makeRow()]);
export const digits = signal(30);
/** The row that shall get the focus: a new object for each wish. */
export const wish = signal<{ id: number } | undefined>(undefined);

const running = new Map<number, AbortController>();
const answered = new Map<number, string>();

const WORD = /[^\W\d]\w*/gu;
const ASSIGNED = /^\s*([^\W\d]\w*)\s*=(?!=)/u;

/** Everything that the value of row `at` may depend on, as one text; too much is harmless, too little is not. */
export function dependencies(texts: readonly string[], at: number): string {
  const needed = new Set<number>([at]);
  const todo = [at];
  while (todo.length) {
    const i = todo.pop()!;
    const names = new Set(texts[i]!.match(WORD) ?? []);
    for (let j = i - 1; j >= 0; j--) {
      const name = ASSIGNED.exec(texts[j]!)?.[1];
      const used = names.has("ans") || (name !== undefined && names.has(name));
      if (!used || needed.has(j)) continue;
      needed.add(j);
      todo.push(j);
    }
  }
  return [...needed]
    .sort((a, b) => a - b)
    .map((i) => texts[i])
    .join("\n");
}

function set(id: number, part: Partial<Row>): void {
  rows.value = rows.peek().map((r) => (r.id === id ? { ...r, ...part } : r));
}

/** Bring every value up to date. */
export function evaluateAll(): void {
  const all = rows.peek();
  const texts = all.map((r) => r.text);
  all.forEach((row, i) => {
    const key = `${digits.peek()}\n${dependencies(texts, i)}`;
    if (answered.get(row.id) === key) return;
    running.get(row.id)?.abort();
    answered.set(row.id, key);
    if (row.text.trim() === "") {
      set(row.id, { value: undefined, busy: false });
      return;
    }
    const controller = new AbortController();
    running.set(row.id, controller);
    void ask(row.id, row.text, texts.slice(0, i), controller.signal);
  });
  for (const [id, controller] of running)
    if (!all.some((r) => r.id === id)) {
      controller.abort();
      running.delete(id);
      answered.delete(id);
    }
}

async function ask(id: number, text: string, above: string[], signal: AbortSignal): Promise<void> {
  const slow = setTimeout(() => set(id, { busy: true }), 150);
  try {
    const value = await post<Value>("/api/calculate/row", { text, above, digits: digits.peek() }, signal);
    set(id, { value, busy: false });
  } catch (error) {
    if (!isAbort(error)) {
      set(id, { value: { error: words(error) }, busy: false });
      answered.delete(id);
    }
  } finally {
    clearTimeout(slow);
  }
}

export function setText(id: number, text: string): void {
  set(id, { text });
}

export function insertAfter(index: number, text = ""): void {
  const made = makeRow(text);
  const all = rows.peek();
  rows.value = [...all.slice(0, index + 1), made, ...all.slice(index + 1)];
  wish.value = { id: made.id };
  evaluateAll();
}

/** Put a text into the first empty row at the end, or into a new one. */
export function append(text: string): void {
  const all = rows.peek();
  const last = all[all.length - 1];
  if (last && last.text.trim() === "") {
    setText(last.id, text);
    wish.value = { id: last.id };
  } else insertAfter(all.length - 1, text);
  evaluateAll();
}

export function remove(id: number): void {
  const all = rows.peek();
  const at = all.findIndex((r) => r.id === id);
  const rest = all.filter((r) => r.id !== id);
  rows.value = rest.length ? rest : [makeRow()];
  wish.value = { id: rows.peek()[Math.max(0, at - 1)]!.id };
  evaluateAll();
}

export function fill(texts: readonly string[]): void {
  rows.value = (texts.length ? texts : [""]).map((t) => makeRow(t));
  wish.value = { id: rows.peek()[rows.peek().length - 1]!.id };
  evaluateAll();
}

export function stop(): void {
  for (const controller of running.values()) controller.abort();
  running.clear();
  answered.clear();
}
