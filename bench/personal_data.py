"""Measures how well and how fast personal data is found, on texts with known spans.

    python -m bench.personal_data --data synth_dataset_v2.jsonl

The file has one JSON object a line in presidio-research's layout: `full_text` and `spans` with `entity_type`,
`start_position` and `end_position`. A known span counts as found when a span of the same kind covers all of its letters
and digits; a found span counts as right when it overlaps a known span of its kind.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.guards import PersonalDataDetector, Span, normalise

_KIND_OF = {"EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN"}
_TARGETS = {"EMAIL": 0.99, "CARD": 0.99, "IBAN": 0.99, "PHONE": 0.95}


class Tally(NamedTuple):
    """Counts of one kind."""

    known: int = 0
    found: int = 0
    reported: int = 0
    right: int = 0
    on_other_data: int = 0
    """Reported spans that hit another type of personal data."""

    @property
    def recall(self) -> float:
        """Found among known; 1 when nothing was to be found."""
        return self.found / self.known if self.known else 1.0

    @property
    def precision(self) -> float:
        """Right among reported; 1 when nothing was reported."""
        return self.right / self.reported if self.reported else 1.0


def _covers(found: Span, text: str, known: dict[str, Any]) -> bool:
    start, end = known["start_position"], known["end_position"]
    missed = text[start : max(start, found.start)] + text[min(end, found.end) : end]
    overlaps = found.start < end and start < found.end
    return overlaps and not any(character.isalnum() for character in missed)


def _overlaps(found: Span, known: dict[str, Any]) -> bool:
    return bool(found.start < known["end_position"] and known["start_position"] < found.end)


def measure(rows: list[dict[str, Any]], detector: PersonalDataDetector, *, show_misses: bool) -> dict[str, Tally]:
    """Detect in every row and count.

    Args:
        rows: The data set.
        detector: Already warm.
        show_misses: Print what was missed and what was reported wrongly.

    Returns:
        Tallies by kind.
    """
    tallies = {kind: Tally() for kind in _TARGETS}
    for row in rows:
        text, known = row["full_text"], row["spans"]
        found = detector.detect(text)
        for span in known:
            kind = _KIND_OF.get(span["entity_type"])
            if kind is None:
                continue
            hit = any(f.kind == kind and _covers(f, text, span) for f in found)
            tallies[kind] = tallies[kind]._replace(known=tallies[kind].known + 1, found=tallies[kind].found + hit)
            if show_misses and not hit:
                print(f"missed {kind}: {text[max(0, span['start_position'] - 30) : span['end_position'] + 15]!r}")
        for f in found:
            right = any(_KIND_OF.get(k["entity_type"]) == f.kind and _overlaps(f, k) for k in known)
            other = not right and any(_overlaps(f, k) for k in known)
            tallies[f.kind] = tallies[f.kind]._replace(
                reported=tallies[f.kind].reported + 1,
                right=tallies[f.kind].right + right,
                on_other_data=tallies[f.kind].on_other_data + other,
            )
            if show_misses and not right:
                print(f"wrong {f.kind}: {text[max(0, f.start - 30) : f.end + 15]!r}")
    return tallies


def time_per_kilobyte(rows: list[dict[str, Any]], detector: PersonalDataDetector) -> list[float]:
    """Milliseconds to normalise and detect in texts of about 1 kB, made by joining the rows."""
    texts, current = [], ""
    for row in rows:
        current += row["full_text"] + "\n"
        if len(current) >= 1_000:
            texts.append(current[:1_000])
            current = ""
    samples = []
    for text in texts * 5:
        started = time.perf_counter()
        detector.detect(normalise(text))
        samples.append((time.perf_counter() - started) * 1_000)
    return samples


def main() -> int:
    """Print the table; exit code 1 when a target is missed, 2 when there is no data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with full_text and spans")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--misses", action="store_true", help="show misses and false alarms with their surroundings")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        print(f"No data at {arguments.data}: nothing was measured. Name a file with --data.", file=sys.stderr)
        return 2
    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").splitlines() if line.strip()]
    detector = PersonalDataDetector()
    detector.warm_up()
    tallies = measure(rows, detector, show_misses=arguments.misses)
    samples = time_per_kilobyte(rows, detector)
    p50, p99 = statistics.median(samples), statistics.quantiles(samples, n=100)[98]
    if arguments.json:
        report = {kind: {**t._asdict(), "recall": t.recall, "precision": t.precision} for kind, t in tallies.items()}
        print(json.dumps({"texts": len(rows), "kinds": report, "p50_ms_per_kb": p50, "p99_ms_per_kb": p99}))
    else:
        print("kind    known  recall  target  precision  reported  on other data")
        for kind, t in tallies.items():
            print(
                f"{kind:6} {t.known:6} {t.recall:7.3f} {_TARGETS[kind]:7.2f} {t.precision:10.3f} {t.reported:9}"
                f" {t.on_other_data:14}"
            )
        print(f"{len(rows)} texts; per 1 kB: p50 {p50:.2f} ms, p99 {p99:.2f} ms over {len(samples)} texts")
    return 0 if all(t.recall >= _TARGETS[kind] for kind, t in tallies.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
