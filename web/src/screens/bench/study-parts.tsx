/** What a study shows below its conclusion: curves, cells with their differences, runs, other lengths. */
import { go } from "../../state/route";
import { Chart, type Line } from "../train/chart";
import { count, loss } from "../train/words";
import type { Cell, Job, Study } from "./api";
import { Forest, scaleOf, signed, tone } from "./forest";

const FIRST = 6; // cells that are drawn before any is chosen

/** How much of the run under way is done. */
export function share(job: Job, study: Study): number {
  const step = job.progress?.now?.step ?? 0;
  return study.steps ? Math.min(1, step / study.steps) : 0;
}

/** Whether any cell has the two pairs without which there is no interval. */
export function paired(study: Pick<Study, "cells">): boolean {
  return study.cells.some((c) => (c.comparison?.pairs ?? 0) > 1);
}

/** The lowest first, behind the baseline. */
export function ranked(study: Pick<Study, "cells" | "baseline">): Cell[] {
  return [...study.cells].sort(
    (a, b) =>
      Number(b.name === study.baseline) - Number(a.name === study.baseline) ||
      (a.mean ?? Infinity) - (b.mean ?? Infinity),
  );
}

interface LearningProps {
  study: Study;
  on: readonly number[] | undefined;
  file: string | undefined;
  folder: string | undefined;
}

