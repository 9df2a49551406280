/** The list of functions, the certificate of factors, and what the sheet shares with them. */
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { post, words } from "../../api/client";
import { Button, Dialog, TextField } from "../../controls";
import { toast } from "../../state/toasts";
import { append } from "./sheet";

export interface Named {
  name: string;
  kind: string;
  help: string;
}

export const names = signal<Named[]>([]);
export const functionsOpen = signal(false);
/** The integer whose certificate is shown. */
export const certificateOf = signal<string | undefined>(undefined);

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} is in the clipboard.`);
  } catch {
    toast("The clipboard is closed to this page. Select the text and copy it by hand.", "error");
  }
}

const searched = signal("");
/** What was chosen; it is written once the dialog has given the focus back. */
let chosen: string | undefined;

export function Functions() {
  const open = functionsOpen.value;
  useLayoutEffect(() => {
    if (open || chosen === undefined) return;
    append(chosen); // behind the dialog's own effect, which closes it
    chosen = undefined;
  }, [open]);
  const typed = searched.value.toLowerCase();
  const found = names.value.filter((n) => `${n.name} ${n.help}`.toLowerCase().includes(typed));
  return (
    <Dialog
      control="calculate.functions-dialog"
      title="Functions and constants"
      wide
      open={open}
      onClose={() => {
        functionsOpen.value = false;
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

export function CertificateDialog() {
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
