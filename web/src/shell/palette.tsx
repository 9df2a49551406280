/** Ctrl+K: type a few letters, Enter runs. A combobox with a list, as the ARIA authoring guide draws it. */
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Command, commands, score } from "../state/commands";

export const paletteOpen = signal(false);

export function matching(list: readonly Command[], typed: string): Command[] {
  return list
    .map((command) => ({ command, score: score(`${command.title} ${command.group}`, typed) }))
    .filter((m) => m.score >= 0)
    .sort((a, b) => b.score - a.score)
    .map((m) => m.command);
}

export function Palette() {
  const ref = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState("");
  const [at, setAt] = useState(0);
  const open = paletteOpen.value;
  const found = useMemo(() => matching(commands.value, typed), [commands.value, typed]);
  useLayoutEffect(() => {
    const dialog = ref.current!;
    if (open && !dialog.open) {
      setTyped("");
      setAt(0);
      dialog.showModal();
    }
    if (!open && dialog.open) dialog.close();
  }, [open]);
  useEffect(() => {
    document.getElementById(`palette-${at}`)?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const close = () => {
    paletteOpen.value = false;
  };
  const run = (command: Command | undefined) => {
    close();
    // after the dialog has closed and the focus is back on the screen
    if (command) setTimeout(command.run);
  };
  const onKey = (event: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by !== undefined && found.length) {
      event.preventDefault();
      setAt((at + by + found.length) % found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(found[at]);
    }
  };
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the browser closes a dialog on Escape by itself
    <dialog
      ref={ref}
      class="palette"
      aria-label="Commands"
      onCancel={(e) => {
        e.preventDefault(); // Escape: closed by the signal, so that both always agree
        close();
      }}
      onClose={() => {
        // the event comes late: the palette may have been opened again
        setTimeout(() => ref.current?.open || close(), 50);
      }}
      onClick={(e) => e.target === ref.current && close()}
    >
      {open && (
        <>
          <input
            class="palette-input"
            data-control="shell.palette-input"
            role="combobox"
            aria-label="Command"
            aria-expanded="true"
            aria-controls="palette-list"
            aria-activedescendant={found.length ? `palette-${at}` : undefined}
            placeholder="What to do?"
            autocomplete="off"
            spellcheck={false}
            value={typed}
            onInput={(e) => {
              setTyped(e.currentTarget.value);
              setAt(0);
            }}
            onKeyDown={onKey}
          />
          <div id="palette-list" class="palette-list" role="listbox" aria-label="Commands">
            {found.map((command, i) => (
              // biome-ignore lint/a11y/useKeyWithClickEvents: the keys are the input's
              <div
                key={command.id}
                id={`palette-${i}`}
                role="option"
                tabIndex={-1}
                aria-selected={i === at}
                onClick={() => run(command)}
                onPointerMove={() => setAt(i)}
              >
                <span class="palette-group">{command.group}</span>
                <span>{command.title}</span>
                {command.keys && <kbd>{command.keys}</kbd>}
              </div>
            ))}
            {found.length === 0 && <p class="palette-none">Nothing of that name. Fewer letters find more.</p>}
          </div>
        </>
      )}
    </dialog>
  );
}
