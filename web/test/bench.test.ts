/** Bench & research: figures in words, options, and notes that can do no harm. */
import type { VNode } from "preact";
import { describe, expect, test } from "vitest";
import type { Cell, Command, Measurement, Option, Row, StudyRow, Summary } from "../src/screens/bench/api";
import {
  column,
  columns,
  day,
  machines,
  plain,
  points,
  reach,
  short,
  text,
} from "../src/screens/bench/figures";
import { place, scaleOf, signed, tone } from "../src/screens/bench/forest";
import { folders, studyParams } from "../src/screens/bench/lists";
import { fullName, template } from "../src/screens/bench/making";
import { below, entities, Markdown, slug, target } from "../src/screens/bench/markdown";
import { copyName } from "../src/screens/bench/notes";
import { changed, estimate, items, line, quoted } from "../src/screens/bench/options";
import { newestTables } from "../src/screens/bench/state";
import { placeOf } from "../src/screens/bench/studies";
import { paired, ranked } from "../src/screens/bench/study-parts";

const option = (name: string, more: Partial<Option> = {}): Option => ({
  name,
  flag: `--${name.replaceAll("_", "-")}`,
  type: "int",
  many: false,
  choices: null,
  required: false,
  default: 5,
  help: "",
  ...more,
});

const command = (more: Partial<Command> = {}): Command => ({
  name: "numbers",
  about: "",
  more: "",
  options: [
    option("rounds"),
    option("seeds", { many: true, default: [1, 2] }),
    option("skip_memory", { type: "bool", default: false }),
    option("text", { type: "str", default: "a" }),
  ],
  times: [],
  ...more,
});

const measurement = (more: Partial<Measurement> & { key?: string } = {}): Measurement => ({
  file: "a.json",
  title: "t",
  date: "2026-11-22T05:19:49+00:00",
  commit: "0123456789ab+",
  machine: { key: more.key ?? "one", name: "AMD, 2 cores", system: null, threads: 2 },
  facts: {},
  rows: [{ name: "exp", ms: 2, spread: 0.1 }],
  notes: [],
  versions: {},
  ...more,
});

describe("figures", () => {
  test("columns are named, and those without a figure are left out", () => {
    const rows: Row[] = [
      { name: "a", ms: 1.5, spread: 0.01, within_target: null, gmpy2_ratio: 2, calls: 3 },
      { name: "b", ms: 2, limit_fraction: 0.5, calls: 4 },
    ];
    expect(columns(rows).map((c) => [c.key, c.title, c.sort])).toEqual([
      ["ms", "median, ms", "figure"],
      ["spread", "spread", "spread"],
      ["gmpy2_ratio", "× gmpy2", "ratio"],
      ["calls", "calls", "figure"],
      ["limit_fraction", "of the limit", "share"],
    ]);
    expect(text(columns(rows)[3]!, 3)).toBe("3");
    expect(column("read_gb_s").title).toBe("read, GB/s");
    expect(column("in_target").sort).toBe("target");
    expect(column("times_ours").sort).toBe("ratio");
  });

  test("numbers keep four digits and their sign", () => {
    const said = [0, 0.5851387, 11.02, 1234567, -0.25, 1e-5, 129.31, 3.2e12].map(plain);
    expect(said).toEqual([
      "0",
      "0.585",
      "11.02",
      "1\u2009234\u2009567",
      "−0.250",
      "1.00e−5",
      "129.3",
      "3.20e12",
    ]);
    expect(text(column("spread"), 0.0123)).toBe("1.2\u202f%");
    expect(text(column("x_ratio"), 2)).toBe("2.000\u202f×");
    expect(text(column("within_target"), false)).toBe("no");
    expect(text(column("ms"), null)).toBe("–");
  });

  test("a ratio of one is in the middle, 16 at the end", () => {
    expect([reach(1), reach(16), reach(1 / 16), reach(1000), reach(4), reach(0)]).toEqual([
      0, 1, -1, 1, 0.5, -1,
    ]);
  });

  test("a figure through all measurements, machines told apart", () => {
    const all = [
      measurement(),
      measurement({ key: "two", rows: [{ name: "ln", ms: 1 }] }),
      measurement({ key: "two", rows: [{ name: "exp", ms: 3 }] }),
    ];
    expect(points(all, "exp", "ms").map((p) => [p.value, p.spread])).toEqual([
      [2, 0.1],
      [3, null],
    ]);
    expect(machines(all)).toEqual([
      { key: "one", name: "AMD, 2 cores (1)" },
      { key: "two", name: "AMD, 2 cores (2)" },
    ]);
    expect([short("0123456789ab+"), short("0123456789ab"), short(null)]).toEqual([
      "0123456+",
      "0123456",
      "no commit",
    ]);
    expect(day("2026-11-22T05:09:49+00:00")).toBe("22 Nov 2026, 05:09");
    expect(day("yesterday")).toBe("yesterday");
  });

  test("the newest of each table", () => {
    const one = (name: string, file: string): Summary => ({ ...measurement(), name, file, rows: 1 });
    const found = newestTables([one("b", "new"), one("a", "x"), one("b", "old")]);
    expect(found.map((f) => [f.newest.name, f.newest.file, f.times])).toEqual([
      ["a", "x", 1],
      ["b", "new", 2],
    ]);
  });
});

