/** The model as blocks: what each does, its tensors, and which results of the forward pass belong to it. */
import type { Structure, Tensor } from "./api";

export type Kind = "ends" | "norm" | "attention" | "feed";

export interface Block {
  /** "0.attn.qkv": the layer, if any, and the name. */
  id: string;
  layer: number | undefined;
  kind: Kind;
  title: string;
  /** What it calculates. */
  formula: string;
  /** Sizes of what goes in and comes out, T tokens. */
  input: string;
  output: string;
  tensors: Tensor[];
  parameters: number;
  /** Names of the results in the trace. */
  ops: { op: string; label: string }[];
  note?: string;
}

export interface Layer {
  number: number;
  attention: Block[];
  feed: Block[];
  parameters: number;
}

export interface Blocks {
  embedding: Block;
  layers: Layer[];
  norm: Block;
  head: Block;
  parameters: number;
  all: ReadonlyMap<string, Block>;
}

export function blocksOf(s: Structure): Blocks {
  const m = s.model;
  const byName = new Map(s.tensors.map((t) => [t.name, t]));
  const all = new Map<string, Block>();
  const [d, f, v, h] = [m.width, m.ff, m.vocab, m.heads];
  const gelu = m.activation === "gelu_erf" ? "GELU (erf)" : "GELU (tanh)";

  const make = (
    id: string,
    rest: Omit<Block, "id" | "layer" | "tensors" | "parameters"> & { names: string[] },
  ): Block => {
    const { names, ...given } = rest;
    const tensors = names.map((name) => byName.get(name)).filter((t) => t !== undefined);
    const parameters = tensors.reduce((sum, t) => sum + (t.trained ? t.count : 0), 0);
    const number = /^(\d+)\./.exec(id)?.[1];
    const made: Block = {
      id,
      layer: number === undefined ? undefined : Number(number),
      tensors,
      parameters,
      ...given,
    };
    all.set(id, made);
    return made;
  };
  const stream = `T × ${d}`;
  const norm = (id: string, name: string, title: string): Block =>
    make(id, {
      kind: "norm",
      title,
      formula: "y = (x − μ) / √(σ² + ε) · g + b, token by token",
      input: stream,
      output: stream,
      names: [`${name}.g`, `${name}.b`],
      ops: [{ op: id === "lnf" ? "lnf" : id.split(".")[1]!, label: "Result" }],
    });

  const position =
    m.positions === "learned"
      ? "a learned row for the position is added"
      : m.positions === "rope"
        ? "positions turn queries and keys (rotary), nothing is added"
        : `a fixed code (${m.positions}) for the position is added`;
  const embedding = make("embedding", {
    kind: "ends",
    title: "Embedding",
    formula: `x = E[token]; ${position}${m.lattice_transform ? "; then a fixed rotation" : ""}`,
    input: "T",
    output: stream,
    names: [
      "tok",
      "pos",
      "positions.mix",
      ...[...byName.keys()].filter((n) => n.startsWith("table.") && !n.startsWith("table.rope")),
    ],
    ops: [{ op: "embedding", label: "Residual stream behind it" }],
  });
  const layers = Array.from({ length: m.layers }, (_, i): Layer => {
    const attention = [
      norm(`${i}.ln1`, `${i}.ln1`, "Norm"),
      make(`${i}.attn.qkv`, {
        kind: "attention",
        title: "Q · K · V",
        formula: "q = x·Wqᵀ + bq, and k, v likewise",
        input: stream,
        output: `3 × T × ${d}`,
        names: ["wq", "bq", "wk", "bk", "wv", "bv"].map((n) => `${i}.attn.${n}`),
        ops: [
          { op: "attn.q", label: "Queries" },
          { op: "attn.k", label: "Keys" },
          { op: "attn.v", label: "Values" },
        ],
      }),
      make(`${i}.attn`, {
        kind: "attention",
        title: h === 1 ? "Attention, 1 head" : `Attention, ${h} heads`,
        formula:
          m.symmetry_bias || m.symmetry_bias_trainable
            ? "A = softmax(q·kᵀ/√K + β·ln M[classes]) over what may be seen; y = A·v"
            : "A = softmax(q·kᵀ/√K) over what may be seen; y = A·v",
        input: `3 × ${h} × T × ${d / h}`,
        output: stream,
        names: ["symmetry.beta", ...[...byName.keys()].filter((n) => n.startsWith("table.rope"))],
        ops: [{ op: "attn", label: "Result, the heads side by side" }],
      }),
      make(`${i}.attn.wo`, {
        kind: "attention",
        title: "Out",
        formula: "x ← x + y·Woᵀ + bo",
        input: stream,
        output: stream,
        names: [`${i}.attn.wo`, `${i}.attn.bo`],
        ops: [{ op: "attn.out", label: "Residual stream behind it" }],
      }),
    ];
    const feed = [
      norm(`${i}.ln2`, `${i}.ln2`, "Norm"),
      make(`${i}.ffn.w1`, {
        kind: "feed",
        title: "Up",
        formula: "h = x·W1ᵀ + b1",
        input: stream,
        output: `T × ${f}`,
        names: [`${i}.ffn.w1`, `${i}.ffn.b1`],
        ops: [{ op: "ffn.w1", label: "Result" }],
      }),
      make(`${i}.ffn.gelu`, {
        kind: "feed",
        title: "GELU",
        formula: `${gelu}: h·Φ(h), entry by entry`,
        input: `T × ${f}`,
        output: `T × ${f}`,
        names: [],
        ops: [{ op: "ffn.gelu", label: "Result" }],
      }),
      make(`${i}.ffn.w2`, {
        kind: "feed",
        title: "Down",
        formula: "x ← x + h·W2ᵀ + b2",
        input: `T × ${f}`,
        output: stream,
        names: [`${i}.ffn.w2`, `${i}.ffn.b2`],
        ops: [{ op: "ffn.w2", label: "Residual stream behind it" }],
      }),
    ];
    const parameters = [...attention, ...feed].reduce(
      (sum, b) => sum + b.tensors.reduce((n, t) => n + (t.name.startsWith(`${i}.`) ? t.count : 0), 0),
      0,
    );
    return { number: i, attention, feed, parameters };
  });
  const last = norm("lnf", "lnf", "Final norm");
  const head = make("head", {
    kind: "ends",
    title: "Head",
    formula: m.tied ? "logits = x·Eᵀ: the token embedding again" : "logits = x·Wᵀ",
    input: stream,
    output: `T × ${v}`,
    names: [m.tied ? "tok" : "head.w"],
    ops: [{ op: "head", label: "Logits" }],
    ...(m.tied ? { note: "Its matrix is that of the embedding; it is counted there." } : {}),
  });
  if (m.tied) head.parameters = 0;
  const parameters = s.tensors.reduce((sum, t) => sum + (t.trained ? t.count : 0), 0);
  return { embedding, layers, norm: last, head, parameters, all };
}
