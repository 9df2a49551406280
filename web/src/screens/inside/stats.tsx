/** Figures and histogram of a tensor. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import type { Named, Place, Summary } from "./api";
import { figure, heights, outline, percent, shape, whole, zeroAt } from "./figures";
import { log, measure } from "./state";

const WIDE = 300;
const HIGH = 74;

/** The histogram alone, small: a shape without figures. */
export function Mini({
  of,
  wide = 96,
  high = 22,
}: {
  of: Summary | undefined;
  wide?: number;
  high?: number;
}) {
  const zero = of && zeroAt(of);
  return (
    <svg class="mini" viewBox={`0 0 ${wide} ${high}`} preserveAspectRatio="none" aria-hidden="true">
      {of && of.counts.length > 0 && <path d={outline(of.counts, wide, high, log.value)} />}
      {zero !== undefined && <line x1={zero * wide} x2={zero * wide} y1="0" y2={high} />}
    </svg>
  );
}

const hovered = signal("");

export function Histogram({ of, name }: { of: Summary; name: string }) {
  if (of.min === null || of.max === null) return null;
  const bars = heights(of.counts, log.value);
  const step = WIDE / bars.length;
  const zero = zeroAt(of);
  const edge = (i: number) => of.min! + ((of.max! - of.min!) * i) / bars.length;
  return (
    <figure class="histogram">
      <svg
        viewBox={`0 0 ${WIDE} ${HIGH}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`Histogram of ${name}: ${whole(of.count)} entries from ${figure(of.min)} to ${figure(of.max)}`}
      >
        {zero !== undefined && <line class="zero" x1={zero * WIDE} x2={zero * WIDE} y1="0" y2={HIGH} />}
        {bars.map((h, i) => (
          <rect
            key={i}
            class={hovered.value === `${name} ${i}` ? "in-bar in-bar-on" : "in-bar"}
            x={i * step + 0.3}
            width={step - 0.6}
            y={HIGH * (1 - h)}
            height={Math.max(HIGH * h, of.counts[i]! > 0 ? 0.8 : 0)}
            onPointerEnter={() => {
              hovered.value = `${name} ${i}`;
            }}
            onPointerLeave={() => {
              hovered.value = "";
            }}
          >
            <title>
              {`${figure(edge(i))} … ${figure(edge(i + 1))}: ${whole(of.counts[i]!)} of ${whole(of.count)}`}
            </title>
          </rect>
        ))}
      </svg>
      <figcaption class="mono">
        <span>{figure(of.min, 3)}</span>
        {zero !== undefined && zero > 0.16 && zero < 0.84 && (
          <span class="zero-label" style={{ left: `${zero * 100}%` }}>
            0
          </span>
        )}
        <span>{figure(of.max, 3)}</span>
      </figcaption>
    </figure>
  );
}

export function Figures({ of }: { of: Summary }) {
  const bad = of.nan + of.infinite;
  const finite = of.count - bad;
  const rows: [string, string, string?][] = [
    ["norm", figure(of.norm), "Euclidean: √Σx²"],
    ["rms", figure(of.rms), "√ of the mean of x²"],
    ["mean", figure(of.mean)],
    ["std", figure(of.std), "of the population: √ of the mean of (x − mean)²"],
    ["min", figure(of.min)],
    ["max", figure(of.max)],
    ["zeros", of.zeros ? `${whole(of.zeros)}, ${percent(of.zeros / Math.max(finite, 1))}` : "none"],
  ];
  return (
    <dl class="in-figures">
      {rows.map(([name, value, why]) => (
        <div key={name} title={why}>
          <dt>{name}</dt>
          <dd class="mono">{value}</dd>
        </div>
      ))}
      <div
        class={bad ? "in-figures-bad" : ""}
        title="entries that are NaN or infinite; the figures leave them out"
      >
        <dt>non-finite</dt>
        <dd class="mono">{bad ? `${whole(bad)}, ${percent(bad / of.count)}` : "none"}</dd>
      </div>
    </dl>
  );
}

/** One tensor in full: figures and histogram. */
export function Measured({ title, note, of }: { title: string; note?: string | undefined; of: Summary }) {
  return (
    <section class="measured" aria-label={title}>
      <h3 class="measured-title">
        <span class="mono">{title}</span>
        <span class="mono quiet">
          {shape(of.shape)}
          {of.shape.length > 1 && ` = ${whole(of.count)}`}
        </span>
      </h3>
      {note && <p class="quiet">{note}</p>}
      <Histogram of={of} name={title} />
      <Figures of={of} />
    </section>
  );
}

/** A tensor of the checkpoint, measured when it is shown. */
export function Weight({ of, name, note }: { of: Place; name: string; note?: string }) {
  const [found, setFound] = useState<Named>();
  const [problem, setProblem] = useState<string>();
  const key = `${of.run} ${of.checkpoint} ${name}`;
  useEffect(() => {
    let gone = false;
    setProblem(undefined);
    measure(of, name).then(
      (answer) => !gone && setFound(answer),
      (error: unknown) => {
        if (!gone && !isAbort(error)) setProblem(words(error));
      },
    );
    return () => {
      gone = true;
    };
  }, [key]);
  if (problem) return <p class="field-error">{problem}</p>;
  if (!found || found.name !== name) return <p class="quiet measuring">Measuring {name} …</p>;
  return <Measured title={name} note={note} of={found} />;
}
