import { signal } from "@preact/signals";
import { Dialog } from "../controls";
import { commands } from "../state/commands";

export const shortcutsOpen = signal(false);

/** Every shortcut that works now, the open screen's included. */
export function Shortcuts() {
  const keyed = commands.value.filter((c) => c.keys);
  const groups = [...new Set(keyed.map((c) => c.group))];
  return (
    <Dialog
      control="shell.shortcuts"
      title="Keyboard shortcuts"
      open={shortcutsOpen.value}
      onClose={() => {
        shortcutsOpen.value = false;
      }}
    >
      <dl class="shortcuts">
        <dt>
          <kbd>Ctrl+K</kbd>
        </dt>
        <dd>All commands</dd>
      </dl>
      {groups.map((group) => (
        <section key={group}>
          <h3>{group}</h3>
          <dl class="shortcuts">
            {keyed
              .filter((c) => c.group === group)
              .map((c) => (
                <div key={c.id}>
                  <dt>
                    <kbd>{c.keys}</kbd>
                  </dt>
                  <dd>{c.title}</dd>
                </div>
              ))}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}
