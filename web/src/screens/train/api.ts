/** The server's side of this screen, typed. */
import { get, post } from "../../api/client";

export type State = "starting" | "running" | "paused" | "stopping" | "done" | "stopped" | "failed";

export interface Row {
  name: string;
  preset: string;
  state: State;
  words: string;
  step: number;
  steps: number | null;
  tokens: number;
  parameters: number | null;
  loss: number | null;
  best: number | null;
  best_step: number | null;
  bits: number | null;
  tokens_per_s: number | null;
  curve: number[];
  alerts: number;
  samples: number;
  checkpoints: number;
  metrics: string[];
  changed: number;
  began: number | null;
  seen: number | null;
}

export interface Job {
  id: string;
  run: string;
  state: string;
  pid: number;
  time: number;
  command: string;
  ours: boolean;
  code: number | null;
  error: string | null;
}

export interface Alert {
  kind: string;
  level: "bad" | "note";
  step: number;
  text: string;
}

export interface Checkpoint {
  name: string;
  step: number;
  time: number | null;
  loss: number | null;
  latest: boolean;
  best: boolean;
  there: boolean;
}

export interface Detail extends Omit<Row, "alerts" | "samples" | "checkpoints"> {
  alerts: Alert[];
  samples: { step: number; time: number; text: string }[];
  checkpoints: Checkpoint[];
  evaluations: { step: number; loss: number }[];
  start: Record<string, unknown> | null;
  stop: string | null;
  settings: Record<string, unknown>;
  job: Job | null;
  notes: string;
}

export interface Curve {
  points: number;
  x: number[];
  y?: (number | null)[];
  low?: number[];
  high?: number[];
  ema?: (number | null)[];
  bad: number[];
}

export interface RunCurves {
  cursor: number;
  metrics: Record<string, Curve>;
  known: string[];
}

export interface CurveRequest {
  runs: string[];
  metrics: string[];
  x: string;
  low: number | null;
  high: number | null;
  width: number;
  log_x: boolean;
  half_life: number | null;
}

export interface TextFile {
  name: string;
  bytes: number;
  kind: string;
  files?: number;
}

export interface Texts {
  files: TextFile[];
  folders: TextFile[];
  corpora: TextFile[];
  more: boolean;
  workspace: string;
}

export interface Preview {
  name: string;
  bytes: number;
  text: string;
  records: { number: number; text: string; wrong: string }[];
  problem: string | null;
  documents?: number;
}

export interface Inspection {
  documents: number;
  files: number;
  bytes: number;
  characters: number;
  duplicates: number;
  invalid: number;
  characters_beyond_ascii: number;
  notes: string[];
}

export interface Setting {
  key: string;
  kind: "whole" | "number" | "switch" | "choice" | "list" | "text";
  default: unknown;
  optional: boolean;
  choices: string[];
  low: number | null;
  high: number | null;
  open_low: boolean;
  open_high: boolean;
  help: string;
}

export interface Form {
  presets: Record<string, Record<string, number | string | boolean>>;
  settings: Setting[];
}

export type Values = Record<string, unknown>;

export interface Size {
  parameters: number;
  bytes: Record<string, number>;
  bytes_total: number;
  machine_bytes: number;
  fits: boolean;
  checkpoint_bytes: number;
  flops_per_token: number;
  tokens_a_step: number;
  steps: number | null;
  minutes: number | null;
  device: string;
}

export interface Speed {
  seconds_a_step: number | null;
  tokens_per_s: number | null;
}

export interface Difference {
  runs: string[];
  rows: { key: string; values: unknown[] }[];
}

const at = (name: string) => `/api/train/${name}`;

export const api = {
  runs: (signal?: AbortSignal) => get<{ runs: Row[] }>(at("runs"), {}, signal),
  run: (run: string, signal?: AbortSignal) => get<Detail>(at("run"), { run }, signal),
  curves: (asked: CurveRequest, signal?: AbortSignal) =>
    post<{ runs: Record<string, RunCurves> }>(at("curves"), asked, signal),
  diff: (runs: string[], signal?: AbortSignal) => post<Difference>(at("diff"), { runs }, signal),
  log: (run: string) => get<{ log: string }>(at("log"), { run }),
  notes: (run: string, text: string) => post<unknown>(at("notes"), { run, text }),
  act: (what: "pause" | "continue" | "stop" | "resume", run: string) => post<{ job: Job }>(at(what), { run }),
  data: (signal?: AbortSignal) => get<Texts>(at("data"), {}, signal),
  preview: (name: string, signal?: AbortSignal) => get<Preview>(at("preview"), { name }, signal),
  inspect: (runs: string[], signal?: AbortSignal) => post<Inspection>(at("inspect"), { runs }, signal),
  text: (name: string, text: string) => post<{ name: string; bytes: number }>(at("text"), { name, text }),
  form: () => get<Form>(at("form")),
  plan: (preset: string, settings: Values, signal?: AbortSignal) =>
    post<Size>(at("plan"), { preset, settings }, signal),
  speed: (preset: string, settings: Values, signal?: AbortSignal) =>
    post<Speed>(at("speed"), { preset, settings }, signal),
  start: (asked: { name: string; data: string[]; preset: string; settings: Values; start?: string | null }) =>
    post<{ run: string; job: Job }>(at("start"), asked),
};
