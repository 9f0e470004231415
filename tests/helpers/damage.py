"""Files of weights that are refused."""

import pytest

from utils.cli import UserError


def refusal(load, *args):
    """Return the message of the UserError that the call must raise."""
    with pytest.raises(UserError) as caught:
        load(*args)
    message = str(caught.value)
    assert "weights_only" not in message  # torch's advice is to trust the file
    return message
