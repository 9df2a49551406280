/** One study: what it compares, how far it is trained, what the numbers support. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { Button, Empty } from "../../controls";
import { go } from "../../state/route";
import { toast } from "../../state/toasts";
import { Chart, type Line } from "../train/chart";
import { count, duration, loss, short } from "../train/words";
import { api, type Cell, type Job, type Study } from "./api";
import { Forest, scaleOf, signed, tone } from "./forest";
import { Sentence } from "./markdown";
import { Back } from "./measure";
import { jobs, living, look, newest, news } from "./state";

const FIRST = 6; // cells that are drawn before any is chosen

interface StudyProps {
  file: string | undefined;
  folder: string | undefined;
  /** Places of the cells on the chart; the first ones where none is chosen. */
  on: readonly number[] | undefined;
}

/** Where `cllm ablate FILE` writes. */
export function placeOf(file: string): string {
  return `studies/${file.replace(/^.*\//, "").replace(/\.[^.]*$/, "")}`;
}

export function StudyView({ file, folder, on }: StudyProps) {
  const [study, setStudy] = useState<Study>();
  const [wrong, setWrong] = useState<string>();
  const [busy, setBusy] = useState(false);
  const own = file ? placeOf(file) : undefined;
  const job = newest(jobs.value.studies, (j) => j.run === folder || (folder === undefined && j.run === own));
  const live = living(job);
  useEffect(() => {
    const stop = new AbortController();
    api
      .study(folder, file, stop.signal)
      .then((found) => {
        setStudy(found);
        setWrong(undefined);
      })
      .catch((error: unknown) => {
        if (!isAbort(error)) setWrong(error instanceof Error ? error.message : String(error));
      });
    return () => stop.abort();
  }, [folder, file, news.value]);
  useEffect(() => setStudy(undefined), [folder, file]);

  const begin = async () => {
    if (!file) return;
    setBusy(true);
    try {
      const made = await api.ablate(file);
      await look.studies();
      go("bench", { part: "studies", study: file, folder: made.run });
    } catch (error) {
      tell(error);
    } finally {
      setBusy(false);
    }
  };
  const act = async (what: "stop" | "pause" | "continue") => {
    if (!job) return;
    try {
      await api.act("ablate", job.run, what);
      if (what === "stop" && job.state !== "stopping")
        toast("It finishes its step and saves; what is trained stays.");
    } catch (error) {
      tell(error);
    }
  };
  if (!study)
    return (
      <div class="page" aria-busy={wrong === undefined}>
        {wrong !== undefined && (
          <>
            <Back />
            <h1>{file ?? folder}</h1>
            <pre class="job-error">{wrong}</pre>
            {file && <EditFile file={file} />}
          </>
        )}
      </div>
    );
  const total = study.cells.length * study.seeds.length;
  const done = Math.max(study.done, live ? (job?.progress?.done ?? 0) : 0);
  const here = folder === undefined || folder === own;
  const canTrain = file !== undefined && !live && !study.mixed && (done < total || !here);
  return (
    <div class="page">
      <header class="page-head">
        <Back />
        <div class="page-title">
          <h1>{study.title}</h1>
          <p class="job-words">
            <span
              class={`dot dot-${live ? job!.state : done === total ? "done" : "stopped"}`}
              aria-hidden="true"
            />
            <b>
              {live
                ? job!.state
                : done === total
                  ? "complete"
                  : done > 0 || job
                    ? "unfinished"
                    : "not trained yet"}
            </b>
            <span class="quiet mono">{folder ?? file}</span>
          </p>
        </div>
        <div class="page-actions">
          {live && job!.state === "running" && (
            <Button
              control="bench.study-pause"
              title="Hold it where it is, in memory"
              onClick={() => void act("pause")}
            >
              Pause
            </Button>
          )}
          {live && job!.state === "paused" && (
            <Button control="bench.study-continue" kind="main" onClick={() => void act("continue")}>
              Continue
            </Button>
          )}
          {live && (
            <Button
              control="bench.study-stop"
              kind={job!.state === "stopping" ? "danger" : "plain"}
              title={
                job!.state === "stopping"
                  ? "End at once"
                  : "Finish the step, save, end; it goes on where it was"
              }
              onClick={() => void act("stop")}
            >
              {job!.state === "stopping" ? "End at once" : "Stop and save"}
            </Button>
          )}
          {canTrain && (
            <Button control="bench.study-train" kind="main" disabled={busy} onClick={() => void begin()}>
              {!here ? "Train it here" : done > 0 || job ? "Go on" : "Train"}
            </Button>
          )}
          {study.report && study.folder && (
            <Button
              control="bench.study-report"
              onClick={() => go("bench", { part: "notes", note: `${study.folder}/report.md` })}
            >
              Report
            </Button>
          )}
          {file && <EditFile file={file} />}
        </div>
      </header>
      {live && (
        <progress class="view-bar" max={total} value={done + share(job!, study)} aria-label="runs done" />
      )}
      {study.mixed && (
        <p class="alert alert-bad" role="alert">
          {study.mixed}
        </p>
      )}
      {job?.state === "ended" && job.error && <pre class="job-error">{job.error}</pre>}
      <Numbers study={study} done={done} total={total} job={live ? job : undefined} />
      {study.conclusion.length > 0 && paired(study) && <Conclusion study={study} whole={done >= total} />}
      {study.done > 0 && study.cells.length > 1 && !paired(study) && (
        <p class="quiet">
          {study.seeds.length > 1
            ? "Nothing can be said before two seeds of a cell and of the baseline are trained."
            : "With one seed nothing can be said: two runs that differ only in their seed differ, too."}
        </p>
      )}
      {study.done > 0 ? (
        <Learning study={study} on={on} file={file} folder={folder} />
      ) : (
        !live && (
          <p class="quiet">
            Nothing of it is trained here. Each cell is trained once for every seed, seed by seed; stopped, it
            goes on where it was.
          </p>
        )
      )}
      {(live || done < total) && <Live study={study} job={live ? job : undefined} />}
      {Object.keys(study.cells[0]?.lengths ?? {}).length > 0 && <Lengths study={study} />}
      {study.study && (
        <details class="said">
          <summary data-control="bench.study-file">The study file</summary>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys */}
          <pre tabIndex={0}>{study.study.trim()}</pre>
        </details>
      )}
    </div>
  );
}

