import { Empty } from "../../controls";

export default function Bench() {
  return (
    <Empty title="No measurements on this page yet">
      <p>
        Measure from the command line: <code>cllm bench train-step</code>
      </p>
    </Empty>
  );
}
