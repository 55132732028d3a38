"""Counts the primes below a million on all nodes: one job of 8 tasks, each of which makes five calls."""

from meshpeer.client import connect


def primes_between(first: int, last: int) -> int:
    sieve = bytearray([1]) * (last - first)
    for factor in range(2, int(last**0.5) + 1):
        start = max(factor * factor, -(-first // factor) * factor)
        sieve[start - first :: factor] = bytes(len(range(start, last, factor)))
    return sum(sieve) - sum(first <= one < last for one in (0, 1))


def main() -> None:
    starts = range(0, 1_000_000, 25_000)
    with connect() as mesh:
        job = mesh.map(primes_between, starts, [one + 25_000 for one in starts], chunks=8)
        print(f"{sum(job.gather()):,} primes below a million")
        print(f"by {job.status().tasks.total} tasks")


if __name__ == "__main__":
    main()