describe("options", () => {
  test("only what differs is said", () => {
    const values = { rounds: 5, seeds: [3, 4], skip_memory: true, text: "two words" };
    expect(changed(command(), values)).toEqual({ seeds: [3, 4], skip_memory: true, text: "two words" });
    expect(line(command(), values)).toEqual(["--seeds=3", "--seeds=4", "--skip-memory", "--text=two words"]);
    expect(quoted(line(command(), { text: "it's" }))).toBe("'--text=it'\\''s'");
    expect(
      line(command({ options: [option("fast", { type: "bool", default: true })] }), { fast: false }),
    ).toEqual(["--no-fast"]);
  });

  test("lists are typed with commas", () => {
    const seeds = option("seeds", { many: true });
    expect(items(seeds, "1, 2 3,")).toEqual([1, 2, 3]);
    expect(items(seeds, "1.5")).toBeUndefined();
    expect(items(seeds, "one")).toBeUndefined();
    expect(items(option("text", { type: "str", many: true }), "a b, c")).toEqual(["a b", "c"]);
  });

  test("the estimate says how it is known", () => {
    const took = (options: string[], seconds: number) => ({ options, seconds, time: 0 });
    const known = command({ usual: 90, times: [took(["--rounds=1"], 30), took([], 123)] });
    expect(estimate(known, ["--rounds=1"], 170)).toMatch(/^30 s, as it took here/);
    expect(estimate(known, [], 170)).toMatch(/^2 min 03 s, as it took here/);
    expect(estimate(known, ["--rounds=2"], 170)).toMatch(/with --rounds=1 it took 30 s/);
    expect(estimate(command({ usual: 90 }), [], 170)).toMatch(/^About 1 min 30 s with its own options/);
    expect(estimate(command({ usual: null }), [], 170)).toMatch(/^More than 2 min 50 s/);
    expect(estimate(command(), [], 170)).toMatch(/^Nobody has timed it/);
  });
});

