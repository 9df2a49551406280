"""`cllm primes`: count, find, test, factor and export primes, exactly."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from cllm.errors import DataError, LimitError, UsageError

app = App(
    name="primes",
    help="Primes, exactly: count, n-th, ranges, proofs of primality, factors, tables.",
    help_epilogue="""\
Examples:

  cllm primes count 10^12
  cllm primes factor 144001

Numbers may be written 1000, 1_000, 10^12, 1e12, 2^127-1 or 3*2^30+1.""",
    help_format="plaintext",
)

Number = Annotated[str, Parameter(allow_leading_hyphen=True)]
_MAX_BITS = 1 << 20  # of a number typed on the command line
_LISTED = 1_000_000


@app.command
def count(x: Number, *, json: bool = False) -> int:
    """π(x): how many primes there are up to x, exactly, for x up to 10^15.

    Examples:

      cllm primes count 10^12

      cllm primes count 1000 --json

    Parameters
    ----------
    x: str
        The upper end, included.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.counting import prime_count

    value = integer(x)
    found = prime_count(value)
    return _print(str(found), {"x": value, "count": found}, json)


@app.command
def nth(n: Number, *, json: bool = False) -> int:
    """The n-th prime (the first is 2), for n up to π(10^15) = 29844570422669.

    Examples:

      cllm primes nth 1000

      cllm primes nth 10^11

    Parameters
    ----------
    n: str
        The index, from 1.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.counting import nth_prime

    index = integer(n)
    p = nth_prime(index)
    return _print(str(p), {"n": index, "prime": p}, json)


@app.command(name="list")
def list_(start: Number, stop: Number, *, json: bool = False) -> int:
    """Every prime from start to stop, both included, one a line.

    Examples:

      cllm primes list 1 100

      cllm primes list 10^12 10^12+200

    Parameters
    ----------
    start: str
        The lower end; a range of any height is fine.
    stop: str
        The upper end.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.sieve import primes_between

    low, high = integer(start), integer(stop)
    if high - low > 64 * _LISTED:
        raise LimitError(f"primes list: at most {64 * _LISTED} numbers wide, got {high - low}; use `primes export`")
    found = [int(p) for p in primes_between(low, high + 1)]
    return _print("\n".join(map(str, found)), {"start": low, "stop": high, "primes": found}, json)


@app.command(name="test")
def prove(*numbers: Number, json: bool = False) -> int:
    """Prove whether numbers of any size are prime; exit code 1 when one is not.

    Examples:

      cllm primes test 143999 144001

      cllm primes test 2^127-1

    Parameters
    ----------
    numbers: str
        The numbers.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.primality import is_mersenne_prime, is_prime, is_sophie_germain, is_twin

    if not numbers:
        raise UsageError("primes test: give at least one number, for example `cllm primes test 143999`")
    results: list[dict[str, Any]] = []
    lines = []
    for text in numbers:
        n = integer(text)
        prime = is_prime(n)
        small = prime and n.bit_length() <= 4096
        kinds = {
            "twin": small and is_twin(n),
            "sophie_germain": small and is_sophie_germain(n),
            "mersenne": prime and n & (n + 1) == 0 and is_mersenne_prime(n),
        }
        results.append({"n": n, "prime": prime, **kinds})
        named = [name.replace("_", " ").title() for name, holds in kinds.items() if holds]
        lines.append(f"{n}: {'prime' if prime else 'not prime'}{' (' + ', '.join(named) + ')' if named else ''}")
    _print("\n".join(lines), {"results": results}, json)
    return 0 if all(r["prime"] for r in results) else 1


@app.command
def factor(n: Number, *, json: bool = False) -> int:
    """The prime factorisation, with Ω, ω and the Möbius function.

    Examples:

      cllm primes factor 144001

      cllm primes factor 2^101-1 --json

    Parameters
    ----------
    n: str
        A number of at least 1, below 2^400 unless it is prime.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.primality import factor as factorise

    value = integer(n)
    factors = factorise(value)
    big, distinct = sum(e for _, e in factors), len(factors)
    mobius = (-1) ** distinct if big == distinct else 0
    words = " · ".join(f"{p}^{e}" if e > 1 else str(p) for p, e in factors) or "1"
    data = {"n": value, "factors": factors, "big_omega": big, "omega": distinct, "mobius": mobius}
    return _print(f"{value} = {words}", data, json)


