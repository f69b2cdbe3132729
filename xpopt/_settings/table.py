"""Tables in HTML, which notebooks show in the place of text."""

from __future__ import annotations

from collections.abc import Iterable


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> str:
    """Return a table.

    Parameters
    ----------
    head : iterable of str
        The headings.
    rows : iterable of iterables of str
        The cells.
    caption : str
        What stands above it; empty for nothing.

    Returns
    -------
    str
        An HTML element, in which all that was given is text.
    """
    from html import escape  # which has all entities there are

    def line(tag: str, texts: Iterable[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"

    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(line("td", row) for row in rows)
    return f"<table>{above}<thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"
