"""Reading with a consumer: what is asked for, what has come, how it is settled."""
