import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

/** Every control has a name, "screen.control"; a test exists for each name. */
export interface Named {
  control: string;
}

export function classes(...names: (string | false | undefined)[]): string {
  return names.filter(Boolean).join(" ");
}

interface FieldProps {
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  /** Hide the label from the eye, not from screen readers. */
  quiet?: boolean | undefined;
  children: (id: string, describedBy: string | undefined) => ComponentChildren;
}

/** A label, its control, and a line of hint or error below. */
export function Field({ label, hint, error, quiet, children }: FieldProps) {
  const id = useId();
  const note = error ?? hint;
  return (
    <div class={classes("field", error !== undefined && "field-bad")}>
      <label for={id} class={classes("field-label", quiet && "visually-hidden")}>
        {label}
      </label>
      {children(id, note ? `${id}-note` : undefined)}
      {note && (
        <p id={`${id}-note`} class={error ? "field-error" : "field-hint"} role={error ? "alert" : undefined}>
          {note}
        </p>
      )}
    </div>
  );
}
