"""Questions of a command: answered by an option, or asked at a terminal, and never guessed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

from popcorn_ml.errors import ConfigError, PopcornError

T = TypeVar("T")


def at_a_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


@dataclass(frozen=True)
class Question:
    """What a command has to know.

    Attributes:
        option: the option that answers it, `--name`.
        text: the question.
        default: the answer where none is given; None: there is none.
    """

    option: str
    text: str
    default: str | None = None


def answered(question: Question, given: str | None, check: Callable[[str], T], command: str) -> T:
    """The answer: the option's, else a person's, else the default.

    Args:
        check: makes the answer of the text, or raises a PopcornError.

    Raises:
        ConfigError: nobody is there to ask, and there is no default; or an option's is wrong.
    """
    if given is not None:
        return check(given)
    if not at_a_terminal():
        if question.default is not None:
            return check(question.default)
        raise missing([question], command)
    while True:
        text = click.prompt(question.text, default=question.default, type=str)
        try:
            return check(text.strip())
        except PopcornError as error:
            click.echo(str(error), err=True)


def missing(questions: Sequence[Question], command: str) -> ConfigError:
    """The error where nobody is there to answer."""
    return ConfigError(
        f"{command} is not told all that it needs, and there is no terminal to ask at",
        expected="; ".join(f"{one.option} ({one.text})" for one in questions),
        remedy=f"give {' and '.join(one.option for one in questions)}",
    )


def chosen(text: str, choices: Sequence[str]) -> str:
    """One of several, asked at a terminal by number or by name."""
    for number, choice in enumerate(choices, start=1):
        click.echo(f"  {number:3}  {choice}")
    while True:
        said = click.prompt(text, type=str).strip()
        if said in choices:
            return said
        if said.isdigit() and 1 <= int(said) <= len(choices):
            return choices[int(said) - 1]
        click.echo(f"a number from 1 to {len(choices)}, or a name", err=True)
