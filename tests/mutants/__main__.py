"""Mistakes of one line each in the package, and which test refuses each.

python tests/mutants [NUMBER ...] [--all] [--record] [--places] [--draw N]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from drawing import draw
from listing import Listing, Mutant, load
from places import NotFoundError, Place, find, functions
from running import ROOT, Copy, refuse, run_clean

PACKAGE = ROOT / "xpopt"


def main() -> int:
    """Do what was asked for; return 1 if a mutant survives that did not."""
    parser = argparse.ArgumentParser(prog="python tests/mutants", description="Show that the tests refuse mistakes.")
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="only these, whatever is recorded")
    parser.add_argument("--all", action="store_true", help="those recorded as survivors, too")
    parser.add_argument("--record", action="store_true", help="write what is found into the list")
    parser.add_argument("--places", action="store_true", help="say where each is, and run nothing")
    parser.add_argument("--draw", type=int, metavar="N", help="add N new ones to the list, and run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once; default: %(default)s")
    args = parser.parse_args()
    listing = load()
    if args.draw:
        drawn = draw(PACKAGE, listing.seed, args.draw, listing.mutants)
        print(*drawn, sep="\n")
        replace(listing, mutants=[*listing.mutants, *drawn]).save()
        return 0
    if unknown := set(args.numbers) - {mutant.number for mutant in listing.mutants}:
        parser.error(f"no mutant has the number {min(unknown)}")
    places = find_all(listing.mutants)
    if args.places:
        for mutant in listing.mutants:
            place = places[mutant.number]
            print(f"{mutant}  ({place.path}:{place.number}; {mutant.result or 'not run yet'})")
        return 0
    left = ("equivalent",) if args.all else ("equivalent", "survives")
    chosen = [m for m in listing.mutants if (m.number in args.numbers if args.numbers else m.result not in left)]
    found = asyncio.run(run(chosen, places, args.jobs))
    newly = report(chosen, found)
    if args.record:
        listing = load()  # it may have been edited meanwhile
        record(listing, found)
    return 1 if newly and not args.record else 0


def find_all(mutants: list[Mutant]) -> dict[int, Place]:
    """Return where each is, from the project's folder; exit if one is nowhere."""
    all_functions, places, lost = functions(PACKAGE), {}, []
    for mutant in mutants:
        try:
            place = find(all_functions, mutant.function, mutant.line, mutant.beside)
            places[mutant.number] = Place(place.path.relative_to(ROOT), place.number)
        except NotFoundError as error:
            lost.append(f"{mutant}\n    {error}")
    if lost:
        raise SystemExit(
            "\n".join(lost)
            + f"\n{len(lost)} not found. Write into tests/mutants/mutants.toml what the function or line "
            f"is now, or take them out there and draw others: python tests/mutants --draw {len(lost)}"
        )
    return places


async def run(chosen: list[Mutant], places: dict[int, Place], jobs: int) -> dict[int, str | None]:
    """Return the test that refuses each, by number; None for none. Say how far it is."""
    start, found = time.monotonic(), {}
    waiting = iter(chosen)

    async def work(copy: Copy) -> None:
        for mutant in waiting:
            begin = time.monotonic()
            found[mutant.number] = by = await refuse(copy, suite, mutant, places[mutant.number])
            print(
                f"{len(found):3}/{len(chosen)}  {'killed  ' if by else 'SURVIVES'}  {mutant.number:3} {mutant.function}"
                f"  {time.monotonic() - begin:.0f} s",
                flush=True,
            )

    with tempfile.TemporaryDirectory(prefix="xpopt-mutants-") as folder:
        copies = [Copy(Path(folder, str(i)), Path(folder, "compiled")) for i in range(jobs)]
        print("The package as it is:", flush=True)
        suite = await run_clean(copies)
        print(f"{suite}; {time.monotonic() - start:.0f} s", flush=True)
        await asyncio.gather(*map(work, copies))
    print(f"{time.monotonic() - start:.0f} s")
    return found


def report(chosen: list[Mutant], found: dict[int, str | None]) -> list[Mutant]:
    """Print the table; return those that survive and were not known to."""
    for mutant in chosen:
        by = found[mutant.number]
        print(mutant, "killed by " + by if by else f"SURVIVES{_why(mutant)}", sep="\n    ")
    survivors = [mutant for mutant in chosen if found[mutant.number] is None]
    newly = [mutant for mutant in survivors if mutant.result not in ("survives", "equivalent")]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed, {len(survivors)} survive.")
    if newly:
        print("Newly surviving:", *newly, sep="\n")
    return newly


def _why(mutant: Mutant) -> str:
    return f", as before: {mutant.reason}" if mutant.result == "survives" else ""


def record(listing: Listing, found: dict[int, str | None]) -> None:
    """Write into the list what a run has found; what is marked as equivalent by hand stays so."""
    mutants = []
    for mutant in listing.mutants:
        if mutant.number in found and (found[mutant.number] or mutant.result != "equivalent"):
            by = found[mutant.number]
            mutant = mutant.recorded("killed" if by else "survives", by)
        mutants.append(mutant)
    replace(listing, mutants=mutants).save()


if __name__ == "__main__":
    raise SystemExit(main())
