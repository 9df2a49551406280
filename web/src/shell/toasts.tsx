import { Button } from "../controls";
import { dismiss, toasts } from "../state/toasts";

export function Toasts() {
  return (
    <div class="toasts" role="log" aria-live="polite" aria-label="Messages">
      {toasts.value.map((t) => (
        <div key={t.id} class={`toast toast-${t.kind}`}>
          <p>{t.text}</p>
          <Button control="shell.toast-close" kind="quiet" title="Dismiss" onClick={() => dismiss(t.id)}>
            ✕
          </Button>
        </div>
      ))}
    </div>
  );
}
