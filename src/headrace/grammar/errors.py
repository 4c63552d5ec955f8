"""What cannot be made into a grammar."""

from __future__ import annotations


class BadConstraint(Exception):
    """A constraint that makes no sense, asks for what is not supported, or costs too much. The text says which."""