@app.command(name="next")
def next_(n: Number, *, json: bool = False) -> int:
    """The smallest prime above n, proved.

    Examples:

      cllm primes next 10^12

      cllm primes next 2^200

    Parameters
    ----------
    n: str
        Any integer.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.primality import next_prime

    value = integer(n)
    p = next_prime(value)
    return _print(str(p), {"n": value, "next": p, "gap": p - value}, json)


@app.command
def prev(n: Number, *, json: bool = False) -> int:
    """The largest prime below n, proved.

    Examples:

      cllm primes prev 10^12

      cllm primes prev 100 --json

    Parameters
    ----------
    n: str
        An integer above 2.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.primality import previous_prime

    value = integer(n)
    p = previous_prime(value)
    return _print(str(p), {"n": value, "previous": p, "gap": value - p}, json)


@app.command
def export(
    file: Path, *, start: Number = "1", stop: Number = "1000000", factors: bool = False, json: bool = False
) -> int:
    """Write a table of primes, or of arithmetic functions, as .csv or .parquet.

    Columns: index and prime; with --factors one row for every number, with least (its least prime factor), big_omega,
    omega and mobius.

    Examples:

      cllm primes export primes.csv --stop 10^6

      cllm primes export table.parquet --start 10^9 --stop 10^9+10^6 --factors

    Parameters
    ----------
    file: Path
        The file to write; its name ends in .csv or .parquet.
    start: str
        The lower end.
    stop: str
        The upper end, included.
    factors: bool
        Every number with its arithmetic functions, instead of the primes alone.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.table_file import write_table

    low, high = integer(start), integer(stop)
    try:
        rows = write_table(file, low, high, factors=factors)
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {error.strerror or error}") from None
    return _print(f"{rows} rows in {file}", {"file": str(file), "start": low, "stop": high, "rows": rows}, json)


def integer(text: str) -> int:
    """An integer as people write it: 1_000, 1,000, 10^12, 1e12, 2^127-1, 3*2^30+1; UsageError otherwise."""
    words = text.replace("_", "").replace(",", "").replace(" ", "").replace("**", "^")
    if not re.fullmatch(r"[+-]?\d+(?:[\^eE]\d+)?(?:[-+*]\d+(?:[\^eE]\d+)?)*", words):
        raise UsageError(f"{text!r} is not an integer; write for example 1000, 10^12, 1e12, 2^127-1 or 3*2^30+1")
    total = 0
    for term in re.findall(r"[+-]?[^+-]+", words):
        sign = -1 if term.startswith("-") else 1
        product = 1
        for part in term.lstrip("+-").split("*"):
            product *= _power(part, text)
            if product.bit_length() > _MAX_BITS:
                raise _too_long(text)
        total += sign * product
    return total


def _power(part: str, text: str) -> int:
    base, mark, exponent = re.split(r"([\^eE])", part) if re.search(r"[\^eE]", part) else (part, "", "1")
    if len(base) > _MAX_BITS // 4 or len(exponent) > 9:
        raise _too_long(text)
    root, power = (10 if mark in ("e", "E") else _whole(base)), int(exponent)
    if root.bit_length() * power > _MAX_BITS:
        raise _too_long(text)
    return int(root**power) * (_whole(base) if mark in ("e", "E") else 1)


def _whole(digits: str) -> int:
    from flint import fmpz

    return int(fmpz(digits))  # int() refuses more than 4300 digits


def _too_long(text: str) -> LimitError:
    return LimitError(f"{text[:40]!r}: numbers on the command line have at most 2^20 bits")


def _print(text: str, data: dict[str, Any], json: bool) -> int:
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    if json:
        import json as json_module

        print(json_module.dumps(data, ensure_ascii=False))
    elif text:
        print(text)
    return 0
