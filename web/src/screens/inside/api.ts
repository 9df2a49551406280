/** The server's side of this screen, typed. */
import { get, lines, post, postStream } from "../../api/client";

export interface Place {
  run: string;
  checkpoint: string;
}

export interface Tensor {
  name: string;
  shape: number[];
  count: number;
  trained: boolean;
}

export interface ModelSizes {
  layers: number;
  width: number;
  heads: number;
  ff: number;
  context: number;
  vocab: number;
  positions: string;
  activation: string;
  tied: boolean;
  symmetry_bias: number;
  symmetry_bias_trainable: boolean;
  lattice_transform: boolean;
}

export interface Structure {
  checkpoint: string;
  model: ModelSizes;
  precision: string;
  document_mask: boolean;
  tensors: Tensor[];
}

/** How the entries of a tensor are distributed; the figures are of the finite ones, null where there is none. */
export interface Summary {
  shape: number[];
  count: number;
  nan: number;
  infinite: number;
  zeros: number | null;
  norm: number | null;
  rms: number | null;
  mean: number | null;
  std: number | null;
  min: number | null;
  max: number | null;
  counts: number[];
}

export type Named = Summary & { name: string };
export type Op = Summary & { layer: number | null; op: string };
/** id, text, document, position. */
export type Token = [number, string, number, number];

export interface Trace {
  checkpoint: string;
  kernels: string;
  text: string;
  tokens: Token[];
  asked: number;
  context: number;
  masked: boolean;
  end: string | null;
  ops: Op[];
  nats: (number | null)[];
}

export interface HeadFacts {
  previous: number | null;
  first: number | null;
  own: number | null;
  entropy: number | null;
}

export interface HeadsLine {
  layer: number;
  size: number;
  pictures: string[];
  heads: HeadFacts[];
}

export interface LensLine {
  at: number;
  top: number[][];
  p: number[][];
  entropy: number[];
  next: ([number, number] | null)[];
  texts: Record<string, string>;
}

export interface Cloud {
  vocab: number;
  width: number;
  shares: number[];
  classes_of: string;
  ids: number[];
  texts: string[];
  xyz: [number, number, number][];
  norms: number[];
  counts: number[] | null;
  primes: number[];
  id_classes: number[];
  prime_classes: number[];
}

export interface Neighbour {
  id: number;
  text: string;
  xyz: [number, number, number];
  cosine?: number;
}

export interface Near extends Neighbour {
  norm: number;
  prime: number;
  near: Neighbour[];
  others: Neighbour[];
}

export interface Job {
  id: string;
  state: "running" | "paused" | "stopping" | "ended";
  code: number | null;
  command: string;
  progress: number;
  error: string | null;
}

export interface Short {
  name: string;
  changed: number;
  error?: string;
  ok: boolean;
  enclosure: string;
  verdict: string;
  date: string;
  step: number;
  checkpoint: string | null;
  tokens: number;
  precision: string;
  worst: number;
  adamw: boolean;
}

export interface Row {
  name: string;
  shape: number[];
  verdict: string;
  why: string;
  rms: number;
  radius: number;
  max: number;
  normwise: number;
  allowed: number | null;
  worst: number[];
  exact: string;
  engine: string;
}

export interface Certificate extends Short {
  statement: string;
  engine: { name: string; commit: string | null; repeatable: boolean };
  hashes: Record<string, string>;
  parameters: number;
  bits: number;
  seconds: number;
  loss: { exact: string; radius: number; engine: number; error: number };
  entries: number;
  radius: number;
  errors: { p50: number; p99: number; p999: number; max: number };
  steps: { t: number; error: number; used: number }[] | null;
  tensors: Row[];
}

const at = (name: string) => `/api/inside/${name}`;

async function* stream<T>(name: string, body: unknown, signal: AbortSignal): AsyncGenerator<T> {
  for await (const line of lines<T | { error: string }>(await postStream(at(name), body, signal))) {
    if (typeof line === "object" && line !== null && "error" in line) throw new Error(line.error);
    yield line as T;
  }
}

export const api = {
  model: (of: Place, signal: AbortSignal) => post<Structure>(at("model"), of, signal),
  tensor: (of: Place, name: string, signal: AbortSignal) =>
    post<Named>(at("tensor"), { ...of, name }, signal),
  tensors: (of: Place, signal: AbortSignal) => stream<Named>("tensors", of, signal),
  trace: (of: Place, text: string, signal: AbortSignal) => post<Trace>(at("trace"), { ...of, text }, signal),
  heads: (of: Place, text: string, signal: AbortSignal) =>
    stream<HeadsLine>("heads", { ...of, text }, signal),
  attention: async (of: Place, text: string, layer: number, head: number, signal: AbortSignal) => {
    const answer = await postStream(at("attention"), { ...of, text, layer, head }, signal);
    return new Float32Array(await answer.arrayBuffer());
  },
  lens: (of: Place, text: string, signal: AbortSignal) => stream<LensLine>("lens", { ...of, text }, signal),
  cloud: (of: Place, signal: AbortSignal) => post<Cloud>(at("cloud"), of, signal),
  near: (of: Place, token: string, signal: AbortSignal) => post<Near>(at("near"), { ...of, token }, signal),
  certificates: (run: string, signal: AbortSignal) =>
    get<{ certificates: Short[]; job: Job | null }>(at("certificates"), { run }, signal),
  certificate: (run: string, name: string, signal: AbortSignal) =>
    get<Certificate>(at("certificate"), { run, name }, signal),
  certify: (of: Place, tokens: number, step: boolean) => post<Job>(at("certify"), { ...of, tokens, step }),
  stop: (run: string) => post<Job>(at("stop"), { run }),
};
