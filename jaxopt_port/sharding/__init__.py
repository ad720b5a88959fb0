"""Where an optimizer's state lies, given where its parameters lie."""

from ._state_shardings import state_shardings as state_shardings