describe("studies", () => {
  const cell = (name: string, mean: number | null, differences: number[] = []): Cell => ({
    name,
    folder: null,
    set: {},
    parameters: 1,
    tokens: 1,
    losses: {},
    seconds: {},
    mean,
    curve: { step: [], mean: [], low: [], high: [] },
    lengths: {},
    comparison: { pairs: 2, verdict: "lower", differences, mean_difference: 0, low: -0.5, high: null },
  });

  test("the baseline first, then the lowest", () => {
    const cells = [cell("a", 3), cell("b", null), cell("c", 1), cell("base", 2)];
    expect(ranked({ cells, baseline: "base" }).map((c) => c.name)).toEqual(["base", "c", "a", "b"]);
  });

  test("two pairs make an interval", () => {
    const lone = cell("a", 1);
    expect(paired({ cells: [lone] })).toBe(true);
    expect(paired({ cells: [{ ...lone, comparison: { ...lone.comparison!, pairs: 1 } }] })).toBe(false);
    expect(paired({ cells: [{ ...lone, comparison: null }] })).toBe(false);
  });

  test("one scale with zero in it", () => {
    const scale = scaleOf([cell("a", 1, [0.5, 1])]);
    expect(scale.low).toBeCloseTo(-0.56);
    expect(scale.high).toBeCloseTo(1.06);
    expect(place(scale.low, scale)).toBe(0);
    expect(place(scale.high, scale)).toBe(100);
    const empty = scaleOf([]);
    expect(place(0, empty)).toBeCloseTo(50);
    expect([tone("lower"), tone("higher"), tone("no difference shown")]).toEqual(["good", "warm", "quiet"]);
    expect([signed(-0.25), signed(0.5, 1), signed(null)]).toEqual(["−0.250", "+0.5", "–"]);
  });

  test("names", () => {
    expect(placeOf("docs/studies/positions.toml")).toBe("studies/positions");
    const row: StudyRow = {
      title: "",
      file: "a.toml",
      folder: null,
      cells: 1,
      seeds: 1,
      done: 0,
      changed: 0,
    };
    expect(studyParams(row)).toEqual({ part: "studies", study: "a.toml" });
    expect(template("studies/my-study.toml", 'a "b".txt')).toContain('title = "My study"');
    expect(template("x.toml", 'a "b".txt')).toContain('data.path = ["a \\"b\\".txt"]');
  });
});

// ------------------------------------------------------------------------------------------------------------- notes

interface Seen {
  type: unknown;
  props: Record<string, unknown>;
}

/** Every element of a tree, and its text. */
function walk(node: unknown, seen: Seen[] = []): { seen: Seen[]; text: string } {
  if (node === null || node === undefined || typeof node === "boolean") return { seen, text: "" };
  if (typeof node !== "object") return { seen, text: String(node) };
  if (Array.isArray(node)) return { seen, text: node.map((n) => walk(n, seen).text).join("") };
  const { type, props } = node as VNode<Record<string, unknown>>;
  seen.push({ type, props });
  return { seen, text: walk(props.children, seen).text };
}

const shown = (source: string, from = "docs/note.md") =>
  walk(Markdown({ text: source, from, onOpen: () => {} }));

