/** One table of figures: a measurement of it, and the history of one figure over all of them. */
import { useEffect, useState } from "preact/hooks";
import { isAbort } from "../../api/client";
import { Button, Empty, Select } from "../../controls";
import { go } from "../../state/route";
import { Chart, type Line } from "../train/chart";
import { api, type Measurement, type Row, type Value } from "./api";
import {
  type Column,
  column,
  columns,
  day,
  machines,
  type Point,
  points,
  reach,
  short,
  text,
} from "./figures";
import { Back } from "./measure";
import { commandOf, news } from "./state";

interface ResultProps {
  name: string;
  /** The measurement that is shown; the newest where none is asked for. */
  file: string | undefined;
  row: string | undefined;
  figure: string | undefined;
}

export function Result({ name, file, row, figure }: ResultProps) {
  const [all, setAll] = useState<readonly Measurement[]>();
  const [missing, setMissing] = useState<string>();
  useEffect(() => {
    const stop = new AbortController();
    api
      .history(name, stop.signal)
      .then((found) => {
        setAll(found.measurements);
        setMissing(undefined);
      })
      .catch((error: unknown) => {
        if (!isAbort(error)) setMissing(error instanceof Error ? error.message : String(error));
      });
    return () => stop.abort();
  }, [name, news.value]);
  useEffect(() => setAll(undefined), [name]);
  if (missing && !all)
    return (
      <div class="page">
        <Back />
        <Empty title="No such figures">
          <p>{missing}</p>
        </Empty>
      </div>
    );
  if (!all) return <div class="page" aria-busy="true" />;
  const shown = all.find((m) => m.file === file) ?? all.at(-1)!;
  const found = columns(shown.rows);
  const counted = found.filter((c) => shown.rows.some((r) => typeof r[c.key] === "number"));
  const rowNow = shown.rows.some((r) => r.name === row) ? row! : first(shown.rows, counted);
  const line = shown.rows.find((r) => r.name === rowNow);
  const offered = counted.filter((c) => typeof line?.[c.key] === "number");
  const keyNow = offered.some((c) => c.key === figure) ? figure! : offered[0]?.key;
  const choose = (more: Record<string, string>) =>
    go("bench", {
      part: "measure",
      table: name,
      file: shown.file,
      ...(rowNow ? { row: rowNow } : {}),
      ...(keyNow ? { figure: keyNow } : {}),
      ...more,
    });
  const command = commandOf(name);
  return (
    <div class="page">
      <header class="page-head">
        <Back />
        <div class="page-title">
          <h1>{shown.title}</h1>
          <Origin of={shown} newest={shown === all.at(-1)} />
        </div>
        {command && (
          <Button
            control="bench.again"
            title={`Measure it again: cllm bench ${command}`}
            onClick={() => go("bench", { part: "measure", bench: command })}
          >
            Measure again
          </Button>
        )}
      </header>
      <Figures rows={shown.rows} columns={found} chosen={rowNow} onRow={(r) => choose({ row: r })} />
      {(Object.keys(shown.facts).length > 0 || shown.notes.length > 0) && (
        <div class="notes-below">
          {Object.keys(shown.facts).length > 0 && (
            <dl class="facts">
              {Object.entries(shown.facts).map(([key, value]) => (
                <div key={key}>
                  <dt>{column(key).title}</dt>
                  <dd class="mono">{text(column(key), value)}</dd>
                </div>
              ))}
            </dl>
          )}
          {shown.notes.map((note) => (
            <p key={note} class="quiet">
              {note}
            </p>
          ))}
        </div>
      )}
      {rowNow && keyNow && (
        <History
          all={all}
          shown={shown}
          row={rowNow}
          of={column(keyNow)}
          offered={offered}
          rows={shown.rows.map((r) => r.name)}
          onRow={(r) => choose({ row: r })}
          onFigure={(key) => choose({ figure: key })}
          onShow={(f) => choose({ file: f })}
        />
      )}
    </div>
  );
}

