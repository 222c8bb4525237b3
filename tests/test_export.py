"Exported networks: the one that the package ships, and prediction where PyTorch is not installed"
import subprocess, sys

import numpy as np
import pytest
import torch
from PIL import Image

from carvana_unet.checkpoints import Checkpoint, find_model, load_checkpoint
from carvana_unet.engines import OnnxEngine, TorchEngine
from carvana_unet.export import describe, export_onnx
from carvana_unet.prediction import Predictor
from carvana_unet.studio import studio_photo
from carvana_unet.unet import UNet

BLOCK = '''
import importlib.abc, importlib.util, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Block())
installed = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == 'torch' else installed(name, *more)
'''


def without_torch(code, *words, cwd):
    "Run Python code where PyTorch cannot be imported"
    return subprocess.run([sys.executable, '-c', BLOCK + code, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photo')/'car.png'
    Image.fromarray(studio_photo(10_001, 2, size=(640, 959))[0]).save(path)
    return path


def test_the_shipped_file_is_the_shipped_checkpoint():
    ck, engine = load_checkpoint(find_model('MODEL.pth')), OnnxEngine(find_model('MODEL.onnx'))
    said = engine.session.get_modelmeta().custom_metadata_map
    assert said == describe(ck), 'MODEL.onnx is older than MODEL.pth: write it again with carvana-export'
    pixels = studio_photo(10_001, 2, size=(640, 959))[0]
    predictor = Predictor(ck, device='cpu')
    predictor.engine = TorchEngine(ck, 'cpu', torch.float32)
    assert np.abs(engine(pixels) - predictor.engine(pixels)).max() < 1e-4
    resized, = engine.session.run(['probability'], dict(photo=pixels))  # by the graph itself
    assert np.abs(resized - predictor.probability(pixels)).max() < 1e-4


@pytest.mark.parametrize('options', [{}, dict(tta=True, squares=True), dict(max_memory=.2)], ids=['whole', 'squares', 'tiles'])
@pytest.mark.parametrize('classes', [['background', 'car'], ['background', 'paint', 'glass']], ids=['car', 'classes'])
def test_both_engines_give_the_same_masks(options, classes, photo, tmp_path):
    torch.manual_seed(1)
    net = UNet(n_classes=len(classes) if len(classes) > 2 else 1, width=8, depth=3)
    ck = Checkpoint({k: v.half().float() if v.is_floating_point() and v.ndim > 1 else v for k, v in net.state_dict().items()}, net.arch, scale=1., classes=classes)
    light = Predictor(export_onnx(ck, tmp_path/'net.onnx'), **options)
    plain = Predictor(ck, device='cpu', **options)
    plain.engine = TorchEngine(ck, 'cpu', torch.float32)
    a, b = light.predict(photo), plain.predict(photo)
    assert a.small.shape == b.small.shape and np.abs(a.small - b.small).max() < 1e-4
    assert (a.classes == b.classes).mean() > .999 and a.uncertainty.keys() == b.uncertainty.keys()


def test_prediction_without_torch(photo, tmp_path):
    code = "import sys; from carvana_unet.predict_command import carvana_predict; carvana_predict(sys.argv[1:]); assert 'torch' not in sys.modules"
    result = without_torch(code, '-i', photo, '-o', 'car_mask.png', cwd=tmp_path)
    assert result.returncode == 0 and '% car' in result.stdout, result.stderr
    mask = np.array(Image.open(tmp_path/'car_mask.png')) > 0
    assert (mask == Predictor(device='cpu').mask(photo)).mean() > .999


def test_a_checkpoint_without_torch_is_one_line(photo, tmp_path):
    code = "import sys; from carvana_unet.predict_command import carvana_predict; carvana_predict(sys.argv[1:])"
    result = without_torch(code, '-i', photo, '-m', 'mine.pth', cwd=tmp_path)
    assert result.returncode and len(result.stderr.splitlines()) == 1 and 'mine.pth: needs PyTorch' in result.stderr


def test_a_session_is_opened_again_in_another_process(photo, tmp_path):
    code = '''
import multiprocessing, sys
from carvana_unet import Predictor
if __name__ == '__main__':
    here = Predictor('MODEL.onnx')
    mask = here.mask(sys.argv[1])
    with multiprocessing.get_context('fork').Pool(1) as pool: assert (pool.apply(here.mask, (sys.argv[1],)) == mask).all()
    print('done')
'''
    result = without_torch(code, photo, cwd=tmp_path)
    assert result.stdout == 'done\n', result.stderr
