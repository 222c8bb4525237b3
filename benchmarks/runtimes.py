"""The network alone, under every runtime that could be had: which one should `Predictor` use?

    pip install onnx onnxscript onnxruntime     # without them, that row is left out
    python benchmarks/runtimes.py [--rounds 20] [-o benchmarks/results/runtimes.json]

The shipped model on a studio photo at its scale, on the CPU, from normalised pixels to the probability. The runtimes take
turns, so that whatever else the machine does hits all of them. Beside the median: seconds until the first answer, on top
of loading the model, and the share of pixels on another side of one half than plain float32 has them."""
import argparse, datetime, json, os, platform, shlex, sys, tempfile, time
from pathlib import Path
from statistics import median

import torch

from carvana_unet.engines import fold_batchnorm
from carvana_unet.prediction import Predictor
from carvana_unet.squares import shrink
from carvana_unet.unet import has_bf16
from carvana_unet.studio import studio_photo


def pixels() -> torch.Tensor:   # float32 (1, 3, h, w)
    "A studio photo as the network sees it"
    predictor = Predictor(device='cpu')
    ck, small = predictor.checkpoint, torch.from_numpy(shrink(studio_photo(10_001, 2)[0], predictor.scale))
    return ((small / 255 - torch.tensor(ck.mean)) / torch.tensor(ck.std)).permute(2, 0, 1)[None]


def eager(x, dtype=torch.float32, last=False, folded=False, compiled=False):
    "A function of no arguments that gives the probability"
    net = Predictor(device='cpu').checkpoint.net().eval()
    if folded: net = fold_batchnorm(net)
    if last: net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    net, x = net.to(dtype), x.to(dtype)
    if compiled: net = torch.compile(net)
    return lambda: net(x).float().sigmoid()


def onnx(x):
    "The same under ONNX Runtime"
    import onnxruntime
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(fold_batchnorm(Predictor(device='cpu').checkpoint.net().eval()), (x,), f'{folder}/net.onnx', input_names=['x'], dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(f'{folder}/net.onnx', options, providers=['CPUExecutionProvider'])
    values = {'x': x.numpy()}
    return lambda: torch.from_numpy(session.run(None, values)[0]).sigmoid()


RUNTIMES = {
    'PyTorch, float32': eager,
    'folded, channels_last': lambda x: eager(x, last=True, folded=True),
    'and bfloat16': lambda x: eager(x, torch.bfloat16, last=True, folded=True),
    'and torch.compile': lambda x: eager(x, torch.bfloat16, last=True, folded=True, compiled=True),
    'ONNX Runtime, float32': onnx}


@torch.inference_mode()
def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=20)
    p.add_argument('-o', '--output', type=Path, help='write the numbers as JSON here')
    args = p.parse_args()
    x, ready, rows, reference = pixels(), {}, {}, None
    for name, make in RUNTIMES.items():
        if 'bfloat16' in name and not has_bf16(torch.device('cpu')): continue
        start = time.perf_counter()
        try: ready[name] = make(x)
        except ModuleNotFoundError as e: print(f'{name}: left out, {e.name} is not installed', file=sys.stderr); continue
        found = ready[name]()
        rows[name] = dict(name=name, first=time.perf_counter() - start, times=[])
        reference = found if reference is None else reference
        rows[name]['differs'] = ((found > .5) != (reference > .5)).float().mean().item()
    for _ in range(args.rounds):
        for name, run in ready.items():
            start = time.perf_counter()
            run()
            rows[name]['times'].append(time.perf_counter() - start)
    for row in rows.values(): row['seconds'] = median(row.pop('times'))
    for row in rows.values(): print(f"{row['name']:24} {row['seconds']:.3f} s, the first after {row['first']:.1f} s, {row['differs']:.1e} of the pixels differ")
    try: model = next(line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name'))
    except (OSError, StopIteration): model = platform.processor()
    found = dict(date=f'{datetime.date.today()}', machine=f'{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}', data=f'a studio photo at {x.shape[-1]}x{x.shape[-2]}',
                 command='python benchmarks/runtimes.py ' + shlex.join(sys.argv[1:]), torch=torch.__version__, rows=list(rows.values()))
    if args.output: args.output.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