/** The row that has a figure at all. */
function first(rows: readonly Row[], counted: readonly Column[]): string | undefined {
  return rows.find((r) => counted.some((c) => typeof r[c.key] === "number"))?.name;
}

function Origin({ of, newest }: { of: Measurement; newest: boolean }) {
  const versions = Object.entries(of.versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(", ");
  return (
    <p class="origin" title={[of.machine.system, versions].filter(Boolean).join("\n")}>
      <span>{day(of.date)} UTC</span>
      <span class="mono">{short(of.commit)}</span>
      <span>
        {of.machine.name}
        {of.machine.threads ? `, ${of.machine.threads} threads` : ""}
      </span>
      {!newest && <span class="tag">not the newest</span>}
    </p>
  );
}

interface FiguresProps {
  rows: readonly Row[];
  columns: readonly Column[];
  chosen: string | undefined;
  onRow: (row: string) => void;
}

function Figures({ rows, columns: found, chosen, onRow }: FiguresProps) {
  return (
    <div class="table-frame figures-frame">
      <table class="table" aria-label="Figures">
        <thead>
          <tr>
            <th scope="col">
              <span class="visually-hidden">What</span>
            </th>
            {found.map((c) => (
              <th key={c.key} scope="col" class="numeric" title={c.hint}>
                {c.title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.name} aria-selected={row.name === chosen}>
              <th scope="row">
                <button
                  type="button"
                  class="row-name"
                  data-control="bench.row"
                  title="Its history"
                  onClick={() => onRow(row.name)}
                >
                  {row.name}
                </button>
              </th>
              {found.map((c) => (
                <td key={c.key} class="numeric mono">
                  <Figure of={c} value={row[c.key]} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A figure; a ratio has a bar to the right of the middle where ours is faster, a share one as long as it is. */
function Figure({ of, value }: { of: Column; value: Value | undefined }) {
  const shown = text(of, value);
  if (of.sort === "target" && typeof value === "boolean")
    return <span class={value ? "within" : "outside"}>{value ? "✓ within" : "✗ outside"}</span>;
  if (typeof value !== "number") return <span class={value === undefined ? "quiet" : ""}>{shown}</span>;
  if (of.sort === "ratio") {
    const far = reach(value);
    return (
      <span class="barred">
        {shown}
        <svg class="bar" viewBox="-20 0 40 6" preserveAspectRatio="none" aria-hidden="true">
          <rect class="bar-back" x="-20" y="2" width="40" height="2" />
          <rect
            class={far >= 0 ? "bar-good" : "bar-warm"}
            x={Math.min(0, far * 20)}
            y="1"
            width={Math.abs(far) * 20}
            height="4"
          />
          <rect class="bar-middle" x="-0.5" y="0" width="1" height="6" />
        </svg>
      </span>
    );
  }
  if (of.sort === "share" && value >= 0)
    return (
      <span class="barred">
        {shown}
        <svg class="bar" viewBox="0 0 40 6" preserveAspectRatio="none" aria-hidden="true">
          <rect class="bar-back" x="0" y="2" width="40" height="2" />
          <rect class="bar-cool" x="0" y="1" width={Math.min(1, value) * 40} height="4" />
        </svg>
      </span>
    );
  return <>{shown}</>;
}

interface HistoryProps {
  all: readonly Measurement[];
  shown: Measurement;
  row: string;
  of: Column;
  offered: readonly Column[];
  rows: readonly string[];
  onRow: (row: string) => void;
  onFigure: (key: string) => void;
  onShow: (file: string) => void;
}

function History({ all, shown, row, of, offered, rows, onRow, onFigure, onShow }: HistoryProps) {
  const found = points(all, row, of.key);
  const known = machines(all);
  const colour = (p: Point) =>
    `plot-${(known.findIndex((m) => m.key === p.measurement.machine.key) % 6) + 1}`;
  const lines: Line[] = known.flatMap((m, i) => {
    const own = found.map((p, x) => ({ p, x })).filter(({ p }) => p.measurement.machine.key === m.key);
    if (own.length === 0) return [];
    const wide = own.every(({ p }) => p.spread !== null);
    return [
      {
        label: m.name,
        colour: `plot-${(i % 6) + 1}`,
        x: own.map(({ x }) => x),
        y: own.map(({ p }) => p.value),
        ...(wide
          ? {
              low: own.map(({ p }) => p.value * (1 - p.spread! / 2)),
              high: own.map(({ p }) => p.value * (1 + p.spread! / 2)),
            }
          : {}),
        dots: true,
      },
    ];
  });
  const ticks = (x: number) => {
    const m = Number.isInteger(x) ? found[x]?.measurement : undefined;
    return m ? `${short(m.commit)}\n${day(m.date).replace(/ \d{4},.*/, "")}` : "";
  };
  const base = found.find((p) => p.measurement === shown);
  return (
    <section class="card" aria-label="History">
      <div class="history-tools">
        <h2>History</h2>
        <Select
          control="bench.history-row"
          label="Row"
          quiet
          value={row}
          options={rows.map((r) => ({ value: r, label: r }))}
          onChange={onRow}
        />
        <Select
          control="bench.history-figure"
          label="Figure"
          quiet
          value={of.key}
          options={offered.map((c) => ({ value: c.key, label: c.title }))}
          onChange={onFigure}
        />
      </div>
      {found.length > 1 ? (
        <>
          <Chart
            label={`${row}, ${of.title}: ${found.length} measurements, oldest left`}
            lines={lines}
            height={220}
            range={[-0.5, found.length - 0.5]}
            ticks={ticks}
          />
          <p class="legend">
            {known.map((m, i) => (
              <span key={m.key} class="legend-run">
                <span class="swatch" style={{ background: `var(--plot-${(i % 6) + 1})` }} />
                {m.name}
              </span>
            ))}
            <span class="quiet legend-note">
              {of.key === "ms" ? "Band: the interquartile range. " : ""}A commit with +: files differed from
              it.
            </span>
          </p>
        </>
      ) : (
        <p class="quiet">
          {found.length === 1
            ? "One measurement so far. The next one stands beside it, with its commit and its machine."
            : "No figure there."}
        </p>
      )}
      <div class="table-frame">
        <table class="table" aria-label="Measurements">
          <thead>
            <tr>
              <th scope="col">measured</th>
              <th scope="col">commit</th>
              <th scope="col">machine</th>
              <th scope="col" class="numeric">
                {of.title}
              </th>
              <th scope="col" class="numeric">
                against the one shown
              </th>
            </tr>
          </thead>
          <tbody>
            {[...found].reverse().map((p) => (
              <tr key={p.measurement.file} aria-selected={p.measurement === shown}>
                <td>
                  <button
                    type="button"
                    class="row-name"
                    data-control="bench.measurement"
                    title={p.measurement.file}
                    onClick={() => onShow(p.measurement.file)}
                  >
                    {day(p.measurement.date)}
                  </button>
                </td>
                <td class="mono">{short(p.measurement.commit)}</td>
                <td>
                  <span class="swatch" style={{ background: `var(--${colour(p)})` }} aria-hidden="true" />{" "}
                  {known.find((m) => m.key === p.measurement.machine.key)?.name}
                </td>
                <td class="numeric mono">{text(of, p.value)}</td>
                <td class="numeric mono quiet">
                  {!base || base === p
                    ? p === base
                      ? "shown"
                      : ""
                    : base.measurement.machine.key !== p.measurement.machine.key
                      ? "another machine"
                      : base.value === 0
                        ? ""
                        : `${(p.value / base.value).toFixed(3)}\u202f×`}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
