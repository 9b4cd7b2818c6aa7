"""What docs/threats.md has an operator shut: the server's endpoints that clients of a model have no need of."""

import json
import re
import tempfile
import unittest
import urllib.error
import urllib.request

from server import ROOT, Server
from tritonclient.utils import InferenceServerException

#: Over HTTP; each is answered, or refused for what it asks, where nothing is shut.
ENDPOINTS = {
    "/v2/logging": {"log_verbose_level": 1},
    "/v2/trace/setting": {"trace_level": ["OFF"]},
    "/v2/systemsharedmemory/region/mine/register": {"key": "/nothing", "offset": 0, "byte_size": 64},
    "/v2/repository/index": {},
    "/v2/repository/models/any/load": {},
}


def status(server, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{server.ports['http']}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


class Endpoints(unittest.TestCase):
    def test_they_are_shut_by_the_options_of_the_docs(self):
        threats = (ROOT / "docs" / "threats.md").read_text()
        options = [option.replace("KEY=VALUE", "key=a secret") for option in re.findall(r"--(?:http|grpc)-restricted-[^`\s]*", threats)]
        self.assertEqual(len(options), 2)
        with tempfile.TemporaryDirectory() as empty, Server(empty, arguments=options) as server:
            for path, body in ENDPOINTS.items():
                self.assertEqual(status(server, path, body), 403, path)
            client = server.grpc()
            for asks in (
                lambda: client.register_system_shared_memory("mine", "/nothing", 64),
                lambda: client.update_log_settings({"log_verbose_level": 1}),
                lambda: client.update_trace_settings(settings={"trace_level": ["OFF"]}),
                client.get_model_repository_index,
            ):
                with self.assertRaisesRegex(InferenceServerException, "restricted"):
                    asks()
            self.assertTrue(server.ready())

    def test_they_are_open_without_them(self):
        with tempfile.TemporaryDirectory() as empty, Server(empty) as server:
            self.assertNotIn(403, [status(server, path, body) for path, body in ENDPOINTS.items()])


if __name__ == "__main__":
    unittest.main()
