import type { ComponentChildren } from "preact";
import { Button } from "./button";
import { classes, type Named } from "./common";
import { useModal } from "./modal";

interface DialogProps extends Named {
  title: string;
  open: boolean;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}

/** A modal window. */
export function Dialog({ control, title, open, onClose, children, wide }: DialogProps) {
  const modal = useModal(open, onClose);
  return (
    <dialog {...modal} class={classes("dialog", wide && "dialog-wide")} aria-label={title}>
      {open && (
        <div class="dialog-body">
          <header class="dialog-head">
            <h2>{title}</h2>
            <Button control={`${control}-close`} kind="quiet" title="Close" onClick={onClose}>
              ✕
            </Button>
          </header>
          {children}
        </div>
      )}
    </dialog>
  );
}

interface SectionProps extends Named {
  title: string;
  open?: boolean;
  onToggle?: (open: boolean) => void;
  children: ComponentChildren;
}

/** A part of a side panel that can be folded away. */
export function Section({ control, title, open = true, onToggle, children }: SectionProps) {
  return (
    <details class="section" open={open} onToggle={(e) => onToggle?.(e.currentTarget.open)}>
      <summary data-control={control}>{title}</summary>
      <div class="section-body">{children}</div>
    </details>
  );
}

/** Name, value and what it means. */
export type Figure = readonly [name: string, value: string, hint?: string | undefined];

/** A row of figures, each below its name. */
export function Figures({ of }: { of: readonly Figure[] }) {
  return (
    <dl class="figures">
      {of.map(([name, value, hint]) => (
        <div key={name} title={hint}>
          <dt>{name}</dt>
          <dd class="mono">{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export interface Column<Row> {
  key: string;
  title: string;
  cell: (row: Row) => ComponentChildren;
  /** Numbers stand at the right in the fixed-width face. */
  numeric?: boolean;
}

interface TableProps<Row> {
  label: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  rowKey: (row: Row) => string;
  selected?: string | undefined;
  empty?: ComponentChildren;
}

export function Table<Row>({ label, columns, rows, rowKey, selected, empty }: TableProps<Row>) {
  if (rows.length === 0 && empty) return <>{empty}</>;
  return (
    <div class="table-frame">
      <table class="table" aria-label={label}>
        <thead>
          <tr>
            {columns.map((c) => (
              <th key={c.key} scope="col" class={classes(c.numeric && "numeric")}>
                {c.title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr
              key={rowKey(row)}
              aria-selected={selected === undefined ? undefined : rowKey(row) === selected}
            >
              {columns.map((c) => (
                <td key={c.key} class={classes(c.numeric && "numeric mono")}>
                  {c.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface EmptyProps {
  title: string;
  /** What to do next, in a sentence. */
  children: ComponentChildren;
}

/** Nothing here yet, and the next step. */
export function Empty({ title, children }: EmptyProps) {
  return (
    <div class="empty">
      <svg class="empty-mark" viewBox="0 0 48 48" aria-hidden="true">
        <path d="M24 4 41 14v20L24 44 7 34V14z M24 4v40 M7 14l34 20 M41 14 7 34" />
      </svg>
      <h2>{title}</h2>
      <div class="empty-body">{children}</div>
    </div>
  );
}