describe("notes", () => {
  test("what Markdown has", () => {
    const { seen, text: words } = shown(
      "# One *two*\n\nA **bold** `code` ~~old~~ &amp; &#955; &nope; \\*plain\\*\n\n- [x] done\n- [ ] open\n\n1. a\n2. b\n\n" +
        "> said\n\n---\n\n```js\nx < 1 && y\n```\n\n| a | b |\n|--:|:-:|\n| 1 | 2 |\n\nline  \nbreak\n",
    );
    const types = seen.map((s) => s.type);
    for (const type of [
      "h2",
      "em",
      "strong",
      "code",
      "del",
      "ul",
      "ol",
      "li",
      "blockquote",
      "hr",
      "pre",
      "table",
      "br",
    ])
      expect(types, type).toContain(type);
    expect(words).toContain("A bold code old & λ &nope; *plain*");
    expect(words).toContain("x < 1 && y");
    expect(seen.find((s) => s.type === "h2")?.props.id).toBe("note-one-two");
    expect(words).toContain("☑ ");
    expect(seen.filter((s) => s.type === "td").map((s) => s.props.class)).toEqual(["to-right", "to-center"]);
  });

  const ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <b onclick=alert(1)>bold</b> <iframe src=//evil.example></iframe>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](java&#10;script:alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x)",
    "[a](//evil.example/x)",
    "[a](file:///etc/passwd)",
    "![a](https://evil.example/x.png)",
    "![a](//evil.example/x.png)",
    "![a](data:image/svg+xml;base64,AAAA)",
    "![a](../../../etc/x.png)",
    "![a](/api/studio.png)",
    "[a]: javascript:alert(1)\n\n[a]",
    "<javascript:alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "```html\n<script>alert(1)</script>\n```",
    "| <script>x</script> |\n|---|\n| ![](http://evil.example/a.svg) |",
    "<svg/onload=alert(1)>",
    "<style>body{display:none}</style>",
    "<base href=//evil.example>",
    "<!-- --!> <img src=x onerror=alert(1)> -->",
  ];
  const HARMLESS = new Set(
    (
      "div p h2 h3 h4 h5 h6 a button span img pre code ul ol li table thead tbody tr th td blockquote hr br strong em " +
      "del"
    ).split(" "),
  );

  test.each(ATTACKS)("nothing harmful: %s", (source) => {
    const { seen } = shown(source);
    for (const { type, props } of seen) {
      expect(HARMLESS, String(type)).toContain(type);
      expect(props).not.toHaveProperty("dangerouslySetInnerHTML");
      for (const [name, value] of Object.entries(props))
        if (/^on/i.test(name)) expect(typeof value).toBe("function"); // never text
      if (type === "a") {
        expect(props.href).toMatch(/^(https?:\/\/|mailto:)/i);
        expect(props.rel).toContain("noopener");
      }
      if (type === "img") expect(props.src).toMatch(/^\/api\/notes\/picture\?name=(?!.*\.\.)/);
    }
    if (/evil|etc|data:image|api/.test(source)) expect(seen.map((s) => s.type)).not.toContain("img");
  });

  test("what is no Markdown is shown as it is written", () => {
    expect(shown("<script>alert(1)</script>").text).toContain("<script>alert(1)</script>");
    expect(shown("a <b>x</b>").text).toBe("a <b>x</b>");
    expect(shown("<!-- hidden --> seen").text).not.toContain("hidden");
  });

  test("a thousand quotations and lists in each other", () => {
    expect(shown(`${">".repeat(1000)} deep`).text).toContain("deep");
    const lists = Array.from({ length: 60 }, (_, i) => `${"  ".repeat(i)}- ${i}`).join("\n");
    expect(shown(lists).text).toContain("59");
  });

  test("links are seen from the note", () => {
    expect(target("docs/a.md", "b.md#c d")).toEqual({ to: "file", name: "docs/b.md", heading: "c d" });
    expect(target("docs/a.md", "../README.md")).toEqual({ to: "file", name: "README.md" });
    expect(target("a.md", "../b.md")).toEqual({ to: "nowhere" });
    expect(target("a.md", "%2e%2e/b.md")).toEqual({ to: "nowhere" });
    expect(target("a.md", "/b.md")).toEqual({ to: "nowhere" });
    expect(target("a.md", "#The%20End")).toEqual({ to: "heading", id: "the-end" });
    expect(target("a.md", "https://example.org/x")).toEqual({ to: "web", href: "https://example.org/x" });
    expect(below("x/y/a.md", "./z/../b%20c.png")).toBe("x/y/b c.png");
    expect(below("a.md", "b\\..\\c")).toBeUndefined();
    expect(slug("What it says: β = 0.5!")).toBe("what-it-says-β--05");
    expect(entities("&lt;&#x41;&#0;&#xd800;&bogus;")).toBe("<A\ufffd\ufffd&bogus;");
  });

  test("pictures of the workspace are shown", () => {
    const image = shown("![curves](curves.svg)", "docs/studies/mirror/report.md").seen.find(
      (s) => s.type === "img",
    );
    expect(image?.props.src).toBe("/api/notes/picture?name=docs%2Fstudies%2Fmirror%2Fcurves.svg");
    expect(image?.props.alt).toBe("curves");
  });

  test("names of new notes, copies, folders", () => {
    expect(fullName("ideas", ".md")).toBe("ideas.md");
    expect(fullName("/a/b.markdown", ".md")).toBe("a/b.markdown");
    expect(fullName("dropout", ".toml", "studies")).toBe("studies/dropout.toml");
    expect(fullName("x/y.toml", ".toml", "studies")).toBe("x/y.toml");
    expect(copyName("a/b.md", new Set())).toBe("a/b-mine.md");
    expect(copyName("b.md", new Set(["b-mine.md"]))).toBe("b-mine-2.md");
    const note = (name: string) => ({ name, bytes: 1, changed: 0, title: null });
    expect(folders([note("z.md"), note("b/x.md"), note("a.md")]).map(([f, l]) => [f, l.length])).toEqual([
      ["", 2],
      ["b", 1],
    ]);
  });
});
