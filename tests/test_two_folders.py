"fastai's way from two folders of any names to a model, as a user writes it, and the GPU benchmark's dry run"
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from carvana_unet.carvana import pairs
from carvana_unet.photos import read_mask
from carvana_unet.studio import write_studio

HERE = Path(__file__).parent


def test_train_export_load_predict(tmp_path):
    "A script of 15 lines trains, exports, loads and predicts; the checkpoint that it writes is the commands' as well"
    from carvana_unet import Predictor
    from carvana_unet.dice import dice
    for folder in ('photos', 'masks'): (tmp_path/folder).mkdir()
    drawn = pairs(write_studio(tmp_path/'drawn', seeds=range(6), views=(2, 7, 12), size=(160, 239)))
    for p in drawn:
        shutil.copy(p.photo, tmp_path/'photos'/f'car {p.car} {p.view}.jpg')
        shutil.copy(p.mask, tmp_path/'masks'/f'car {p.car} {p.view}_mask.gif')
    env = os.environ | {'XDG_CACHE_HOME': str(tmp_path), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    script = HERE/'two_folders.py'
    assert len([line for line in script.read_text().splitlines() if line.strip()]) <= 15
    run = subprocess.run([sys.executable, script, 'photos', 'masks'], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert 5 < int(re.search(r'(\d+)% of the photo is car', run.stdout)[1]) < 60
    predictor = Predictor(tmp_path/'MINE.pth', device='cpu')
    assert min(dice(predictor.mask(p.photo), read_mask(p.mask)) for p in drawn) > 0.5


def test_gpu_benchmark_dry_run():
    "Every piece runs on the CPU and gives figures; nothing is written"
    results = HERE.parent/'benchmarks'/'results'/'gpu.json'
    before = results.read_bytes() if results.exists() else None
    run = subprocess.run([sys.executable, HERE.parent/'benchmarks'/'gpu.py', '--dry-run'], env=os.environ | {'OMP_NUM_THREADS': '1'},
                         capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    found = dict(re.findall(r'^(\w+) (\{.*?^\})', run.stdout, re.M | re.S))
    found = {name: json.loads(text) for name, text in found.items()}
    assert found.keys() == {'training', 'memory', 'prediction', 'minutes'}
    assert all(found['training'][mode]['photos_a_second'] > 0 for mode in ('float32', 'bfloat16', 'compiled'))
    assert found['memory']['batch'] == 2 and found['prediction']['photos'] == 2 and found['minutes']['minutes'] >= 0
    assert before == (results.read_bytes() if results.exists() else None)
