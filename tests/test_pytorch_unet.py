"""Weights of Pytorch-UNet and networks of other libraries: what they compute here is compared with what they compute by themselves.

Pytorch-UNet is restated from its description as plain functions on a state dict, in three versions, and shares nothing with `PytorchUNet`:
the channels are a table, up-sampling with aligned corners is a matrix product.
"""
import subprocess, sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from carvana_unet.checkpoints import Checkpoint, CheckpointError, adapt, from_pytorch_unet, load_checkpoint, save_checkpoint, to_pytorch_unet
from carvana_unet.engines import fold_batchnorm
from carvana_unet.prediction import Predictor
from carvana_unet.studio import studio_photo
from carvana_unet.unet import EncoderUNet, PytorchUNet, UNet
from test_commands import call

# Channels of each block: in, between the two convolutions, out; of a transposed convolution: in, out.
NARROW_DOWN = [(3, 64, 64), (64, 128, 128), (128, 256, 256), (256, 512, 512), (512, 512, 512)]
WIDE_DOWN = [*NARROW_DOWN[:4], (512, 1024, 1024)]
EARLY_UP = [(1024, 256, 256), (512, 128, 128), (256, 64, 64), (128, 64, 64)]
VERSIONS = dict(  # names of the blocks, way down, way up, transposed convolutions, bias, classes
    of_2017=('conv.conv', 'mpconv.1.conv', 'conv.conv', NARROW_DOWN, EARLY_UP, None, True, 1),
    of_2017_transposed=('conv.conv', 'mpconv.1.conv', 'conv.conv', NARROW_DOWN, EARLY_UP, [(512, 512), (256, 256), (128, 128), (64, 64)], True, 1),
    of_2019=('double_conv', 'maxpool_conv.1.double_conv', 'conv.double_conv', NARROW_DOWN, EARLY_UP, None, True, 1),
    of_2020=('double_conv', 'maxpool_conv.1.double_conv', 'conv.double_conv', NARROW_DOWN,
             [(1024, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 64)], None, True, 1),
    current_bilinear=('double_conv', 'maxpool_conv.1.double_conv', 'conv.double_conv', NARROW_DOWN,
                      [(1024, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 64)], None, False, 2),
    current=('double_conv', 'maxpool_conv.1.double_conv', 'conv.double_conv', WIDE_DOWN,
             [(1024, 512, 512), (512, 256, 256), (256, 128, 128), (128, 64, 64)], [(1024, 512), (512, 256), (256, 128), (128, 64)], False, 2))


def blocks(version):
    inc, down, up, downs, ups, *_ = VERSIONS[version]
    return {f'inc.{inc}': downs[0]} | {f'down{i}.{down}': c for i, c in enumerate(downs[1:], 1)} | {f'up{i}.{up}': c for i, c in enumerate(ups, 1)}


def state_of(version, counters=True):
    "Random weights under the names of a version"
    *_, downs, ups, transposed, bias, n_classes = VERSIONS[version]
    rng, w = torch.Generator().manual_seed(len(version)), {}
    def normal(*shape, spread=1.): return torch.randn(shape, generator=rng) * spread
    for name, (n_in, n_mid, n_out) in blocks(version).items():
        for i, a, b in ((0, n_in, n_mid), (3, n_mid, n_out)):
            w[f'{name}.{i}.weight'] = normal(b, a, 3, 3, spread=(2 / (9 * a))**.5)
            if bias: w[f'{name}.{i}.bias'] = normal(b, spread=.1)
            norm = f'{name}.{i + 1}'
            w |= {f'{norm}.weight': 1 + normal(b, spread=.1), f'{norm}.bias': normal(b, spread=.1), f'{norm}.running_mean': normal(b, spread=.1),
                  f'{norm}.running_var': 1 + torch.rand(b, generator=rng)}
            if counters: w[f'{norm}.num_batches_tracked'] = torch.tensor(7)
    for i, (a, b) in enumerate(transposed or [], 1):
        w |= {f'up{i}.up.weight': normal(a, b, 2, 2, spread=a**-.5), f'up{i}.up.bias': normal(b, spread=.1)}
    return w | {'outc.conv.weight': normal(n_classes, 64, 1, 1, spread=.3), 'outc.conv.bias': normal(n_classes, spread=.1)}


