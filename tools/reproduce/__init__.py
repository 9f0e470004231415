"""Make the committed artefacts: every step of the submission list, in order."""
