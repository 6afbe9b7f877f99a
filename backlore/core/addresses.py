"""E-mail addresses: the type for a payload's field, and the one form in which addresses are kept and compared."""

import unicodedata
from typing import Annotated

from backlore.core.payload import length, matching

# Narrower than RFC 5321, §4.1.2: no quotes and no comments, which nobody uses and mail servers trip over.
HIDDEN = r"\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # invisible: with them two addresses would look alike
LOCAL = rf'[^\s"(),:;<>@\[\]\\\x00-\x1f\x7f{HIDDEN}]{{1,64}}'
LABEL = rf"[^\s@.\x00-\x2c\x2f\x3a-\x40\x5b-\x60\x7b-\x7f{HIDDEN}]{{1,63}}"
Email = Annotated[str, length(3, 254), matching(rf"{LOCAL}@{LABEL}(\.{LABEL})*", "an e-mail address")]


def normalize(email: str) -> str:
    """The address in NFC and lower case, so that an account is found however its address is typed."""
    # twice: one upper-case character may become two lower-case ones, which NFC then composes
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).lower())
