"""Broken checkpoints, made from a table: each is refused with one line that names the file and, where it is one, the field."""
import math, os, pickle, subprocess, sys, zipfile
from collections import OrderedDict
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image

from carvana_unet.checkpoints import (FIELDS, Checkpoint, CheckpointError, find_model, load_checkpoint, save_checkpoint,
                                      shapes_of, to_8_bits)
from carvana_unet.studio import studio_photo
from carvana_unet.unet import UNet, build
from test_commands import call

pytestmark = pytest.mark.reliability('broken checkpoints')

NET = UNet(width=4, depth=2)
nan, inf = math.nan, math.inf


def state(**changes):
    "What a good file holds, with changes"
    weights = {k: v.half() if v.ndim > 1 else v.clone() for k, v in NET.state_dict().items()}
    good = {f.name: getattr(Checkpoint(weights, NET.arch), f.name) for f in fields(Checkpoint)}
    return good | changes


def weights(name, change):
    "A state with one weight changed"
    good = state()
    good['weights'][name] = change(good['weights'][name])
    return good


# a field and values that it cannot have

NUMBERS = ['x', '', None, True, nan, inf, -inf, -1, 10**400, [0.5], {}, 1 + 2j, torch.tensor(0.5)]
SIDES = ['big', True, 0, -1, 1.5, 1918., 10**9, 10**400, nan, inf, [1918], torch.tensor(1918)]
WRONG = dict(
    scale=[*NUMBERS, 0, 2, 1e-9, 1e-300, 1.0001],
    size=SIDES,
    min_size=SIDES,
    mean=[None, .5, 'abc', (), (.5, .5), (.5,) * 4, (.5, .5, nan), (inf, 0, 0), (.5, .5, '.5'), (.5, .5, None), (.5, .5, True),
          (-1, 0, 0), (1e30, 0, 0), {0: .5, 1: .5, 2: .5}, torch.zeros(3), ((0,), (0,), (0,))],
    std=[None, .5, (), (.2, .2), (.2,) * 4, (.2, .2, 0), (.2, .2, -.2), (.2, .2, nan), (.2, .2, inf), (1e-30,) * 3, (1e30,) * 3, torch.ones(3),
         ('.2',) * 3],
    threshold=[*NUMBERS, 0, 1, 1.5, 0., 1.],
    classes=[None, 'car', 2, [], ['car'], ['background', 'car', 'wheel'], ['background', 1], [None, None], ['car', 'car'], ['background', ''],
             {'background': 0, 'car': 1}, ['background', *map(str, range(400))], [['background'], ['car']]],
    low_confidence=['x', True, nan, inf, -1, 2, [.9]],
    crf=[None, 3, [], 'x', dict(sxy=3), dict(iterations=10**9), dict(iterations=inf), dict(iterations=0), dict(iterations=2.5),
         dict(iterations=True), dict(bilateral_sxy=1e-30), dict(bilateral_sxy=1e30), dict(bilateral_sxy=0), dict(bilateral_srgb=1e-30),
         dict(bilateral_srgb=nan), dict(gaussian_sxy=1e-30), dict(gaussian_sxy=inf), dict(bilateral_compat=-1), dict(bilateral_compat=1e30),
         dict(gaussian_compat=inf), dict(gaussian_compat='3'), dict(clip=0), dict(clip=.6), dict(clip=1e-300), dict(low=2), dict(low=.9, high=.1),
         dict(high=nan), dict(radius=0), dict(radius=1e30), dict(radius=1e-30), dict(contrast=5), dict(contrast=inf, radius=8),
         dict(scale=2), dict(scale=1e-9), {1: 2}, dict(bilateral_sxy=torch.tensor(3.)), dict(iterations=10**600)],
    cars=[None, 'abc', 3, {'a': 1}, [1], [None], [b'a'], [['a']]],
    held_out=[None, 'abc', 3, {'a': 1}, [1], [None]],
    score=[None, 3, [], 'x', {1: 2}, dict(classes=['car']), dict(classes=dict(car='x')), dict(dice=[.9]), dict(dice=torch.tensor(.9))],
    recipe=[None, 3, [], 'x', {1: 2}],
    arch=[None, 3, [], 'unet', {1: 2}, dict(NET.arch, width=8), dict(NET.arch, width=300), dict(NET.arch, width=100_000), dict(NET.arch, width=0),
          dict(NET.arch, width=-4), dict(NET.arch, width=4.), dict(NET.arch, width='4'), dict(NET.arch, width=True), dict(NET.arch, width=10**5000),
          dict(NET.arch, depth=0), dict(NET.arch, depth=3), dict(NET.arch, depth=60), dict(NET.arch, depth=10**9), dict(NET.arch, depth=None),
          dict(NET.arch, bilinear=1), dict(NET.arch, bilinear=None), dict(NET.arch, bilinear=False), dict(NET.arch, n_classes=0),
          dict(NET.arch, n_classes=3), dict(NET.arch, n_classes=10**6), dict(NET.arch, n_channels=1), dict(NET.arch, n_channels=4),
          dict(NET.arch, n_channels=0), dict(NET.arch, subpixel=1), dict(NET.arch, nonsense=1), dict(NET.arch, name=3), dict(NET.arch, name='x' * 10**6),
          dict(NET.arch, name='no_such_net'), dict(NET.arch, name='efficientnet_lite0'), dict(name='resnet34', n_classes=1),
          dict(name='vit_h_14', n_classes=1), dict(name='regnet_y_128gf', n_classes=1), dict(name='resnet18', pretrained=True), dict(width=4, depth=2, n_classes=2)],
    format=[None, 1, 'carvana_unet 0', 'carvana_unet 2', '', [], torch.ones(2)],
    weights=[None, 3, [], 'x', {}, NET.inc[0].weight.data, {1: torch.ones(3)}, dict(a=torch.ones(3)), [torch.ones(3)]])

