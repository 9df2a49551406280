"""Train on a text, let the model write, score it. Usage: python examples/train.py book.txt OUT"""

import sys

import cllm

text, out = sys.argv[1:3]
run = cllm.train(text, preset="nano", out=out, set={"train.steps": 300})
print(run.generate("The ", max_tokens=60, seed=1))
score = run.evaluate()
print(f"{score.loss:.3f} nats a token, {score.bits_per_byte:.3f} bits per byte")
