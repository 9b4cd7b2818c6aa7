"""examples/triton, as `make triton-demo` runs it."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from repository import ROOT, Repository


class Demo(unittest.TestCase):
    def test_it_draws_the_same_digits_from_both_sources(self):
        repository = Repository()
        self.addCleanup(repository.close)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "digits.png"
            command = [sys.executable, "demo.py", "--theta", repository.files / "theta.json", "--out", out]
            run = subprocess.run(command, cwd=ROOT / "examples" / "triton", capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("30 digits by theta, 8 evaluations", run.stdout)
            self.assertTrue(out.read_bytes().startswith(b"\x89PNG"))


if __name__ == "__main__":
    unittest.main()
