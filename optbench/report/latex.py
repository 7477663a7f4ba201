"""Text in LaTeX."""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "±": r"\ensuremath{\pm}",
    "–": "--",
    "—": "---",
    "µ": r"\ensuremath{\mu}",
}


def escape_latex(text: str) -> str:
    r"""Escape a text so that LaTeX prints it literally.

    Letters up to Latin Extended-A pass; what a standard font lacks (an emoji) is written as its code point.

    Examples
    --------
    >>> escape_latex("50% of a_b & c")
    '50\\% of a\\_b \\& c'
    """

    def one(character: str) -> str:
        if character in _LATEX:
            return _LATEX[character]
        code = ord(character)
        if code < 32 or code == 127:
            return " "
        if code < 127 or 0xC0 <= code <= 0x17F:
            return character
        return rf"[U+{code:04X}]"

    return "".join(map(one, text))


def latex_prose(text: str) -> str:
    r"""Escape sentences: what stands between backticks is set as code, an apostrophe as one.

    Examples
    --------
    >>> latex_prose("adam's `lr_max`")
    "adam's \\texttt{lr\\_max}"
    """
    parts = re.split(r"`([^`]+)`", text)
    return "".join(
        rf"\texttt{{{escape_latex(part)}}}" if k % 2 else escape_latex(part).replace(_LATEX["'"], "'")
        for k, part in enumerate(parts)
    )
