/** The side panel: which curve, which colours, what beside and over it. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { get, isAbort, words } from "../../api/client";
import { Button, NumberField, Section, Segmented, Select, Slider, TextField, Toggle } from "../../controls";
import { theme } from "../../state/theme";
import { counted } from "./busy";
import { about, curveOf, drawLine, goHome, latest, line, select } from "./model";
import { FoldControls, FormulaControls } from "./panel-curves";
import { Export } from "./panel-export";
import { change, naturalStart, query, type Settings, settings } from "./settings";
import { SpacePanel } from "./space-panel";

const GROUPS: [string, string[]][] = [
  ["Grids", ["ulam", "hilbert"]],
  ["Spirals", ["sacks", "archimedes", "vogel", "crystalline", "crystalline-prime"]],
  ["Clocks", ["wheel", "ring-clock", "clock-abacus"]],
];

const COLOURS = [
  { value: "prime", label: "Prime or not" },
  { value: "Omega", label: "Ω: prime factors" },
  { value: "omega", label: "ω: distinct prime factors" },
  { value: "mu", label: "μ: Möbius" },
  { value: "least", label: "Least prime factor" },
  { value: "residue", label: "Residue" },
  { value: "gap", label: "Gap to the next prime" },
  { value: "expression", label: "An expression of n" },
];

function curveOptions() {
  const titles = new Map(about.value?.curves.map((c) => [c.name, c.title]));
  const found = GROUPS.flatMap(([group, names]) =>
    names.filter((n) => titles.has(n)).map((n) => ({ value: n, label: titles.get(n)!, group })),
  );
  return [
    ...found,
    { value: "folded-clock", label: "Folded clock", group: "Clocks" },
    { value: "formula", label: "Own formula", group: "Own" },
    { value: "space", label: "Lattice in space (3-D)", group: "Space" },
  ];
}

/** Six laps of the folded clock. */
export const FOLDED_COUNT = 1392;

export function chooseCurve(curve: string): void {
  const count = curve === "folded-clock" ? FOLDED_COUNT : curve === "formula" ? 20000 : settings.peek().count;
  const grid = { start: naturalStart(curve), count, lap: 0, fold: 0 };
  change({ curve, ...grid, w: 0 });
  void goHome();
  const n = settings.peek().n;
  if (n) void select(n, false);
  void drawLine();
}

export function Panel() {
  const s = settings.value;
  return (
    <aside class="lattice-panel" aria-label="Picture">
      <Section control="lattice.section-curve" title="Curve">
        <Select
          control="lattice.curve"
          label="Numbers lie on"
          value={s.curve}
          options={curveOptions()}
          hint={curveOf(s)?.rule}
          onChange={chooseCurve}
        />
        <CurveOptions s={s} />
      </Section>
      {s.curve === "space" ? (
        <SpacePanel />
      ) : (
        <>
          <Section control="lattice.section-colour" title="Colour">
            <ColourOptions s={s} />
          </Section>
          <Section control="lattice.section-null" title="Random model beside it">
            <NullOptions s={s} />
          </Section>
          {s.curve !== "folded-clock" && s.curve !== "crystalline-prime" && (
            <Section control="lattice.section-line" title="Quadratic over it">
              <LineOptions s={s} />
            </Section>
          )}
          <Section control="lattice.section-export" title="Take it along">
            <Export s={s} />
          </Section>
        </>
      )}
    </aside>
  );
}

function CurveOptions({ s }: { s: Settings }) {
  const starts = { ulam: "Number in the middle", hilbert: "First number", "ring-clock": "First number" };
  return (
    <>
      {(s.curve in starts || s.curve === "folded-clock") && (
        <NumberField
          control="lattice.start"
          label={starts[s.curve as keyof typeof starts] ?? "First number"}
          value={s.start}
          min={s.curve === "ulam" ? 1 : 0}
          max={1e12}
          whole
          onChange={(start) => {
            change({ start });
            if (settings.peek().n) void select(settings.peek().n, false);
            void drawLine();
          }}
        />
      )}
      {s.curve === "wheel" && (
        <NumberField
          control="lattice.modulus"
          label="Spokes (modulus)"
          value={s.modulus}
          min={2}
          max={100000}
          whole
          onChange={(modulus) => {
            change({ modulus });
            if (s.n) void select(s.n, false);
            void drawLine();
          }}
        />
      )}
      {s.curve === "clock-abacus" && (
        <NumberField
          control="lattice.lap"
          label="Lap of 4,320,000 numbers"
          value={s.lap}
          min={0}
          max={231481}
          whole
          onChange={(lap) => change({ lap })}
        />
      )}
      {s.curve === "folded-clock" && <FoldControls s={s} />}
      {s.curve === "formula" && <FormulaControls s={s} />}
      {[
        "sacks",
        "vogel",
        "archimedes",
        "clock-abacus",
        "crystalline",
        "crystalline-prime",
        "formula",
      ].includes(s.curve) && (
        <Slider
          control="lattice.dot"
          label="Size of the dots"
          value={s.dot}
          min={0.25}
          max={3}
          step={0.25}
          shown={`${s.dot}×`}
          onChange={(dot) => change({ dot })}
        />
      )}
      {["ulam", "hilbert", "sacks", "wheel", "ring-clock"].includes(s.curve) && (
        <Toggle
          control="lattice.labels"
          label="Write the numbers when there is room"
          value={s.labels}
          onChange={(labels) => change({ labels })}
        />
      )}
    </>
  );
}

