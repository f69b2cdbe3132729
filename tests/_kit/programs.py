"""Programs in a process of their own."""

import json
import subprocess
import sys


def run(program, cwd):
    """Return what each line says that a program printed, in JSON."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]