/** The curves, and below them the cells with their differences; a cell's box puts it on the chart. */
export function Learning({ study, on, file, folder }: LearningProps) {
  const cells = ranked(study);
  const drawn =
    on?.flatMap((place) => study.cells[place]?.name ?? []) ?? cells.slice(0, FIRST).map((c) => c.name);
  const colour = (name: string) => `plot-${(drawn.indexOf(name) % 6) + 1}`;
  const lines: Line[] = cells
    .filter((c) => drawn.includes(c.name) && c.curve.step.length > 0)
    .map((c) => ({
      label: c.name,
      colour: colour(c.name),
      x: c.curve.step,
      ...(Object.keys(c.losses).length > 1 ? { low: c.curve.low, high: c.curve.high } : {}),
      ema: c.curve.mean,
    }));
  const scale = scaleOf(cells);
  const toggle = (name: string) => {
    const next = drawn.includes(name) ? drawn.filter((n) => n !== name) : [...drawn, name].slice(-FIRST);
    go("bench", {
      part: "studies",
      ...(file ? { study: file } : {}),
      ...(folder ? { folder } : {}),
      on: next.map((n) => study.cells.findIndex((c) => c.name === n)).join(","),
    });
  };
  const seeds = new Set(study.cells.flatMap((c) => Object.keys(c.losses))).size;
  return (
    <section class="card" aria-label="Curves and differences">
      <h2>Validation loss</h2>
      <Chart label={`Validation loss over steps of ${drawn.join("; ")}`} lines={lines} height={260} />
      <p class="quiet chart-note">
        nats a token, over steps. Line: the mean of {seeds} {seeds === 1 ? "seed" : "seeds"}; band: the least
        and the largest.
      </p>
      <div class="table-frame">
        <table class="table cells" aria-label="Cells">
          <thead>
            <tr>
              <th scope="col">
                <span class="visually-hidden">On the chart</span>
              </th>
              <th scope="col">cell</th>
              <th scope="col" class="numeric">
                parameters
              </th>
              <th scope="col" class="numeric">
                mean loss
              </th>
              <th scope="col" class="forest-head">
                difference in pairs, nats{" "}
                <span class="forest-ends mono">
                  {signed(scale.low, 2)} … {signed(scale.high, 2)}
                </span>
              </th>
              <th scope="col" class="numeric">
                mean
              </th>
              <th scope="col" class="numeric">
                interval
              </th>
              <th scope="col">verdict</th>
            </tr>
          </thead>
          <tbody>
            {cells.map((c) => (
              <tr key={c.name}>
                <td>
                  <label
                    class="cell-box"
                    title={drawn.includes(c.name) ? "Take it off the chart" : "Draw it"}
                  >
                    <input
                      type="checkbox"
                      data-control="bench.cell"
                      checked={drawn.includes(c.name)}
                      aria-label={`${c.name} on the chart`}
                      onChange={() => toggle(c.name)}
                    />
                    <span
                      class="swatch"
                      style={drawn.includes(c.name) ? { background: `var(--${colour(c.name)})` } : {}}
                      aria-hidden="true"
                    />
                  </label>
                </td>
                <th scope="row">{c.name}</th>
                <td class="numeric mono">{count(c.parameters)}</td>
                <td class="numeric mono">{loss(c.mean, 4)}</td>
                {c.name === study.baseline ? (
                  <td colSpan={4} class="quiet">
                    the baseline: the others are compared with it
                  </td>
                ) : c.comparison && c.comparison.pairs > 0 ? (
                  <>
                    <td class="forest-cell">
                      <Forest of={c.comparison} scale={scale} />
                    </td>
                    <td class="numeric mono">{signed(c.comparison.mean_difference)}</td>
                    <td class="numeric mono">
                      {c.comparison.low === null
                        ? "–"
                        : `${signed(c.comparison.low)} … ${signed(c.comparison.high)}`}
                    </td>
                    <td class={`verdict verdict-${tone(c.comparison.verdict)}`}>
                      {c.comparison.pairs < 2 ? "one pair: nothing can be said" : c.comparison.verdict}
                    </td>
                  </>
                ) : (
                  <td colSpan={4} class="quiet">
                    no pair trained yet
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="quiet chart-note">
        Dots: loss minus the baseline's, seed by seed; left of the line is better. Bar: the confidence
        interval, with the 5&#8239;% of error shared among all comparisons. A verdict needs an interval that
        leaves out 0.
      </p>
    </section>
  );
}

/** Cells × seeds: the loss of each run, the step of the one under way. */
export function Live({ study, job }: { study: Study; job: Job | undefined }) {
  const now = job?.progress?.now;
  return (
    <section class="card" aria-label="Runs">
      <h2>Runs</h2>
      <div class="table-frame">
        <table class="table live-table" aria-label="Loss of each run">
          <thead>
            <tr>
              <th scope="col">cell</th>
              {study.seeds.map((s) => (
                <th key={s} scope="col" class="numeric">
                  seed {s}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {study.cells.map((c) => (
              <tr key={c.name}>
                <th scope="row">{c.name}</th>
                {study.seeds.map((s) => {
                  const value = c.losses[String(s)];
                  const running =
                    now !== null && now !== undefined && now.cell === c.folder && now.seed === s;
                  return (
                    <td key={s} class={`numeric mono ${running ? "now" : ""}`}>
                      {value !== undefined ? (
                        loss(value, 4)
                      ) : running ? (
                        <>
                          {now.loss === null ? "" : loss(now.loss, 3)}{" "}
                          <span class="quiet">
                            {count(now.step)}/{count(study.steps)}
                          </span>
                        </>
                      ) : (
                        <span class="quiet">·</span>
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {job && (
        <p class="quiet chart-note">
          Each of them is a run of its own: it stands in Train, too, with its curves and checkpoints.
        </p>
      )}
    </section>
  );
}

export function Lengths({ study }: { study: Study }) {
  const lengths = Object.keys(study.cells[0]!.lengths);
  return (
    <section class="card" aria-label="Other lengths">
      <h2>Loss at other lengths</h2>
      <div class="table-frame">
        <table class="table" aria-label="Loss at other lengths">
          <thead>
            <tr>
              <th scope="col">cell</th>
              {lengths.map((n) => (
                <th key={n} scope="col" class="numeric">
                  T = {n}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {ranked(study).map((c) => (
              <tr key={c.name}>
                <th scope="row">{c.name}</th>
                {lengths.map((n) => (
                  <td key={n} class="numeric mono">
                    {c.lengths[n] === null ? (
                      <span class="quiet">no position for it</span>
                    ) : (
                      loss(c.lengths[n], 4)
                    )}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
