"carvana-download: a stand-in for Kaggle's client on the PATH; cut off, killed, refused, damaged, and gone on with"
import json, os, signal, stat, subprocess, sys, time, zipfile
from pathlib import Path

import pytest

from carvana_unet.carvana import pairs
from carvana_unet.studio import write_studio

BIN = Path(sys.executable).parent
SAID = {  # by version 2.2.4 of the client, and by one of 2023
    'no token': 'Authentication required to call the Kaggle API.\n\nFirst, you will need a Kaggle account. You can sign up at\n'
                '  https://www.kaggle.com/account/login',
    'old token': '401 Client Error: Unauthorized for url: https://api.kaggle.com/v1/competitions.CompetitionApiService/DownloadDataFile',
    'no file': "OSError: Could not find kaggle.json. Make sure it's located in /root/.kaggle. Or use the environment method.",
    'no rules': '403 Client Error: Forbidden for url: https://api.kaggle.com/v1/competitions.CompetitionApiService/DownloadDataFile',
    'no rules, older': "403 - Forbidden - You must accept this competition's rules before you'll be able to download files.",
}
# Like the real one it goes on with a file that is shorter than Kaggle's, with a progress bar, and prints its errors.
CLIENT = '''#!{python}
import json, os, sys, time
from pathlib import Path
here = Path(__file__).parent
assert sys.argv[1:5] == ['competitions', 'download', '-c', 'carvana-image-masking-challenge'], sys.argv
name, folder = sys.argv[sys.argv.index('-f') + 1], Path(sys.argv[sys.argv.index('-p') + 1])
plan = json.loads((here/'plan.json').read_text()).get(name, {{}})
if 'says' in plan:
    print(plan['says'], file=sys.stderr if '403' in plan['says'] else sys.stdout)
    sys.exit(1)
data = (here/'archives'/name).read_bytes()
there = (folder/name).stat().st_size if (folder/name).exists() else 0
first = there if there < len(data) else 0
print(f'\\r{{name}}: 100%|##########|', end='', file=sys.stderr)
with open(folder/name, 'ab' if first else 'wb') as f:
    for at in range(first, len(data), 500):
        if at >= plan.get('until', len(data)):
            f.flush()
            if plan['then'] == 'fail': sys.exit('\\nHTTPSConnectionPool: Read timed out.')
            time.sleep(60)
        f.write(data[at:at + 500])
        with open(here/'served', 'a') as log: log.write(f'{{name}} {{len(data[at:at + 500])}}\\n')
'''


def zipped(archive, files, folder):
    with zipfile.ZipFile(archive, 'w') as z:
        z.writestr(f'{folder}/', '')
        z.writestr(f'__MACOSX/{folder}/._{files[0].name}', 'junk')
        for f in files: z.write(f, f'{folder}/{f.name}')


@pytest.fixture(scope='module')
def studio(tmp_path_factory): return write_studio(tmp_path_factory.mktemp('studio'), seeds=[1, 2], views=[1, 5, 9, 13], size=(64, 96))


class Kaggle:
    "The stand-in, and what it was asked for"
    def __init__(self, folder, studio):
        self.folder = folder
        (folder/'archives').mkdir(parents=True)
        for part in ('train', 'train_masks'): zipped(folder/'archives'/f'{part}.zip', sorted((studio/part).iterdir()), part)
        zipped(folder/'archives'/'test.zip', sorted((studio/'train').iterdir()), 'test')
        with zipfile.ZipFile(folder/'archives'/'sample_submission.csv.zip', 'w') as z: z.writestr('sample_submission.csv', 'img,rle_mask\n')
        client = folder/'kaggle'
        client.write_text(CLIENT.format(python=sys.executable))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        self.plan()

    def plan(self, **archives):
        "What is to happen to an archive, named without .zip"
        (self.folder/'plan.json').write_text(json.dumps({f'{k}.zip': v for k, v in archives.items()}))

    def size(self, name): return (self.folder/'archives'/name).stat().st_size

    @property
    def served(self): # bytes of each archive since the last look
        log, found = self.folder/'served', {}
        for line in log.read_text().splitlines() if log.exists() else []:
            name, n = line.split()
            found[name] = found.get(name, 0) + int(n)
        log.unlink(missing_ok=True)
        return found


@pytest.fixture
def kaggle(tmp_path, studio): return Kaggle(tmp_path/'kaggle', studio)


