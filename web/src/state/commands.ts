/** What the command palette offers: the shell's commands and those of the open screen. */
import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

export interface Command {
  id: string;
  title: string;
  /** Where it belongs: "Go to", "Lattice", … */
  group: string;
  /** A shortcut as `KeyboardEvent.key`, with "Ctrl+" or "Alt+" before it; works wherever no text is being typed. */
  keys?: string;
  run: () => void;
}

const sources = signal<ReadonlyMap<string, readonly Command[]>>(new Map());

export const commands = computed<readonly Command[]>(() => [...sources.value.values()].flat());

export function offer(source: string, list: readonly Command[]): () => void {
  sources.value = new Map(sources.peek()).set(source, list);
  return () => {
    const rest = new Map(sources.peek());
    if (rest.get(source) === list) rest.delete(source);
    sources.value = rest;
  };
}

/** Offer commands while the component is shown; `inputs` as for `useEffect`. */
export function useCommands(
  source: string,
  make: () => readonly Command[],
  inputs: readonly unknown[],
): void {
  useEffect(() => offer(source, make()), [source, ...inputs]);
}

export function keyName(event: KeyboardEvent): string {
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${name}`;
}

export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (
    target.isContentEditable ||
    target instanceof HTMLTextAreaElement ||
    target instanceof HTMLSelectElement
  )
    return true;
  return target instanceof HTMLInputElement && !["checkbox", "radio", "button"].includes(target.type);
}

/** How well a title fits the typed words: every word must occur; earlier is better; −1 where it does not fit. */
export function score(title: string, typed: string): number {
  const hay = title.toLowerCase();
  let total = 0;
  for (const word of typed.toLowerCase().split(/\s+/).filter(Boolean)) {
    const at = hay.indexOf(word);
    if (at < 0) return -1;
    total += at === 0 ? 3 : hay[at - 1] === " " ? 2 : 1;
  }
  return total;
}
