import type { ComponentChildren } from "preact";
import { classes, type Named } from "./common";

interface ButtonProps extends Named {
  children: ComponentChildren;
  onClick: () => void;
  kind?: "plain" | "main" | "quiet" | "danger";
  disabled?: boolean;
  /** For a button that stays pressed. */
  pressed?: boolean;
  /** What it does, where the text alone does not say it; also the tooltip. */
  title?: string;
  class?: string;
}

export function Button({
  control,
  children,
  onClick,
  kind = "plain",
  disabled,
  pressed,
  title,
  ...rest
}: ButtonProps) {
  return (
    <button
      type="button"
      data-control={control}
      class={classes("button", `button-${kind}`, rest.class)}
      onClick={onClick}
      disabled={disabled}
      aria-pressed={pressed}
      aria-label={title}
      title={title}
    >
      {children}
    </button>
  );
}
