"""denoise_callback.hpp from Python, by ctypes: a theta behind the model wrappers of k-diffusion."""

import ctypes
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from compiled import compiled

HERE = Path(__file__).resolve().parent
DENOISE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.POINTER(ctypes.c_float), ctypes.c_float, ctypes.c_int32, ctypes.POINTER(ctypes.c_float)
)


def build(folder):
    """The compiled header, in ``folder``."""
    made = compiled(Path(folder) / "libdenoise_callback.so", "-shared", "-fPIC", HERE / "shared.cpp")
    return _declared(ctypes.CDLL(str(made)))


def _declared(library):
    handle, floats = ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)
    for name, answer, arguments in [
        ("message", ctypes.c_char_p, []),
        ("new", handle, [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_bool]),
        ("nfe", ctypes.c_uint32, [handle]),
        ("sigmas", floats, [handle]),
        ("first_below", ctypes.c_uint32, [handle, ctypes.c_float]),
        ("sample", ctypes.c_bool, [handle, floats, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint32, DENOISE]),
        ("free", None, [handle]),
    ]:
        function = getattr(library, f"denoise_{name}")
        function.restype, function.argtypes = answer, arguments
    return library


class DenoiseSolver:
    """One theta, or a published solver by name and nfe, for a model of ``scheduler``."""

    def __init__(self, library, solver, scheduler, *, nfe=0, flow=False):
        self._library = library
        self._handle = library.denoise_new(str(solver).encode(), nfe, scheduler.encode(), flow)
        if not self._handle:
            raise RuntimeError(library.denoise_message().decode())
        self.nfe = library.denoise_nfe(self._handle)
        self.sigmas = torch.tensor(library.denoise_sigmas(self._handle)[: self.nfe + 1])

    def first_below(self, sigma):
        return self._library.denoise_first_below(self._handle, sigma)

    @torch.no_grad()
    def sample(self, model, x, extra_args=None, first=0):
        """As k-diffusion's samplers: ``model(x, sigma)`` answers denoised; ``x`` is of the level ``sigmas[first]``."""
        batch, extra, thrown, seen = len(x), extra_args or {}, [], []

        def denoise(state, sigma, step, denoised):
            try:
                given = torch.frombuffer(_numbers(state, x.numel()), dtype=torch.float32).reshape(x.shape)
                answer = model(given.clone(), torch.full((batch,), sigma), **extra)
                torch.frombuffer(_numbers(denoised, x.numel()), dtype=torch.float32).reshape(x.shape).copy_(answer)
                seen.append((step, sigma))
                return 0
            except Exception as failure:
                thrown.append(failure)
                return 1

        out = x.float().contiguous().clone()
        place = ctypes.cast(out.data_ptr(), ctypes.POINTER(ctypes.c_float))
        done = self._library.denoise_sample(self._handle, place, batch, x.numel() // batch, first, DENOISE(denoise))
        if thrown:
            raise thrown[0]
        if not done:
            raise RuntimeError(self._library.denoise_message().decode())
        self.seen = seen
        return out

    def __del__(self):
        if getattr(self, "_handle", None):
            self._library.denoise_free(self._handle)


def _numbers(pointer, count):
    return (ctypes.c_float * count).from_address(ctypes.addressof(pointer.contents))
