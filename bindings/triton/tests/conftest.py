"""What unittest does itself at the end of a module, and pytest does not."""

import unittest

import pytest


@pytest.fixture(scope="module", autouse=True)
def module_cleanups():
    yield
    unittest.doModuleCleanups()
