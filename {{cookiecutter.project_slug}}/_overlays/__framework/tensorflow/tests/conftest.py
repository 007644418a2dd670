"""All tests of a process compute under the switches of a run: they cannot be set later."""

from {{ cookiecutter.__package }}.repro import set_seed

set_seed(0)
