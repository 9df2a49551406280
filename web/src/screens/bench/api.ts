/** The server's side of this screen, typed. */
import { get, post } from "../../api/client";

export type Kind = "bench" | "ablate";
export type Value = number | string | boolean | null;

export interface Option {
  name: string;
  flag: string;
  type: "int" | "float" | "bool" | "str" | "path";
  many: boolean;
  choices: string[] | null;
  required: boolean;
  default: Value | Value[];
  help: string;
}

export interface Took {
  options: string[];
  seconds: number;
  time: number;
}

export interface Command {
  name: string;
  about: string;
  more: string;
  options: Option[];
  /** Seconds on the project's machine; null where it took longer than was waited for; undefined: not timed. */
  usual?: number | null;
  times: Took[];
}

export interface Progress {
  done: number;
  now: { cell: string; seed: number; step: number; loss: number | null } | null;
}

export interface Job {
  id: string;
  run: string;
  what: string;
  options: string[];
  command: string;
  state: "running" | "paused" | "stopping" | "ended";
  code: number | null;
  error: string | null;
  time: number;
  pid: number;
  progress?: Progress;
}

export interface Jobs {
  benches: Job[];
  studies: Job[];
}

export interface Around {
  cores: number;
  busy: number | null;
  jobs: { kind: "train" | Kind; name: string }[];
}

export interface Machine {
  key: string;
  name: string;
  system: string | null;
  threads: number | null;
}

export interface Summary {
  file: string;
  name: string;
  title: string;
  date: string;
  commit: string | null;
  machine: Machine;
  rows: number;
}

export type Row = { name: string } & Record<string, Value>;

export interface Measurement {
  file: string;
  title: string;
  date: string;
  commit: string | null;
  machine: Machine;
  facts: Record<string, Value>;
  rows: Row[];
  notes: string[];
  versions: Record<string, string>;
}

export interface StudyRow {
  title: string;
  file: string | null;
  folder: string | null;
  cells: number;
  seeds: number;
  done: number;
  changed: number;
  broken?: string;
}

export interface Comparison {
  pairs: number;
  verdict: string;
  differences: number[];
  mean_difference: number | null;
  low: number | null;
  high: number | null;
}

export interface Cell {
  name: string;
  folder: string | null;
  set: Record<string, Value>;
  parameters: number | null;
  tokens: number | null;
  losses: Record<string, number | null>;
  seconds: Record<string, number>;
  mean: number | null;
  curve: { step: number[]; mean: number[]; low: number[]; high: number[] };
  lengths: Record<string, number | null>;
  comparison: Comparison | null;
}

export interface Study {
  title: string;
  baseline: string;
  seeds: number[];
  cells: Cell[];
  done: number;
  steps: number | null;
  conclusion: string[];
  study: string;
  report: boolean;
  folder: string | null;
  file: string | null;
  mixed?: string | null;
  texts?: string[];
  sizes?: Record<string, number>;
}

export interface NoteRow {
  name: string;
  bytes: number;
  changed: number;
  title: string | null;
}

export interface Note {
  name: string;
  text: string;
  version: string;
  changed: number;
}

export const api = {
  commands: () => get<{ commands: Command[]; waited: number }>("/api/bench/commands"),
  around: (signal?: AbortSignal) => get<Around>("/api/bench/around", {}, signal),
  start: (name: string, options: Record<string, Value | Value[]>) =>
    post<Job>("/api/bench/start", { name, options }),
  act: (kind: Kind, run: string, what: "stop" | "pause" | "continue") =>
    post<Job>("/api/bench/act", { kind, run, what }),
  jobs: () => get<Jobs>("/api/bench/jobs"),
  job: (kind: Kind, run: string, signal?: AbortSignal) =>
    get<{ job: Job | null; log: string; tables: { file: string; name: string; title: string }[] }>(
      "/api/bench/job",
      { kind, run },
      signal,
    ),
  results: () => get<{ tables: Summary[]; broken: { file: string; why: string }[] }>("/api/bench/results"),
  history: (name: string, signal?: AbortSignal) =>
    get<{ name: string; measurements: Measurement[] }>("/api/bench/history", { name }, signal),
  studies: () => get<{ studies: StudyRow[] }>("/api/bench/studies"),
  study: (folder: string | undefined, file: string | undefined, signal?: AbortSignal) =>
    get<Study>("/api/bench/study", { folder, file }, signal),
  ablate: (file: string) => post<Job>("/api/bench/ablate", { file }),
  texts: () =>
    get<{ files: { name: string }[]; folders: { name: string }[]; corpora: { name: string }[] }>(
      "/api/train/data",
    ),
  notes: () => get<{ notes: NoteRow[]; more: boolean; workspace: string }>("/api/notes"),
  note: (name: string, signal?: AbortSignal) => get<Note>("/api/notes/read", { name }, signal),
};
