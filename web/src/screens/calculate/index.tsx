/** The Calculate screen: rows of expressions with proven values. */
import { effect, signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { get, post, tell, words } from "../../api/client";
import { Button, Dialog, NumberField, TextField, Toggle } from "../../controls";
import { useCommands } from "../../state/commands";
import { go, keep, route } from "../../state/route";
import { toast } from "../../state/toasts";
import {
  append,
  digits,
  evaluateAll,
  fill,
  insertAfter,
  type Row,
  remove,
  rows,
  setText,
  stop,
  type Value,
  wish,
} from "./sheet";

interface Named {
  name: string;
  kind: string;
  help: string;
}

const names = signal<Named[]>([]);
const enclosure = signal(false);
const functionsOpen = signal(false);
const certificateOf = signal<string | undefined>(undefined);
let opened = "";
let timer = 0;
let typing = 0;

const EXAMPLES = [
  ["ln(2)^(1/3)", "any digits, each proven"],
  ["x = sqrt(2)", "a variable for the rows below"],
  ["1/3 + 1/7", "fractions stay exact"],
  ["factor(2^101 - 1)", "factors, with a certificate"],
  ["modpow(3, 10^18, 10^9 + 7)", "modular arithmetic"],
  ["base60(sqrt(2), 8)", "as a Babylonian wrote it"],
  ["zeta(3) + gamma(1/3)", "special functions"],
  ["tower_mod(1000, 3, 3, 3, 3)", "towers of powers, reduced"],
] as const;

function open(): void {
  const params = route.peek().params;
  opened = JSON.stringify(params);
  const wanted = Number(params.digits);
  if (Number.isInteger(wanted) && wanted >= 1 && wanted <= 20000) digits.value = wanted;
  enclosure.value = params.enclosure === "1";
  if (!params.rows) {
    evaluateAll();
    return;
  }
  try {
    const texts = JSON.parse(params.rows) as unknown;
    if (Array.isArray(texts)) fill(texts.map(String).slice(0, 500));
  } catch {
    toast("The link's rows cannot be read.", "error");
  }
}

function follow(): () => void {
  return effect(() => {
    const texts = rows.value.map((r) => r.text);
    const params: Record<string, string> = {};
    if (texts.some((t) => t.trim())) params.rows = JSON.stringify(texts);
    if (digits.value !== 30) params.digits = String(digits.value);
    if (enclosure.value) params.enclosure = "1";
    if ((params.rows?.length ?? 0) > 8000) delete params.rows; // too long for an address
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      opened = JSON.stringify(params);
      keep("calculate", params);
    }, 200);
  });
}

export default function Calculate() {
  useEffect(() => {
    get<{ names: Named[] }>("/api/calculate")
      .then((found) => {
        names.value = found.names;
      })
      .catch(tell);
    open();
    const stopFollow = follow();
    const stopRoute = route.subscribe((r) => {
      if (r.screen === "calculate" && JSON.stringify(r.params) !== opened) open();
    });
    return () => {
      stopFollow();
      stopRoute();
      clearTimeout(timer);
      clearTimeout(typing);
      stop();
      opened = "";
    };
  }, []);
  useCommands("calculate", commands, []);
  const empty = rows.value.every((r) => !r.text.trim());
  return (
    <div class="calculate">
      <div class="calculate-tools">
        <NumberField
          control="calculate.digits"
          label="Digits"
          value={digits.value}
          min={1}
          max={20000}
          whole
          onChange={(v) => {
            digits.value = v;
            evaluateAll();
          }}
        />
        <Toggle
          control="calculate.enclosure"
          label="Bounds"
          hint="Two decimals with the number between them"
          value={enclosure.value}
          onChange={(v) => {
            enclosure.value = v;
          }}
        />
        <span class="calculate-space" />
        <Button
          control="calculate.functions"
          onClick={() => {
            functionsOpen.value = true;
          }}
        >
          Functions
        </Button>
        <Button
          control="calculate.copy-all"
          disabled={empty}
          onClick={() => void copy(asText(), "The sheet")}
        >
          Copy sheet
        </Button>
        <Button control="calculate.clear" disabled={empty} onClick={() => fill([])}>
          Clear
        </Button>
      </div>
      <div class="calculate-scroll">
        <ol class="sheet" aria-label="Sheet">
          {rows.value.map((row, i) => (
            <SheetRow key={row.id} row={row} index={i} />
          ))}
        </ol>
        <div class="sheet-add">
          <Button control="calculate.add" kind="quiet" onClick={() => insertAfter(rows.peek().length - 1)}>
            + row
          </Button>
        </div>
        {empty && (
          <section class="calculate-start">
            <h2>Every digit that is shown is proven.</h2>
            <p>Type an expression above and press Enter, or begin with one of these:</p>
            <ul>
              {EXAMPLES.map(([text, about]) => (
                <li key={text}>
                  <button type="button" data-control="calculate.example" onClick={() => append(text)}>
                    <span class="mono">{text}</span>
                    <span>{about}</span>
                  </button>
                </li>
              ))}
            </ul>
          </section>
        )}
      </div>
      <Functions />
      <CertificateDialog />
    </div>
  );
}

