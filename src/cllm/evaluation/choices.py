"""Cloze and multiple choice: which of several continuations does the model find the likeliest?

A question is a JSON line {"prompt": "The sky is", "choices": [" blue", " made of cheese"], "answer": 0}. Two
accuracies, as the Language Model Evaluation Harness reports them: by the sum of log p of a choice's tokens, and by
that sum a UTF-8 byte of the choice (long choices are not punished for their length). Chance is the mean of
1/(number of choices).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cllm.errors import DataError
from cllm.evaluation.continuation import Scorer


@dataclass(frozen=True)
class Question:
    """A prompt, its continuations as they are (a leading space belongs to the choice), the number of the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Choices:
    """How a model did. `stderr`: of `accuracy`, binomial."""

    questions: int
    correct: int
    correct_by_byte: int
    chance: float
    cut: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.questions

    @property
    def accuracy_by_byte(self) -> float:
        return self.correct_by_byte / self.questions

    @property
    def stderr(self) -> float:
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.questions)

    def to_dict(self) -> dict[str, Any]:
        """The figures, JSON-able."""
        return {
            "questions": self.questions,
            "accuracy": self.accuracy,
            "accuracy_stderr": self.stderr,
            "accuracy_by_byte": self.accuracy_by_byte,
            "chance": self.chance,
            "prompts_cut": self.cut,
        }


def read_questions(path: Path) -> list[Question]:
    """The questions of a JSONL file. Raises DataError with the line for anything that is not one."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")  # not splitlines: a text may hold U+2028
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from None
    questions = [_question(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise DataError(f"{path}: no question in it; a line is " + EXAMPLE)
    return questions


EXAMPLE = '{"prompt": "The sky is", "choices": [" blue", " green"], "answer": 0}'


def _question(line: str, where: str) -> Question:
    try:
        found = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); expected {EXAMPLE}") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: expected an object, as {EXAMPLE}")
    prompt, choices, answer = (found.get(key) for key in ("prompt", "choices", "answer"))
    if not isinstance(prompt, str):
        raise DataError(f"{where}: prompt: expected a text, got {prompt!r}")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise DataError(f"{where}: choices: expected two texts or more, none empty, got {choices!r}")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f"{where}: answer: expected a whole number from 0 to {len(choices) - 1}, got {answer!r}")
    return Question(prompt, tuple(choices), answer)


def answer(
    scorer: Scorer, questions: Sequence[Question], progress: Callable[[int, int], None] | None = None
) -> Choices:
    """Score every choice of every question. Ties go to the first choice."""
    found = scorer.score([(q.prompt, choice) for q in questions for choice in q.choices], progress)
    at = correct = by_byte = cut = 0
    for q in questions:
        part = found[at : at + len(q.choices)]
        at += len(q.choices)
        nats = [c.nats for c in part]
        a_byte = [c.nats / len(choice.encode()) for c, choice in zip(part, q.choices, strict=True)]
        correct += nats.index(max(nats)) == q.answer
        by_byte += a_byte.index(max(a_byte)) == q.answer
        cut += any(c.cut for c in part)
    chance = sum(1 / len(q.choices) for q in questions) / len(questions)
    return Choices(len(questions), correct, by_byte, chance, cut)
