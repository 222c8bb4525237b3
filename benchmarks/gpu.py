"""What one GPU makes of this project's training and prediction, in pieces of at most ten minutes each.

    python benchmarks/gpu.py                            # all pieces, one after the other
    python benchmarks/gpu.py --pieces training memory   # some of them; the others' results stay in the file
    python benchmarks/gpu.py --dry-run                  # on the CPU, a few seconds each: does everything run?

training    photos a second in float32, bfloat16 and compiled, and which share that is of what convolutions reach on this card
memory      the same on 3 GB of the card: the largest batch that fits, and its speed
prediction  JPEG files to run-length encoding, photos a second, with the shipped model
minutes     until 0.9965 on validation cars, at full size (needs fastai, and the competition's data in CARVANA_PATH)

All but the last need PyTorch, NumPy, Pillow, SciPy and fastcore alone. Each piece runs in a process of its own, so that its
peak memory is its own, and is stopped after ten minutes; `minutes` resumes where its last call was stopped.
"""
import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
LIMIT = 590  # seconds a piece


def seconds(f, n: int, device) -> float:
    "Mean seconds of `n` calls, after three to warm up"
    import torch
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    for _ in range(3): f()
    wait()
    start = time.perf_counter()
    for _ in range(n): f()
    wait()
    return (time.perf_counter() - start) / n


def peak_memory(device) -> float:
    "GB: of the GPU, or of this process"
    import torch
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == 'cuda' else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def ceiling(dtype, device, dry: bool) -> float:
    "FLOP a second of a large 3x3 convolution, forward and backward"
    import torch
    n, channels, side = (1, 16, 32) if dry else (16, 256, 160)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.randn(n, channels, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    once = seconds(lambda: conv(x).sum().backward(), 2 if dry else 20, device)
    return 3 * 2 * 9 * channels**2 * n * side**2 / once


def stepper(batch: int, side: int, mode: str, device):
    "A training step on random squares, and its FLOP"
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from carvana_unet.losses import BCEDice
    from carvana_unet.unet import EncoderUNet
    net = EncoderUNet().to(device, memory_format=torch.channels_last).train()
    opt = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)
    x = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    y, loss = torch.rand(batch, side, side, device=device).round(), BCEDice()
    forward = torch.compile(net) if mode == 'compiled' else net

    def step(model=forward):
        with torch.autocast(device.type, torch.bfloat16, enabled=mode != 'float32'): logits = model(x)
        loss(logits.float(), y).backward()
        opt.step()
        opt.zero_grad()

    with FlopCounterMode(display=False) as counter: step(net)
    return step, counter.get_total_flops()


def training(device, dry: bool) -> dict:
    "Half scale, whole squares of 640 pixels, two to a photo"
    import torch
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32
    batch, side = (2, 64) if dry else (16, 640)
    found = {}
    for mode in ('float32', 'bfloat16', 'compiled'):
        top = ceiling(torch.float32 if mode == 'float32' else torch.bfloat16, device, dry)
        step, flop = stepper(batch, side, mode, device)
        once = seconds(step, 2 if dry else 30, device)
        found[mode] = dict(photos_a_second=batch / 2 / once, ceiling_TFLOPs=top / 1e12, share_of_ceiling=flop / once / top, peak_memory_GB=peak_memory(device))
    return found


def memory(device, dry: bool) -> dict:
    "The largest batch of squares of 640 pixels in 3 GB"
    import torch
    if device.type == 'cuda': torch.cuda.set_per_process_memory_fraction(min(1., 3e9 / torch.cuda.get_device_properties(device).total_memory))
    best, side = None, 64 if dry else 640
    for batch in (1, 2) if dry else (1, 2, 4, 6, 8, 12, 16):
        try: once = seconds(stepper(batch, side, 'bfloat16', device)[0], 2 if dry else 10, device)
        except torch.OutOfMemoryError: break
        best = dict(batch=batch, photos_a_second=batch / 2 / once, peak_memory_GB=peak_memory(device))
    return best or dict(error='not even one square fits into 3 GB')