def aligned(n):
    "(2n, n): rows that interpolate n values at 2n places, the first and the last on the first and the last"
    places = torch.arange(2 * n, dtype=torch.double) * (n - 1) / max(2 * n - 1, 1)
    return (1 - (places[:, None] - torch.arange(n)).abs()).clamp(min=0)


def restated(w, x, version):
    "Logits of a version of Pytorch-UNet"
    w = {k: v.double() for k, v in w.items()}
    def twice(x, name):
        for i in (0, 3):
            x = F.conv2d(x, w[f'{name}.{i}.weight'], w.get(f'{name}.{i}.bias'), padding=1)
            norm = {k: w[f'{name}.{i + 1}.{k}'][:, None, None] for k in ('weight', 'bias', 'running_mean', 'running_var')}
            x = ((x - norm['running_mean']) / (norm['running_var'] + 1e-5).sqrt() * norm['weight'] + norm['bias']).clamp(min=0)
        return x
    names = list(blocks(version))
    seen = [twice(x.double(), names[0])]
    for name in names[1:5]:
        h, w_ = (side // 2 * 2 for side in seen[-1].shape[2:])  # an odd row or column is dropped
        seen.append(twice(seen[-1][..., :h, :w_].unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)), name))
    x = seen.pop()
    for i, name in enumerate(names[5:], 1):
        if (up := w.get(f'up{i}.up.weight')) is not None: x = F.conv_transpose2d(x, up, w[f'up{i}.up.bias'], stride=2)
        else: x = aligned(x.shape[2]) @ x @ aligned(x.shape[3]).T
        skip = seen.pop()
        padded = torch.zeros(*x.shape[:2], *skip.shape[2:], dtype=x.dtype)
        top, left = ((a - b) // 2 for a, b in zip(skip.shape[2:], x.shape[2:]))
        padded[..., top:top + x.shape[2], left:left + x.shape[3]] = x
        x = twice(torch.cat([skip, padded], 1), name)
    return torch.einsum('nchw,oc->nohw', x, w['outc.conv.weight'][..., 0, 0]) + w['outc.conv.bias'][:, None, None]


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize('version', VERSIONS)
def test_the_network_computes_what_theirs_does(version, tmp_path):
    w = state_of(version)
    ck = load_checkpoint(saved(w, tmp_path/'theirs.pth'))
    assert (ck.scale, ck.mean, ck.std, ck.threshold, ck.classes) == (.5, (0, 0, 0), (1, 1, 1), .5, ['background', 'car'])
    net = ck.net().double()
    for size in ((64, 96), (53, 87)):  # 53 and 87 are odd on several levels
        x = torch.rand(1, 3, *size, dtype=torch.double)
        with torch.no_grad(): ours = net(x)
        theirs = restated(w, x, version)
        assert theirs.std() > .05 and (ours - theirs).abs().max() < 1e-9 * theirs.abs().max()


@pytest.mark.parametrize('version', ['of_2017', 'current'])
def test_all_ways_in_which_such_files_are_saved(version, tmp_path):
    w = state_of(version)
    want = load_checkpoint(saved(w, tmp_path/'plain.pth'))
    without = {k: v for k, v in w.items() if 'num_batches' not in k}
    parallel = {f'module.{k}': v for k, v in w.items()}
    safetensors = pytest.importorskip('safetensors.torch')
    safetensors.save_file(w, tmp_path/'model.safetensors')
    files = [saved(w | dict(mask_values=[0, 255]), tmp_path/'values.pth'), saved(w | dict(mask_values=[[0, 0, 0], [255, 255, 255]]), tmp_path/'rgb.pth'),
             saved(parallel, tmp_path/'parallel.pth'), saved(without, tmp_path/'of_2017.pth', _use_new_zipfile_serialization=False),
             saved({k: v.half() if v.is_floating_point() else v for k, v in w.items()}, tmp_path/'half.pth'), tmp_path/'model.safetensors']
    for file in files:
        found = load_checkpoint(file)
        assert (found.arch, found.classes) == (want.arch, want.classes), file
        for name, weight in found.weights.items():
            if 'num_batches' not in name: assert torch.equal(weight, want.weights[name].to(weight.dtype)), (file, name)


def test_classes(tmp_path):
    w = state_of('current')
    w |= {'outc.conv.weight': torch.randn(3, 64, 1, 1), 'outc.conv.bias': torch.randn(3)}
    assert load_checkpoint(saved(w, tmp_path/'a.pth')).classes == ['background', 'class 1', 'class 2']
    assert load_checkpoint(saved(w | dict(mask_values=[0, 38, 75]), tmp_path/'b.pth')).classes == ['background', 'class 38', 'class 75']


def changed(w, **changes): return {k: v for k, v in (w | {k.replace('__', '.'): v for k, v in changes.items()}).items() if v is not None}


def test_what_cannot_be_mapped_is_refused_with_the_first_key(tmp_path):
    w, old = state_of('current'), state_of('of_2017')
    last, nan = w['outc.conv.bias'], torch.full((64,), torch.nan)
    cases = [(changed(w, outc__conv__bias=None), "its key 'outc.conv.bias' is missing"),
             (changed(w, attention__weight=last), "its key 'attention.weight' is not one of Pytorch-UNet"),
             (changed(old, up2__conv__conv__0__weight=None), "its key 'up2.conv.conv.0.weight' is missing"),
             (changed(w, down3__maxpool_conv__1__double_conv__0__weight=torch.ones(256, 100, 3, 3)), 'down3.maxpool_conv.1.double_conv.0.weight is [256, 100, 3, 3]'),
             (changed(w, inc__double_conv__1__running_mean=nan), 'inc.double_conv.1.running_mean has values that are not finite'),
             (changed(w, inc__double_conv__1__running_var=-torch.ones(64)), 'inc.double_conv.1.running_var has negative variances'),
             (changed(w, inc__double_conv__0__weight=3), "'inc.double_conv.0.weight' is missing or not a filter"),
             (changed(w, inc__double_conv__0__weight=torch.ones(64, 1, 3, 3)), 'n_channels is 1; photos have 3'),
             (changed(w, inc__double_conv__0__weight=torch.ones(2000, 3, 3, 3)), 'width is 2000'),
             ({'encoder.conv1.weight': last}, "its key 'encoder.conv1.weight' is not one of Pytorch-UNet's"), ({}, 'it holds no weights'),
             (dict(state_dict=w), "its key 'state_dict'"), ({3: last}, 'its key 3'), ({'module.x' * 100: last}, 'its key ')]
    for i, (content, words) in enumerate(cases):
        path = saved(content, tmp_path/f'{i}.pth')
        with pytest.raises(CheckpointError) as e: load_checkpoint(path)
        line = str(e.value)
        assert words in line and line.startswith(f'{path}: ') and '\n' not in line and len(line) < len(str(path)) + 260, line


LIMITED = '''
import resource, sys
from carvana_unet.checkpoints import load_checkpoint, CheckpointError
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = peak()
for path in sys.argv[1:]:
    try: load_checkpoint(path)
    except CheckpointError as e: print(e)
    assert peak() - before < .15, f'{path}: {peak() - before:.2f} GB'
'''


def test_small_files_that_claim_much_take_little_memory(tmp_path):
    one = torch.zeros(1024 * 1024 * 9)
    shapes = {k: v.shape for k, v in state_of('current').items()}
    shared = {k: one[:s.numel()].view(s) if len(s) else torch.tensor(0) for k, s in shapes.items()}
    repeated = {k: torch.zeros(1).expand(s) if len(s) else torch.tensor(0) for k, s in shapes.items()}
    old = saved({'inc.conv.conv.0.weight': torch.zeros(64, 3, 3, 3)}, tmp_path/'old.pth', _use_new_zipfile_serialization=False)
    data = old.read_bytes()
    size = (64 * 3 * 3 * 3).to_bytes(2, 'little')
    assert data.count(b'M' + size) >= 1  # the pickled number of values in the storage
    (tmp_path/'claims.pth').write_bytes(data.replace(b'M' + size, b'J' + (2**30).to_bytes(4, 'little')))
    header = b'{"inc.conv.conv.0.weight":{"dtype":"F32","shape":[100000,30000],"data_offsets":[0,12000000000]}}'
    (tmp_path/'claims.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + bytes(64))
    files = [saved(shared, tmp_path/'shared.pth'), saved(repeated, tmp_path/'repeated.pth'), tmp_path/'claims.pth', tmp_path/'claims.safetensors']
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', LIMITED, *files], capture_output=True, text=True, timeout=300)
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 4, r.stdout + r.stderr


def as_is(monkeypatch):
    "Compute in float32"
    for module in [m for name, m in sys.modules.items() if name.startswith('carvana_unet')]:
        for name, new in dict(has_bf16=lambda device: False, autocast=lambda device: nullcontext()).items():
            if hasattr(module, name): monkeypatch.setattr(module, name, new)


def test_the_inference_of_2017(tmp_path, monkeypatch):
    "Half the size, 0..1, two squares, sigmoid, each enlarged, cut in the middle"
    as_is(monkeypatch)
    photo, _ = studio_photo(3, 5, size=(320, 480))
    w = state_of('of_2017')
    half = torch.from_numpy(np.array(Image.fromarray(photo).reduce(2)) / 255).permute(2, 0, 1)[None]
    squares = []
    for square in (half[..., :160], half[..., -160:]):
        prob = restated(w, square, 'of_2017').sigmoid()[0, 0].numpy().astype(np.float32)
        squares.append(np.array(Image.fromarray(prob).resize((320, 320), Image.Resampling.BILINEAR)))
    want = np.concatenate([squares[0][:, :240], squares[1][:, -240:]], axis=1)
    found = Predictor(load_checkpoint(saved(w, tmp_path/'MODEL.pth')), squares='cut', crf=False).predict(photo)
    assert want.std() > .01
    off = np.abs(found.probability - want)
    off[:, 238:242] = 0  # here they enlarge before they cut
    assert off.max() < 1e-5
    clear = off + np.abs(want - .5) > 1e-4
    clear[:, 238:242] = False
    assert (found.mask == (want > .5))[clear].all()


def test_the_current_inference(tmp_path, monkeypatch):
    "Half the size, 0..1, the whole photo, softmax, enlarged"
    as_is(monkeypatch)
    photo, _ = studio_photo(2, 9, size=(196, 310))
    w = state_of('current')
    half = torch.from_numpy(np.array(Image.fromarray(photo).reduce(2)) / 255).permute(2, 0, 1)[None]
    want = F.interpolate(restated(w, half, 'current').softmax(1), (196, 310), mode='bilinear')[0, 1].numpy()
    found = Predictor(load_checkpoint(saved(w, tmp_path/'current.pth')), crf=False).predict(photo)
    assert np.abs(found.probability - want).max() < 1e-5 and want.std() > .01


def test_the_command(tmp_path):
    Image.fromarray(studio_photo(1, 3, size=(64, 96))[0]).save(tmp_path/'car.png')
    saved(state_of('of_2017', counters=False), tmp_path/'theirs.pth', _use_new_zipfile_serialization=False)
    r = call('predict', '-m', 'theirs.pth', '-i', 'car.png', '-o', 'mask.png', cwd=tmp_path)
    assert r.returncode == 0 and Image.open(tmp_path/'mask.png').size == (96, 64), r.stderr
    saved({'conv1.weight': torch.ones(3)}, tmp_path/'resnet.pth')
    r = call('predict', '-m', 'resnet.pth', '-i', 'car.png', '-o', 'no.png', cwd=tmp_path)
    assert r.returncode == 1 and r.stderr.count('\n') == 1 and r.stderr.startswith("resnet.pth: its key 'conv1.weight'"), r.stderr


# writing

def test_read_and_written_is_the_same_file():
    for version in ('of_2017', 'current', 'current_bilinear'):
        w = state_of(version)
        again = to_pytorch_unet(from_pytorch_unet(w))
        assert set(again) - {'mask_values'} == set(w)
        assert ('mask_values' in again) == version.startswith('current')
        for name, weight in w.items(): assert torch.equal(again[name], weight), name


def test_ours_computes_the_same_in_theirs():
    torch.manual_seed(0)
    ours = UNet(bilinear=False).eval()
    x, std = torch.rand(1, 3, 48, 64), (.2, .25, .3)
    with torch.no_grad(): mine = ours.double()(x.double() / torch.tensor(std)[:, None, None]).sigmoid()
    threshold = mine.median().item()
    theirs = restated(to_pytorch_unet(Checkpoint(ours.state_dict(), ours.arch, mean=(0, 0, 0), std=std, threshold=threshold)), x, 'of_2017_transposed').sigmoid()
    clear = (mine - threshold).abs() > 1e-6
    assert ((mine > threshold) == (theirs > .5))[clear].all() and .4 < (mine > threshold).double().mean() < .6 and clear.double().mean() > .9


def test_networks_that_theirs_is_not():
    for net, words in ((EncoderUNet(width=4), 'no efficientnet_lite0'), (UNet(), 'aligns the corners'), (UNet(width=8, depth=3, bilinear=False), 'has 8 and 3'),
                       (PytorchUNet(width=8), 'has 8 and 4')):
        with pytest.raises(CheckpointError, match=words): to_pytorch_unet(Checkpoint(net.state_dict(), net.arch))


# other libraries

def test_segmentation_models_pytorch(tmp_path, monkeypatch):
    smp = pytest.importorskip('segmentation_models_pytorch')
    as_is(monkeypatch)
    photo, _ = studio_photo(1, 4, size=(100, 150))
    torch.manual_seed(0)
    for net in (smp.Unet('resnet18', encoder_weights=None, classes=1), smp.FPN('mobilenet_v2', encoder_weights=None, classes=2), smp.Unet('tu-resnet18', encoder_weights=None)):
        for m in net.modules():  # statistics that matter when they are folded
            if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.normal_(0, .1); m.running_var.uniform_(.5, 2); m.bias.data.normal_(0, .1)
        ck = adapt(net, scale=.5, mean=(.485, .456, .406), std=(.229, .224, .225))
        x = (torch.from_numpy(np.array(Image.fromarray(photo).reduce(2))) / 255 - torch.tensor(ck.mean)) / torch.tensor(ck.std)
        x = F.pad(x.permute(2, 0, 1)[None], (0, 21, 0, 14), mode='replicate')
        with torch.no_grad(): logits = net.eval()(x)[0, :, :50, :75]
        want = (logits.sigmoid()[0] if len(logits) == 1 else logits.softmax(0)[1]).numpy()
        found = Predictor(ck).predict(photo)
        assert np.abs((found.small[0] if len(found.small) == 1 else 1 - found.small[0]) - want).max() < 1e-4 and want.std() > 1e-3
        assert found.mask.shape == (100, 150)
    with pytest.raises(CheckpointError, match='gives probabilities'): adapt(smp.Unet('resnet18', encoder_weights=None, activation='sigmoid'))
    with pytest.raises(CheckpointError, match='cannot be stored'): save_checkpoint(ck, tmp_path/'smp.pth')


def test_a_norm_with_an_activation_of_its_own_is_not_folded_away():
    "timm has such layers"
    class NormAct(torch.nn.BatchNorm2d):
        def forward(self, x): return super().forward(x).relu()
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), NormAct(4), torch.nn.Conv2d(4, 1, 1)).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        expected = net(x)
        assert torch.allclose(fold_batchnorm(net)(x), expected, atol=1e-6)


