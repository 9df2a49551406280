/** New notes and new studies: a name, and a beginning that can be read or trained as it stands. */
import { useEffect, useRef, useState } from "preact/hooks";
import { tell } from "../../api/client";
import { Button, Dialog, Select, TextField } from "../../controls";
import { go } from "../../state/route";
import { api } from "./api";
import { saveNote } from "./saving";
import { look } from "./state";

/** A whole name: Markdown where no other kind is written, below `folder` where no folder is. */
export function fullName(typed: string, suffix: string, folder = ""): string {
  const name = typed.trim().replace(/^\/+/, "");
  const whole = name.includes("/") || !folder ? name : `${folder}/${name}`;
  return whole.toLowerCase().endsWith(suffix) || (suffix === ".md" && /\.markdown$/i.test(whole))
    ? whole
    : `${whole}${suffix}`;
}

function title(name: string): string {
  const stem = name.replace(/^.*\//, "").replace(/\.\w+$/, "");
  return stem.charAt(0).toUpperCase() + stem.slice(1).replaceAll(/[-_]+/g, " ");
}

/** A study of two cells and five seeds that takes minutes. */
export function template(name: string, text: string): string {
  return `title = ${JSON.stringify(title(name))}
seeds = [1, 2, 3, 4, 5]

[run]                         # what all cells share: the keys of a run file
preset = "nano"
train.steps = 300
train.sample_every = 0
data.path = [${JSON.stringify(text)}]

[grid]                        # every combination is a cell; the first one is the baseline
"model.dropout" = [0.0, 0.1]
`;
}

interface MakingProps {
  what: "note" | "study" | undefined;
  onClose: () => void;
}

export function Making({ what, onClose }: MakingProps) {
  const [name, setName] = useState("");
  const [wrong, setWrong] = useState<string>();
  const [texts, setTexts] = useState<readonly string[]>();
  const [text, setText] = useState("");
  const opened = useRef(what);
  if (opened.current !== what) {
    // while drawing: an effect would run behind the first keys, and take them back
    opened.current = what;
    setName("");
    setWrong(undefined);
  }
  useEffect(() => {
    if (what !== "study") return;
    api
      .texts()
      .then((found) => {
        const names = [...found.files, ...found.folders, ...found.corpora].map((t) => t.name);
        setTexts(names);
        const first = names.find((n) => n.endsWith(".txt")) ?? names[0] ?? "";
        setText((now) => (names.includes(now) ? now : first)); // one that was chosen meanwhile stays
      })
      .catch(tell);
  }, [what]);
  const study = what === "study";
  const make = async () => {
    const full = study ? fullName(name, ".toml", "studies") : fullName(name, ".md");
    try {
      const saved = await saveNote(full, study ? template(full, text) : `# ${title(full)}\n\n`, null);
      if ("conflict" in saved) {
        setWrong(`${full} is there already; choose another name`);
        return;
      }
      void look.notes();
      void look.studies();
      onClose();
      go("bench", { part: "notes", note: saved.name, edit: "1" });
    } catch (error) {
      setWrong(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <Dialog
      control="bench.making"
      title={study ? "New study" : "New note"}
      open={what !== undefined}
      onClose={onClose}
    >
      <form
        class="making"
        onSubmit={(e) => {
          e.preventDefault();
          if (name.trim()) void make();
        }}
      >
        <TextField
          control="bench.new-name"
          label="Name"
          live
          hint={
            study
              ? "dropout makes studies/dropout.toml"
              : "ideas makes ideas.md; ideas/positions makes a folder, too"
          }
          error={wrong}
          value={name}
          onChange={setName}
        />
        {study && texts && texts.length > 0 && (
          <Select
            control="bench.new-text"
            label="What the models are trained on"
            value={text}
            options={texts.map((t) => ({ value: t, label: t }))}
            onChange={setText}
          />
        )}
        {study && texts?.length === 0 && (
          <p class="field-error">
            There is no text in this workspace: put a .txt file into it, or paste one in Train.
          </p>
        )}
        <div class="page-actions">
          <Button
            control="bench.make"
            kind="main"
            disabled={name.trim() === "" || (study && text === "")}
            onClick={() => void make()}
          >
            Make it
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