FILTER, BIAS, MEAN, VAR, COUNT = 'inc.0.weight', 'inc.0.bias', 'inc.1.running_mean', 'inc.1.running_var', 'inc.1.num_batches_tracked'


def with_(value): return lambda w: w.clone().float().index_put_((torch.tensor(0),), torch.tensor(value))
def packed(**changes): return lambda w: to_8_bits(w.float()) | changes


WEIGHTS = {
    **{f'{value} in {name}': (name, with_(value)) for name in (FILTER, BIAS, MEAN, VAR, 'inc.1.weight', 'inc.1.bias', 'out.weight', 'out.bias')
       for value in (nan, inf, -inf)},
    'negative variance': (VAR, lambda w: -w), 'tiny negative variance': (VAR, lambda w: w * 0 - 1e-12),
    'double too large': (BIAS, lambda w: w.double() * 0 + 1e300),
    **{f'{dtype} in {name}': (name, lambda w, dtype=dtype: w.to(dtype)) for name in (FILTER, BIAS, VAR)
       for dtype in (torch.bool, torch.complex64, torch.int64, torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)},
    'float counter': (COUNT, lambda w: w.float()), 'counter of bools': (COUNT, lambda w: w > 0),
    'a list': (FILTER, lambda w: w.tolist()), 'a number': (FILTER, lambda w: 1.), 'None': (FILTER, lambda w: None), 'a string': (BIAS, lambda w: 'x'),
    'another shape': (FILTER, lambda w: w[:, :2].clone()), 'turned': (FILTER, lambda w: w.permute(1, 0, 2, 3).clone()), 'flat': (FILTER, lambda w: w.flatten()),
    'one axis more': (BIAS, lambda w: w[None].clone()), 'empty': (BIAS, lambda w: w[:0].clone()), 'scalar': (BIAS, lambda w: w[0].clone()),
    'repeated': (FILTER, lambda w: w[:1, :1, :1, :1].clone().expand_as(w)), 'sparse': (FILTER, lambda w: w.float().to_sparse()),
    'on meta': (FILTER, lambda w: w.to('meta')), 'quantised': (FILTER, lambda w: torch.quantize_per_tensor(w.float(), .1, 0, torch.qint8)),
    'packed bias': (BIAS, lambda w: dict(whole=w.to(torch.int8), step=torch.ones(1))), 'packed without step': (FILTER, lambda w: dict(whole=w.to(torch.int8))),
    'packed with more': (FILTER, packed(zero=torch.ones(1))), 'packed as floats': (FILTER, packed(whole=torch.ones(4, 3, 3, 3))),
    'packed step nan': (FILTER, packed(step=torch.full((4, 1, 1, 1), nan))), 'packed step too large': (FILTER, packed(step=torch.full((4, 1, 1, 1), 3e38))),
    'packed step of another shape': (FILTER, packed(step=torch.ones(1))), 'packed numbers': (FILTER, packed(whole=3, step=4))}

