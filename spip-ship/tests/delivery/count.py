"""Counts what was logged and what a hub stored, without any of the project's code. Usage: count.py LEDGERS HUB; prints one JSON
object, and ends with 1 where the two sets differ or something is double."""

import json
import pathlib
import sys


def records(paths):
    counts = {}
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                record = json.loads(line)
                if "seq" in record:
                    key = (record["name"], record["run"], record["seq"])
                    counts[key] = counts.get(key, 0) + 1
    return counts


logged = records(sorted(pathlib.Path(sys.argv[1]).glob("*.ledger")))
stored = records(sorted(pathlib.Path(sys.argv[2]).glob("*/spip.jsonl*")))
result = {
    "logged": len(logged),
    "stored": len(stored),
    "missing": len(logged.keys() - stored.keys()),
    "unknown": len(stored.keys() - logged.keys()),
    "double": sum(count - 1 for count in stored.values()),
}
print(json.dumps(result))
sys.exit(0 if result["missing"] == result["unknown"] == result["double"] == 0 and logged else 1)