function asText(): string {
  return rows
    .peek()
    .filter((r) => r.text.trim())
    .map((r) => `${r.text}\n  = ${r.value?.error ?? r.value?.text ?? ""}`)
    .join("\n");
}

async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} is in the clipboard.`);
  } catch {
    toast("The clipboard is closed to this page. Select the text and copy it by hand.", "error");
  }
}

/** The row that is being typed in and the word before the caret. */
const hinted = signal<{ id: number; word: string } | undefined>(undefined);

/** The names that begin with the word. */
function suggestions(id: number): Named[] {
  const hint = hinted.value;
  if (hint?.id !== id || hint.word.length < 2) return [];
  return names.value.filter((n) => n.name.startsWith(hint.word) && n.name !== hint.word).slice(0, 6);
}

function complete(row: Row, input: HTMLInputElement, name: Named): void {
  const typed = input.value;
  const caret = input.selectionStart ?? typed.length;
  const word = hinted.peek()?.word ?? "";
  const call = name.kind === "constant" ? name.name : `${name.name}(`;
  const text = typed.slice(0, caret - word.length) + call + typed.slice(caret);
  setText(row.id, text);
  hinted.value = undefined;
  // at once, so that the next key finds the caret in its place
  const at = caret - word.length + call.length;
  input.value = text;
  input.focus();
  input.setSelectionRange(at, at);
  evaluateSoon();
}

function evaluateSoon(): void {
  clearTimeout(typing);
  typing = window.setTimeout(evaluateAll, 220);
}

function SheetRow({ row, index }: { row: Row; index: number }) {
  const input = useRef<HTMLInputElement>(null);
  const found = suggestions(row.id);
  const wished = wish.value;
  useLayoutEffect(() => {
    if (wished?.id === row.id) input.current?.focus();
  }, [wished]);
  const move = (by: number) => {
    document.querySelectorAll<HTMLElement>("[data-control='calculate.row']")[index + by]?.focus();
  };
  const onKey = (e: KeyboardEvent) => {
    if (e.key === "Enter") {
      e.preventDefault();
      clearTimeout(typing);
      evaluateAll();
      if (e.ctrlKey || index === rows.peek().length - 1) insertAfter(index);
      else move(1);
    } else if (e.key === "Tab" && !e.shiftKey && found[0]) {
      e.preventDefault();
      complete(row, e.currentTarget as HTMLInputElement, found[0]);
    } else if (e.key === "Escape" && found.length) {
      hinted.value = undefined;
    } else if (e.key === "ArrowUp" || e.key === "ArrowDown") {
      e.preventDefault();
      move(e.key === "ArrowUp" ? -1 : 1);
    } else if (e.key === "Backspace" && row.text === "" && rows.peek().length > 1) {
      e.preventDefault();
      remove(row.id);
    }
  };
  const value = row.value;
  return (
    <li class={`sheet-row${row.busy ? " sheet-busy" : ""}`}>
      <span class="sheet-number mono" aria-hidden="true">
        {index + 1}
      </span>
      <div class="sheet-cell">
        <input
          ref={input}
          class="sheet-input mono"
          data-control="calculate.row"
          aria-label={`Row ${index + 1}`}
          aria-invalid={value?.error !== undefined}
          value={row.text}
          placeholder={index === 0 ? "sqrt(2)^2 + 1/3" : ""}
          autocomplete="off"
          spellcheck={false}
          onBlur={() => {
            clearTimeout(typing);
            evaluateAll();
          }}
          onInput={(e) => {
            const field = e.currentTarget;
            setText(row.id, field.value);
            const before = field.value.slice(0, field.selectionStart ?? field.value.length);
            hinted.value = { id: row.id, word: /[^\W\d]\w*$/u.exec(before)?.[0] ?? "" };
            evaluateSoon();
          }}
          onKeyDown={onKey}
        />
        {found.length > 0 && (
          <div class="sheet-hints">
            {found.map((n, i) => (
              <button
                key={n.name}
                type="button"
                data-control="calculate.suggestion"
                title={n.help}
                onMouseDown={(e) => e.preventDefault()}
                onClick={() => complete(row, input.current!, n)}
              >
                <span class="mono">{n.name}</span>
                {i === 0 && <kbd>Tab</kbd>}
              </button>
            ))}
          </div>
        )}
        {row.busy && <p class="sheet-wait">Working…</p>}
        {value && <Result row={row} value={value} index={index} />}
      </div>
      <div class="sheet-end">
        <Button
          control="calculate.remove"
          kind="quiet"
          title={`Remove row ${index + 1}`}
          onClick={() => remove(row.id)}
        >
          ✕
        </Button>
      </div>
    </li>
  );
}

const expanded = signal<ReadonlySet<number>>(new Set());
const LONG = 620;

function Result({ row, value, index }: { row: Row; value: Value; index: number }) {
  if (value.error !== undefined) return <Problem row={row} value={value} />;
  const text = value.text ?? "";
  const long = text.length > LONG;
  const all = expanded.value.has(row.id);
  const shown = long && !all ? `${text.slice(0, LONG)}…` : text;
  const missing = value.proven !== undefined && value.proven < digits.value && value.kind === "real";
  const toggle = () => {
    const next = new Set(expanded.peek());
    if (!next.delete(row.id)) next.add(row.id);
    expanded.value = next;
  };
  return (
    <div class="sheet-value">
      <output class={`mono sheet-text sheet-${value.kind}`} data-kind={value.kind}>
        {value.name && <span class="quiet">{value.name} = </span>}
        {shown}
        {value.cut && <span class="quiet"> (cut)</span>}
      </output>
      {long && (
        <Button control="calculate.expand" kind="quiet" onClick={toggle}>
          {all ? "Less" : `All ${text.length.toLocaleString("en")} characters`}
        </Button>
      )}
      {value.exact !== undefined && value.exact !== value.text && value.exact.length < 2000 && (
        <p class="mono sheet-exact">= {value.exact} exactly</p>
      )}
      {enclosure.value && value.lower !== undefined && (
        <p class="mono sheet-bounds">
          {value.lower === value.upper ? (
            "exact"
          ) : (
            <>
              ≥ {value.lower}
              <br />≤ {value.upper}
            </>
          )}
        </p>
      )}
      {missing && (
        <p class="sheet-missing">
          {value.proven === 0 ? "No digit is" : `Only ${value.proven} digits are`} proven: the value may be 0,
          exact or half-way between two decimals.
        </p>
      )}
      <Actions row={row} value={value} index={index} />
    </div>
  );
}

function Actions({ row, value, index }: { row: Row; value: Value; index: number }) {
  const subject = value.name ?? row.text;
  const whole = value.integer;
  const factored = value.kind === "factors";
  const of = factored ? factorsArgument(row.text) : whole;
  return (
    <div class="sheet-actions">
      <span class="sheet-kind">
        {value.kind === "real" ? `${value.proven} digits proven` : value.kind}
        {value.milliseconds !== undefined &&
          value.milliseconds >= 100 &&
          ` · ${(value.milliseconds / 1000).toFixed(1)} s`}
      </span>
      <Button
        control="calculate.copy"
        kind="quiet"
        onClick={() => void copy(value.exact ?? value.text ?? "", "The value")}
      >
        Copy
      </Button>
      {whole !== undefined && !whole.startsWith("-") && (
        <Button control="calculate.lattice" kind="quiet" onClick={() => go("lattice", { n: whole })}>
          Show on lattice
        </Button>
      )}
      {whole !== undefined && BigInt(whole.slice(0, 400)) > 1n && (
        <Button
          control="calculate.factor"
          kind="quiet"
          onClick={() => insertAfter(index, `factor(${subject})`)}
        >
          Factor
        </Button>
      )}
      {of !== undefined &&
        (factored ||
          (whole !== undefined &&
            !whole.startsWith("-") &&
            whole.length < 80 &&
            whole !== "0" &&
            whole !== "1")) && (
          <Button
            control="calculate.certificate"
            kind="quiet"
            onClick={() => {
              certificateOf.value = of;
            }}
          >
            Certificate
          </Button>
        )}
      {["real", "rational", "integer"].includes(value.kind ?? "") && (
        <Button
          control="calculate.base60"
          kind="quiet"
          onClick={() => insertAfter(index, `base60(${subject}, 10)`)}
        >
          Base 60
        </Button>
      )}
      {value.kind === "real" && digits.value <= 2000 && (
        <Button
          control="calculate.more-digits"
          kind="quiet"
          onClick={() => {
            digits.value *= 10;
            evaluateAll();
          }}
        >
          10× the digits
        </Button>
      )}
    </div>
  );
}

/** What stands in `factor(…)`, for its certificate; variables are left to the server's answer of that row. */
function factorsArgument(text: string): string | undefined {
  const inner = /^\s*factor\((.*)\)\s*$/.exec(text)?.[1];
  return inner && !/[^\W\d]/u.test(inner) ? inner : undefined;
}

function Problem({ row, value }: { row: Row; value: Value }) {
  const { start, end } = value;
  return (
    <div class="sheet-problem" role="alert">
      {start !== undefined && end !== undefined && (
        <p class="mono sheet-place" aria-hidden="true">
          {row.text.slice(0, start)}
          <mark>{row.text.slice(start, Math.max(end, start + 1)) || "␣"}</mark>
          {row.text.slice(Math.max(end, start + 1))}
        </p>
      )}
      <p>{value.error}</p>
    </div>
  );
}

const searched = signal("");
/** What was chosen; it is written once the dialog has given the focus back. */
let chosen: string | undefined;

function Functions() {
  const typed = searched.value.toLowerCase();
  const found = names.value.filter((n) => `${n.name} ${n.help}`.toLowerCase().includes(typed));
  return (
    <Dialog
      control="calculate.functions-dialog"
      title="Functions and constants"
      wide
      open={functionsOpen.value}
      onClose={() => {
        functionsOpen.value = false;
        if (chosen !== undefined) append(chosen);
        chosen = undefined;
      }}
    >
      <TextField
        control="calculate.search"
        label="Search"
        live
        value={searched.value}
        onChange={(v) => {
          searched.value = v;
        }}
      />
      <ul class="functions">
        {found.map((n) => (
          <li key={n.name}>
            <button
              type="button"
              data-control="calculate.function"
              onClick={() => {
                chosen = n.kind === "constant" ? n.name : `${n.name}(`;
                functionsOpen.value = false;
              }}
            >
              <span class="mono">{n.kind === "constant" ? n.name : `${n.name}(…)`}</span>
              <span class="quiet">{n.help}</span>
            </button>
          </li>
        ))}
      </ul>
      <p class="field-hint">
        {
          "Operators: + − * / // ^ % ! and |x|. Numbers: 12, 1_000, 1.5, 2e-30, 0xff. A row “name = …” keeps a variable; ans is the last number above."
        }
      </p>
    </Dialog>
  );
}

interface Certificate {
  n: string;
  factors: [string, number][];
  primes: { p: string; witness: string | null; factors: [string, number][] }[];
  script: string;
}

const certificate = signal<Certificate | string | undefined>(undefined);

const product = (factors: readonly [string, number][]) =>
  factors.map(([p, e]) => (e > 1 ? `${p}^${e}` : p)).join(" · ");

function CertificateDialog() {
  const of = certificateOf.value;
  useEffect(() => {
    if (of === undefined) return;
    const controller = new AbortController();
    certificate.value = undefined;
    post<Certificate>("/api/calculate/certificate", { n: of }, controller.signal)
      .then((found) => {
        certificate.value = found;
      })
      .catch((error) => {
        if (!controller.signal.aborted) certificate.value = words(error);
      });
    return () => controller.abort();
  }, [of]);
  const found = certificate.value;
  return (
    <Dialog
      control="calculate.certificate-dialog"
      title="Factors, with a proof that each is prime"
      wide
      open={of !== undefined}
      onClose={() => {
        certificateOf.value = undefined;
      }}
    >
      {found === undefined ? (
        <p>Working…</p>
      ) : typeof found === "string" ? (
        <p class="field-error">{found}</p>
      ) : (
        <>
          <p class="mono certificate-product">
            {found.n} = {product(found.factors)}
          </p>
          <p class="field-hint">
            p is prime because g^(p−1) ≡ 1 and g^((p−1)/q) ≢ 1 (mod p) for each prime q that divides p − 1
            (Pratt 1975). Every q stands above the p that needs it; small primes by trial division. Checked
            again before it was shown.
          </p>
          <div class="certificate-table table-frame">
            <table class="table" aria-label="Certificate">
              <thead>
                <tr>
                  <th scope="col">prime p</th>
                  <th scope="col">g</th>
                  <th scope="col">p − 1</th>
                </tr>
              </thead>
              <tbody>
                {found.primes.map((entry) => (
                  <tr key={entry.p}>
                    <td class="mono">{entry.p}</td>
                    <td class="mono">{entry.witness ?? "—"}</td>
                    <td class="mono">
                      {entry.witness === null ? "by trial division" : product(entry.factors)}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <div>
            <Button
              control="calculate.certificate-copy"
              onClick={() => void copy(found.script, "A Python program that checks it")}
            >
              Copy a Python program that checks it
            </Button>
          </div>
        </>
      )}
    </Dialog>
  );
}

function commands() {
  const group = "Calculate";
  return [
    { id: "calculate.add", group, title: "Add a row", run: () => insertAfter(rows.peek().length - 1) },
    { id: "calculate.clear", group, title: "Clear the sheet", run: () => fill([]) },
    {
      id: "calculate.functions",
      group,
      title: "Functions and constants",
      keys: "Ctrl+/",
      run: () => {
        functionsOpen.value = true;
      },
    },
    {
      id: "calculate.bounds",
      group,
      title: "Show or hide the bounds",
      run: () => {
        enclosure.value = !enclosure.peek();
      },
    },
    ...[30, 100, 1000].map((n) => ({
      id: `calculate.digits.${n}`,
      group,
      title: `${n} digits`,
      run: () => {
        digits.value = n;
        evaluateAll();
      },
    })),
  ];
}
