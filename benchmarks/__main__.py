"""All benchmarks, each in a process of its own. ``python -m benchmarks [--small] [NAME …]``."""

import argparse
import subprocess
import sys

NAMES = ("imports", "messages", "embedded", "jetstream", "kafka")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--small", action="store_true", help="a fraction of the messages: does it run at all")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}: one of {', '.join(NAMES)}")
    failed = []
    for name in given.names or NAMES:
        print(f"\n=== {name} ===", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--small"] if given.small else [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
