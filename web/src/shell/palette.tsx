/** Ctrl+K: type a few letters, Enter runs. A combobox with a list, as the ARIA authoring guide draws it. */
import { signal } from "@preact/signals";
import { useLayoutEffect, useMemo, useState } from "preact/hooks";
import { useModal } from "../controls";
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
  const open = paletteOpen.value;
  const close = () => {
    paletteOpen.value = false;
  };
  const modal = useModal(open, close);
  return (
    <dialog {...modal} class="palette" aria-label="Commands">
      {open && <Search close={close} />}
    </dialog>
  );
}

/** The field and its list; made anew each time, so nothing is left of the last search. */
function Search({ close }: { close: () => void }) {
  const [typed, setTyped] = useState("");
  const [chosen, setAt] = useState(0);
  const found = useMemo(() => matching(commands.value, typed), [commands.value, typed]);
  const at = Math.min(chosen, Math.max(0, found.length - 1)); // the list can become shorter
  useLayoutEffect(() => {
    document.getElementById(`palette-${at}`)?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const run = (command: Command | undefined) => {
    if (!command) return;
    close();
    setTimeout(command.run); // after the dialog has closed and the focus is back on the screen
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
  );
}
