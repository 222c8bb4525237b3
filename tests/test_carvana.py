"The shipped model on real photos, where there are some: cars that it was not trained on"
import os
from pathlib import Path
from statistics import fmean

import pytest

from carvana_unet import Predictor
from carvana_unet.carvana import pairs
from carvana_unet.dice import dice
from carvana_unet.photos import read_mask

DATA = os.environ.get('CARVANA_PATH')
CARS = Path(__file__).parents[1]/'benchmarks/valid_cars.txt'
needs_data = pytest.mark.skipif(not DATA, reason='CARVANA_PATH is not set')


@pytest.fixture(scope='module')
def held_out():
    "Photos and masks of the validation cars"
    cars = CARS.read_text().split()
    return [p for p in pairs(DATA) if p.car in cars]


def test_the_model_was_not_trained_on_the_validation_cars():
    cars, known = CARS.read_text().split(), set(Predictor().checkpoint.cars)
    assert len(cars) == 20 and len(known) > 250 and not known & set(cars)


@needs_data
def test_the_data_has_the_same_validation_cars(held_out):
    assert len({p.car for p in held_out}) == 20


@needs_data
def test_dice_on_one_view_of_each_validation_car(held_out):
    "16 views and 20 cars: car after car from the next side, so that every side is there"
    cars = sorted({p.car for p in held_out})
    chosen = [p for p in held_out if p.view == cars.index(p.car) % 16 + 1]
    assert len(chosen) == len(cars)
    predictor = Predictor(device='cpu')
    assert fmean(dice(predictor.mask(p.photo), read_mask(p.mask)) for p in chosen) > .99
