"""One spelling for what a reader sees as one text, so that guards and model look at the same characters.

The text that is kept is in Unicode form NFC, which only merges a letter with its accents: nothing a person wrote is
lost. NFKC would also turn `x²` into `x2` and a ligature into two letters; it is used for matching refusal rules only
(`matching_view`) and never stored.
"""

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0e-\x1f\x7f-\x9f"  # C0 and C1 controls; tab and line feed stay
    "\u00ad\u034f\u061c"  # soft hyphen, grapheme joiner, Arabic letter mark
    "\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0"  # fillers and inherent vowels without a glyph
    "\u200b\u200e\u200f\u2060-\u206f\ufeff"  # zero-width space, marks, word joiner, deprecated format, BOM
    "\u202a-\u202e"  # bidi embeddings and overrides; the isolates are in U+2060 to U+206F
    "\ufff9-\ufffb"  # interlinear annotation
    "\U0001d173-\U0001d17a"  # invisible musical format
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tag characters, used to smuggle invisible instructions
    "]+"
)

# A variation selector changes the look of the character before it. A second one has nothing to change, and long runs
# of them are a known way to hide bytes; the supplementary ones mean something after an ideograph only.
_EXTRA_SELECTORS = re.compile("(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_IDEOGRAPH = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_STRAY_SELECTORS = re.compile(f"(?<![{_IDEOGRAPH}])[\U000e0100-\U000e01ef]|(?<![^\n\t ])[\ufe00-\ufe0f]")

# Joiners (ZWNJ U+200C, ZWJ U+200D) carry meaning in emoji sequences and inside words of Arabic and Indic scripts
# (Unicode Standard, 23.2). Anywhere else they only make two spellings of one word.
_EMOJI = "\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff\u2640\u2642\u2695\u2696"
_JOINING = "\u0620-\u07ff\u0860-\u08ff\u0900-\u0dff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17b3\u17b6-\u17d3\u1820-\u18aa"
_STRAY_JOINERS = re.compile(
    f"(?<![{_EMOJI}{_JOINING}])[\u200c\u200d]"
    f"|(?<=[{_EMOJI}])\u200c"
    f"|(?<=[{_EMOJI}])\u200d(?![{_EMOJI}])"
    f"|(?<=[{_JOINING}])[\u200c\u200d](?![{_JOINING}])"
)

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """Bring a text to one spelling. Idempotent.

    Line ends become `\\n`; control, zero-width, bidirectional and tag characters go; joiners stay where they carry
    meaning; a lone surrogate, which cannot be stored as UTF-8, becomes U+FFFD; the rest is NFC.

    Args:
        text: Any text.

    Returns:
        The same text as a reader sees it, without surrounding white space removed.
    """
    if text.isascii() and "\r" not in text and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    while True:
        cleaned = _clean(text)
        if cleaned == text:
            return text
        text = cleaned


def _clean(text: str) -> str:
    text = _LINE_ENDS.sub("\n", text)
    text = _LONE_SURROGATES.sub("\ufffd", text)
    text = _INVISIBLE.sub("", text)
    text = _EXTRA_SELECTORS.sub("", text)
    text = _STRAY_SELECTORS.sub("", text)
    text = _STRAY_JOINERS.sub("", text)
    return unicodedata.normalize("NFC", text)


def matching_view(text: str) -> str:
    """The text as patterns should see it: compatibility look-alikes (full-width, mathematical, ligatures) folded.

    Args:
        text: A normalised text.

    Returns:
        Its NFKC form. For comparison only: it loses distinctions that a person may have meant.
    """
    return unicodedata.normalize("NFKC", text)
