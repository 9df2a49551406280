import { Empty } from "../../controls";

export default function Train() {
  return (
    <Empty title="No runs on this page yet">
      <p>
        Train from the command line: <code>cllm train book.txt --out runs/book</code>
      </p>
    </Empty>
  );
}
