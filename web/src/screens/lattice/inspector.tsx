/** Everything about one number, and ways from it to others. */
import { signal } from "@preact/signals";
import { get, isAbort, words } from "../../api/client";
import { Button, TextField } from "../../controls";
import { go } from "../../state/route";
import {
  drawLine,
  facts,
  factsBusy,
  factsError,
  locate,
  type NumberFacts,
  pickDiagonal,
  select,
} from "./model";
import { chooseCurve } from "./panel";
import { settings } from "./settings";

const factoring = signal<"idle" | "busy" | string>("idle");
const shownValue = signal<{ of: string; text: string } | undefined>(undefined);

export function Inspector() {
  const s = settings.value;
  return (
    <aside class="lattice-inspector" aria-label="Number">
      <div class="inspector-jump">
        <TextField
          control="lattice.jump"
          label="Go to a number"
          placeholder="41, 10^12, 2^127-1 …"
          mono
          value={s.n}
          error={factsError.value}
          onChange={(text) => void select(text, true)}
        />
      </div>
      {facts.value ? (
        <Facts f={facts.value} />
      ) : factsBusy.value ? (
        <p class="inspector-wait">Working…</p>
      ) : (
        <div class="inspector-empty">
          <p>Click a number in the picture, or type one above: any expression, any size.</p>
          <p>Its factors, its rank among the primes and its place on every curve appear here.</p>
        </div>
      )}
    </aside>
  );
}

function Facts({ f }: { f: NumberFacts }) {
  const s = settings.value;
  const kind = f.prime
    ? "prime"
    : f.prime === null
      ? "not decided"
      : f.n === "1"
        ? "unit"
        : f.n === "0"
          ? "zero"
          : "composite";
  return (
    <>
      <div class="inspector-head">
        <p class={`inspector-n mono${f.n.length > 22 ? " inspector-long" : ""}`}>{group(f.n)}</p>
        <p class="inspector-kind">
          <span class={`badge badge-${f.prime ? "prime" : "other"}`}>{kind}</span>
          {f.digits > 12 && <span class="quiet">{f.digits.toLocaleString("en")} digits</span>}
          {f.prime && f.rank !== undefined && (
            <span class="quiet">number {f.rank.toLocaleString("en")} of the primes</span>
          )}
        </p>
      </div>
      <div class="buttons inspector-steps">
        <Button
          control="lattice.previous-prime"
          disabled={!f.previous}
          title="The prime before (,)"
          onClick={() => step(f.previous)}
        >
          ‹ prime
        </Button>
        <Button
          control="lattice.less"
          disabled={f.n === "0"}
          title="One less ([)"
          onClick={() => step(plus(shownNumber(), -1n))}
        >
          −1
        </Button>
        <Button control="lattice.more" title="One more (])" onClick={() => step(plus(shownNumber(), 1n))}>
          +1
        </Button>
        <Button
          control="lattice.next-prime"
          disabled={!f.next}
          title="The next prime (.)"
          onClick={() => step(f.next)}
        >
          prime ›
        </Button>
      </div>
      <Factors f={f} />
      {!f.shown && <p class="field-hint">Beyond the picture, which ends at 10¹².</p>}
      <dl class="facts">
        {f.rank !== undefined && (
          <Fact name="π(n)" title="primes up to n" value={f.rank.toLocaleString("en")} />
        )}
        {f.big_omega !== undefined && (
          <Fact name="Ω, ω" title="prime factors, distinct ones" value={`${f.big_omega}, ${f.omega}`} />
        )}
        {f.mobius !== undefined && (
          <Fact name="μ" title="Möbius function" value={String(f.mobius).replace("-", "−")} />
        )}
        {f.totient !== undefined && <Fact name="φ(n)" title="Euler's totient" value={group(f.totient)} />}
        {f.divisors !== undefined && (
          <Fact name="divisors" title="how many" value={f.divisors.toLocaleString("en")} />
        )}
        {f.divisor_sum !== undefined && (
          <Fact name="σ(n)" title="sum of the divisors" value={group(f.divisor_sum)} />
        )}
        {f.next && (
          <Fact
            name="next prime"
            title="the distance to it"
            value={`+${(BigInt(f.next) - BigInt(f.n)).toLocaleString("en")}`}
          />
        )}
      </dl>
      {s.colour === "expression" && (
        <div class="buttons">
          <Button control="lattice.value" onClick={() => void showValue(f.n)}>
            {s.expression} = ?
          </Button>
          {shownValue.value?.of === `${f.n} ${s.expression}` && (
            <span class="mono inspector-value">{shownValue.value.text}</span>
          )}
        </div>
      )}
      {s.curve === "ulam" && f.shown && (
        <div class="buttons">
          <Button
            control="lattice.diagonal-up"
            title="The quadratic of the diagonal rising to the right"
            onClick={() => void diagonal(f.n, 1)}
          >
            Diagonal ↗
          </Button>
          <Button
            control="lattice.diagonal-down"
            title="The quadratic of the diagonal falling to the right"
            onClick={() => void diagonal(f.n, -1)}
          >
            Diagonal ↘
          </Button>
        </div>
      )}
      <h2 class="inspector-title">Where it lies</h2>
      <ul class="places">
        {f.places.map((p) => (
          <li key={p.curve}>
            <button
              type="button"
              data-control={`lattice.place-${p.curve}`}
              aria-current={p.curve === s.curve ? "true" : undefined}
              onClick={() => void openOn(p.curve, f.n)}
            >
              <span>{p.title}</span>
              <span class="mono">{p.place}</span>
            </button>
          </li>
        ))}
      </ul>
      <div class="buttons">
        <Button
          control="lattice.calculate"
          onClick={() => go("calculate", { rows: JSON.stringify([f.n, `factor(${f.n})`]) })}
        >
          Calculate with it
        </Button>
      </div>
    </>
  );
}

