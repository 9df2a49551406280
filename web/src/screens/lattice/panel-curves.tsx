/** Settings of the folded clock and of an own formula. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, get, isAbort, tell } from "../../api/client";
import { Button, NumberField, Segmented, Select, Slider, TextField } from "../../controls";
import { reducedMotion } from "../../state/theme";
import { counted } from "./busy";
import { goHome } from "./model";
import { change, type Settings, settings } from "./settings";

const playing = signal(false);
let frame = 0;

function play(): void {
  if (playing.peek()) {
    playing.value = false;
    cancelAnimationFrame(frame);
    return;
  }
  const end = settings.peek().fold >= 1 ? 0 : 2;
  if (reducedMotion.peek()) {
    change({ fold: end });
    return;
  }
  playing.value = true;
  const from = settings.peek().fold;
  const began = performance.now();
  const time = 1500 * Math.abs(end - from);
  const step = (now: number) => {
    const t = Math.min(1, (now - began) / time);
    const even = t < 0.5 ? 2 * t * t : 1 - (2 - 2 * t) ** 2 / 2;
    change({ fold: Math.round((from + (end - from) * even) * 1000) / 1000 });
    if (t < 1 && playing.peek()) frame = requestAnimationFrame(step);
    else playing.value = false;
  };
  frame = requestAnimationFrame(step);
}

export function FoldControls({ s }: { s: Settings }) {
  useEffect(
    () => () => {
      playing.value = false;
      cancelAnimationFrame(frame);
    },
    [],
  );
  return (
    <>
      <NumberField
        control="lattice.fold-count"
        label="How many numbers (232 a lap)"
        value={s.count}
        min={12}
        max={20000}
        whole
        onChange={(count) => {
          change({ count });
          void goHome();
        }}
      />
      <Slider
        control="lattice.fold"
        label="Folded"
        value={s.fold}
        min={0}
        max={2}
        step={0.01}
        shown={s.fold === 0 ? "flat" : s.fold === 1 ? "half" : s.fold === 2 ? "quarter" : s.fold.toFixed(2)}
        onChange={(fold) => {
          playing.value = false;
          change({ fold });
        }}
      />
      <Button control="lattice.fold-play" onClick={play} pressed={playing.value}>
        {playing.value ? "Pause" : s.fold >= 1 ? "▶ Unfold" : "▶ Fold"}
      </Button>
      <p class="field-hint">Filled dots lie face up, rings face down: the polarity + − + −.</p>
    </>
  );
}

const formulaError = signal<string | undefined>(undefined);

const EXAMPLES = [
  { value: "", label: "Choose an example…" },
  { value: "c|sqrt(n)*cos(2*pi*sqrt(n))|sqrt(n)*sin(2*pi*sqrt(n))", label: "Sacks' spiral, written out" },
  { value: "p|sqrt(n)|n*2*pi*phi + gap(n)/40", label: "A sunflower bent by prime gaps" },
  { value: "c|n|gap(n)", label: "Gaps, as a graph" },
  { value: "c|n|totient(n)", label: "Euler's φ, as a graph" },
  { value: "p|log(n)|n*totient(n)/n", label: "log n against φ(n)" },
  { value: "c|n % 210|n // 210", label: "A wheel mod 210, unrolled" },
];

let turn = 0;
const turns: Partial<Record<keyof Settings, number>> = {};

/** Ask where an own formula lies, before it is drawn: a mistake is said below its field. Of two answers for one setting
 * the one that was asked for last holds, whichever comes first. */
async function setFormula(part: Partial<Settings>): Promise<void> {
  const mine = ++turn;
  const keys = Object.keys(part) as (keyof Settings)[];
  for (const key of keys) turns[key] = mine;
  const next = { ...settings.peek(), ...part };
  const asked = {
    curve: "formula",
    fx: next.fx,
    fy: next.fy,
    polar: next.polar,
    first: next.first,
    count: next.count,
  };
  try {
    await counted(() => get("/api/lattice/home", asked));
    if (mine === turn) formulaError.value = undefined;
    change(Object.fromEntries(keys.filter((key) => turns[key] === mine).map((key) => [key, part[key]])));
    void goHome();
  } catch (error) {
    if (isAbort(error) || keys.every((key) => turns[key] !== mine)) return;
    if (error instanceof ApiError) formulaError.value = error.message;
    else tell(error);
  }
}

export function FormulaControls({ s }: { s: Settings }) {
  const [a, b] = s.polar ? ["r(n) =", "θ(n) = (radians)"] : ["x(n) =", "y(n) ="];
  return (
    <>
      <Segmented
        control="lattice.polar"
        label="Coordinates"
        value={s.polar ? "polar" : "plane"}
        options={[
          { value: "plane", label: "x and y" },
          { value: "polar", label: "r and θ" },
        ]}
        onChange={(v) => void setFormula({ polar: v === "polar" })}
      />
      <TextField
        control="lattice.fx"
        label={a!}
        mono
        value={s.fx}
        onChange={(fx) => void setFormula({ fx })}
      />
      <TextField
        control="lattice.fy"
        label={b!}
        mono
        value={s.fy}
        error={formulaError.value}
        onChange={(fy) => void setFormula({ fy })}
      />
      <Select
        control="lattice.example"
        label="Examples"
        value=""
        options={EXAMPLES}
        onChange={(v) => {
          const [kind, fx, fy] = v.split("|");
          if (fx && fy) void setFormula({ polar: kind === "p", fx, fy });
        }}
      />
      <div class="row">
        <NumberField
          control="lattice.first"
          label="n from"
          value={s.first}
          min={0}
          max={1e12}
          whole
          onChange={(first) => void setFormula({ first })}
        />
        <NumberField
          control="lattice.count"
          label="how many"
          value={s.count}
          min={1}
          max={1e6}
          whole
          onChange={(count) => void setFormula({ count })}
        />
      </div>
    </>
  );
}
