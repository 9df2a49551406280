/** One row of the sheet: its field, its value, and what can be done with it. */
import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Button } from "../../controls";
import { go } from "../../state/route";
import { certificateOf, copy, type Named, names } from "./dialogs";
import { digits, evaluateAll, insertAfter, type Row, remove, rows, setText, type Value, wish } from "./sheet";

/** Whether bounds are shown. */
export const enclosure = signal(false);
let typing = 0;

export function stopTyping(): void {
  clearTimeout(typing);
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

export function SheetRow({ row, index }: { row: Row; index: number }) {
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
  const exact = value.exact;
  // an integer of a line's length is said as it is, whatever number of digits is asked for
  const whole = value.kind === "integer" && exact !== undefined && exact.length <= 80;
  const text = (whole ? exact : value.text) ?? "";
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
      {exact !== undefined && exact !== text && exact.length < 2000 && (
        <p class="mono sheet-exact">= {exact} exactly</p>
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
