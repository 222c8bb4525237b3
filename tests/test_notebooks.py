"Every notebook runs from its first cell to its last: one counted test each"
from concurrent.futures import ProcessPoolExecutor
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


def passes(notebook):
    "What `nbdev_test` does with a notebook; the traceback of a failing cell goes to stderr"
    return test_nb(notebook, skip_flags=CONFIG.tst_flags.split(), basepath=ROOT)[0]


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_notebook(notebook):
    if notebook.stem in ('07_crf', 'predict_and_refine'): pytest.importorskip('pydensecrf', reason='pydensecrf is not installed')  # make test goes on without it
    # A process of its own, newly started: no notebook profits from what another one imported, seeded or set.
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool: assert pool.submit(passes, notebook).result()
