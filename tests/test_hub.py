"Models from and for the hubs, offline: a local folder stands for the repository"
import json, subprocess, sys
from pathlib import Path

import pytest
import torch

from carvana_unet.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from carvana_unet.unet import UNet

pytest.importorskip('huggingface_hub')
from carvana_unet.hub import HubCheckpoint, card_text

ROOT = Path(__file__).resolve().parent.parent
NET = UNet(width=4, depth=2)
CK = Checkpoint(NET.state_dict(), NET.arch, scale=.25, cars=['a', 'b'], score=dict(dice=.5, on='2 photos'), recipe=dict(command='carvana-train x'))


def test_a_checkpoint_comes_back_with_every_field(tmp_path):
    HubCheckpoint.of(CK).save_pretrained(tmp_path/'model')
    again = HubCheckpoint.from_pretrained(tmp_path/'model')
    want = load_checkpoint(save_checkpoint(CK, tmp_path/'MODEL.pth'))
    assert isinstance(again, HubCheckpoint) and isinstance(again, Checkpoint)
    for name in vars(want):
        if name != 'weights': assert getattr(again, name) == getattr(want, name), name
    assert all(torch.equal(again.weights[k], v) for k, v in want.weights.items())
    again.save_pretrained(tmp_path/'again')  # and once more from there
    assert (tmp_path/'again/model.safetensors').read_bytes() == (tmp_path/'model/model.safetensors').read_bytes()
    assert json.loads((tmp_path/'model/config.json').read_text())['scale'] == .25


def test_the_card_says_what_the_checkpoint_holds(tmp_path):
    HubCheckpoint.of(CK).save_pretrained(tmp_path, model_card_kwargs=dict(repo_id='me/cars'))
    card = (tmp_path/'README.md').read_text()
    block, _, text = card.removeprefix('---\n').partition('\n---\n')
    assert 'library_name: carvana_unet' in block and 'pipeline_tag: image-segmentation' in block
    for words in ("from_pretrained('me/cars')", '| Scale of the photo | 0.25 |', '| Cars in training | 2 |', 'dice 0.5000, on 2 photos', 'carvana-train x'): assert words in text
    assert 'not known' in card_text(Checkpoint({}, {}))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match='model.safetensors: cannot be read'): HubCheckpoint.from_pretrained(tmp_path)
    (tmp_path/'model.safetensors').write_bytes((20).to_bytes(8, 'little') + b'{' + bytes(40))
    with pytest.raises(CheckpointError, match='is damaged'): HubCheckpoint.from_pretrained(tmp_path)


def test_push_to_hub_uploads_the_three_files(tmp_path, monkeypatch):
    import huggingface_hub
    sent = {}
    def create(self, repo_id, **options): return type('Url', (), dict(repo_id=repo_id))()
    def upload(self, **options): sent.update({p.name: p.stat().st_size for p in Path(options['folder_path']).iterdir()}, repo=options['repo_id'])
    monkeypatch.setattr(huggingface_hub.HfApi, 'create_repo', create)
    monkeypatch.setattr(huggingface_hub.HfApi, 'upload_folder', upload)
    HubCheckpoint.of(CK).push_to_hub('me/cars')
    assert set(sent) == {'repo', 'model.safetensors', 'config.json', 'README.md'} and sent['repo'] == 'me/cars'


def test_torch_hub(tmp_path):
    "In a process of its own, from another folder, as its user would"
    code = f'''
import numpy as np, torch
load = lambda *args, **options: torch.hub.load({str(ROOT)!r}, *args, source='local', **options)
photo = np.full((64, 96, 3), 128, np.uint8)
for name in ('carvana', 'carvana_small'): assert load(name, crf=False).mask(photo).shape == (64, 96)
with torch.no_grad(): assert load('network')(torch.zeros(1, 3, 64, 96)).shape == (1, 1, 64, 96)
'''
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, check=True, timeout=300)
