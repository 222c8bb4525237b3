"Training that is killed, stopped, fed with nonsense: what was learnt is kept, and the same model comes out"
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from carvana_unet.checkpoints import load_checkpoint
from carvana_unet.studio import write_studio

OPTIONS = dict(epochs=3, batch_size=2, arch='unet', width=4, depth=2, crop=32, device='cpu', seed=7)
OPTIONS_OF_PREPARE = {k: v for k, v in OPTIONS.items() if k != 'epochs'}
# the same training as of the command, but its state is written after every step
SCRIPT = '''
import sys
from functools import partialmethod
from carvana_unet import long_runs
long_runs.KeepState.__init__ = partialmethod(long_runs.KeepState.__init__, every=0)
long_runs.train(['studio'], sys.argv[1], resume='--resume' in sys.argv, accumulate=2 if 'groups' in sys.argv[1] else 1, **{options})
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Studio photos, and the model of a training that nothing disturbed"
    folder = tmp_path_factory.mktemp('training')
    write_studio(folder/'studio', seeds=range(6), views=(2, 7, 12), size=(64, 96))
    (folder/'train.py').write_text(SCRIPT.replace('{options}', repr(OPTIONS)))
    for name in ('whole', 'groups'): assert start(folder, f'{name}.pth').wait(300) == 0
    return folder


def start(folder: Path, *args: str) -> subprocess.Popen:
    "The training as a process of its own"
    env = {**os.environ, 'XDG_CACHE_HOME': str(folder/'cache'), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, 'train.py', *args], cwd=folder, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def same_model(a: Path, b: Path):
    "Two trainings gave the same weights and the same curve, bit by bit"
    a, b = load_checkpoint(a), load_checkpoint(b)
    assert all(torch.equal(x, y) for x, y in zip(a.weights.values(), b.weights.values(), strict=True))
    assert a.recipe['curve'] == b.recipe['curve'] and len(a.recipe['curve']) == a.recipe['settings']['epochs']
    assert a.score == b.score and 'minutes' in b.recipe


def wait_for(path: Path, process: subprocess.Popen):
    "Until the training has written its state"
    while not path.exists() and process.poll() is None: time.sleep(0.02)


def place(state: Path) -> list:
    "Epoch and batch at which a training stands"
    try: return torch.load(state, weights_only=True)['place']
    except (OSError, RuntimeError): return [-1, 0]


@pytest.mark.parametrize('whole', ['whole', 'groups'])
def test_killed_at_random_moments(folder, whole):
    "Killed without warning in each of its epochs, and the same weights and curve as without; `groups`: two batches make a step"
    draw, name = random.Random(1), f'killed_{whole}'
    for moment in ([epoch, draw.randrange(1, 8)] for epoch in range(OPTIONS['epochs'])):
        process = start(folder, f'{name}.pth', '--resume')
        while place(folder/f'{name}.state') < moment:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    process = start(folder, f'{name}.pth', '--resume')
    assert process.wait(300) == 0, process.stderr.read()
    same_model(folder/f'{whole}.pth', folder/f'{name}.pth')
    assert not (folder/f'{name}.state').exists()


# every moment at which a training replaces or deletes a file: killed just before it, then just after it, and so on until it comes to its end
MOMENTS = '''
import os, signal, sys
from pathlib import Path
from carvana_unet import long_runs
from carvana_unet.long_runs import Figure
options = {options}

def run(output, moment, resume):
    "Train in a child, which kills itself at the `moment`th of these moments; gives its status"
    if child := os.fork(): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [moment]
    def maybe_die():
        if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
    def deadly(function):
        def between(*args, **kwargs):
            maybe_die()
            function(*args, **kwargs)
            maybe_die()
        return between
    os.replace, Path.unlink, Figure.savefig = deadly(os.replace), deadly(Path.unlink), deadly(Figure.savefig)
    long_runs.train(['studio'], output, resume=resume, **options)
    os._exit(0)

