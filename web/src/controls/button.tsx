import { type ComponentChildren, isValidElement } from "preact";
import { classes, type Named } from "./common";

interface ButtonProps extends Named {
  children: ComponentChildren;
  onClick: () => void;
  kind?: "plain" | "main" | "quiet" | "danger";
  disabled?: boolean;
  /** For a button that stays pressed. */
  pressed?: boolean;
  /** What it does, where the text alone does not say it: the tooltip, and the name of a button without words. */
  title?: string;
  class?: string;
}

/** Whether a word or a number is written on it, itself or within an element. */
function hasWords(children: ComponentChildren): boolean {
  if (Array.isArray(children)) return children.some(hasWords);
  if (isValidElement(children))
    return hasWords((children.props as { children?: ComponentChildren }).children);
  return typeof children === "number" || (typeof children === "string" && /[\p{L}\p{N}]/u.test(children));
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
      aria-label={hasWords(children) ? undefined : title}
      title={title}
    >
      {children}
    </button>
  );
}
