"""The codec in several interpreters of one process: each has its own types and its own state."""

import subprocess
import sys

PROGRAM = """
import sys
import erlang._term as term

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

CODE = '''
import sys
sys.path[:] = {path}
import erlang._term as term
from erlang.errors import TermError
assert id(term.Atom) != {atom}
value = [term.Atom("a"), 2**99, {{b"k": term.ImproperList([None], 2)}}]
assert term.decode(term.encode(value)) == value
assert term.set_none_atom("nil") == "none"
assert term.encode(None)[3:] == b"nil"
try:
    term.decode(b"")
except TermError:
    print("fine", flush=True)
'''

for _ in range(3):
    interpreter = interpreters.create()
    failure = interpreters.run_string(
        interpreter, CODE.format(path=sys.path, atom=id(term.Atom))
    )
    assert failure is None, failure
    interpreters.destroy(interpreter)
    assert term.encode(None)[3:] == b"none"
    assert type(term.decode(term.encode(term.Atom("a")))) is term.Atom
"""


def test_interpreters_do_not_share_types_or_settings():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("fine\n" * 3, 0), run.stderr


def test_a_module_imported_anew_stands_on_its_own():
    program = """
import gc, sys
import erlang._term as first
del sys.modules["erlang._term"]
import erlang._term as second
assert first is not second and first.Atom is not second.Atom
atom = first.decode(first.encode(first.Atom("a")))
assert type(atom) is first.Atom and second.encode(second.Atom("a")) == first.encode(atom)
encode = first.encode
del first, atom
gc.collect()
assert encode([1, (None,)]) == second.encode([1, (None,)])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
