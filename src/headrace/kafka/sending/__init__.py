"""Sending: what `Sender` and `Producer` are made of."""