def start(kaggle, cwd, *words, path=None):
    env = os.environ | dict(PATH=path or f"{kaggle.folder}:{os.environ['PATH']}")
    return subprocess.Popen([BIN/'carvana-download', *words], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored where make runs in the background


def call(*args, **options):
    process = start(*args, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def same(folder, studio):
    "Are the photos and masks of the studio in the folder, and nothing else?"
    for part in ('train', 'train_masks'):
        assert {p.name: p.read_bytes() for p in (folder/part).iterdir()} == {p.name: p.read_bytes() for p in (studio/part).iterdir()}
    return not list(folder.glob('*.zip'))


def test_the_data_comes_into_the_layout_and_comes_once(kaggle, studio, tmp_path):
    status, out, err = call(kaggle, tmp_path)
    assert status == 0 and 'data: 8 photos with masks' in out and '0 faults' in out, out + err
    assert 'unpacking train.zip: 100% 8/8' in err and '\r' not in err and '####' not in err  # a log gets lines, not pieces of a bar
    assert same(tmp_path/'data', studio)
    assert kaggle.served == {name: kaggle.size(name) for name in ('train.zip', 'train_masks.zip')}
    assert call(kaggle, tmp_path)[:2] == (0, out)
    assert kaggle.served == {}


def test_what_was_lost_is_fetched_again(kaggle, studio, tmp_path):
    call(kaggle, tmp_path, 'mine')
    _ = kaggle.served  # what came so far is not counted
    pairs(tmp_path/'mine')[2].photo.write_bytes(b'half')
    assert call(kaggle, tmp_path, 'mine')[0] == 0
    assert kaggle.served == {'train.zip': kaggle.size('train.zip')}
    assert same(tmp_path/'mine', studio)


def test_the_test_photos_come_when_asked_for(kaggle, studio, tmp_path):
    assert call(kaggle, tmp_path, '--test')[0] == 0
    assert sorted(p.name for p in (tmp_path/'data'/'test').iterdir()) == sorted(p.name for p in (studio/'train').iterdir())
    assert (tmp_path/'data'/'sample_submission.csv').read_text() == 'img,rle_mask\n'


@pytest.mark.parametrize('why', SAID)
def test_what_is_to_be_done_first_is_said_on_one_line(why, kaggle, tmp_path):
    kaggle.plan(train=dict(says=SAID[why]))
    status, out, err = call(kaggle, tmp_path)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert 'accept the rules at https://www.kaggle.com/c/carvana-image-masking-challenge/rules' in err
    steps = ['sign up at https://www.kaggle.com/account/login', 'make an API token at https://www.kaggle.com/settings/api']
    assert [s in err for s in steps] == [not why.startswith('no rules')] * 2


@pytest.mark.skipif((BIN/'kaggle').exists(), reason="Kaggle's own client is installed")
def test_a_missing_client_is_named(kaggle, tmp_path):
    status, out, err = call(kaggle, tmp_path, path='/usr/bin:/bin')
    assert (status, out, err) == (1, '', "Kaggle's client is not installed; pip install 'carvana-unet[kaggle]'\n")
    assert not (tmp_path/'data').exists()


def test_a_download_that_failed_goes_on_where_it_stopped(kaggle, studio, tmp_path):
    kaggle.plan(train_masks=dict(until=2000, then='fail'))
    status, out, err = call(kaggle, tmp_path)
    assert status == 1 and 'train_masks.zip: Kaggle\'s client failed (HTTPSConnectionPool: Read timed out.); run this again' in err
    assert kaggle.served == {'train.zip': kaggle.size('train.zip'), 'train_masks.zip': 2000}
    kaggle.plan()
    assert call(kaggle, tmp_path)[0] == 0
    assert kaggle.served == {'train_masks.zip': kaggle.size('train_masks.zip') - 2000}
    assert same(tmp_path/'data', studio)


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_was_stopped_goes_on_where_it_stopped(how, kaggle, studio, tmp_path):
    kaggle.plan(train=dict(until=3000, then='hang'))
    process = start(kaggle, tmp_path)
    archive = tmp_path/'data'/'train.zip'
    while not (archive.exists() and archive.stat().st_size == 3000): time.sleep(.05)
    child, = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
    for pid in (int(child), process.pid): os.kill(pid, how)  # as the terminal does
    err = process.communicate(timeout=60)[1]
    if how == signal.SIGINT: assert process.returncode == 130 and err.endswith('stopped\n')
    kaggle.plan()
    assert kaggle.served == {'train.zip': 3000}
    assert call(kaggle, tmp_path)[0] == 0
    assert kaggle.served['train.zip'] == kaggle.size('train.zip') - 3000
    assert same(tmp_path/'data', studio)


def test_unpacking_goes_on_with_what_is_missing(kaggle, studio, tmp_path):
    call(kaggle, tmp_path)
    data = tmp_path/'data'
    kept, lost = pairs(data)[0].photo, pairs(data)[1].photo
    (data/'.train.zip.json').unlink()               # as if killed in the middle: no note yet,
    lost.rename(lost.with_name(f'.{lost.name}.part'))  # a file half written, the archive still there
    (data/'train.zip').write_bytes((kaggle.folder/'archives'/'train.zip').read_bytes())
    _ = kaggle.served  # what came so far is not counted
    before = kept.stat().st_mtime_ns
    assert call(kaggle, tmp_path)[0] == 0
    assert (kaggle.served, kept.stat().st_mtime_ns) == ({}, before)
    assert same(data, studio)


def test_a_damaged_archive_is_removed_and_fetched_anew(kaggle, studio, tmp_path):
    good = kaggle.folder/'archives'/'train.zip'
    whole = good.read_bytes()
    with zipfile.ZipFile(good) as z: last = z.infolist()[-1]
    good.write_bytes(whole[:last.header_offset + 200] + b'\0' * 8 + whole[last.header_offset + 208:])
    status, out, err = call(kaggle, tmp_path)
    assert status == 1 and 'train.zip: was damaged (Bad CRC-32' in err and err.endswith('is removed; run this again\n')
    good.write_bytes(whole)
    assert call(kaggle, tmp_path)[0] == 0
    assert same(tmp_path/'data', studio)


def test_a_page_in_place_of_an_archive_is_refused(kaggle, tmp_path):
    (kaggle.folder/'archives'/'train.zip').write_text('<html>Sign in</html>')
    status, out, err = call(kaggle, tmp_path)
    assert status == 1 and err.endswith('Kaggle sent no zip file; run this again, or download it in a browser into data\n')
    assert not (tmp_path/'data'/'train.zip').exists()
