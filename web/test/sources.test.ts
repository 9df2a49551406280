import { describe, expect, it } from "vitest";
import { checkpointOptions, runOptions, type Source } from "../src/screens/sources";

const source: Source = {
  run: "runs/a",
  preset: "nano",
  parameters: null,
  best_loss: null,
  checkpoints: ["step-00000002", "step-00000010"],
  latest: "step-00000010",
  best: "step-00000002",
};

describe("the choice of a checkpoint", () => {
  it("has the names first, then the steps, the newest on top", () => {
    expect(checkpointOptions(source).map((o) => [o.value, o.label, o.group])).toEqual([
      ["latest", "latest (step 10)", undefined],
      ["best", "best (step 2)", undefined],
      ["step-00000010", "step 10", "Checkpoints"],
      ["step-00000002", "step 2", "Checkpoints"],
    ]);
    expect(source.checkpoints[0]).toBe("step-00000002"); // the list itself stays as it is
  });

  it("is the newest one where nothing is known", () => {
    expect(checkpointOptions(undefined)).toEqual([{ value: "latest", label: "latest" }]);
  });

  it("names runs without their folder", () => {
    expect(runOptions([source, { ...source, run: "elsewhere/b" }]).map((o) => o.label)).toEqual([
      "a",
      "elsewhere/b",
    ]);
  });
});
