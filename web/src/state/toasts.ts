/** Short messages at the edge of the page, said to screen readers too. */
import { signal } from "@preact/signals";

export interface Toast {
  id: number;
  kind: "error" | "info";
  text: string;
}

export const toasts = signal<readonly Toast[]>([]);
let next = 1;

export function dismiss(id: number): void {
  toasts.value = toasts.peek().filter((t) => t.id !== id);
}

export function toast(text: string, kind: Toast["kind"] = "info"): void {
  if (toasts.peek().some((t) => t.text === text)) return; // said already
  const id = next++;
  toasts.value = [...toasts.peek().slice(-3), { id, kind, text }];
  if (kind === "info") setTimeout(() => dismiss(id), 6000);
}
