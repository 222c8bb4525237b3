"What is installed is what the notebooks promise: light, complete, with the model, and described as it is"
import ast, json, os, re, shutil, subprocess, sys, tomllib, zipfile
from email import message_from_string
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest, yaml
from fastcore.xtras import Config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from readme import INDEX, PICTURE, ROOT, computed, readme

TRAINING = 'batches', 'training', 'hub', 'long_runs', 'explorer', 'export', 'checkpoints', 'unet', 'losses'  # the modules that may need more than the run-time packages
HEAVY = 'torch', 'numpy', 'PIL', 'scipy', 'fastai', 'matplotlib', 'IPython'
PREDICT = '''
import sys, carvana_unet
from carvana_unet import Predictor
from carvana_unet.dice import dice
from carvana_unet.studio import studio_photo
photo, mask = studio_photo(seed=10_000, view=3)
print(carvana_unet.__file__, dice(Predictor().mask(photo), mask), *sys.modules, sep='\\n')
'''


def run(*words, **options):
    "Run a program to its end, without what make, CI or the data tell to this process"
    told = 'CARVANA_PATH', 'MAKEFLAGS', 'MFLAGS', 'VENV', 'PYTHON', 'PYTHONPATH', 'IN_TEST'
    env = {k: v for k, v in os.environ.items() if k not in told}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300, env=env, **options)


def output(*words, **options):
    "What a program prints; it must succeed"
    r = run(*words, **options)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout


def requirements(lines):
    "Distribution name and requirement of each line"
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def imported(tree):
    "Top-level names of the packages that the statements of `tree` import"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): yield from (a.name.split('.')[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level: yield node.module.split('.')[0]


def untold(body, lines, owner=''):
    "Public classes, functions, fields and parameters among statements that have no docstring or no comment beside them"
    bare = lambda node: '#' not in lines[node.lineno - 1]
    for node in body:
        if isinstance(node, ast.AnnAssign) and owner and bare(node): yield f'{owner}{node.target.id}'
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        name = node.name
        if name.startswith('_') and name != '__init__' or re.match('(before|after)_|encodes$', name): continue  # fastai says when it calls those
        if name != '__init__' and not ast.get_docstring(node): yield f'{owner}{name}'
        if isinstance(node, ast.ClassDef): yield from untold(node.body, lines, f'{name}.')
        else:
            a = node.args
            for arg in [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]:
                if arg.arg not in ('self', 'cls') and bare(arg): yield f'{owner}{name}({arg.arg})'


def distributions(names):
    "The distributions, other than Python and this one, that have packages of these names"
    known = packages_distributions()
    return {canonicalize_name(known[n][0]) for n in names if n not in {*sys.stdlib_module_names, 'carvana_unet'}}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "Built from the sdist, which is built from a copy: setuptools would take files from lists that earlier builds left"
    folder = tmp_path_factory.mktemp('build')
    skip = shutil.ignore_patterns('.*', 'nbs', 'demo', 'build', 'dist', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT, folder/'source', ignore=skip)
    output(sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder/'dist', folder/'source')
    return next((folder/'dist').glob('*.whl'))


@pytest.fixture(scope='module')
def metadata(wheel):
    with zipfile.ZipFile(wheel) as z:
        name = next(n for n in z.namelist() if n.endswith('.dist-info/METADATA'))
        return message_from_string(z.read(name).decode())


@pytest.fixture(scope='module')
def empty(wheel, tmp_path_factory):
    "A new environment with the wheel; other packages are found where this process finds them, which saves 5 GB"
    folder = tmp_path_factory.mktemp('empty')/'venv'
    output(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder/'bin'/'python'
    output(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel)
    site = Path(output(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    (site/'borrowed.pth').write_text(f'{Path(pytest.__file__).parent.parent}\n')
    return folder


def test_the_wheel_is_complete(wheel):
    with zipfile.ZipFile(wheel) as z: names = {n.split('/', 1)[1] for n in z.namelist()}
    assert {p.relative_to(ROOT/'carvana_unet').as_posix() for p in (ROOT/'carvana_unet').rglob('*.py')} | {"MODEL.pth", "MODEL.onnx", "MODEL_small.pth", 'static/explorer.js', 'static/explorer.css', 'licenses/LICENSE'} <= names
    assert wheel.stat().st_size < 28 * 2**20


def test_the_wheel_predicts(empty, tmp_path):
    file, dice, *modules = output(empty/'bin'/'python', '-c', PREDICT, cwd=tmp_path).splitlines()
    assert Path(file).is_relative_to(empty)
    assert float(dice) > .9
    assert not {'fastai', 'matplotlib', 'IPython', 'nbdev'} & set(modules)


@pytest.mark.parametrize('name', re.findall(r'(carvana-\w+)=', Config(ROOT, 'settings.ini').console_scripts))
def test_the_wheel_has_its_commands(name, empty, tmp_path):
    assert f'usage: {name}' in output(empty/'bin'/name, '-h', cwd=tmp_path)


def test_every_dynamic_field_is_filled(metadata):
    fields = {'keywords': 'Keywords', 'description': 'Summary', 'version': 'Version', 'dependencies': 'Requires-Dist',
              'optional-dependencies': 'Provides-Extra', 'license': 'License', 'authors': 'Author-email',
              'classifiers': 'Classifier', 'urls': 'Home-page'}
    elsewhere = {'readme', 'entry-points', 'scripts'}  # the text under the fields; the commands above
    dynamic = tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['dynamic']
    assert set(dynamic) == fields.keys() | elsewhere
    assert not [d for d in dynamic if d in fields and not metadata[fields[d]]]
    assert metadata.get_payload().strip() == (ROOT/'README.md').read_text(encoding='utf-8').strip()


def test_the_requirements_cover_every_import(metadata):
    lines = metadata.get_all('Requires-Dist')
    base = requirements(line for line in lines if 'extra ==' not in line)
    extra = requirements(line for line in lines if any(f'extra == "{name}"' in line for name in ('torch', 'train', 'crf', 'explore', 'export', 'hub', 'labels', 'ray')))
    for file in (ROOT/'carvana_unet').rglob('*.py'):
        tree = ast.parse(file.read_text(encoding='utf-8'))
        at_once = ast.Module([n for n in tree.body if not isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.If))], [])  # If: TYPE_CHECKING
        assert distributions(imported(tree)) <= base.keys() | extra.keys(), file
        if file.stem not in TRAINING: assert distributions(imported(at_once)) <= base.keys(), file


def test_the_constraints_pin_every_requirement():
    pinned = requirements(line for line in (ROOT/'constraints.txt').read_text().splitlines() if not line.startswith('#'))
    config = Config(ROOT, 'settings.ini')
    for key in (f'{extra}requirements' for extra in ('', 'torch_', 'train_', 'crf_', 'explore_', 'heic_', 'export_', 'hub_', 'labels_', 'ray_', 'kaggle_', 'test_')):
        for name, wanted in requirements(config[key].split()).items():
            version, = pinned[name].specifier
            assert version.operator == '==' and wanted.specifier.contains(version.version), name


def test_importing_the_package_is_light():
    modules = output(sys.executable, '-c', 'import sys, carvana_unet; print(*sys.modules)').split()
    assert not {*HEAVY} & {*modules}


def test_importing_the_predictor_does_not_import_fastai():
    code = 'import sys; from carvana_unet import Predictor; print(Predictor.__name__, *sys.modules)'
    name, *modules = output(sys.executable, '-c', code).split()
    assert name == 'Predictor'
    assert not {'fastai', 'matplotlib', 'IPython'} & {*modules}


def test_other_names_are_unknown():
    import carvana_unet
    with pytest.raises(AttributeError, match="'carvana_unet' has no attribute 'Predicter'"): _ = carvana_unet.Predicter


def test_readme_and_index_agree():
    assert json.loads(INDEX.read_text(encoding='utf-8')) == computed(), 'run `make readme`'
    assert (ROOT/'README.md').read_text(encoding='utf-8') == readme(), 'run `make readme`'
    assert PICTURE.stat().st_size < 150_000


def test_it_can_be_cited():
    cited = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert {'cff-version', 'message', 'title', 'authors'} <= cited.keys()
    assert 'version' not in cited  # it stands in settings.ini alone


@pytest.mark.parametrize('module', sorted((ROOT/'carvana_unet').rglob('[a-z]*.py')), ids=lambda p: p.stem)
def test_everything_public_says_what_it_is(module):
    text = module.read_text(encoding='utf-8')
    assert list(untold(ast.parse(text).body, text.splitlines())) == []


def test_make_without_a_python(tmp_path):
    r = run('make', 'demo', f'VENV={tmp_path}/venv', 'PYTHON=false', cwd=ROOT)
    assert r.returncode and 'needs Python 3.11 or newer' in r.stderr
    assert not (tmp_path/'venv').exists()


def test_make_takes_the_data_folder_from_here():
    show = '--eval=show:; @echo $$CARVANA_PATH'
    assert output('make', '--no-print-directory', show, 'show', 'CARVANA_PATH=tests', cwd=ROOT).strip() == f'{ROOT/"tests"}'
    r = run('make', show, 'show', 'CARVANA_PATH=nowhere', cwd=ROOT)
    assert r.returncode and 'CARVANA_PATH=nowhere is not a folder' in r.stderr
