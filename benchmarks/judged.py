"""Headrace and its nearest peer on Kafka, pyrallel-consumer, through the same faults before the same judge.

``python -m benchmarks.judged [--messages N] [--members N] [--only NAME]``. The journals are those of
tests/faults/kafka; what the judge there calls wrong is counted by kind, the first of each are shown. "Again" is not
wrong, but work: runs that ended well of what had ended well before.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks import pyrallel
from benchmarks.trials import EACH, PLAIN, TRANSACTIONS, storm, transactions
from headrace.core.errors import ConfigError
from headrace.testing.kafka import KafkaServer

MEMBERS = {"headrace": "tests.faults.kafka.member", "pyrallel": pyrallel.MEMBER}
WRONG = {
    "committed past unfinished": "was not done",
    "commits that went back": "went back",
    "keys twice at once": "twice at once",
    "keys out of order": "out of order",
    "begun below a commit": "below the commit",
    "never handled": "never handled",
}
OTHER = "something else"
EXAMPLES = 2
WIDTH = 170


def rows(outcome):
    """name -> what is printed, in this order for each member."""
    verdict = outcome.verdict
    named = {
        "handled": f"{outcome.done:,} of {outcome.count:,}",
        "seconds": f"{outcome.seconds:.0f}",
        "starts": f"{verdict.starts:,}",
        "ended well": f"{verdict.finishes:,}",
        "again": f"{verdict.again:,}",
        "commits": f"{verdict.commits:,}",
        "stays": f"{verdict.stays:,}",
        "committed, end of the log": f"{outcome.committed:,} of {outcome.end:,}",
        **{f"members that {kind}": str(times) for kind, times in outcome.kinds.items()},
        "members in trouble": str(len(outcome.troubles)),
    }
    return named | {f"WRONG: {kind}": f"{len(found):,}" for kind, found in wrongs(verdict).items()}


def wrongs(verdict):
    """kind -> what the judge says of it."""
    found = {kind: [] for kind in (*WRONG, OTHER)}
    for each in verdict.wrong:
        found[next((kind for kind, text in WRONG.items() if text in each), OTHER)].append(each)
    return found


def shown(title, outcomes):
    print(f"\n{title}")
    columns = {name: rows(outcome) for name, outcome in outcomes.items()}
    print(f"  {'':<34}" + "".join(f"{name:>22}" for name in columns))
    for row in next(iter(columns.values())):
        print(f"  {row:<34}" + "".join(f"{column[row]:>22}" for column in columns.values()))
    for name, outcome in outcomes.items():
        for example in outcome.troubles[:EXAMPLES]:
            print(f"  {name}, trouble: {example[:WIDTH]}")
        for kind, found in wrongs(outcome.verdict).items():
            for example in found[:EXAMPLES]:
                print(f"  {name}, {kind}: {example[:WIDTH]}", flush=True)


def tried(trial, members):
    """Each member on a server of its own: nothing that one leaves behind meets the other."""
    outcomes = {}
    for name, member in members.items():
        with KafkaServer() as server, tempfile.TemporaryDirectory() as folder:
            outcomes[name] = asyncio.run(trial(Path(folder), server, member))
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=30_000, help="of the storm, by thousands (default: 30000)")
    parser.add_argument("--members", type=int, default=8, help="of the storm at most (default: 8)")
    parser.add_argument("--pace", type=float, default=0.4, help="longest run of a handler in seconds (default: 0.4)")
    parser.add_argument("--only", default="", metavar="TEXT", help="trials with this in their name")
    given = parser.parse_args()
    members = dict(MEMBERS)
    if reason := pyrallel.lacking():
        print(f"SKIPPED: pyrallel-consumer, {reason}")
        del members["pyrallel"]
    count = -(-given.messages // 1_000) * 1_000

    async def stormy(folder, server, member):
        return await storm(folder, server.bootstrap, member, count, members=given.members, pace=given.pace)

    trials = {
        f"storm: {count:,} messages, {given.members} members, one joins, leaves or is killed every 2 s": stormy,
        f"transactions: {TRANSACTIONS} of {EACH} records, then {PLAIN} plain ones; two stays in turn": transactions,
    }
    try:
        for title, trial in trials.items():
            if given.only in title.partition(":")[0]:
                shown(title, tried(trial, members))
    except ConfigError as error:
        print(f"SKIPPED: Kafka, {error}")


if __name__ == "__main__":
    main()
