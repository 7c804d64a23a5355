"""From a call to its frame, and from the answer back to whoever waits for it."""