def test_the_command_that_writes(tmp_path):
    w = state_of('current')
    saved(w, tmp_path/'theirs.pth')
    r = call('export', 'theirs.pth', '--pytorch-unet', cwd=tmp_path)
    assert r.returncode == 0 and r.stdout.startswith('theirs_pytorch_unet.pth: ') and '--scale 0.5' in r.stdout, r.stderr
    again = torch.load(tmp_path/'theirs_pytorch_unet.pth', weights_only=True)
    assert set(again) == {*w, 'mask_values'} and all(torch.equal(again[k], v) for k, v in w.items())
    for words, start in ((('--pytorch-unet', '-o', 'model.pth'), 'Pytorch-UNet has no efficientnet_lite0'), (('--pytorch-unet', '-o', 'a.onnx'), 'a.onnx: Pytorch-UNet reads'),
                         (('theirs.pth', '--pytorch-unet', '-o', 'theirs.pth'), 'theirs.pth: is the checkpoint itself')):
        r = call('export', *words, cwd=tmp_path)
        assert r.returncode in (1, 2) and r.stderr.startswith(start) and r.stderr.count('\n') == 1, r.stderr


def test_two_classes_in_onnx(tmp_path, monkeypatch):
    "The first of two maps is the background, in the exported graph, too"
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    from carvana_unet.export import export_onnx
    as_is(monkeypatch)
    torch.manual_seed(0)
    net = PytorchUNet(width=4, depth=2)
    ck = Checkpoint(net.state_dict(), net.arch, mean=(0, 0, 0), std=(1, 1, 1))
    photo, _ = studio_photo(1, 4, size=(64, 96))
    session = runtime.InferenceSession(export_onnx(ck, tmp_path/'two.onnx'), providers=['CPUExecutionProvider'])
    found = session.run(['probability'], dict(photo=photo, scale=np.array(0, np.float32)))[0]
    assert np.abs(found - Predictor(ck).predict(photo).probability).max() < 2e-3
