"Settings that hold for every test, before anything of the project is imported"
import os
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'agg')


def pytest_configure(config):
    "Notebooks and commands run in folders of their own: `CARVANA_PATH` is made absolute, and is a folder when it is set"
    folder = os.environ.get('CARVANA_PATH')
    if not folder: return
    if not Path(folder).is_dir(): raise pytest.UsageError(f'CARVANA_PATH={folder} is not a folder')
    os.environ['CARVANA_PATH'] = str(Path(folder).absolute())
