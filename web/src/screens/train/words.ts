/** Numbers, times and sizes as one reads them. */

export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return Math.round(value).toLocaleString("en-US").replaceAll(",", "\u2009");
}

/** 43.9 k, 1.26 M, 2.1 G. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e15) return power10(value);
  if (size < 1000)
    return size < 10 && size !== Math.round(size) ? value.toPrecision(2) : String(Math.round(value));
  const power = Math.min(4, Math.floor(Math.log10(size) / 3));
  return `${(value / 1000 ** power).toPrecision(3)}\u202f${["", "k", "M", "G", "T"][power]}`;
}

export function bytes(value: number): string {
  if (value < 1000) return `${value}\u202fB`;
  const power = Math.min(4, Math.floor(Math.log10(value) / 3));
  return `${(value / 1000 ** power).toPrecision(3)}\u202f${["", "kB", "MB", "GB", "TB"][power]}`;
}

export function loss(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return Math.abs(value) >= 1e4 ? power10(value) : value.toFixed(digits);
}

/** 2.3e18, for what has left every scale. */
function power10(value: number): string {
  return value.toExponential(1).replace("e+", "e");
}

/** 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 ? ` ${String(s % 60).padStart(2, "0")} s` : ""}`;
  if (s < 86400)
    return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long ago, from seconds since 1970. */
export function ago(time: number, now = Date.now() / 1000): string {
  const passed = now - time;
  if (passed < 10) return "just now";
  if (passed < 3600)
    return passed < 60 ? `${Math.floor(passed)} s ago` : `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(time * 1000).toISOString().slice(0, 10);
}

/** A tick or a value on a chart. */
export function figure(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5) return short(value);
  if (size < 1e-3) return value.toExponential(1).replace("e-", "e−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

const NAMES: Record<string, string> = {
  "step.loss": "training loss",
  "eval.loss": "validation loss",
  "final.loss": "validation loss, all of it",
  "step.grad_norms": "gradient norms by group",
  "step.grad_norms.embeddings": "gradient norm: embeddings",
  "step.grad_norms.attention": "gradient norm: attention",
  "step.grad_norms.feedforward": "gradient norm: feed-forward",
  "step.grad_norms.norms": "gradient norm: layer norms",
  "step.lr": "learning rate",
  "step.grad_norm": "gradient norm",
  "step.tokens_per_s": "tokens a second",
  "step.tokens": "tokens seen",
  "eval.perplexity": "perplexity",
  "eval.bits_per_byte": "bits per byte",
  "eval.accuracy": "accuracy",
  "eval.top5_accuracy": "top-5 accuracy",
};

/** Not one metric but several: the gradient's norm in each group of parameters. */
export const BY_GROUP = "step.grad_norms";
export const GROUPS = ["embeddings", "attention", "feedforward", "norms"].map((g) => `${BY_GROUP}.${g}`);

/** The validation loss belongs to the training loss. */
export const PARTNER: Record<string, string> = { "step.loss": "eval.loss" };

/** The metrics that are drawn under this name. */
export function namesOf(metric: string): readonly string[] {
  if (metric === BY_GROUP) return GROUPS;
  return PARTNER[metric] ? [metric, PARTNER[metric]] : [metric];
}

/** A metric in words. */
export function metricName(metric: string): string {
  const known = NAMES[metric];
  if (known) return known;
  const [kind, ...rest] = metric.split(".");
  const name = rest.join(" ").replaceAll("_", " ");
  return kind === "eval" ? `validation: ${name}` : kind === "final" ? `at the end: ${name}` : name;
}