const MANY = 4; // sentences that say nothing is shown, before they are folded

/** What differs first; how sure it is last; that nothing is shown behind a fold where there is much of it. */
function Conclusion({ study, whole }: { study: Study; whole: boolean }) {
  const said = study.conclusion.map((text) => text.replaceAll(/([( ])-(\d)/g, "$1−$2"));
  const [last, rest] = [said.filter((t) => !t.startsWith("**")), said.filter((t) => t.startsWith("**"))];
  const silent = rest.filter((t) => /^\*\*.*?\*\*: /.test(t));
  const telling = rest.filter((t) => !silent.includes(t));
  const line = (text: string) => (
    <li key={text}>
      <Sentence text={text} />
    </li>
  );
  return (
    <section class="card conclusion" aria-label="Conclusion">
      <h2>What the numbers support{whole ? "" : " so far"}</h2>
      {telling.length > 0 && <ul>{telling.map(line)}</ul>}
      {silent.length > MANY ? (
        <details>
          <summary data-control="bench.silent">
            {silent.length} settings for which no difference is shown, and how large one could be
          </summary>
          <ul>{silent.map(line)}</ul>
        </details>
      ) : (
        silent.length > 0 && <ul>{silent.map(line)}</ul>
      )}
      {last.map((text) => (
        <p key={text} class="quiet">
          <Sentence text={text} />
        </p>
      ))}
    </section>
  );
}

function EditFile({ file }: { file: string }) {
  return (
    <Button
      control="bench.study-edit"
      title={`Edit ${file}`}
      onClick={() => go("bench", { part: "notes", note: file, edit: "1" })}
    >
      Edit the study
    </Button>
  );
}

/** How much of the run under way is done. */
function share(job: Job, study: Study): number {
  const step = job.progress?.now?.step ?? 0;
  return study.steps ? Math.min(1, step / study.steps) : 0;
}

interface NumbersProps {
  study: Study;
  done: number;
  total: number;
  job: Job | undefined;
}

function Numbers({ study, done, total, job }: NumbersProps) {
  const times = study.cells.flatMap((c) => Object.values(c.seconds)).filter((s) => s > 0);
  const each = times.length > 0 ? times.reduce((a, b) => a + b, 0) / times.length : undefined;
  const left = total - done - (job ? share(job, study) : 0);
  const tokens = study.cells.find((c) => c.tokens !== null)?.tokens;
  const facts: [string, string, string?][] = [
    ["cells", count(study.cells.length)],
    ["seeds", count(study.seeds.length)],
    ["runs done", `${count(done)} / ${count(total)}`],
    ["steps a run", count(study.steps)],
    ["tokens a run", short(tokens)],
    ["a run", duration(each), "the mean of the finished ones, on the machine as it was then"],
    ...(left > 0
      ? ([
          [
            "left",
            each === undefined ? "after the first run" : `about ${duration(left * each)}`,
            "from the finished runs",
          ],
        ] as [string, string, string][])
      : []),
  ];
  return (
    <dl class="figures">
      {facts.map(([name, value, hint]) => (
        <div key={name} title={hint}>
          <dt>{name}</dt>
          <dd class="mono">{value}</dd>
        </div>
      ))}
    </dl>
  );
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
function Learning({ study, on, file, folder }: LearningProps) {
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
function Live({ study, job }: { study: Study; job: Job | undefined }) {
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

function Lengths({ study }: { study: Study }) {
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

export function NoStudy({ onNew }: { onNew: () => void }) {
  return (
    <Empty title="No study yet">
      <p>
        Two runs that differ only in their seed differ in their loss, too. A study trains every setting on
        several seeds and compares in pairs, so that you know what a difference is worth.
      </p>
      <p>
        <Button control="bench.first-study" kind="main" onClick={onNew}>
          Write the first study
        </Button>
      </p>
    </Empty>
  );
}
