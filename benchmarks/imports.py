"""What `import headrace` costs beside `import asyncio`, each in fresh interpreters."""

import argparse
import statistics
import subprocess
import sys
import time

STATEMENTS = ("pass", "import asyncio", "import headrace")


def milliseconds(statement, rounds):
    """The median of so many starts."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few rounds")
    rounds = 3 if parser.parse_args().small else 15
    milliseconds("import headrace", 2)  # compiles what is not compiled yet
    took = {statement: milliseconds(statement, rounds) for statement in STATEMENTS}
    for statement, time_taken in took.items():
        print(f"{statement:<20}{time_taken:>8.1f} ms{time_taken - took['pass']:>+8.1f} ms over an empty start")


if __name__ == "__main__":
    main()
