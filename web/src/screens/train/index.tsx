/** Train: the runs of the workspace, one of them in full, and new ones. */
import { useEffect } from "preact/hooks";
import { Button, Empty } from "../../controls";
import { useCommands } from "../../state/commands";
import { go, keep, route } from "../../state/route";
import { api, type Detail } from "./api";
import { form, fromWeights, like } from "./draft";
import { NewRun } from "./form";
import { RunList } from "./runs";
import { alive, follow, rows } from "./state";
import { View } from "./view";

export default function Train() {
  useEffect(follow, []);
  const params = route.value.params;
  const list = rows.value;
  const making = params.new !== undefined;
  const asked = params.run;
  const newest = list?.find(alive) ?? list?.[0];
  // on a wide page the newest run is open when none is asked for
  const wide = matchMedia("(min-width: 721px)").matches;
  const current = making ? undefined : (asked ?? (wide ? newest?.name : undefined));
  const others = (params.with ?? "").split(",").filter((n) => n && n !== current);

  const open = (run: string) => go("train", { run });
  const create = () => go("train", { new: "1" });
  const back = () => go("train");
  const compare = (run: string) => {
    if (!current) return open(run);
    const next = others.includes(run) ? others.filter((n) => n !== run) : [...others, run].slice(-5);
    go("train", { run: current, ...(next.length > 0 ? { with: next.join(",") } : {}) });
  };
  const begin = async (detail: Detail, weights: boolean) => {
    if (form.peek() === undefined) form.value = await api.form();
    (weights ? fromWeights : like)(detail);
    create();
  };
  useEffect(() => {
    if (!asked && current && wide && !making) keep("train", { run: current });
  }, [current]);
  useCommands(
    "train",
    () => [
      { id: "train.new", group: "Train", title: "New run", keys: "n", run: create },
      ...(rows.value ?? []).slice(0, 50).map((r) => ({
        id: `train.open.${r.name}`,
        group: "Run",
        title: r.name,
        run: () => open(r.name),
      })),
    ],
    [list?.length],
  );
  const none = list?.length === 0;
  return (
    <div class={`train ${making ? "train-making" : current ? "train-open" : "train-list"}`}>
      <RunList shown={current ? [current, ...others] : []} onOpen={open} onCompare={compare} onNew={create} />
      {!making && !current && <h1 class="visually-hidden">Train</h1>}
      <div class="train-main">
        {making ? (
          <NewRun onStarted={open} onBack={back} />
        ) : current ? (
          <View
            key={current}
            run={current}
            others={others}
            onBack={back}
            onLike={(d, w) => void begin(d, w)}
          />
        ) : none ? (
          <Empty title="No run yet">
            <p>
              Pick a text, pick a size, and watch the loss fall. Five minutes are enough to see words appear.
            </p>
            <p>
              <Button control="train.first" kind="main" onClick={create}>
                Train the first model
              </Button>
            </p>
          </Empty>
        ) : null}
      </div>
    </div>
  );
}
