"""What the reports of several studies say alike: statements, and who says them. Retrieved, never written: every word is of a report that was given.

A statement that only one patient's report makes is not repeated, nor one that may name somebody (`PERSONAL`): what two patients share identifies
neither. Numbers are the exception: they are replaced by the range that the reports have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

Shape = tuple[str, str]
Span = tuple[float, float]

NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
SECTION = re.compile(r"^([A-Za-z][A-Za-z /-]{0,40}):(?:\s+|$)")
END = re.compile(r"(?<=[.!?;])\s+(?=[A-Z0-9(])|\n+")
# Dates, numbers long enough to be somebody's, addresses, and lines that say who somebody is.
PERSONAL = re.compile(
    r"\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b|(?:\d[ .-]?){5,}|\S+@\S+|"
    r"\b(?:name|patient id|mrn|dob|born|birth|accession|address|phone|tel|physician|sonographer|referr\w+|signed|reported by|read by|"
    r"dr|mr|mrs|ms|prof|md)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Statement:
    """section: the heading it stands under, "" for none. words: as the report has them, without the heading."""

    section: str
    words: str

    @cached_property
    def shape(self) -> Shape:
        """What is the same for the same statement, whatever its numbers are."""
        plain = NUMBER.sub(
            "#", " ".join(self.words.split()).casefold().replace("#", "no. ")
        )  # "#" is a number, nothing else
        return self.section.casefold(), plain.rstrip(".;!? ")

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """In their order."""
        return tuple(float(found.replace(",", ".")) for found in NUMBER.findall(self.words))


@dataclass(frozen=True)
class Finding:
    """A statement that several reports make. words: with the range of its numbers. reports: places of those that make it, the nearest first.
    shape: of the statement; spans: of each of its numbers, the least and the largest."""

    section: str
    words: str
    reports: tuple[int, ...]
    shape: Shape
    spans: tuple[Span, ...]


def statements(report: str) -> list[Statement]:
    """Sentences and lines of a report, each under the heading before it; an empty line ends what a heading is about."""
    found, section = [], ""
    for line in report.splitlines():
        section = section if line.strip() else ""
        for part in END.split(line.strip()):
            if heading := SECTION.match(part):
                section, part = heading.group(1), part[heading.end() :]
            if any(letter.isalpha() for letter in part):
                found.append(Statement(section, part.strip()))
    return found


@dataclass(frozen=True)
class Report:
    """What may be repeated of a report, by shape (said twice: the first), in order. personal: statements that may not, as they may name somebody."""

    said: Mapping[Shape, Statement]
    personal: int = 0

    @classmethod
    def of(cls, words: str) -> Report:
        """Of a report as it was written."""
        said: dict[Shape, Statement] = {}
        personal = 0
        for one in statements(words):
            if PERSONAL.search(f"{one.section}: {one.words}"):
                personal += 1
            else:
                said.setdefault(one.shape, one)
        return cls(said, personal)


def shared_findings(
    reports: Sequence[Report], patients: Sequence[str], least: int = 2
) -> tuple[list[Finding], Counter[str]]:
    """What reports of `least` patients or more say alike, and how many statements were not repeated, by reason.

    reports: the nearest first; patients: whose each is. Ordered by section as the nearest has them, then by how many say it.
    """
    made: dict[Shape, dict[int, Statement]] = {}
    withheld: Counter[str] = Counter()
    for place, report in enumerate(reports):
        if report.personal:
            withheld["may name somebody"] += report.personal
        for shape, one in report.said.items():
            made.setdefault(shape, {})[place] = one
    found = []
    for shape, said in made.items():
        if len({patients[place] for place in said}) < least:
            withheld[f"said by fewer than {least} patients' reports"] += 1
            continue
        first, spans = next(iter(said.values())), spans_of(list(said.values()))
        found.append(Finding(first.section, with_ranges(first, spans), tuple(said), shape, spans))
    sections = list(dict.fromkeys(one.section for one in found))
    found.sort(key=lambda one: (sections.index(one.section), -len(one.reports), one.reports))
    return found, withheld


def spans_of(said: Sequence[Statement]) -> tuple[Span, ...]:
    """Of each number of statements of one shape, the least and the largest."""
    return tuple((min(values), max(values)) for values in zip(*(one.numbers for one in said), strict=True))


def with_ranges(said: Statement, spans: Sequence[Span]) -> str:
    """Its words, with a range for each number: "ejection fraction 50 to 58 %"."""
    left = iter(spans)

    def spell(_: re.Match[str]) -> str:
        low, high = next(left)
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"

    return NUMBER.sub(spell, said.words)
