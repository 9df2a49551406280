/** Arrow keys in a list: up and down move between the buttons of a class. */
export function moveByArrows(event: KeyboardEvent, selector: string): void {
  const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
  if (!by) return;
  const buttons = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>(selector)];
  const next = buttons[buttons.indexOf(document.activeElement as HTMLElement) + by];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}
