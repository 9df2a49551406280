/** The server's side of this screen, typed. */
import { post, postStream } from "../../api/client";

export interface Options {
  max_tokens: number;
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number;
  repetition_penalty: number;
  seed: number;
  stop: string[];
  past_context: "stop" | "slide";
}

export interface Asked {
  run: string;
  checkpoint: string;
  prompt: string;
  path: number[];
  options: Options;
}

/** id, text, probability before the sampling filters and behind them. */
export type Alternative = [number, string, number, number];

export interface Token {
  id: number;
  text: string;
  nats: number;
  p: number;
  q: number;
  kept: number;
  top: Alternative[];
  /** Since the writing began. */
  seconds?: number;
}

export type Line =
  | { prompt: number; context: number; checkpoint: string; eos: number | null }
  | Token
  | { end: "tokens" | "eos" | "stop" | "context"; cut?: number; rest?: string }
  | { error: string; kind: string };

export interface Following {
  kept: number;
  top: Alternative[];
  prompt: number;
  context: number;
  vocab: number;
  mass: number;
  entropy: [number, number];
}

const at = (name: string) => `/api/generate/${name}`;

export const api = {
  stream: (asked: Asked, signal: AbortSignal) => postStream(at("stream"), asked, signal),
  next: (asked: Asked, signal: AbortSignal) => post<Following>(at("next"), asked, signal),
  text: (asked: Asked, signal: AbortSignal) =>
    post<{ command: string; python: string }>(at("text"), asked, signal),
};
