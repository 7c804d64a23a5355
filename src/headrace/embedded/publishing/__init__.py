"""From a publish call to its row."""
