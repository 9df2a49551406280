/** All tensors of the checkpoint with their figures; they come one by one. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import { api, type Named } from "./api";
import { figure, percent, shape, whole } from "./figures";
import { fixed, placeKey, remember, structure, tensor } from "./state";
import { Mini, Weight } from "./stats";

interface Column {
  key: string;
  title: string;
  about?: string;
  of: (t: Named) => number | string | null;
  text: (t: Named) => string;
}

const number = (key: "norm" | "rms" | "mean" | "std" | "min" | "max", about?: string): Column => ({
  key,
  title: key,
  ...(about ? { about } : {}),
  of: (t) => t[key],
  text: (t) => figure(t[key], 3),
});

const bad = (t: Named) => t.nan + t.infinite;

export const COLUMNS: readonly Column[] = [
  { key: "count", title: "entries", of: (t) => t.count, text: (t) => whole(t.count) },
  number("norm", "Euclidean"),
  number("rms"),
  number("mean"),
  number("std", "of the population"),
  number("min"),
  number("max"),
  {
    key: "zeros",
    title: "zeros",
    of: (t) => (t.zeros === null ? null : t.zeros / t.count),
    text: (t) => (t.zeros ? percent(t.zeros / t.count) : "–"),
  },
  {
    key: "bad",
    title: "non-finite",
    about: "NaN or infinite",
    of: (t) => bad(t),
    text: (t) => (bad(t) ? whole(bad(t)) : "–"),
  },
];

const order = signal<{ key: string; down: boolean }>({ key: "", down: true });

export function sorted(rows: readonly Named[], by: { key: string; down: boolean }): readonly Named[] {
  const column = COLUMNS.find((c) => c.key === by.key);
  if (!column) return rows;
  const value = (t: Named) => Number(column.of(t) ?? Number.NEGATIVE_INFINITY);
  return [...rows].sort((a, b) => (by.down ? value(b) - value(a) : value(a) - value(b)));
}

export function Tensors() {
  const [rows, setRows] = useState<readonly Named[]>([]);
  const [problem, setProblem] = useState<string>();
  const [busy, setBusy] = useState(true);
  const s = structure.value;
  const key = `${placeKey.value} ${s?.checkpoint}`;
  useEffect(() => {
    if (!s) return;
    const stop = new AbortController();
    const of = fixed.peek();
    const found: Named[] = [];
    setRows([]);
    setProblem(undefined);
    setBusy(true);
    const read = async () => {
      let shown = 0;
      for await (const one of api.tensors(of, stop.signal)) {
        found.push(one);
        remember(of, one);
        if (performance.now() - shown > 100) {
          shown = performance.now();
          setRows([...found]);
        }
      }
    };
    read()
      .catch((error: unknown) => {
        if (!isAbort(error)) setProblem(words(error));
      })
      .finally(() => {
        if (stop.signal.aborted) return;
        setRows([...found]);
        setBusy(false);
      });
    return () => stop.abort();
  }, [key]);
  if (!s) return null;
  const chosen = tensor.value || rows[0]?.name || "";
  const known = s.tensors.find((t) => t.name === chosen);
  const by = order.value;
  const sort = (name: string) => {
    order.value = by.key !== name ? { key: name, down: true } : { key: by.down ? name : "", down: !by.down };
  };
  return (
    <div class="two">
      <div class="tensors">
        <h2 class="visually-hidden">Tensors</h2>
        <p class="quiet tensors-facts" role="status">
          {problem ? (
            <span class="field-error">{problem}</span>
          ) : busy ? (
            `${rows.length} of ${s.tensors.length} tensors measured …`
          ) : (
            `${rows.length} tensors, ${whole(rows.reduce((sum, t) => sum + t.count, 0))} entries, figures in float64`
          )}
        </p>
        <div class="table-frame">
          <table class="table" aria-label="Tensors of the checkpoint">
            <thead>
              <tr>
                <th scope="col">
                  <button type="button" class="sort" data-control="inside.sort" onClick={() => sort("")}>
                    tensor
                  </button>
                </th>
                <th scope="col">shape</th>
                {COLUMNS.map((c) => (
                  <th
                    key={c.key}
                    scope="col"
                    class="numeric"
                    aria-sort={by.key !== c.key ? undefined : by.down ? "descending" : "ascending"}
                  >
                    <button
                      type="button"
                      class="sort"
                      data-control="inside.sort"
                      title={`${c.about ? `${c.about}; ` : ""}sort by it`}
                      onClick={() => sort(c.key)}
                    >
                      {c.title}
                      {by.key === c.key && <span aria-hidden="true">{by.down ? " ↓" : " ↑"}</span>}
                    </button>
                  </th>
                ))}
                <th scope="col">histogram</th>
              </tr>
            </thead>
            <tbody>
              {sorted(rows, by).map((t) => (
                <tr key={t.name} aria-selected={t.name === chosen}>
                  <td>
                    <button
                      type="button"
                      class="link mono"
                      data-control="inside.tensor"
                      onClick={() => {
                        tensor.value = t.name;
                      }}
                    >
                      {t.name}
                    </button>
                  </td>
                  <td class="mono quiet">{shape(t.shape)}</td>
                  {COLUMNS.map((c) => (
                    <td
                      key={c.key}
                      class={`numeric mono ${c.key === "bad" && bad(t) ? "in-figures-bad" : ""}`}
                    >
                      {c.text(t)}
                    </td>
                  ))}
                  <td>
                    <Mini of={t} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </div>
      <aside class="side" aria-label="One tensor">
        {chosen && (
          <Weight
            of={fixed.value}
            name={chosen}
            {...(known && !known.trained ? { note: "Fixed: not trained." } : {})}
          />
        )}
      </aside>
    </div>
  );
}
