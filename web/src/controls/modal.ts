/** The browser's own <dialog>, modal: it keeps the focus inside, and Escape closes it. */
import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface Modal {
  ref: RefObject<HTMLDialogElement | null>;
  onCancel: (event: Event) => void;
  onClose: () => void;
  onClick: (event: MouseEvent) => void;
}

/** Shown while `open`; `close` is called when its reader wants it away. What it returns belongs onto the <dialog>. */
export function useModal(open: boolean, close: () => void): Modal {
  const ref = useRef<HTMLDialogElement>(null);
  // close() of ours whose event is still to come: by then it may have been opened again
  const expected = useRef(0);
  useLayoutEffect(() => {
    const dialog = ref.current!;
    if (open && !dialog.open) dialog.showModal();
    if (!open && dialog.open) {
      expected.current += 1;
      dialog.close();
    }
  }, [open]);
  return {
    ref,
    onCancel: (event) => {
      event.preventDefault(); // Escape: closed by the owner, so that both always agree
      close();
    },
    onClose: () => {
      if (expected.current > 0) expected.current -= 1;
      else close(); // by the browser itself, which Escape pressed twice does
    },
    onClick: (event) => {
      if (event.target === ref.current) close(); // beside it
    },
  };
}
