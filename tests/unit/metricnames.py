"""What Prometheus' own linter (promtool check metrics) and its page on naming ask of metrics, over the text of a scrape.

https://prometheus.io/docs/practices/naming/
"""

import re
from collections.abc import Set

from prometheus_client.parser import text_string_to_metric_families

BASE_UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = re.compile(
    r"(_|^)(milliseconds|microseconds|nanoseconds|minutes|hours|days|kilobytes|megabytes|gigabytes|kibibytes|mebibytes|"
    r"gibibytes|bits|percent|ms|us|ns|sec|s|min|m|h|d|b|kb|mb|gb|kib|mib|gib)(_|$)"
)
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
OWN = ("_total", "_count", "_sum", "_bucket", "_created")
"""What a family's type puts at the end of its samples' names."""


def faults(text: str, labels: Set[str]) -> list[str]:
    """What is wrong with each family of a scrape. ``labels``: those whose values nobody outside can multiply."""
    # The parser puts _total to the samples of all counters.
    counters = re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE)
    found = [f"{name} is a counter and does not end with _total" for name in counters if not name.endswith("_total")]
    series = set()
    for family in text_string_to_metric_families(text):
        name, said = family.name, family.documentation
        if name.startswith("process_"):
            continue  # the same for every program
        wrong = {
            "is no name of ours in small letters": not re.fullmatch(r"slmops_[a-z]+(_[a-z]+)*", name),
            "is of no known type": family.type not in ("counter", "gauge", "histogram"),
            "is not explained by a sentence": not re.fullmatch(r"[A-Z0-9].+\.", said),
            "is not in a base unit": bool(OTHER_UNITS.search(name)),
            "says its type in its name": any(word in TYPES for word in name.split("_")),
            "has the end of a counter or of a histogram": name.endswith(OWN),
            "is a histogram and does not say of what unit": family.type == "histogram"
            and not name.endswith(BASE_UNITS),
        }
        found += [f"{name} {what}" for what, is_so in wrong.items() if is_so]
        for sample in family.samples:
            allowed = labels | ({"le"} if sample.name.endswith("_bucket") else set())
            found += [f"{sample.name} has the label {label}" for label in sample.labels if label not in allowed]
            if (key := (sample.name, *sorted(sample.labels.items()))) in series:
                found.append(f"{sample.name} is there twice with the same labels")
            series.add(key)
    return found
