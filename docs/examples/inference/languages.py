"""A model small enough to read: it tells in which language a text is, by which letters follow each other.

Naive Bayes over pairs of letters; the idea is that of Cavnar and Trenkle, "N-Gram-Based Text Categorization"
(1994).
"""

import math
from collections import Counter
from itertools import pairwise

TEXTS = {
    "english": (
        "all human beings are born free and equal in dignity and rights they are endowed with reason "
        "and conscience and should act towards one another in a spirit of brotherhood everyone has "
        "the right to life"
    ),
    "german": (
        "alle menschen sind frei und gleich an würde und rechten geboren sie sind mit vernunft und "
        "gewissen begabt und sollen einander im geiste der brüderlichkeit begegnen jeder hat das "
        "recht auf leben"
    ),
    "french": (
        "tous les êtres humains naissent libres et égaux en dignité et en droits ils sont doués de "
        "raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
        "fraternité tout individu a droit"
    ),
    "spanish": (
        "todos los seres humanos nacen libres e iguales en dignidad y derechos y dotados como están "
        "de razón y conciencia deben comportarse fraternalmente los unos con los otros todo individuo "
        "tiene derecho a la vida"
    ),
}


def pairs(text):
    letters = "".join(one if one.isalpha() else " " for one in text.lower())
    words = f" {' '.join(letters.split())} "
    return Counter(pairwise(words))


MODEL = {language: pairs(text) for language, text in TEXTS.items()}


def guess(text):
    """Returns the likeliest language and how sure that is, from 0 to 1."""
    seen = pairs(text)
    scores = {}
    for language, known in MODEL.items():
        total = sum(known.values()) + 900
        scores[language] = sum(count * math.log((known[pair] + 1) / total) for pair, count in seen.items())
    best = max(scores, key=scores.get)
    sure = 1 / sum(math.exp(min(score - scores[best], 0)) for score in scores.values())
    return best, round(sure, 3)
