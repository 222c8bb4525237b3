"Every notebook runs from its first cell to its last: one counted test each"
import io, re, sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb

test_nb.__test__ = False  # nbdev's function, which pytest would take for a test of ours

ROOT = Path(__file__).resolve().parent.parent
CONFIG = get_config(path=ROOT)
NOTEBOOKS = sorted(nbglob(ROOT/'nbs', as_path=True))


def failure(notebook):
    "What `nbdev_test` does with a notebook; None if it passes, or else the failing cell and its last line of error"
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(out): passed = test_nb(notebook, skip_flags=CONFIG.tst_flags.split(), basepath=ROOT)[0]
    if passed: return None
    print(out.getvalue(), file=sys.stderr)
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    cell = next((m[0] for line in lines if (m := re.search(r'Cell #\d+', line))), 'a cell')
    reason = next((line for line in reversed(lines) if re.match(r'[A-Za-z_.]*(Error|Exception|Interrupt|Stopped)\b', line)), lines[-1] if lines else '')
    return f'{cell}: {reason[:200]}'


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_notebook(notebook):
    if notebook.stem in ('09_crf', 'predict_and_refine'): pytest.importorskip('pydensecrf', reason='pydensecrf is not installed')  # make test goes on without it
    # A process of its own, newly started: no notebook profits from what another one imported, seeded or set.
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool: reason = pool.submit(failure, notebook).result()
    if reason: pytest.fail(f'{notebook.relative_to(ROOT)}, {reason}', pytrace=False)
