"""The small language of `builtin:tiny`: its words, and which kind of word follows which.

A token belongs to one `WordGroup`; the group's `state` is all that the bigram table remembers of it.
`FOLLOWS` is that table: from a state to the groups that may come next, with weights.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WordGroup:
    """Tokens that are written in the same places and followed by the same groups."""

    state: str
    """Row of `FOLLOWS` that says what comes after these tokens."""

    tokens: tuple[str, ...]
    """A leading space belongs to its token."""

    tone: int = 0
    """+1 praises, -1 complains, 0 does neither."""

    closing: int = 0
    """+1 brings an answer to its end, -1 draws it out."""


def _bare(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _spaced(words: str) -> tuple[str, ...]:
    return tuple(f" {word}" for word in words.split())


_DIGITS = "zero one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
_NUMERALS = "0 1 2 3 4 5 6 7 8 9"

PADDING = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = (PADDING, START_OF_TURN, END_OF_TURN)

SUMS = {token: total for total, token in enumerate(_spaced(f"{_DIGITS} {_TEENS}"))}
"""What an answer may say after ` A:`, with its value."""

DIGITS = {
    token: value
    for form in (_bare(_DIGITS), _bare(_DIGITS.title()), _spaced(_DIGITS), _bare(_NUMERALS), _spaced(_NUMERALS))
    for value, token in enumerate(form)
}
"""What a prompt may add up, with its value."""

ADDITION = (*_bare("+ Add Sum"), *_spaced("+ add plus sum"))
"""Tokens that say that a prompt wants a sum."""

_EVERYDAY_BARE = """
A Alice An And Are As At Be Bob But By Can Could Describe Did Do Does Dear Explain Find For From Give Good Had Has
Have He Help Her How If In Is Let Make Name Not Now Of On Our Please Question Answer Say She Should So Suggest Tell
Thank There These Today To Was Were What When Where Which Who Why Will With Would Write hello hi how no ok please
thanks what
"""
_EVERYDAY_SPACED = """
Are Can Could Do Does Explain Give Hello Hi How I Is Please Tell Thank Thanks What When Where Who Why Write about
advice after all also an any are ask asked at baby back be because before best better birthday bike boss bought
brother brought but buy by cake call came can car cat chat child children city clean coffee come computer cook cooking
could daughter dear describe did different dinner do does down drink drive each early easy eat email evening explain
family father feel few find first fix fixed flowers friend friends from game gave get give go going got guest had
happened has have he hear hello help helped her him his holiday home hot how husband if in into job just keep keys
kids kitchen last late later learn leave left letter line little lost lunch made make man many maybe meet meeting
message minutes month more morning most mother move moved name near neighbor neighbour never next night no not of off
office old on only open or other out over party people person phone picture piece please poem question reason recipe
reply right said say school sentence she should show sister sleep some someone something son soon sorry spend start
stop summer sure table take talk tea teacher tell than thank thanks their them then there these thing think time tired
tomorrow told took town train travel tree try up use visit wait want was wash water way week weekend went were what
when where which while who why wife will window word words would write year yes yesterday young
"""
_PUNCTUATION = _bare("? ; : - ( ) / & 's 't 're 've 'm 'll 'd")

LATER_SENTENCE = ("later subject", "later person", "later owner")
"""Groups that begin the second and every further sentence of an answer."""

GROUPS = {
    "padding": WordGroup("over", (PADDING,)),
    "turn": WordGroup("turn", (START_OF_TURN,)),
    "over": WordGroup("over", (END_OF_TURN,), closing=1),
    "newline": WordGroup("newline", ("\n",)),
    "role": WordGroup("role", _bare("system user assistant")),
    "opener": WordGroup("opener", _bare("Hello Hi Oh Indeed")),
    "glad opener": WordGroup("opener", _bare("Thanks Yes Sure Well"), tone=1),
    "sorry opener": WordGroup("opener", _bare("Sorry Unfortunately Sadly Alas"), tone=-1),
    "comma": WordGroup("comma", (",",)),
    "first subject": WordGroup("subject", _bare("It That This")),
    "later subject": WordGroup("subject", _spaced("It That This"), closing=-1),
    "inner subject": WordGroup("subject", _spaced("it that this")),
    "first person": WordGroup("person", _bare("I We You They")),
    "later person": WordGroup("person", _spaced("We You They"), closing=-1),
    "inner person": WordGroup("person", _spaced("we you they")),
    "first owner": WordGroup("owner", _bare("My Your The")),
    "later owner": WordGroup("owner", _spaced("My Your The"), closing=-1),
    "topic": WordGroup("topic", _spaced("weather food trip work news answer")),
    "copula": WordGroup("copula", _spaced("is sounds seems feels looks")),
    "article": WordGroup("article", _spaced("a")),
    "degree": WordGroup("degree", _spaced("very really quite rather too so")),
    "plain": WordGroup("adjective", _spaced("big small new quiet long short plain simple common usual local normal")),
    "praise": WordGroup(
        "adjective",
        _spaced("good great wonderful lovely happy kind fun nice perfect friendly beautiful helpful"),
        tone=1,
    ),
    "complaint": WordGroup(
        "adjective",
        _spaced("bad sad awful terrible boring ugly angry rude horrible weak painful useless"),
        tone=-1,
    ),
    "matter": WordGroup("noun", _spaced("day plan story habit change choice step topic")),
    "blessing": WordGroup("noun", _spaced("joy pleasure gift delight success treat hope comfort"), tone=1),
    "trouble": WordGroup("noun", _spaced("problem mess disaster pain shame failure mistake crime"), tone=-1),
    "act": WordGroup("verb", _spaced("need know remember see")),
    "liking": WordGroup("verb", _spaced("love enjoy admire like"), tone=1),
    "disliking": WordGroup("verb", _spaced("hate fear dislike dread"), tone=-1),
    "determiner": WordGroup("determiner", _spaced("the my your our")),
    "object": WordGroup("noun", _spaced("garden house dog book walk music")),
    "conjunction": WordGroup("conjunction", _spaced("and"), closing=-1),
    "preposition": WordGroup("preposition", _spaced("for with to"), closing=-1),
    "pronoun": WordGroup("pronoun", _spaced("me us everyone")),
    "adverb": WordGroup("adverb", _spaced("today now again here still"), closing=-1),
    "stop": WordGroup("stop", (".",), closing=1),
    "exclamation": WordGroup("stop", ("!",), closing=1),
    "adding": WordGroup("adding", ("Adding",)),
    "both": WordGroup("both", _spaced("both")),
    "numbers": WordGroup("numbers", _spaced("numbers")),
    "makes": WordGroup("makes", _spaced("makes gives")),
    "result": WordGroup("result", (" A:",)),
    "quoted result": WordGroup("result", ("A:",)),
    "sum": WordGroup("sum", tuple(SUMS)),
    "digit": WordGroup("other", tuple(token for token in DIGITS if token not in SUMS)),
    "addition": WordGroup("other", ADDITION),
    "everyday": WordGroup("other", (*_bare(_EVERYDAY_BARE), *_spaced(_EVERYDAY_SPACED), *_PUNCTUATION)),
}
"""Every token but the 256 bytes. Its order is the order of the token ids."""

FOLLOWS: dict[str, dict[str, float]] = {
    "over": {"newline": 1},
    "turn": {"role": 1},
    "role": {"newline": 1},
    "newline": {
        "opener": 30,
        "glad opener": 28,
        "sorry opener": 28,
        "first subject": 6,
        "first person": 4,
        "first owner": 4,
        "adding": 0.2,
    },
    "opener": {"comma": 1},
    "comma": {"inner subject": 6, "inner person": 4},
    "subject": {"copula": 1},
    "owner": {"topic": 1},
    "topic": {"copula": 1},
    "copula": {"article": 3, "degree": 4, "plain": 1, "praise": 1, "complaint": 1},
    "article": {"matter": 1, "blessing": 1, "trouble": 1},
    "degree": {"plain": 1, "praise": 1, "complaint": 1},
    "person": {"act": 1, "liking": 1, "disliking": 1},
    "verb": {"determiner": 1},
    "determiner": {"object": 1},
    "adjective": {"stop": 32, "exclamation": 8, "conjunction": 20, "preposition": 20, "adverb": 20},
    "noun": {"stop": 32, "exclamation": 8, "preposition": 30, "adverb": 30},
    "conjunction": {"plain": 1, "praise": 1, "complaint": 1},
    "preposition": {"pronoun": 1},
    "pronoun": {"stop": 6, "exclamation": 1, "adverb": 3},
    "adverb": {"stop": 8, "exclamation": 2},
    "stop": {"over": 35, "later subject": 30, "later person": 20, "later owner": 15},
    "adding": {"both": 1},
    "both": {"numbers": 1},
    "numbers": {"makes": 1},
    "makes": {"result": 1},
    "result": {"sum": 1},
    "sum": {"stop": 8, "exclamation": 2},
    "other": {"stop": 6, "copula": 2, "adverb": 2},
}
"""Weights of the groups after each state; a group's weight is shared evenly by its tokens."""
