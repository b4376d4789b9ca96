"""The subcommands of `popcorn`, a module a topic: each enters the home and calls what does it."""
