"""The published numbers, and the model behind them, for tests of mapping too."""

from tests.model.test_parity import before_step, parity

__all__ = ["before_step", "parity"]
