"""Shared vocabulary: requests, sampling parameters, outputs and the error tree. Standard library only."""
