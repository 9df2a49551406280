/** The frame around every screen: navigation, palette, theme, messages. */
import { computed, signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { connect, connection } from "../api/socket";
import { Button, Empty } from "../controls";
import { screens } from "../screens/table";
import { commands, isTyping, keyName, offer } from "../state/commands";
import { go, route } from "../state/route";
import { choice } from "../state/theme";
import { Palette, paletteOpen } from "./palette";
import { Shortcuts, shortcutsOpen } from "./shortcuts";
import { Toasts } from "./toasts";

const loaded = signal<ReadonlyMap<string, ComponentType>>(new Map());
const failed = signal<string | undefined>(undefined);
const current = computed(() => screens.find((s) => s.name === route.value.screen));

async function open(name: string): Promise<void> {
  const screen = screens.find((s) => s.name === name);
  if (!screen || loaded.peek().has(name)) return;
  try {
    const module = await screen.load();
    loaded.value = new Map(loaded.peek()).set(name, module.default);
    failed.value = undefined;
  } catch {
    failed.value = `The screen ${screen.title} could not be loaded. Is \`cllm studio\` still running?`;
  }
}

function shellCommands() {
  const pages = screens.map((s, i) => ({
    id: `go.${s.name}`,
    group: "Go to",
    title: s.title,
    keys: `Alt+${i + 1}`,
    run: () => go(s.name),
  }));
  const themes = (["system", "light", "dark"] as const).map((t) => ({
    id: `theme.${t}`,
    group: "Theme",
    title: t === "system" ? "Follow the system" : t === "light" ? "Light" : "Dark",
    run: () => {
      choice.value = t;
    },
  }));
  const help = {
    id: "shell.shortcuts",
    group: "Help",
    title: "Keyboard shortcuts",
    keys: "?",
    run: () => {
      shortcutsOpen.value = true;
    },
  };
  return [...pages, ...themes, help];
}

function onKey(event: KeyboardEvent): void {
  const name = keyName(event);
  if (name === "Ctrl+k") {
    event.preventDefault();
    paletteOpen.value = !paletteOpen.value;
    return;
  }
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (isTyping(event.target) && !event.ctrlKey && !event.altKey && !event.metaKey) return;
  const found = commands.value.find((c) => c.keys === name);
  if (found) {
    event.preventDefault();
    found.run();
  }
}

export function App() {
  useEffect(connect, []);
  useEffect(() => offer("shell", shellCommands()), []);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const screen = current.value;
  useEffect(() => {
    void open(route.value.screen);
    document.title = screen ? `${screen.title} – Crystalline` : "Crystalline";
  }, [route.value.screen]);
  const nav = useRef<HTMLElement>(null);
  useLayoutEffect(() => showCurrent(nav.current!), [screen]);
  const Screen = screen && loaded.value.get(screen.name);
  return (
    <>
      <button
        type="button"
        class="skip"
        data-control="shell.skip"
        onClick={() => document.getElementById("main")?.focus()}
      >
        Skip to the screen
      </button>
      <header class="top">
        {(!screen || screen.plain) && <h1 class="visually-hidden">{screen?.title ?? "Crystalline"}</h1>}
        <span class="brand" aria-hidden="true">
          <svg viewBox="0 0 32 32">
            <path d="M16 4 26 10v12l-10 6L6 22V10z" />
            <path class="brand-inner" d="M16 4v24M6 10l20 12M26 10 6 22" />
          </svg>
          Crystalline
        </span>
        <nav ref={nav} class="nav" aria-label="Screens">
          {screens.map((s, i) => (
            <a
              key={s.name}
              href={`#${s.name}`}
              data-control={`shell.${s.name}`}
              aria-current={s === screen ? "page" : undefined}
              title={`${s.about} (Alt+${i + 1})`}
            >
              {s.title}
            </a>
          ))}
        </nav>
        <div class="top-end">
          <span
            class={`live live-${connection.value}`}
            role="status"
            title={connection.value === "open" ? "Connected to the studio" : "Not connected to the studio"}
          >
            <span class="visually-hidden">{connection.value === "open" ? "Connected" : "Not connected"}</span>
          </span>
          <Button
            control="shell.palette"
            kind="quiet"
            title="Commands (Ctrl K)"
            onClick={() => {
              paletteOpen.value = true;
            }}
          >
            <span class="visually-hidden">Commands </span>
            <kbd>Ctrl</kbd> <kbd>K</kbd>
          </Button>
          <ThemeSwitch />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {Screen ? (
          <Screen />
        ) : !screen ? (
          <Empty title={`There is no screen called “${route.value.screen}”`}>
            <p>Choose one above, or press Ctrl+K.</p>
          </Empty>
        ) : failed.value ? (
          <Empty title="This screen did not load">
            <p>{failed.value}</p>
          </Empty>
        ) : null}
      </main>
      <Palette />
      <Shortcuts />
      <Toasts />
    </>
  );
}

/** Bring the open screen's name into view where the names do not all fit, and a part of its neighbour's with it. */
function showCurrent(nav: HTMLElement): void {
  const name = nav.querySelector<HTMLElement>("[aria-current]");
  if (!name) return;
  const left = name.offsetLeft - nav.offsetLeft;
  const room = (nav.clientWidth - name.offsetWidth) / 2;
  nav.scrollLeft = left - Math.max(0, room);
}

const NEXT = { system: "light", light: "dark", dark: "system" } as const;
const GLYPH = { system: "◐", light: "☀", dark: "☾" } as const;
const WORD = { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" } as const;

function ThemeSwitch() {
  return (
    <Button
      control="shell.theme"
      kind="quiet"
      title={`${WORD[choice.value]}; next: ${NEXT[choice.value]}`}
      onClick={() => {
        choice.value = NEXT[choice.value];
      }}
    >
      <span class="glyph">{GLYPH[choice.value]}</span>
    </Button>
  );
}
