"""The network alone, under every runtime that could be had: which one should `Predictor` use? And whole predictions: the
command with PyTorch and with ONNX Runtime, and the page in a browser.

    pip install onnx onnxscript onnxruntime playwright  # without them, their rows are left out
    python benchmarks/runtimes.py [--rounds 20] [-o benchmarks/results/runtimes.json]

The shipped model on a studio photo at its scale, on the CPU, from normalised pixels to the probability. The runtimes take
turns, so that whatever else the machine does hits all of them. Beside the median: seconds until the first answer, on top
of loading the model, and the share of pixels on another side of one half than plain float32 has them.

The command predicts one photo, then nine: the first is the cold start, from the shell to the mask, and the difference is
eight photos. The page is served on this machine and opened in headless Chromium, without a GPU; it says how long the network
took."""
import argparse, datetime, functools, http.server, json, os, platform, re, shlex, shutil, subprocess, sys, tempfile, threading, time
from pathlib import Path
from statistics import median

import torch
from PIL import Image

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


def command(model, photos, out):
    "Seconds from the shell to the masks"
    start = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name('carvana-predict'), '-m', model, '-i', *photos, '-o', out], check=True, capture_output=True)
    return time.perf_counter() - start


def page(folder, photos):
    "Seconds of each photo on the page, as it says them, in Chromium on the CPU; the first one loads the network"
    from playwright.sync_api import Error, sync_playwright
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.func.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        tab, seconds = browser.new_page(), []
        tab.goto(f'http://127.0.0.1:{server.server_port}/')
        while True:  # it loads itself again, for threads
            tab.wait_for_timeout(100)
            try:
                if tab.evaluate('crossOriginIsolated'): break
            except Error: pass
        for photo in photos:
            tab.locator('#files').set_input_files(photo)
            status = tab.locator('.status', has_text=f'{photo.name}: ')
            status.wait_for(timeout=300_000)
            seconds.append(float(re.search(r'([\d.]+) s \(WebAssembly', status.inner_text())[1]))
        browser.close()
    server.shutdown()
    return seconds


def whole(rounds):
    "A row for each way from a photo's file to its mask: the cold start, and seconds a photo"
    from carvana_unet.checkpoints import find_model, load_checkpoint
    from carvana_unet.export import export_onnx, write_page
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photos = [folder/f'{i}.jpg' for i in range(9)]
        for i, path in enumerate(photos): Image.fromarray(studio_photo(10_000 + i, 1 + i)[0]).save(path, quality=92)
        models = {'carvana-predict, PyTorch': find_model(), 'carvana-predict, ONNX Runtime': export_onnx(load_checkpoint(find_model()), folder/'MODEL.onnx')}
        times = {name: [] for name in models}
        for i in range(rounds):
            for name, model in models.items():
                one, nine = (command(model, photos[:n], folder/f'{name}_{i}_{n}') for n in (1, 9))
                times[name].append((one, (nine - one) / 8))
        rows = [dict(name=name, cold=median(one for one, _ in found), seconds=median(each for _, each in found)) for name, found in times.items()]
        if not CHROMIUM: return rows
        seconds = page(write_page(load_checkpoint(find_model()), folder/'page').parent, photos)
        return [*rows, dict(name='page in Chromium, WebAssembly', seconds=median(seconds[1:]))]


CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


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
    commands = whole(rounds=3)
    for row in commands: print(f"{row['name']:32} {row['seconds']:.2f} s a photo" + (f", {row['cold']:.1f} s from a cold start" if 'cold' in row else ''))
    try: model = next(line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name'))
    except (OSError, StopIteration): model = platform.processor()
    found = dict(date=f'{datetime.date.today()}', machine=f'{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}', data=f'a studio photo at {x.shape[-1]}x{x.shape[-2]}',
                 command='python benchmarks/runtimes.py ' + shlex.join(sys.argv[1:]), torch=torch.__version__, rows=list(rows.values()), commands=commands)
    if args.output: args.output.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
