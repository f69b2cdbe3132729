"""What an unknown word was meant to be: by what it means elsewhere, or, of a misspelling, by its letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_NOTHING: Mapping[str, str] = {}


def rows(words: str, answer: str) -> dict[str, str]:
    """Return the part of a table in which some words, separated by spaces, have one answer."""
    return dict.fromkeys(words.split(), answer)


def suggest(
    word: str, known: Iterable[str], meant: Mapping[str, str] = _NOTHING, absent: Mapping[str, str] = _NOTHING
) -> str:
    """Return the end of an error about an unknown name.

    Parameters
    ----------
    word : str
        The unknown name.
    known : iterable of str
        The names there are.
    meant : mapping
        The names that mean the same, by words of other libraries: ``"decay1 and decay2"`` or, where it depends on what
        is known, ``"decay or lr"``.
    absent : mapping
        By words for which there is no name: a sentence that says so, and the way out.

    Returns
    -------
    str
        ``"; did you mean 'lr'?"``, or a sentence of `absent`; else the nearest spelling, if one is near. All but the
        first end with what is known.
    """
    names = list(known)
    end = f"nown: {', '.join(names) or 'none'}"

    def by_meaning(word: str) -> str:
        if same := _present(_looked_up(word, meant), names):
            return f"; did you mean {same}?"
        sentence = _looked_up(word, absent)
        return f"; {sentence}. K{end}" if sentence else ""

    if text := by_meaning(word):
        return text
    if near := _misspelt(word, names) or _part_of(word, names) or _beginning(word, names):
        return f"; did you mean {' or '.join(map(repr, near))}? K{end}"
    return next(filter(None, map(by_meaning, _misspelt(word, [*meant, *absent]))), f"; k{end}")


def _looked_up(word: str, table: Mapping[str, str]) -> str:
    return {_bare(key): value for key, value in table.items()}.get(_bare(word), "")


def _present(row: str, names: list[str]) -> str:
    """Return those alternatives in a row of which every name is known, quoted."""
    alternatives = [group.split(" and ") for group in row.split(" or ")]
    usable = [group for group in alternatives if all(name in names for name in group)]
    return " or ".join(" and ".join(map(repr, group)) for group in usable)


def _part_of(word: str, names: list[str]) -> list[str]:
    """Return the names of which `word` is one of the words that they are made of."""
    return [name for name in names if word.lower() in name.lower().split("_")]


def _misspelt(word: str, names: list[str]) -> list[str]:
    """Return the names that `word` is a misspelling of."""
    return _near(word, {name: _bare(name) for name in names})


def _beginning(word: str, names: list[str]) -> list[str]:
    """Return the names that begin with `word`, misspelt or not; of two letters many do."""
    length = len(_bare(word))
    return _near(word, {name: _bare(name)[:length] for name in names}) if length > 2 else []


def _near(word: str, spellings: Mapping[str, str]) -> list[str]:
    bare = _bare(word)
    distances = {name: _distance(bare, spelling) for name, spelling in spellings.items()}
    nearest = min(distances.values(), default=1)
    allowed = min(len(bare) // 4, 2)  # another one of two or three letters makes another word
    return [name for name, distance in distances.items() if distance == nearest <= allowed]


def _bare(word: str) -> str:
    return "".join(char for char in word.lower()[:80] if char not in "_- ")


def _distance(a: str, b: str) -> int:
    """Return how many letters have to be added, dropped, replaced or swapped with the next to make `b` of `a`."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row, before = before, [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                row[-1] = min(row[-1], last[j - 2] + 1)
    return row[-1]
