"""The ctypes layer is what ``include/bespoke.h`` says: every struct, constant and function that it declares."""

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from bespoke_solver import _native

c_ast = pytest.importorskip("pycparser.c_ast")
c_parser = pytest.importorskip("pycparser.c_parser")

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "include" / "bespoke.h"
SOURCES = ROOT / "bindings" / "python" / "src" / "bespoke_solver"

#: stdint.h as far as the header goes, in place of the system's with its compiler's extensions.
NUMBERS = {
    "int8_t": "signed char", "uint8_t": "unsigned char", "int16_t": "short", "uint16_t": "unsigned short",
    "int32_t": "int", "uint32_t": "unsigned int", "int64_t": "long long", "uint64_t": "unsigned long long",
}  # fmt: skip


class Header:
    """The header's declarations, each type as one word: ``uint32``, ``char*``, ``bespoke_row*``, ``int32(void*)``."""

    def __init__(self, folder):
        (folder / "stdint.h").write_text("".join(f"typedef {c} {name};\n" for name, c in NUMBERS.items()))
        command = ["cc", "-E", "-nostdinc", "-I", str(folder)]
        text = subprocess.run([*command, "-P", str(HEADER)], check=True, capture_output=True, text=True).stdout
        defined = subprocess.run([*command, "-dM", str(HEADER)], check=True, capture_output=True, text=True).stdout
        self.constants = dict(re.findall(r"^#define (BESPOKE_\w+) (\d+)$", defined, re.MULTILINE))
        self.typedefs, self.structs, self.functions = {}, {}, {}
        for item in c_parser.CParser().parse(text).ext:
            if isinstance(item, c_ast.Typedef):
                self.typedefs[item.name] = item.type
            elif isinstance(item.type, c_ast.FuncDecl):
                self.functions[item.name] = self.word(item.type)
        for name, of in self.typedefs.items():
            struct = getattr(of, "type", None)
            if isinstance(struct, c_ast.Struct) and struct.decls:
                self.structs[name] = [(member.name, self.word(member.type)) for member in struct.decls]

    def word(self, of):
        if isinstance(of, c_ast.FuncDecl):
            arguments = [self.word(argument.type) for argument in of.args.params]
            return f"{self.word(of.type)}({', '.join([] if arguments == ['void'] else arguments)})"
        if isinstance(of, c_ast.PtrDecl):
            inner = self.word(of.type)
            return inner if isinstance(of.type, c_ast.FuncDecl) else f"{inner}*"
        if isinstance(of, c_ast.TypeDecl):
            return self.word(of.type)
        if isinstance(of, c_ast.Enum):
            return "int32"
        if isinstance(of, c_ast.Struct):
            return of.name
        name = " ".join(of.names)
        if name in NUMBERS:
            return name.removesuffix("_t")
        if name not in self.typedefs:
            return name
        # A struct by its own name; what has no members is only ever pointed to.
        meant = self.typedefs[name]
        if not isinstance(getattr(meant, "type", None), c_ast.Struct):
            return self.word(meant)
        return name

    def opaque(self, word):
        """The same, with `void` for structs whose members nobody sees."""
        return re.sub(r"\bbespoke_\w+", lambda found: found[0] if found[0] in self.structs else "void", word)


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    return Header(tmp_path_factory.mktemp("header"))


def c_name(struct):
    """What the header calls a struct of the ctypes layer."""
    name = struct.__name__
    return name if name.startswith("DL") else "bespoke" + re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def word(of):
    """A ctypes type as ``Header`` writes those of C."""
    if of is None:
        return "void"
    if of in (ctypes.c_char_p, ctypes.c_void_p):
        return {ctypes.c_char_p: "char*", ctypes.c_void_p: "void*"}[of]
    if issubclass(of, ctypes.Structure):
        return c_name(of)
    if issubclass(of, ctypes._CFuncPtr):
        return f"{word(of._restype_)}({', '.join(map(word, of._argtypes_))})"
    if issubclass(of, ctypes._Pointer):
        return f"{word(of._type_)}*"
    if of._type_ in "fd":
        return {"f": "float", "d": "double"}[of._type_]
    return f"{'u' if of._type_.isupper() else ''}int{8 * ctypes.sizeof(of)}"


def structs():
    found = [value for value in vars(_native).values() if isinstance(value, type) and issubclass(value, ctypes.Structure)]
    return [struct for struct in found if hasattr(struct, "_fields_")]


def functions():
    return {name: function for name, function in vars(_native.lib).items() if name.startswith("bespoke_")}


@pytest.mark.parametrize("struct", structs(), ids=c_name)
def test_a_struct_has_the_members_of_the_header(header, struct):
    assert [(name, word(of)) for name, of in struct._fields_] == [
        (name, header.opaque(of)) for name, of in header.structs[c_name(struct)]
    ]


@pytest.mark.parametrize("struct", structs(), ids=c_name)
def test_a_struct_lies_in_memory_as_the_library_has_it(struct):
    # What tests/c/layout.c asserts of the compiled header, and tests/all/abi_surface.rs of the library.
    layout = (ROOT / "tests" / "c" / "layout.c").read_text()
    size = re.search(rf"^SIZE\({c_name(struct)}, (\d+)\);$", layout, re.MULTILINE)
    offsets = re.findall(rf"^MEMBER\({c_name(struct)}, (\w+), (\d+)\);$", layout, re.MULTILINE)
    assert ctypes.sizeof(struct) == int(size[1])
    assert {name: getattr(struct, name).offset for name, _ in struct._fields_} == {name: int(at) for name, at in offsets}


@pytest.mark.parametrize("name", sorted(functions()))
def test_a_function_is_declared_as_in_the_header(header, name):
    function = functions()[name]
    arguments = ", ".join(map(word, function.argtypes or ()))
    assert f"{word(function.restype)}({arguments})" == header.opaque(header.functions[name])


def test_every_function_that_is_called_has_been_declared():
    called = {name for file in SOURCES.glob("*.py") for name in re.findall(r"\blib\.(bespoke_\w+)", file.read_text())}
    assert called <= set(functions())
    assert len(called) > 20


def test_constants_are_the_headers(header):
    assert int(header.constants["BESPOKE_REGISTER_NONE"]) == _native.REGISTER_NONE
    kinds = {"kDLInt": _native.INT, "kDLFloat": _native.FLOAT, "kDLBfloat": _native.BFLOAT, "kDLBool": _native.BOOL, "kDLCPU": _native.CPU}
    listed = dict(re.findall(r"\b(kDL\w+) = (\d+)", HEADER.read_text()))
    assert {name: int(listed[name]) for name in kinds} == kinds