const expressionError = signal<string | undefined>(undefined);
const legend = signal<{ title: string; entries: { label: string; colour: string }[] } | undefined>(undefined);

const expressionTurn = latest();

async function setExpression(expression: string): Promise<void> {
  const before = settings.peek();
  try {
    const near = /^\d{1,12}$/.test(before.n) ? before.n : "1";
    const asked = { expression, near };
    const turn = expressionTurn();
    const scale = await counted(() => get<{ low: number; high: number }>("/api/lattice/scale", asked, turn));
    expressionError.value = undefined;
    const { low, high } = settings.peek(); // what was set meanwhile stays
    change({ expression, ...(low === before.low && high === before.high ? scale : {}) });
  } catch (error) {
    if (!isAbort(error)) expressionError.value = words(error);
  }
}

function ColourOptions({ s }: { s: Settings }) {
  useEffect(() => {
    const controller = new AbortController();
    get<typeof legend.value>("/api/lattice/legend", query.peek(), controller.signal)
      .then((found) => {
        legend.value = found;
      })
      .catch((error) => {
        if (!isAbort(error)) legend.value = undefined;
      });
    return () => controller.abort();
  }, [s.colour, s.residue, s.expression, s.low, s.high, theme.value]);
  return (
    <>
      <Select
        control="lattice.colour"
        label="Colour by"
        value={s.colour}
        options={COLOURS}
        onChange={(colour) => {
          change({ colour });
          if (colour === "expression") void setExpression(settings.peek().expression);
        }}
      />
      {s.colour === "residue" && (
        <NumberField
          control="lattice.residue"
          label="Modulus"
          value={s.residue}
          min={2}
          max={120}
          whole
          onChange={(residue) => change({ residue })}
        />
      )}
      {s.colour === "expression" && (
        <>
          <TextField
            control="lattice.expression"
            label="Expression of n"
            mono
            value={s.expression}
            error={expressionError.value}
            list={[
              "is_prime(n^2 + 1)",
              "gcd(n, 30)",
              "totient(n)/n",
              "moebius(n)",
              "Omega(n) - omega(n)",
              "n % 7",
            ]}
            onChange={(v) => void setExpression(v)}
          />
          <div class="row">
            <NumberField
              control="lattice.low"
              label="Scale from"
              value={s.low}
              onChange={(low) => change({ low })}
            />
            <NumberField
              control="lattice.high"
              label="to"
              value={s.high}
              onChange={(high) => change({ high })}
            />
          </div>
        </>
      )}
      {legend.value && (
        <ul
          class={`legend${s.colour === "expression" ? " legend-scale" : ""}`}
          aria-label={legend.value.title}
        >
          {legend.value.entries.map((e) => (
            <li key={e.label}>
              <span class="legend-swatch" ref={(el) => el?.style.setProperty("background", e.colour)} />
              {e.label}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function NullOptions({ s }: { s: Settings }) {
  return (
    <>
      <Segmented
        control="lattice.null"
        label="Random model"
        quiet
        value={s.null}
        options={[
          { value: "off", label: "Off" },
          { value: "all", label: "1/ln n" },
          { value: "odd", label: "odd, 2/ln n" },
        ]}
        onChange={(v) => change({ null: v })}
      />
      {s.null === "off" ? (
        <p class="field-hint">
          What would chance look like? The same picture with random “primes” of the same density.
        </p>
      ) : (
        <div class="row">
          <NumberField
            control="lattice.seed"
            label="Seed"
            value={s.seed}
            min={0}
            max={4294967295}
            whole
            onChange={(seed) => change({ seed })}
          />
          <Button control="lattice.seed-next" onClick={() => change({ seed: settings.peek().seed + 1 })}>
            Another
          </Button>
        </div>
      )}
    </>
  );
}

function LineOptions({ s }: { s: Settings }) {
  const split = (text: string) => (text ? text.split(" ").map(Number) : [1, 1, 41]);
  const parts = split(s.line);
  const set = (i: number, v: number) => {
    const next = split(settings.peek().line);
    next[i] = v;
    change({ line: next.join(" "), t: 0 });
    void drawLine();
  };
  const shown = line.value;
  return (
    <>
      <div class="row">
        {["t²", "t", "1"].map((name, i) => (
          <NumberField
            key={name}
            control={`lattice.line-${"abc"[i]}`}
            label={name}
            value={parts[i] ?? 0}
            whole
            min={-4e12}
            max={4e12}
            onChange={(v) => set(i, v)}
          />
        ))}
      </div>
      <div class="row">
        <Button control="lattice.line-show" onClick={() => set(2, parts[2] ?? 41)} disabled={Boolean(s.line)}>
          Draw
        </Button>
        <Button
          control="lattice.line-clear"
          disabled={!s.line}
          onClick={() => {
            change({ line: "", t: 0 });
            void drawLine();
          }}
        >
          Clear
        </Button>
      </div>
      {shown && (
        <p class="line-facts">
          <b class="mono">{shown.formula}</b> has <b>{shown.primes.toLocaleString("en")}</b> primes among{" "}
          {shown.terms.toLocaleString("en")} values; chance would give {shown.chance.toFixed(1)}:{" "}
          <b>{(shown.primes / Math.max(shown.chance, 1e-9)).toFixed(2)}×</b>. Discriminant{" "}
          <span class="mono">{shown.discriminant.toLocaleString("en")}</span>.
        </p>
      )}
      {!shown && <p class="field-hint">n² + n + 41 is Euler's. Or pick a number and take its diagonal.</p>}
    </>
  );
}
