"Train on two plain folders of photos and masks, export, load, predict: python tests/two_folders.py PHOTOS MASKS"
import sys
from pathlib import Path
from fastai.vision.all import load_learner
from carvana_unet.batches import CarvanaDataLoaders
from carvana_unet.training import carvana_learner

photos, masks = map(Path, sys.argv[1:])
dls = CarvanaDataLoaders.from_pairs(photos, masks, group=lambda photo: photo.stem.rpartition(' ')[0], scale=1/2, bs=4)
learn = carvana_learner(dls, 'efficientnet_lite0')
learn.fit_one_cycle(3, slice(3e-3, 1e-2))
learn.export('car.pkl')
learn.save_checkpoint('MINE.pth')
mask, _, probability = load_learner('car.pkl').predict(next(photos.iterdir()))
print(f'{float(mask.float().mean()):.0%} of the photo is car')
