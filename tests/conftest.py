"Settings that hold for every test, before anything of the project is imported"
import datetime, json, os, shlex, sys
from collections import Counter
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'agg')


def pytest_configure(config):
    "Notebooks and commands run in folders of their own: `CARVANA_PATH` is made absolute, and is a folder when it is set"
    config.addinivalue_line('markers', 'reliability(kind): what the test tries is counted under this heading on the page Reliability')
    folder = os.environ.get('CARVANA_PATH')
    if not folder: return
    if not Path(folder).is_dir(): raise pytest.UsageError(f'CARVANA_PATH={folder} is not a folder')
    os.environ['CARVANA_PATH'] = str(Path(folder).absolute())


# The page *Reliability* counts what was tried and what failed. A test with the marker `reliability` counts as one try,
# or as many as it says with the fixture `tried`; `--reliability FILE` writes the counts of the run.

COUNTS = {name: Counter() for name in ('tried', 'failed')}


def pytest_addoption(parser):
    parser.addoption('--reliability', metavar='FILE', type=Path, help='write how many wrong inputs of each kind were tried, and how many failed')


@pytest.fixture
def tried(request):
    "Call it with the number of inputs that a test tries and with those that failed; it fails the test if any did"
    def count(n, failed=()):
        request.node.user_properties.append(('tried', (n, len(failed))))
        assert not failed, f'{len(failed)} of {n}: {failed[:5]}'
    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    kind = next((m.args[0] for m in item.iter_markers('reliability')), None)
    if kind is None or report.skipped or call.when != 'call': return report
    told = [counts for name, counts in item.user_properties if name == 'tried']
    COUNTS['tried'][kind] += sum(n for n, _ in told) or 1
    COUNTS['failed'][kind] += max(sum(bad for _, bad in told), report.failed)
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not COUNTS['tried']: return
    terminalreporter.section('wrong inputs')
    for kind, n in COUNTS['tried'].items(): terminalreporter.line(f"{kind}: {n} tried, {COUNTS['failed'][kind]} failed")
    if not (file := config.getoption('reliability')): return
    rows = [dict(kind=kind, tried=n, failed=COUNTS['failed'][kind]) for kind, n in COUNTS['tried'].items()]
    command = shlex.join(['pytest', *sys.argv[1:]])
    file.write_text(json.dumps(dict(date=str(datetime.date.today()), command=command, rows=rows), indent=1) + '\n')