moment, killed = 0, -signal.SIGKILL
while killed:
    name = f'moment_{moment}.pth'
    killed = run(name, moment, False)
    resumed, made = run(name, -1, True), os.stat(name).st_mtime_ns
    print('ended', killed, resumed, run(name, -1, True), os.stat(name).st_mtime_ns == made, flush=True)
    moment += 1
'''


def test_killed_at_every_file(folder):
    "Killed before and after each file is put in place or deleted: `--resume` comes to the same end, and once more changes nothing; two batches make a step, and one is left over"
    (folder/'moments.py').write_text(MOMENTS.replace('{options}', repr({**OPTIONS, 'epochs': 2, 'accumulate': 2})))
    env = {**os.environ, 'XDG_CACHE_HOME': str(folder/'cache'), 'OMP_NUM_THREADS': '1'}
    ended = subprocess.run([sys.executable, 'moments.py'], cwd=folder, env=env, text=True, capture_output=True, timeout=900)
    lines = [line for line in ended.stdout.splitlines() if line.startswith('ended')]
    assert len(lines) > 20 and lines == ['ended -9 0 0 True'] * (len(lines) - 1) + ['ended 0 0 0 True'], ended.stdout + ended.stderr
    for moment in range(len(lines)):
        same_model(folder/f'moment_{len(lines) - 1}.pth', folder/f'moment_{moment}.pth')  # the last one was never killed
        assert not (folder/f'moment_{moment}.state').exists()


def test_interrupted(folder):
    "Ctrl-C saves, says how to go on, and the training goes on"
    process = start(folder, 'interrupted.pth')
    wait_for(folder/'interrupted.state', process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert 'resume with the same command and --resume' in err
    assert process.returncode != 0 and (folder/'interrupted.state').exists()
    again = start(folder, 'interrupted.pth')
    _, err = again.communicate(timeout=300)
    assert again.returncode and 'not finished; resume it with --resume' in err
    assert start(folder, 'interrupted.pth', '--resume').wait(300) == 0
    same_model(folder/'whole.pth', folder/'interrupted.pth')


LOSSES = '''
import sys
from fastai.basics import Callback
from carvana_unet import long_runs, training

class Losses(Callback):
    "Loss of every training batch, as `rank number loss`"
    order = 95
    def after_batch(self):
        if self.training:
            dl = self.dls.train
            with open(f'{sys.argv[1]}.{dl.rank}', 'a') as f: print(self.iter * dl.world + dl.rank, float(self.loss), file=f)

old = long_runs.prepare
def prepare(*args, **kwargs):
    learn, ck = old(*args, **kwargs)
    learn.add_cb(Losses())
    return learn, ck
