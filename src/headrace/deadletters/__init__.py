"""Dead letters: list them, group them by error, edit them, send them on their way again."""

from headrace.deadletters.letters import ErrorGroup, Letter, RedriveReport
from headrace.deadletters.room import DeadLetters

__all__ = ["DeadLetters", "ErrorGroup", "Letter", "RedriveReport"]
