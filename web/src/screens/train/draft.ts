/** The new run as it is being filled in. It stays while other screens are looked at. */
import { signal } from "@preact/signals";
import type { Detail, Form, Values } from "./api";

export const form = signal<Form | undefined>(undefined);
export const data = signal<readonly string[]>([]);
export const preset = signal("small");
export const values = signal<Values>({ "train.max_minutes": 5 });
export const name = signal("");
export const from = signal<string | undefined>(undefined);

/** A setting as it stands: said here, or by the preset, or the default. */
export function settingOf(key: string): unknown {
  const said = values.value[key];
  if (said !== undefined) return said;
  const [section, field] = key.split(".") as [string, string | undefined];
  const size = section === "model" && field ? form.value?.presets[preset.value]?.[field] : undefined;
  return size ?? form.value?.settings.find((s) => s.key === key)?.default ?? undefined;
}

/** Say a setting; undefined takes it back. */
export function say(key: string, value: unknown): void {
  const now = { ...values.peek() };
  if (value === undefined || value === null) delete now[key];
  else now[key] = value;
  values.value = now;
}

/** Another size: what was said about the model's sizes before belongs to the old one. */
export function choosePreset(next: string): void {
  preset.value = next;
  values.value = Object.fromEntries(
    Object.entries(values.peek()).filter(
      ([key]) => !(key.startsWith("model.") && key.slice(6) in (form.peek()?.presets[next] ?? {})),
    ),
  );
}

const NOT_TAKEN = new Set(["preset", "start", "data.path", "data.weights", "model.vocab"]);

/** Begin from a run's settings: those that differ from what its preset and the defaults say. */
export function like(detail: Detail): void {
  const told = detail.settings;
  preset.value = typeof told.preset === "string" ? told.preset : "small";
  const sizes = form.peek()?.presets[preset.peek()] ?? {};
  const defaults = new Map(form.peek()?.settings.map((s) => [s.key, s.default]));
  const taken: Values = {};
  for (const [key, value] of Object.entries(told)) {
    if (NOT_TAKEN.has(key) || !defaults.has(key)) continue;
    const usual = key.startsWith("model.") ? (sizes[key.slice(6)] ?? defaults.get(key)) : defaults.get(key);
    if (JSON.stringify(usual) !== JSON.stringify(value)) taken[key] = value;
  }
  if ("train.steps" in taken) delete taken["train.max_minutes"];
  if (typeof taken["data.tokenizer"] === "string" && taken["data.tokenizer"].includes("/"))
    delete taken["data.tokenizer"];
  values.value = taken;
  const paths = told["data.path"];
  data.value = Array.isArray(paths) ? paths.filter((p): p is string => typeof p === "string") : [];
  name.value = "";
  from.value = undefined;
}

/** Begin from a run's weights: its model stays as it is, its tokenizer comes with them. */
export function fromWeights(detail: Detail): void {
  like(detail);
  const { "data.tokenizer": _, "data.vocab_size": __, ...rest } = values.peek();
  values.value = rest;
  from.value = detail.name;
}