long_runs.prepare = prepare
training.precision = lambda device: []  # float32: what is left is the order of additions
long_runs.train(['studio'], f'{sys.argv[1]}.pth', accumulate=int(sys.argv[2]), **{options})
'''


def losses(folder: Path, name: str) -> dict:
    "Loss by number of the batch, from the files of all processes"
    lines = [line.split() for file in folder.glob(f'{name}.[01]') for line in file.read_text().splitlines()]
    return {int(number): float(loss) for number, loss in lines}


def test_two_processes_train_as_one(folder):
    "Two processes share the batches; one that adds up the gradients of two batches has the same losses"
    options = {**OPTIONS, 'epochs': 1, 'batch_size': 3}
    (folder/'losses.py').write_text(LOSSES.replace('{options}', repr(options)))
    env = {**os.environ, 'XDG_CACHE_HOME': str(folder/'cache'), 'OMP_NUM_THREADS': '1'}
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', 'losses.py', 'two', '1']
    subprocess.run(run, cwd=folder, env=env, check=True, timeout=300, capture_output=True)
    subprocess.run([sys.executable, 'losses.py', 'one', '2'], cwd=folder, env=env, check=True, timeout=300, capture_output=True)
    one, two = losses(folder, 'one'), losses(folder, 'two')
    assert len(two) >= 6 and two.keys() <= one.keys()
    assert [two[n] for n in sorted(two)] == pytest.approx([one[n] for n in sorted(two)], rel=1e-5)
    a, b = (load_checkpoint(folder/f'{name}.pth').weights for name in ('one', 'two'))
    learnt = [k for k in a if k.endswith(('.weight', '.bias'))]  # running statistics see other batches
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-3) for k in learnt)


def test_out_of_memory_halves_the_batch(folder, tmp_path, monkeypatch, capsys):
    "Batches are halved until they fit, and their gradients added up to the same step"
    from carvana_unet import long_runs
    from carvana_unet.unet import UNet
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    forward, sizes = UNet.forward, []

    def little_memory(self, x):
        if x.is_meta: return forward(self, x)
        sizes.append(len(x))
        if self.training and len(x) > 2: raise torch.OutOfMemoryError('CUDA out of memory')
        return forward(self, x)

    monkeypatch.setattr(UNet, 'forward', little_memory)
    long_runs.train([folder/'studio'], tmp_path/'small.pth', **{**OPTIONS, 'epochs': 1, 'batch_size': 8})
    assert 'out of memory: continuing with batches of 2, 4 to a step' in capsys.readouterr().out
    assert sizes[:3] == [8, 4, 2] and load_checkpoint(tmp_path/'small.pth').score['dice'] >= 0


def test_out_of_memory_and_then_interrupted(folder, tmp_path, monkeypatch, capsys):
    "The same command resumes with the batches that fit, and comes to the same weights as without the interruption"
    from carvana_unet import long_runs
    from carvana_unet.unet import UNet
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    forward, steps, interrupt = UNet.forward, [], []

    def less_memory_later(self, x):
        if x.is_meta: return forward(self, x)
        if self.training: steps.append(len(x))
        if self.training and len(steps) > 7 and len(x) > 2: raise torch.OutOfMemoryError('CUDA out of memory')
        if len(steps) == 13 and self.training and interrupt: os.kill(os.getpid(), signal.SIGINT)
        return forward(self, x)

    monkeypatch.setattr(UNet, 'forward', less_memory_later)
    monkeypatch.setattr(long_runs.KeepState.__init__, '__defaults__', (None, 1e9))  # written when it is stopped, and after an epoch
    options = {**OPTIONS, 'epochs': 2, 'batch_size': 4}  # 8 batches an epoch
    long_runs.train([folder/'studio'], tmp_path/'undisturbed.pth', **options)
    steps.clear()
    interrupt.append(True)
    with pytest.raises(long_runs.Stopped): long_runs.train([folder/'studio'], tmp_path/'small.pth', **options)
    long_runs.train([folder/'studio'], tmp_path/'small.pth', resume=True, **options)
    assert capsys.readouterr().out.count('out of memory') == 2  # once in each training
    same_model(tmp_path/'undisturbed.pth', tmp_path/'small.pth')


def test_nothing_is_lost_when_a_number_is_not_one(folder, tmp_path, monkeypatch):
    "The photos of the batch are named, what was learnt before is kept, and training can go on"
    from carvana_unet import long_runs
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    forward, losses = long_runs.BCEDice.forward, []

    def once(self, logits, target):
        losses.append(forward(self, logits, target))
        return losses[-1] * (float('nan') if len(losses) == 4 else 1)

    monkeypatch.setattr(long_runs.BCEDice, 'forward', once)
    monkeypatch.setattr(long_runs.KeepState.__init__, '__defaults__', (None, 0))  # written after every step
    with pytest.raises(long_runs.TrainingError, match='batch 4 is not finite') as caught:
        long_runs.train([folder/'studio'], tmp_path/'nan.pth', **OPTIONS)
    named = {name.strip() for name in str(caught.value).partition('(')[2].partition(')')[0].split(',')}
    assert named and all((folder/'studio'/'train'/name).exists() for name in named)
    state = torch.load(tmp_path/'nan.state', weights_only=True)
    assert state['place'] == [0, 3] and all(x.isfinite().all() for x in state['model'].values())
    assert len(long_runs.train([folder/'studio'], tmp_path/'nan.pth', resume=True, **OPTIONS).recipe['curve']) == 3


def test_a_full_disk_leaves_what_was_there(folder):
    "Neither the state nor the model is replaced by half a file"
    (folder/'full.py').write_text('import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1))\n' + (folder/'train.py').read_text())
    before = (folder/'whole.pth').read_bytes()
    (folder/'full.pth').write_bytes(before)
    env = {**os.environ, 'XDG_CACHE_HOME': str(folder/'cache')}
    full = subprocess.run([sys.executable, 'full.py', 'full.pth'], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert full.returncode and 'File too large' in full.stderr
    assert (folder/'full.pth').read_bytes() == before and not list(folder.glob('.full*'))


def test_tensorboard(folder, tmp_path, monkeypatch):
    "Losses and rates of a real training are in its logs"
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from carvana_unet import long_runs
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    long_runs.train([folder/'studio'], tmp_path/'seen.pth', tensorboard=tmp_path/'logs', **{**OPTIONS, 'epochs': 1})
    logs = EventAccumulator(str(tmp_path/'logs')).Reload()
    assert {'train_loss', 'lr_0', 'dice'} <= set(logs.Tags()['scalars'])


def test_pictures_beside_the_model(folder):
    "The curve and the worst photos, drawn while it runs"
    for kind in ('curve', 'worst'): assert (folder/f'whole_{kind}.png').stat().st_size > 1000


def test_a_bad_folder_is_refused_before_an_hour_is_spent(tmp_path):
    "A mask of another size than its photo, found by looking at a few files"
    from PIL import Image
    from carvana_unet.carvana import CarvanaError
    from carvana_unet.long_runs import prepare
    write_studio(tmp_path/'bad', seeds=range(10), views=(2,), size=(64, 96))
    for mask in (tmp_path/'bad'/'train_masks').iterdir(): Image.open(mask).resize((50, 50)).save(mask)
    with pytest.raises(CarvanaError, match='carvana-doctor'): prepare([tmp_path/'bad'], device='cpu')


def test_a_name_that_another_file_takes(folder, tmp_path, monkeypatch, capsys):
    "An output that is the state's, a picture's or the start's is refused before anything is read"
    from carvana_unet.train_command import carvana_train
    from carvana_unet.long_runs import TrainingError, train
    monkeypatch.chdir(folder)
    for name in ('x.state', 'x.STATE', 'x_curve.png', 'x_worst.png', 'scores.csv'):
        with pytest.raises(TrainingError, match='choose one such as'): train('studio', tmp_path/name, **OPTIONS)
        with pytest.raises(SystemExit) as ended: carvana_train(['studio', '-o', str(tmp_path/name)])
        assert ended.value.code and 'choose one such as' in capsys.readouterr().err + str(ended.value.code)
    with pytest.raises(TrainingError, match='--load'): train('studio', 'whole.pth', load='whole.pth', **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_resume_does_not_replace_the_model_of_another_training(folder, tmp_path, monkeypatch):
    from carvana_unet import long_runs
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    model = (tmp_path/'other.pth')
    model.write_bytes((folder/'whole.pth').read_bytes())
    with pytest.raises(long_runs.TrainingError, match='is not of this training'):
        long_runs.train(folder/'studio', model, resume=True, **{**OPTIONS, 'epochs': 7})
    assert model.read_bytes() == (folder/'whole.pth').read_bytes()


def test_a_state_without_its_best_epoch(folder, tmp_path, monkeypatch):
    "A restart says that the best epoch so far is gone, or that the state is damaged"
    from carvana_unet import long_runs
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    after, options = long_runs.KeepState.after_epoch, {**OPTIONS, 'epochs': 2}

    def stop(self):
        after(self)
        raise long_runs.Stopped('stopped')

    with monkeypatch.context() as patch, pytest.raises(long_runs.Stopped):
        patch.setattr(long_runs.KeepState, 'after_epoch', stop)
        long_runs.train(folder/'studio', tmp_path/'lost.pth', **options)
    (tmp_path/'lost.pth').unlink()
    with pytest.raises(long_runs.TrainingError, match='the best epoch so far'): long_runs.train(folder/'studio', tmp_path/'lost.pth', resume=True, **options)
    for damaged in (b'', b'no state', (folder/'whole.pth').read_bytes()):
        (tmp_path/'lost.state').write_bytes(damaged)
        with pytest.raises(long_runs.TrainingError, match='is damaged'): long_runs.train(folder/'studio', tmp_path/'lost.pth', resume=True, **options)


@pytest.mark.parametrize('change, said', [
    (dict(batch_size=100_000), 'one step takes 100000 squares, and there are 30 to train on; lower --batch-size'),
    (dict(batch_size=16, accumulate=2), 'lower --batch-size or --accumulate'),
    (dict(batch_size=1, crop=4), '--crop 5, --batch-size 2, --depth 1'),
    (dict(batch_size=1, crop=32, depth=5), '--batch-size 2, --depth 4'),
    (dict(width=100_000), 'width is 100000'),
    (dict(width=1024, depth=10), 'lower --width or --depth'),
    (dict(depth=60), 'depth is 60'),
    (dict(arch='efficientnet_lite0'), 'has no depth'),
    (dict(scale=1e-9), 'scale'), (dict(scale=0.), 'scale'), (dict(scale=7.), 'scale'), (dict(scale=float('nan')), 'scale'),
    (dict(seed=10**30), 'seed'), (dict(crop=-3), 'crop'), (dict(batch_size=0), 'batch size'), (dict(accumulate=0), 'accumulate')])
def test_settings_that_cannot_be_trained_with(folder, monkeypatch, change, said):
    "One line before training starts, with the option to change"
    from carvana_unet.long_runs import prepare
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    with pytest.raises(ValueError, match=said) as caught: prepare(folder/'studio', **OPTIONS_OF_PREPARE | change)
    assert '\n' not in str(caught.value)


def test_photos_without_a_car(tmp_path, monkeypatch):
    "Empty masks are a fault, and trained on when that is asked for; two cars are enough"
    from carvana_unet.carvana import CarvanaError, pairs
    from carvana_unet.photos import read_mask, write_mask
    from carvana_unet.long_runs import prepare, train
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    write_studio(tmp_path/'studio', seeds=range(2), views=(2, 7), size=(64, 96))
    for pair in pairs(tmp_path/'studio')[::2]:
        write_mask(read_mask(pair.mask) & False, pair.mask.with_suffix('.png'))
        pair.mask.unlink()
    with pytest.raises(CarvanaError, match='empty|no car|without'): prepare(tmp_path/'studio', **OPTIONS_OF_PREPARE)
    ck = train(tmp_path/'studio', tmp_path/'empty.pth', allow_empty=True, **{**OPTIONS, 'epochs': 1})
    assert len(ck.cars) == len(ck.held_out) == 1 and 0 <= ck.score['dice'] <= 1


def test_dropout_resumes_as_well(folder, tmp_path, monkeypatch):
    "What a network draws at random depends on the number of the batch, not on what ran before"
    from carvana_unet import long_runs
    from carvana_unet.unet import UNet
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    forward, stop = UNet.forward, []

    def with_dropout(self, x):
        if stop and self.training and not x.is_meta and stop.pop() == 1: os.kill(os.getpid(), signal.SIGINT)
        return torch.nn.functional.dropout(forward(self, x), 0.5, self.training)

    monkeypatch.setattr(UNet, 'forward', with_dropout)
    options = {**OPTIONS, 'epochs': 1}
    long_runs.train(folder/'studio', tmp_path/'undisturbed.pth', **options)
    stop[:] = [1, 0, 0, 0]
    with pytest.raises(long_runs.Stopped): long_runs.train(folder/'studio', tmp_path/'dropout.pth', **options)
    long_runs.train(folder/'studio', tmp_path/'dropout.pth', resume=True, **options)
    same_model(tmp_path/'undisturbed.pth', tmp_path/'dropout.pth')


def test_a_restart_takes_settings_in_any_form(folder, tmp_path, monkeypatch):
    "`data/` is `data`, a default is as good as no option; a finished training stays finished"
    from carvana_unet import long_runs
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    monkeypatch.chdir(folder)
    options = {**OPTIONS, 'epochs': 1}
    ck = long_runs.train('studio', tmp_path/'forms.pth', **options)
    again = long_runs.train(['studio/'], tmp_path/'forms.pth', resume=True, augment=['flip', 'light'], scale=None, lr=.003, **options)
    assert again.recipe['curve'] == ck.recipe['curve']


def test_the_table_shows_the_epochs_before_a_restart(folder, tmp_path, monkeypatch, capsys):
    from carvana_unet import long_runs
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder/'cache'))
    after = long_runs.KeepState.after_epoch

    def stop(self):
        after(self)
        raise long_runs.Stopped('stopped')

    with monkeypatch.context() as patch, pytest.raises(long_runs.Stopped):
        patch.setattr(long_runs.KeepState, 'after_epoch', stop)
        long_runs.train(folder/'studio', tmp_path/'table.pth', **OPTIONS)
    capsys.readouterr()
    ck = long_runs.train(folder/'studio', tmp_path/'table.pth', resume=True, **OPTIONS)
    shown = capsys.readouterr().out
    assert all(f"{epoch['dice']:.6f}" in shown for epoch in ck.recipe['curve'])


def test_worker_processes_make_the_same_batches(folder, tmp_path, monkeypatch):
    "Workers make batches ahead on machines whose GPU does not hold the photos; augmentation and order come from the seed alone"
    from carvana_unet.batches import dataloaders
    from carvana_unet.carvana import pairs, split_cars
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    train, valid = split_cars(pairs(folder/'studio'), 1/3)
    alone = dataloaders(train, valid, crop=24, bs=2, device='cpu', seed=3, augment=('flip', 'light', 'hue')).train
    ahead = alone.new(num_workers=2)
    for name in ('seed', 'times'): setattr(ahead, name, getattr(alone, name))
    for epoch, start in ((0, 0), (1, 0), (1, 3)):
        for dl in (alone, ahead): dl.epoch, dl.start = epoch, start
        one, two = list(alone), list(ahead)
        assert len(one) == len(two) > 3
        assert all(torch.equal(a, b) for pair in zip(one, two) for a, b in zip(*pair))
    assert not torch.equal(one[0][0], one[1][0])


def test_loaded_weights_keep_their_normalisation(folder, tmp_path):
    "Weights of Pytorch-UNet are used to photos in 0..1, and training resumes with those"
    from fastai.data.transforms import Normalize

    from carvana_unet.checkpoints import BLOCKS, pytorch_unet_name
    from carvana_unet.long_runs import prepare
    from carvana_unet.unet import PytorchUNet
    net = PytorchUNet(width=4, depth=2, n_classes=1)
    torch.save({pytorch_unet_name(k, list(BLOCKS)[-1]): v for k, v in net.state_dict().items()}, tmp_path/'theirs.pth')
    learn, ck = prepare(folder/'studio', batch_size=2, crop=32, device='cpu', load=tmp_path/'theirs.pth')
    assert (ck.mean, ck.std) == ((0, 0, 0), (1, 1, 1))
    normalize, = (t for t in learn.dls.after_batch.fs if isinstance(t, Normalize))
    assert not normalize.mean.any() and (normalize.std == 1).all()