function Fact({ name, title, value }: { name: string; title: string; value: string }) {
  return (
    <div>
      <dt title={title}>{name}</dt>
      <dd class="mono">{value}</dd>
    </div>
  );
}

function Factors({ f }: { f: NumberFacts }) {
  if (f.factors && f.n !== "0" && f.n !== "1" && !f.prime)
    return (
      <p class="factors mono">
        {f.factors.map(([p, e], i) => (
          <span key={p}>
            {i > 0 && <span class="quiet"> · </span>}
            {group(p)}
            {e > 1 && <sup>{e}</sup>}
          </span>
        ))}
      </p>
    );
  if (f.factors || f.n === "0") return null;
  const state = factoring.value;
  return (
    <div class="buttons">
      <Button control="lattice.factor" disabled={state === "busy"} onClick={() => void factor(f.n)}>
        {state === "busy" ? "Factoring… (20 s at most)" : "Factor it"}
      </Button>
      {state !== "idle" && state !== "busy" && <p class="field-error">{state}</p>}
    </div>
  );
}

let controller = new AbortController();

async function factor(n: string): Promise<void> {
  controller.abort();
  controller = new AbortController();
  factoring.value = "busy";
  try {
    const found = await get<Partial<NumberFacts>>("/api/lattice/factors", { n }, controller.signal);
    if (facts.peek()?.n === n) facts.value = { ...facts.peek()!, ...found };
    factoring.value = "idle";
  } catch (error) {
    factoring.value = isAbort(error) ? "idle" : words(error);
  }
}

async function showValue(n: string): Promise<void> {
  const expression = settings.peek().expression;
  try {
    const found = await get<{ text?: string; error?: string }>("/api/lattice/value", { n, expression });
    shownValue.value = { of: `${n} ${expression}`, text: found.text ?? found.error ?? "" };
  } catch (error) {
    shownValue.value = { of: `${n} ${expression}`, text: words(error) };
  }
}

async function diagonal(n: string, slope: 1 | -1): Promise<void> {
  await pickDiagonal(n, slope);
  await drawLine();
}

async function openOn(curve: string, n: string): Promise<void> {
  if (settings.peek().curve !== curve) chooseCurve(curve);
  await locate(n, true);
}

export function step(n: string | null | undefined): void {
  factoring.value = "idle";
  if (n) void select(n, true);
}

/** The number that was asked for last; its facts may still be on their way. */
export function shownNumber(): string {
  const asked = settings.peek().n;
  return /^\d+$/.test(asked) ? asked : (facts.peek()?.n ?? "0");
}

export function plus(n: string, by: bigint): string {
  const next = BigInt(n) + by;
  return next < 0n ? "0" : next.toString();
}

/** Groups of three digits with narrow spaces. */
export function group(digits: string): string {
  return digits.length < 5 ? digits : digits.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}
