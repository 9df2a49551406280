/** Requests to the studio's own server: same origin, cookie, JSON; an error is the server's message in words. */
import { toast } from "../state/toasts";

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    /** The server's name for it: "DomainError", "LimitError", … */
    readonly kind: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export function address(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

async function failure(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  try {
    const body = JSON.parse(text) as { error?: string; kind?: string };
    if (body.error) return new ApiError(body.error, response.status, body.kind ?? "");
  } catch {
    // not JSON
  }
  const words =
    response.status === 403 ? "The studio was restarted. Open the address that it printed." : text;
  return new ApiError(words.slice(0, 500) || `The server answered ${response.status}.`, response.status, "");
}

async function request(path: string, options: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(
      "The studio's server does not answer. Is `cllm studio` still running?",
      0,
      "Unreachable",
    );
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  return (await (await request(address(path, query), { signal: signal ?? null })).json()) as T;
}

export async function getBytes(path: string, query: Query = {}, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await request(address(path, query), { signal: signal ?? null })).arrayBuffer();
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return (await (await postStream(path, body, signal)).json()) as T;
}

/** POST whose answer is read as it comes (`response.body`), as tokens do. */
export async function postStream(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
}

/** The lines of a streamed answer (JSON a line), parsed. */
export async function* lines<T>(response: Response): AsyncGenerator<T> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop()!;
      for (const part of parts) if (part) yield JSON.parse(part) as T;
    }
    if (rest.trim()) yield JSON.parse(rest) as T;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Say an error at the edge of the page; cancelled requests are no errors. */
export function tell(error: unknown): void {
  if (!isAbort(error)) toast(words(error), "error");
}
