"""What the site does with the documents: links into the repository are shown as paths."""

import re


def on_page_markdown(markdown, **_):
    """Leave the words of a link to a file outside of the site, which has no place there."""
    return re.sub(r"\[`?([^\]`]+)`?\]\((?:\.\./)+(?!api)[\w/]+\.(?:py|md)\)", r"`\1`", markdown)