def prediction(device, dry: bool) -> dict:
    "From files to the lines of a submission"
    from carvana_unet.checkpoints import find_model
    from carvana_unet.photos import list_photos
    from carvana_unet.prediction import Predictor
    from carvana_unet.studio import write_studio
    from carvana_unet.submission import encode
    with tempfile.TemporaryDirectory() as tmp:
        files = list_photos(write_studio(tmp, [1] if dry else range(4), (1,) if dry else (1, 5, 9, 13), **(dict(size=(320, 480)) if dry else {}))/'train')
        files = files * (2 if dry else 16)
        predictor = Predictor(find_model('MODEL_small.pth' if dry else 'MODEL.pth'), device=device)
        predictor.mask(files[0])
        start = time.perf_counter()
        n = sum(bool(encode(predictor.mask(file))) for file in files)
        return dict(photos_a_second=n / (time.perf_counter() - start), photos=n, peak_memory_GB=peak_memory(device))


def minutes(device, dry: bool) -> dict:
    "Wall time of a training until its best epoch reaches 0.9965 on the validation cars that choose it"
    try: from carvana_unet.long_runs import Stopped, train
    except ModuleNotFoundError as e: return dict(not_measured=f'{e.name} is not installed')
    data, tmp = os.environ.get('CARVANA_PATH'), None
    if dry:
        from carvana_unet.studio import write_studio
        tmp = tempfile.TemporaryDirectory()
        data = write_studio(Path(tmp.name)/'studio', range(3), (1, 9), size=(64, 96))
    if not data: return dict(not_measured='CARVANA_PATH names no folder with the competition\'s data')
    output = Path(tmp.name if tmp else HERE/'results')/'gpu_minutes.pth'
    how = dict(epochs=1, batch_size=2, arch='unet', width=4, depth=2, crop=32) if dry else dict(epochs=12, batch_size=16, scale=1., subpixel=2, crop=1024, lr=1e-3, boundary=3.)
    try: ck = train([str(data)], output, resume=True, device=device.type, seed=1, **how)
    except Stopped as e: return dict(unfinished=str(e))
    curve = ck.recipe['curve']
    reached = next((i + 1 for i, epoch in enumerate(curve) if epoch['dice'] >= 0.9965), None)
    return dict(minutes_to_0_9965=ck.recipe['minutes'] * reached / len(curve) if reached else None, epochs=reached, minutes=ck.recipe['minutes'], best=ck.score['dice'])


PIECES = dict(training=training, memory=memory, prediction=prediction, minutes=minutes)


def measure(name: str, dry: bool):
    "Run one piece here, and print its result"
    import torch
    if not dry and not torch.cuda.is_available(): sys.exit('PyTorch finds no GPU here; --dry-run tries everything on the CPU')
    device = torch.device('cpu' if dry else 'cuda')
    card = torch.cuda.get_device_name() if not dry else 'CPU'
    print(json.dumps(dict(PIECES[name](device, dry), card=card, torch=torch.__version__)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--pieces', nargs='+', choices=PIECES, default=list(PIECES), help='what to measure (default: all)')
    p.add_argument('--dry-run', action='store_true', help='tiny sizes on the CPU; nothing is written')
    p.add_argument('-o', '--output', type=Path, default=HERE/'results'/'gpu.json', help='results as JSON (default: %(default)s)')
    p.add_argument('--run', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.run: return measure(args.run, args.dry_run)
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name in args.pieces:
        # SIGINT first: a training then writes where it stands
        words = ['timeout', '-s', 'INT', '-k', '30', str(LIMIT), sys.executable, __file__, '--run', name, *['--dry-run'] * args.dry_run]
        ended = subprocess.run(words, capture_output=True, text=True)
        lines = ended.stdout.splitlines()
        if ended.returncode and not lines: sys.exit(f'{name}: {(ended.stderr.splitlines() or ["stopped after ten minutes"])[-1]}')
        results |= dict(command=shlex.join(['python', *sys.argv]), machine=f'{os.cpu_count()} CPU cores')
        results[name] = dict(json.loads(lines[-1]), date=time.strftime('%Y-%m-%d'))
        print(name, json.dumps(results[name], indent=1), flush=True)
        if not args.dry_run:
            args.output.parent.mkdir(exist_ok=True)
            args.output.write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__': main()
