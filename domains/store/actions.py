"""Which verbs and nouns a narration holds: as the data set tags it, or by a small rule over its words.

Methods that take narrations of the same act for positives (EgoNCE) ask only whether two narrations share a verb and a noun. Tags of a public data set
(spans of `verb` and `noun`, or `tag_verb` and `tag_noun`, of a text's very stretch) come first. Without tags the rule reads
English in the present or past tense, in the manner of EPIC-KITCHENS ("put down plate") and Ego4D ("#C C opens the drawer with his left hand"): the
first word that is nobody's name is the verb, with its particle; what is left is nouns. Words become numbers: none of them leaves this module.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from domains.store.annotated import spans
from domains.store.prepared import Prepared
from domains.store.texts import Texts, number_of

PLACES = (4, 8)  # verbs and nouns of one narration, at most
TAGS = (("verb", "noun"), ("tag_verb", "tag_noun"))  # labels of spans: EPIC-KITCHENS, EgoClip


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


SUBJECTS = _words(
    """i we you he she it they c o x a an the this that man woman person people lady boy girl someone somebody camera wearer surgeon assistant nurse
    doctor is are was were am be being has have had then and now just again"""
)
PARTICLES = _words("up down on off in out away back over apart together aside open")
PASSED_OVER = _words(
    """a an the this that these those his her its their my your our some any all both other another of with in on into onto to from for at by inside
    over under up down off out away back around through across between towards toward near next beside above below along against and or then while as
    it them him himself herself itself themselves there here one two three four five more left right hand hands"""
)
# Words for the same act, by stem: what annotators write for one another most often.
ALIKE = {
    "pick-up": "tak", "pick": "tak", "grab": "tak", "get": "tak", "fetch": "tak", "collect": "tak", "tak-out": "tak", "retriev": "tak", "lift": "tak",
    "lift-up": "tak",
    "put-down": "put", "plac": "put", "place-down": "put", "plac-down": "put", "lay": "put", "lay-down": "put", "put-back": "put", "put-on": "put",
    "put-in": "put", "put-away": "put", "set-down": "put", "leav": "put", "drop": "put", "keep": "put",
    "shut": "clos", "switch-on": "turn-on", "switch-off": "turn-off", "rins": "wash", "clean": "wash", "wip": "wash",
    "stir": "mix", "slic": "cut", "chop": "cut", "dic": "cut",
}  # fmt: skip
WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
TAGGED = re.compile(r"#\w+")  # who is meant, in Ego4D: #C the wearer, #O somebody else


@dataclass(frozen=True)
class Act:
    """Numbers of the verbs and nouns of one narration, at most as many as PLACES says; the same for the same word."""

    verbs: tuple[int, ...]
    nouns: tuple[int, ...]


def read_act(words: str) -> Act:
    """The verb and the nouns of a narration, by the rule; none where it has no word that could be one."""
    verb, nouns = parts_of_speech(words)
    return _act([verb] if verb else [], nouns)


def parts_of_speech(words: str) -> tuple[str, list[str]]:
    """(stem of the verb, with its particle; stems of the nouns), e.g. ("turn-on", ["tap"]); ("", []) where nothing is left."""
    found = WORD.findall(TAGGED.sub(" ", words.lower()))
    while found and found[0] in SUBJECTS:
        found = found[1:]
    if not found:
        return "", []
    verb, others = stem(found[0]), found[1:]
    if "-" in found[0]:  # written as one: turn-on
        verb = "-".join([stem(found[0].split("-")[0]), *found[0].split("-")[1:]])
    elif others and others[0] in PARTICLES:
        verb = f"{verb}-{others[0]}"
    elif others and others[-1] in PARTICLES:  # turns the tap on
        verb = f"{verb}-{others[-1]}"
    nouns = [stem(word) for word in others if word not in PASSED_OVER]
    return ALIKE.get(verb, verb), nouns or [stem(word) for word in others if word in ("hand", "hands")]


def stem(word: str) -> str:
    """A word without the ending of its number or tense: "opens", "opened" and "opening" are one, "cutting" and "cut" too."""
    for ending, least in (("ing", 3), ("ed", 3), ("es", 3), ("s", 3)):
        if word.endswith(ending) and len(word) - len(ending) >= least and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


class Actions:
    """The acts of all texts of a prepared folder. Cheap to send to loader processes.

    tagged: how many texts have tags of the data set; the rule reads the others, when it is asked.
    """

    def __init__(self, texts: Texts, tags: dict[int, Act] | None = None) -> None:
        self.texts, tags = texts, tags or {}
        self.tagged = len(tags)
        rows: Sequence[Act | None] = [tags.get(index) for index in range(len(texts))] if tags else []
        self._verbs, self._nouns = (
            pa.array([None if act is None else getattr(act, kind) for act in rows], pa.large_list(pa.int64()))
            for kind in ("verbs", "nouns")
        )

    @classmethod
    def of(cls, prepared: Prepared, texts: Texts) -> Actions:
        """With the tags of the data set, where it has some. Raises DataError for a damaged file."""
        known = prepared.info.get("layout", {}).get("spans", {})
        for verb, noun in TAGS:
            if verb in known and noun in known:
                return cls(texts, _tags(prepared, texts, verb, noun))
        return cls(texts)

    def __getitem__(self, index: int) -> Act:
        """Of text `index`."""
        if self.tagged and self._verbs[index].is_valid:
            return Act(tuple(self._verbs[index].as_py()), tuple(self._nouns[index].as_py()))
        return read_act(self.texts.words(index))

    def places(self, index: int) -> tuple[list[int], list[int]]:
        """Verbs and nouns of text `index` in PLACES, -1 where there are no more."""
        act, (verbs, nouns) = self[index], PLACES
        return [*act.verbs, *[-1] * (verbs - len(act.verbs))], [*act.nouns, *[-1] * (nouns - len(act.nouns))]

    def said(self) -> str:
        """In words."""
        rest = len(self.texts) - self.tagged
        return f"verbs and nouns: {self.tagged} texts as the data set tags them, {rest} by their words"


def _tags(prepared: Prepared, texts: Texts, verb: str, noun: str) -> dict[int, Act]:
    """Text -> its tags: those of spans of its very stretch, which is cut where the recording ends, as texts are."""
    found: dict[tuple[int, float, float], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for place, label in enumerate((verb, noun)):
        for row, start, end, value, _ in spans(prepared, label):
            fps = prepared.fps(row)
            found[row, start, min(end, prepared.length(row) / fps) if fps else end][place].append(value)
    tags = {}
    for index in range(len(texts)):
        rows = texts.rows(index)
        both = found.get((rows[0], float(texts.starts[index]), float(texts.ends[index])))
        if len(rows) == 1 and both is not None and both[0]:
            tags[index] = _act(*both)
    return tags


def _act(verbs: Iterable[str], nouns: Iterable[str]) -> Act:
    most = zip((verbs, nouns), PLACES, strict=True)
    return Act(*(tuple(dict.fromkeys(number_of(word) for word in words))[:places] for words, places in most))
