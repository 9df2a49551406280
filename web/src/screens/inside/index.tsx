import { Empty } from "../../controls";

export default function Inside() {
  return (
    <Empty title="Nothing to look into on this page yet">
      <p>
        Look at a run from the command line: <code>cllm info runs/book</code>
      </p>
    </Empty>
  );
}
