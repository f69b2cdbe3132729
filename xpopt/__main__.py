"""``python -m xpopt`` prints what this machine can do."""

from ._machine import report

if __name__ == "__main__":
    print(report())
