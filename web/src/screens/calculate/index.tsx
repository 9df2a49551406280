/** The Calculate screen: rows of expressions with proven values. */
import { effect } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { get, tell } from "../../api/client";
import { Button, NumberField, Toggle } from "../../controls";
import { useCommands } from "../../state/commands";
import { keep, route } from "../../state/route";
import { toast } from "../../state/toasts";
import { CertificateDialog, copy, Functions, functionsOpen, type Named, names } from "./dialogs";
import { enclosure, SheetRow, stopTyping } from "./row";
import { append, digits, evaluateAll, fill, insertAfter, rows, stop } from "./sheet";

let opened = "";
let timer = 0;

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
  useMemo(open, []); // with the first drawing: what is typed from then on is not taken back
  useEffect(() => {
    get<{ names: Named[] }>("/api/calculate")
      .then((found) => {
        names.value = found.names;
      })
      .catch(tell);
    const stopFollow = follow();
    const stopRoute = route.subscribe((r) => {
      if (r.screen === "calculate" && JSON.stringify(r.params) !== opened) open();
    });
    return () => {
      stopFollow();
      stopRoute();
      clearTimeout(timer);
      stopTyping();
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
