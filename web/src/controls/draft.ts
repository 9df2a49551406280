/** The text of a field while it is being edited. */
import { useRef, useState } from "preact/hooks";

export interface Draft {
  /** What the field shows. */
  text: string;
  /** A key was pressed. `told`: the owner has heard of it already. */
  type: (text: string, told?: boolean) => void;
  /** The owner has heard what is shown (or it cannot be read); its next value replaces it. */
  settle: (text: string) => void;
  /** Something was typed that the owner has not heard. */
  open: () => boolean;
}

/**
 * Shows the owner's value, and what is typed over it until that has been told. The two are compared while drawing: an
 * effect after the first drawing would run behind the first keys of somebody quick, and take them back.
 */
export function useDraft(value: string): Draft {
  const [, draw] = useState(0);
  const ref = useRef({ value, text: value, open: false });
  const state = ref.current;
  if (state.value !== value) {
    state.value = value;
    if (!state.open) state.text = value; // an edit that is not told yet is not taken away
  }
  const put = (text: string, open: boolean) => {
    state.open = open;
    if (state.text === text) return;
    state.text = text;
    draw((n) => n + 1);
  };
  return {
    text: state.text,
    type: (text, told = false) => put(text, !told),
    settle: (text) => put(text, false),
    open: () => state.open,
  };
}
