"""Lets code that knows ``concurrent.futures`` run on the mesh, errors included."""

from concurrent.futures import as_completed

from meshpeer.client import Executor, RemoteError


def weigh(word: str) -> int:
    if not word.isalpha():
        raise ValueError(f"{word!r} is no word")
    return sum(map(ord, word.lower()))


def main() -> None:
    words = ["render", "judge", "4 frames", "film"]
    with Executor() as executor:
        futures = {executor.submit(weigh, word): word for word in words}
        weights = {}
        for future in as_completed(futures):
            try:
                weights[futures[future]] = future.result()
            except RemoteError as error:
                print(f"refused: {error} (a {type(error.__cause__).__name__})")
        print(*(f"{word} weighs {weights[word]}" for word in sorted(weights)), sep="\n")
        print("longest:", max(executor.map(len, words, chunksize=2)))


if __name__ == "__main__":
    main()