FIELD_CASES = [(name, value) for name, values in WRONG.items() for value in values]


def write(content, path):
    "As `torch.save` writes it"
    torch.save(content, path)
    return path


def refused(path):
    "The line with which it is refused"
    with pytest.raises(CheckpointError) as e: load_checkpoint(path)
    line = str(e.value)
    assert line.startswith(f'{path}: ') and '\n' not in line and len(line) < len(str(path)) + 360, line
    return line


def test_what_is_not_broken_loads(tmp_path):
    ck = load_checkpoint(write(state(), tmp_path/'good.pth'))
    assert (ck.scale, ck.size, ck.low_confidence, ck.mean) == (.5, None, None, Checkpoint.mean)
    ck.net()
    for more in (dict(size=1918, low_confidence=.98, cars=['a'], score=dict(dice=nan, on='2 photos', classes=dict(car=.9))), dict(mean=[.5] * 3),
                 dict(arch=dict(width=4, depth=2)), dict(recipe=dict(loaded=None, curve=[dict(dice=nan)]), crf=dict(bilateral_sxy=20, radius=8))):
        load_checkpoint(write(state(**more), tmp_path/'good.pth')).net()
    older = state()
    del older['low_confidence'], older['held_out']
    assert load_checkpoint(write(older, tmp_path/'older.pth')).low_confidence is None
    for bits in (8, 16): load_checkpoint(save_checkpoint(Checkpoint(NET.state_dict(), NET.arch), tmp_path/'good.pth', bits)).net()
    assert len(list(FIELDS)) == len(fields(Checkpoint)) - 3


def test_the_table_is_large_and_has_every_field():
    assert set(WRONG) == {f.name for f in fields(Checkpoint)}
    assert len(FIELD_CASES) >= 200 and len(WEIGHTS) >= 60


@pytest.mark.parametrize('name', sorted(WRONG))
def test_a_field_that_cannot_be(name, tmp_path, tried):
    tried(len(WRONG[name]))
    for i, value in enumerate(WRONG[name]):
        line = refused(write(state(**{name: value}), tmp_path/f'{name}{i}.pth'))
        if name not in ('weights', 'format', 'arch'): assert f'its field {name} ' in line, (value, line)


@pytest.mark.parametrize('case', WEIGHTS)
def test_weights_that_cannot_be(case, tmp_path):
    name, change = WEIGHTS[case]
    line = refused(write(weights(name, change), tmp_path/'model.pth'))
    assert name in line or 'damaged' in line or 'claim' in line, line


def without(part):
    good = state()
    del good[part]
    return good


def test_fields_and_weights_that_are_missing_or_too_many(tmp_path):
    for i, content in enumerate((without('weights'), without('arch'), without('format'), state(more=1), {}, [], 3, None, 'x', state()['weights'],
                                 [state()], OrderedDict(), {1: 2})):
        refused(write(content, tmp_path/f'{i}.pth'))
    for change in (lambda w: w.pop(FILTER), lambda w: w.update(more=torch.ones(3)), lambda w: w.update({3: torch.ones(3)})):
        content = state()
        change(content['weights'])
        assert 'do not fit its architecture' in refused(write(content, tmp_path/'weights.pth'))


