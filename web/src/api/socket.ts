/** One WebSocket a tab. Screens watch runs and topics; the cursors survive a lost connection, so nothing is missed and
 * nothing comes twice. */
import { signal } from "@preact/signals";

export interface RunEvent {
  event: string;
  step: number;
  time?: number;
  [key: string]: unknown;
}

type RunListener = (events: readonly RunEvent[], reset: boolean) => void;
type TopicListener = (value: unknown) => void;

interface Watched {
  cursor: number;
  listeners: Set<RunListener>;
}

/** "closed" until something is watched or `connect()` is called. */
export const connection = signal<"closed" | "opening" | "open">("closed");

const runs = new Map<string, Watched>();
const topics = new Map<string, Set<TopicListener>>();
const latest = new Map<string, unknown>();
let socket: WebSocket | undefined;
let wait = 250; // milliseconds before the next try
let asked = false;

/** Events of a run's log from byte `cursor` on. Returns what ends it. Several may watch one run; each that joins later
 * must bring the log's past by itself (the runs' routes give it with its cursor). */
export function watchRun(run: string, cursor: number, listener: RunListener): () => void {
  const found = runs.get(run);
  if (found) found.listeners.add(listener);
  else runs.set(run, { cursor, listeners: new Set([listener]) });
  connect();
  say();
  return () => {
    const now = runs.get(run);
    now?.listeners.delete(listener);
    if (now && now.listeners.size === 0) {
      runs.delete(run);
      say();
    }
  };
}

/** The newest value of a topic, now (where there is one) and whenever it changes. */
export function watchTopic(topic: string, listener: TopicListener): () => void {
  const set = topics.get(topic) ?? new Set();
  topics.set(topic, set.add(listener));
  if (latest.has(topic)) listener(latest.get(topic));
  connect();
  return () => set.delete(listener);
}

export function connect(): void {
  asked = true;
  if (socket) return;
  connection.value = "opening";
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const made = new WebSocket(`${scheme}://${location.host}/api/events`);
  socket = made;
  made.onopen = () => {
    connection.value = "open";
    wait = 250;
    say();
  };
  made.onmessage = (message) => take(JSON.parse(message.data as string));
  made.onclose = () => {
    if (socket === made) socket = undefined;
    connection.value = "closed";
    if (asked) setTimeout(connect, wait + Math.random() * 100);
    wait = Math.min(wait * 2, 8000);
  };
}

function say(): void {
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify({ watch: Object.fromEntries([...runs].map(([run, w]) => [run, w.cursor])) }));
}

interface Message {
  run?: string;
  cursor?: number;
  reset?: boolean;
  events?: RunEvent[];
  topic?: string;
  value?: unknown;
  error?: string;
}

function take(message: Message): void {
  if (message.topic !== undefined) {
    latest.set(message.topic, message.value);
    for (const listener of topics.get(message.topic) ?? []) listener(message.value);
    return;
  }
  const watched = message.run === undefined ? undefined : runs.get(message.run);
  if (!watched) return;
  watched.cursor = message.cursor ?? watched.cursor;
  for (const listener of watched.listeners) listener(message.events ?? [], message.reset === true);
}
