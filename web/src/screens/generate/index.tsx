import { Empty } from "../../controls";

export default function Generate() {
  return (
    <Empty title="Nothing to generate with on this page yet">
      <p>
        Generate from the command line: <code>cllm generate runs/book --prompt "It was"</code>
      </p>
    </Empty>
  );
}