# files that are no checkpoint

def parts(path):
    with zipfile.ZipFile(path) as z: return {i.filename: z.read(i) for i in z.infolist()}


def rezip(path, how=zipfile.ZIP_STORED, **changed):
    "The file again, some of its parts changed (by the end of their names)"
    new = path.with_name('new.pth')
    with zipfile.ZipFile(new, 'w', how) as z:
        for name, data in parts(path).items():
            z.writestr(name, next((change(data) for end, change in changed.items() if name.endswith(end.replace('_', '/'))), data))
    return new


class Evil:
    def __reduce__(self): return os.system, ('touch /tmp/carvana_unet_was_here',)


def test_files_that_are_no_checkpoint(tmp_path):
    good = write(state(), tmp_path/'good.pth')
    data = good.read_bytes()
    (tmp_path/'folder.pth').mkdir()
    os.mkfifo(tmp_path/'pipe.pth')
    for name, content in dict(empty=b'', words=b'not a model', half=data[:len(data) // 2], head=data[:100], tail=data[100:], zip=b'PK\3\4' + bytes(1000),
                              pickle=pickle.dumps(state(weights={})), evil=pickle.dumps(Evil()), text=b'PK', zeros=bytes(10_000)).items():
        (tmp_path/f'{name}.pth').write_bytes(content)
    torch.save(state(), tmp_path/'legacy.pth', _use_new_zipfile_serialization=False)
    write(Evil(), tmp_path/'evil2.pth'), write(state(recipe=dict(a=Evil())), tmp_path/'evil3.pth'), write(NET, tmp_path/'module.pth')
    Image.new('RGB', (9, 9)).save(tmp_path/'picture.pth', 'PNG')
    names = [p for p in sorted(tmp_path.iterdir()) if p != good]
    assert len(names) == 17
    for p in [*names, tmp_path/'nowhere.pth', good/'below.pth', '/dev/zero', '/dev/null', tmp_path/('x' * 300)]: refused(p)
    assert not os.path.exists('/tmp/carvana_unet_was_here')
    for i in range(0, len(data), max(1, len(data) // 300)):  # a bit flipped: the same weights, or refused
        flipped = bytearray(data)
        flipped[i] ^= 16
        (tmp_path/'flipped.pth').write_bytes(flipped)
        try: found = load_checkpoint(tmp_path/'flipped.pth')
        except CheckpointError: continue
        assert all((found.weights[k] == v).all() for k, v in state()['weights'].items())


def test_parts_of_the_file_that_do_not_fit(tmp_path):
    good = write(state(), tmp_path/'good.pth')
    load_checkpoint(rezip(good))
    assert 'is compressed' in refused(rezip(write(state(recipe=dict(text='x' * 10**5)), good), zipfile.ZIP_DEFLATED))
    for changed in (dict(data_0=lambda d: d[:8]), dict(data_0=lambda d: b''), dict(data_0=lambda d: d * 2), dict(pkl=lambda d: d[:-20]), dict(pkl=lambda d: b''),
                    dict(pkl=lambda d: d.replace(b'FloatStorage', b'NoSuch')), dict(pkl=lambda d: pickle.dumps(Evil(), 2)), dict(version=lambda d: b'99')):
        refused(rezip(write(state(), good), **changed))


# memory: in a process of its own that may take 600 MB more than the imports

SMALL = '''
import resource, sys
from carvana_unet.checkpoints import load_checkpoint, CheckpointError
import torchvision, fastai.vision.learner
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = peak()
for path in sys.argv[1:]:
    try: load_checkpoint(path)
    except CheckpointError as e: print(e)
    else: print('loaded')
    assert peak() - before < .15, f'{path}: {peak() - before:.2f} GB'
'''


@pytest.mark.parametrize('arch', [dict(width=4, depth=3, bilinear=False), dict(name='efficientnet_lite0', subpixel=2), dict(name='resnet18'), dict(name='regnet_x_400mf')])
def test_shapes_are_those_of_the_network(arch):
    true, found = build(arch).state_dict(), shapes_of(arch)
    assert {k: (v.shape, v.dtype) for k, v in true.items()} == {k: (v.shape, v.dtype) for k, v in found.items()}
    net = Checkpoint(true, arch).net()
    assert all(v.device.type == "cpu" for v in (*net.parameters(), *net.buffers()))
    assert all(torch.equal(v, true[k]) and v.data_ptr() != true[k].data_ptr() for k, v in net.state_dict().items())


def test_what_claims_much_takes_little(tmp_path):
    "Kilobytes that claim gigabytes, one number repeated, a compressed storage, storages shared by all weights, and a sparse file"
    files, arch = [], dict(width=300, depth=4)
    def add(content): files.append(write(content, tmp_path/f'{len(files)}.pth'))
    shapes = shapes_of(arch)
    add(state(arch=arch))
    add(state(arch=arch, weights={k: torch.zeros(1, dtype=v.dtype).expand(v.shape) if v.ndim else torch.tensor(0) for k, v in shapes.items()}))
    one = torch.zeros(max(v.numel() for v in shapes_of(dict(width=64, depth=4)).values()), dtype=torch.float16)
    add(state(arch=dict(width=64, depth=4), weights={k: one[:v.numel()].view(v.shape) if v.is_floating_point() else torch.tensor(0)
                                                     for k, v in shapes_of(dict(width=64, depth=4)).items()}))
    for name in ('vit_h_14', 'regnet_y_128gf', 'resnet152'): add(state(arch=dict(name=name, n_classes=1)))
    deflated = tmp_path/'deflated.pth'
    with zipfile.ZipFile(deflated, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in parts(files[0]).items():
            if not name.endswith('data/0'): z.writestr(name, data)
        with z.open(f'{Path(name).parts[0]}/data/0', 'w', force_zip64=True) as f:
            for _ in range(64): f.write(bytes(2**24))
    sparse = tmp_path/'sparse.pth'
    with open(sparse, 'wb') as f: f.truncate(2**36)
    assert all(p.stat().st_size < 10 * 2**20 for p in [*files, deflated])
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', SMALL, *files, deflated, sparse], capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stderr
    lines = r.stdout.splitlines()
    assert len(lines) == len(files) + 2 and not any(line == 'loaded' for line in lines), r.stdout
    assert 'claim' in lines[1] and 'claim' in lines[2] and 'is compressed' in lines[-2] and 'too much' in lines[-1], r.stdout


# the command

def test_the_command_refuses_broken_models_in_one_line(tmp_path):
    Image.fromarray(studio_photo(1, 3, size=(64, 96))[0]).save(tmp_path/'car.png')
    broken = [state(threshold='x'), state(size='big'), state(crf=dict(iterations=10**9)), state(crf=dict(bilateral_sxy=1e-30)),
              weights(VAR, lambda w: -w), weights(FILTER, with_(nan)), state(arch=dict(NET.arch, width=300)), state(std=(0, 0, 0))]
    for i, content in enumerate(broken):
        write(content, tmp_path/f'bad{i}.pth')
        r = call('predict', '-m', f'bad{i}.pth', '-i', 'car.png', '-o', 'mask.png', cwd=tmp_path)
        assert r.returncode in (1, 2) and r.stderr.count('\n') == 1 and r.stderr.startswith(f'bad{i}.pth: '), (i, r.stderr)
        assert not (tmp_path/'mask.png').exists()


# the two that the package ships

def test_the_limit_of_the_confidence_is_in_the_file_alone(tmp_path):
    for name in ('MODEL.pth', 'MODEL_small.pth'):
        shipped = find_model(name)
        assert load_checkpoint(shipped).low_confidence is not None
    raw = torch.load(shipped, weights_only=True)
    raw.pop('low_confidence', None)
    assert load_checkpoint(write(raw, tmp_path/'MODEL.pth')).low_confidence is None
    assert load_checkpoint(write(state(low_confidence=.9), tmp_path/'mine.pth')).low_confidence == .9
