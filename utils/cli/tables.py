"""Tables in Markdown."""


def markdown_table(head, rows, text_columns=1):
    """Return a Markdown table of str; columns after the first are right-aligned."""
    alignments = ["---"] * text_columns + ["--:"] * (len(head) - text_columns)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, alignments, *rows])
