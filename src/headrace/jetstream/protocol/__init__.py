"""What is said to a server and what it answers: one request, the JSON in it, what an older one left out."""
