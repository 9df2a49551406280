/** Saving texts, and what was typed but not saved: kept in the browser until it is, so that a reload loses nothing. */
import { signal } from "@preact/signals";
import { ApiError } from "../../api/client";
import type { Note } from "./api";

export interface Draft {
  text: string;
  /** Of the text that was edited; null for a file that is not there yet. */
  version: string | null;
}

let key: string | undefined; // a workspace's own: another one may have a note of the same name
/** Whether it is known which those are; nothing is edited before. */
export const opened = signal(false);
const LONGEST = 1 << 20; // characters of all drafts together

function stored(): Record<string, Draft> {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(key!) ?? "{}");
    if (typeof found !== "object" || found === null) return {};
    const drafts: Record<string, Draft> = {};
    for (const [name, draft] of Object.entries(found as Record<string, Partial<Draft>>))
      if (typeof draft?.text === "string" && (draft.version === null || typeof draft.version === "string"))
        drafts[name] = { text: draft.text, version: draft.version };
    return drafts;
  } catch {
    return {}; // storage can be forbidden
  }
}

export const drafts = signal<Readonly<Record<string, Draft>>>({});

/** Begin with what was kept for this workspace. */
export function openDrafts(workspace: string): void {
  if (key !== undefined) return;
  key = `cllm.drafts ${workspace}`;
  drafts.value = stored();
  opened.value = true;
}

function store(next: Record<string, Draft>): void {
  drafts.value = next;
  if (key === undefined) return;
  try {
    const text = JSON.stringify(next);
    if (Object.keys(next).length === 0) localStorage.removeItem(key);
    else if (text.length <= LONGEST) localStorage.setItem(key, text);
  } catch {
    // the drafts then last as long as the page
  }
}

export function keepDraft(name: string, text: string, version: string | null): void {
  store({ ...drafts.peek(), [name]: { text, version } });
}

export function forget(name: string): void {
  const { [name]: _, ...rest } = drafts.peek();
  store(rest);
}

/** The saved note, or what stands there instead (null: nothing). Throws ApiError for everything else. */
export async function saveNote(
  name: string,
  text: string,
  version: string | null,
): Promise<Note | { conflict: Note | null }> {
  const response = await fetch("/api/notes/save", {
    method: "POST",
    credentials: "same-origin",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name, text, version }),
  }).catch(() => {
    throw new ApiError(
      "The studio's server does not answer; your text is kept in this browser.",
      0,
      "Unreachable",
    );
  });
  const said = (await response.json().catch(() => ({}))) as Partial<Note> & {
    error?: string;
    kind?: string;
    found?: Note | null;
  };
  if (response.ok) return said as Note;
  if (response.status === 409 && said.kind === "Conflict") return { conflict: said.found ?? null };
  throw new ApiError(
    said.error ?? `The server answered ${response.status}; your text is kept in this browser.`,
    response.status,
    said.kind ?? "",
  );
}
