"""Runs notebooks, `#| slow` cells included, as other processors would compute them, and prints which pass.

oneDNN takes the widest vector instructions that a processor has, and a result in float32 or bfloat16 depends a little on
them and on the number of threads. An assertion in a notebook has to hold with all of them.

    python benchmarks/instruction_sets.py nbs/10_prediction.ipynb --isa AVX2 --threads 1
    python benchmarks/instruction_sets.py            # every notebook, 4 instruction sets, 1 and 2 threads: some hours"""
import argparse, os, re, subprocess, sys, time
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import nbglob

ROOT = Path(__file__).resolve().parent.parent
ISAS = 'AVX2', 'AVX512_CORE', 'AVX512_CORE_BF16', 'own'     # as ONEDNN_MAX_CPU_ISA names them; own: the processor's


def run(notebook, isa, threads):
    "Status and seconds of a notebook, with its error if it fails"
    env = os.environ | dict(OMP_NUM_THREADS=str(threads), MPLBACKEND='agg')
    if isa != 'own': env['ONEDNN_MAX_CPU_ISA'] = isa
    start = time.time()
    program = Path(sys.executable).with_name('nbdev_test')
    ended = subprocess.run([program, '--path', notebook, '--flags', 'slow', '--n_workers', '0'], cwd=ROOT, env=env, capture_output=True, text=True)
    found = re.findall(r'^(?:While Executing Cell.*|\w*(?:Error|Exception|Stopped)\b.*|\s+assert .*)', ended.stdout + ended.stderr, re.MULTILINE)
    return f'{"failed" if ended.returncode else "passed"}, {time.time() - start:.0f} s', ' '.join(map(str.strip, found)) or 'no reason given' if ended.returncode else ''


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', metavar='NOTEBOOK', type=Path, nargs='*', help='default: all of them')
    p.add_argument('--isa', choices=ISAS, nargs='+', default=ISAS, help='default: all of them')
    p.add_argument('--threads', type=int, nargs='+', default=(1, 2), help='default: 1 2')
    args = p.parse_args()
    settings = [(isa, threads) for isa in args.isa for threads in args.threads]
    titles = [f'{isa}, {threads} thread{"s" * (threads > 1)}' for isa, threads in settings]
    print(f'| notebook | {" | ".join(titles)} |\n|---|{"---|" * len(settings)}', flush=True)
    errors = []
    for notebook in args.notebooks or sorted(nbglob(get_config(path=ROOT).path('nbs_path'), as_path=True)):
        print(f'| {notebook.stem} ', end='', flush=True)
        for (isa, threads), title in zip(settings, titles):
            status, error = run(notebook.resolve(), isa, threads)
            print(f'| {status} ', end='', flush=True)
            if error: errors.append(f'{notebook.stem}, {title}: {error}')
            if error: print(errors[-1], file=sys.stderr, flush=True)
        print('|', flush=True)
    sys.exit(bool(errors))


if __name__ == '__main__': main()
