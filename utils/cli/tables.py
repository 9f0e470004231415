"""Tables as text, for terminals and in Markdown."""


def text_table(rows):
    """Return lines of text whose columns are aligned; rows: lists of str."""
    column_widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, column_widths, strict=True)
        )
        for row in rows
    ]


def markdown_table(head, rows, text_columns=1):
    """Return a Markdown table of str; columns after the first are right-aligned."""
    alignments = ["---"] * text_columns + ["--:"] * (len(head) - text_columns)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, alignments, *rows])
