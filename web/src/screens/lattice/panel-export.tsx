/** The picture as a file or a link. */
import { ApiError, address, tell } from "../../api/client";
import { Button } from "../../controls";
import { toast } from "../../state/toasts";
import { shownCanvases } from "./plane";
import { query, type Settings, settings } from "./settings";
import { box, paneSize, view } from "./view";

function save(name: string, blob: Blob): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function savePng(): void {
  const sources = shownCanvases.filter(Boolean);
  const made = document.createElement("canvas");
  made.width = sources.reduce((sum, c) => sum + c.width, 0);
  made.height = Math.max(...sources.map((c) => c.height));
  const g = made.getContext("2d")!;
  let x = 0;
  for (const c of sources) {
    g.drawImage(c, x, 0);
    x += c.width;
  }
  made.toBlob((blob) => blob && save(`${settings.peek().curve}.png`, blob), "image/png");
}

async function saveFile(kind: "svg" | "csv"): Promise<void> {
  const { width, height } = paneSize.peek();
  const asked = { ...query.peek(), ...box(), width: Math.round(width), height: Math.round(height) };
  try {
    const response = await fetch(address(`/api/lattice/export.${kind}`, asked));
    if (!response.ok) {
      const body = (await response.json()) as { error?: string };
      throw new ApiError(body.error ?? "The export failed.", response.status, "");
    }
    save(`${settings.peek().curve}.${kind}`, await response.blob());
  } catch (error) {
    tell(error);
  }
}

async function copyLink(): Promise<void> {
  try {
    await navigator.clipboard.writeText(location.href);
    toast("The link to this picture is in the clipboard.");
  } catch {
    toast(`The clipboard is closed to this page. The link: ${location.href}`);
  }
}

export function Export({ s }: { s: Settings }) {
  void view.value;
  const shapes = s.curve !== "folded-clock";
  return (
    <div class="buttons">
      <Button control="lattice.png" onClick={savePng}>
        PNG
      </Button>
      <Button control="lattice.svg" disabled={!shapes} onClick={() => void saveFile("svg")}>
        SVG
      </Button>
      <Button control="lattice.csv" disabled={!shapes} onClick={() => void saveFile("csv")}>
        CSV
      </Button>
      <Button control="lattice.link" onClick={() => void copyLink()}>
        Copy link
      </Button>
    </div>
  );
}
