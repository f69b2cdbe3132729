"""``python -m xpopt`` prints what this machine can do."""

from ._arrays.machine import report

if __name__ == "__main__":
    print(report())
