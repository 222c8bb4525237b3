"What refinement promises whatever the photo: hypothesis draws photos, probabilities and parameters"
import re
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from carvana_unet.crf import CRF, GATED, ORIGINAL, CRFError, fit_crf, gate, refine, stored_crf
from carvana_unet.dice import dice

pytest.importorskip('pydensecrf', reason='pydensecrf is not installed')
some = settings(deadline=None, max_examples=40)


def scene(seed, h, w, blur):
    "A disc on a background, noisy, with a blurred probability that is a little off; its true mask"
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    distance = np.hypot(y - rng.uniform(0, h), x - rng.uniform(0, w))
    true = distance < rng.uniform(1, max(h, w))
    colours = rng.integers(0, 256, (2, 3))
    photo = (colours[true.astype(int)] + rng.normal(0, 8, (h, w, 3))).clip(0, 255).astype(np.uint8)
    return photo, gaussian_filter(true.astype(np.float32), blur).clip(0, 1), true


scenes = st.builds(scene, st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 90), st.floats(.3, 6))
gates = st.builds(lambda low, radius, contrast, scale: replace(GATED, low=low, high=1 - low, radius=radius, contrast=contrast, scale=scale),
                  st.floats(0, .4), st.floats(.5, 20), st.sampled_from([0, 10, 60]), st.sampled_from([1, .5, .37]))


@some
@given(scenes, gates)
def test_a_refined_probability_is_one_of_the_same_kind(case, params):
    photo, prob, _ = case
    before = prob.copy()
    after = refine(photo, prob, params)
    assert after.shape == prob.shape and after.dtype == np.float32
    assert after.min() >= 0 and after.max() <= 1
    np.testing.assert_array_equal(prob, before)
    assert not np.shares_memory(after, prob)


@some
@given(scenes, gates)
def test_decided_pixels_stay_to_the_bit(case, params):
    photo, prob, _ = case
    changed = refine(photo, prob, params) != prob
    assert not changed[(prob < params.low) | (prob > params.high)].any()


@some
@given(scenes, gates)
def test_at_full_scale_only_the_gate_changes(case, params):
    photo, prob, _ = case
    params = replace(params, scale=1)
    allowed = gate(photo, prob, replace(params, contrast=.99 * params.contrast))  # running sums round
    assert not (refine(photo, prob, params) != prob)[~allowed].any()


@some
@given(scenes)
def test_nothing_undecided_is_nothing_changed(case):
    photo, _, true = case
    np.testing.assert_array_equal(refine(photo, true.astype(np.float32)), true)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([1, .5]))
def test_flipping_the_photo_flips_the_mask(seed, scale):
    "Nearly: the lattice on which the library filters is not symmetric"
    photo, prob, _ = scene(seed, 64, 90, 3)
    params = replace(GATED, scale=scale)
    straight, flipped = refine(photo, prob, params), refine(photo[:, ::-1], prob[:, ::-1], params)[:, ::-1]
    assert abs(straight - flipped).mean() < .01
    assert ((straight > .5) != (flipped > .5)).mean() < .02


def test_a_photo_in_colours_pulls_a_blunt_mask_to_the_edge():
    y, x = np.mgrid[:120, :160]
    true = (abs(y - 60) < 30) & (abs(x - 80) < 50)
    photo = np.where(true[..., None], [180, 30, 30], [200, 200, 210]).astype(np.uint8)
    prob = gaussian_filter(np.roll(true, (3, 4), (0, 1)).astype(np.float32), 4)
    params = CRF(low=.01, high=.99, radius=12, bilateral_compat=4, gaussian_compat=1, gaussian_sxy=3)
    assert dice(refine(photo, prob, params) > .5, true) > dice(prob > .5, true) + .02
    grey = np.full_like(photo, 128)
    np.testing.assert_array_equal(refine(grey, prob, replace(params, contrast=10)), prob)


def test_the_recipe_of_2017_is_the_librarys_own():
    from pydensecrf.densecrf import DenseCRF2D
    photo, prob, _ = scene(3, 50, 70, 4)
    p = prob.clip(1e-5, 1 - 1e-5)
    crf = DenseCRF2D(70, 50, 2)
    crf.setUnaryEnergy(-np.log(np.stack([1 - p, p])).reshape(2, -1))
    crf.addPairwiseGaussian(sxy=20, compat=3)
    crf.addPairwiseBilateral(sxy=30, srgb=20, rgbim=photo, compat=10)
    np.testing.assert_allclose(refine(photo, prob, ORIGINAL), np.array(crf.inference(5))[1].reshape(50, 70), atol=1e-3)


@pytest.mark.parametrize('wrong, message', [
    (lambda a, p: (a[..., 0], p), 'RGB'), (lambda a, p: (a / 255, p), 'uint8'), (lambda a, p: (a, p[1:]), 'float32'), (lambda a, p: (a, p > .5), 'float32'),
    (lambda a, p: (a, p + 1), 'outside'), (lambda a, p: (a, p * np.nan), 'outside'), (lambda a, p: (a[:0], p[:0]), 'RGB'), (lambda a, p: ('car.jpg', p), 'RGB')])
def test_wrong_input_gets_one_clear_line(wrong, message):
    photo, prob, _ = scene(0, 20, 30, 2)
    with pytest.raises(CRFError, match=message) as e: refine(*wrong(photo, prob))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('field, value', [('iterations', 0), ('iterations', 1.5), ('bilateral_sxy', -1), ('clip', .5), ('low', .99), ('high', 1.1), ('scale', 0),
                                          ('scale', 2), ('radius', float('nan')), ('contrast', '3'), ('gaussian_compat', None)])
def test_impossible_parameters_are_named(field, value):
    with pytest.raises(CRFError, match=field if field != 'iterations' else 'iteration'): replace(GATED, **{field: value})


def test_parameters_go_through_a_checkpoint(tmp_path):
    from carvana_unet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
    from carvana_unet.unet import UNet
    net = UNet(width=4, depth=2)
    saved = save_checkpoint(Checkpoint(net.state_dict(), net.arch, crf=asdict(GATED)), tmp_path/'M.pth')
    assert stored_crf(load_checkpoint(saved).crf) == GATED


def test_without_pydensecrf_everything_else_works():
    "A new process in which it cannot be imported"
    program = '''
import sys
sys.modules['pydensecrf'] = None
import numpy as np
from carvana_unet.crf import refine
photo, prob = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32)
assert (refine(photo, prob) == prob).all()
prob[:4] = .6
try: refine(photo, prob)
except ValueError as e: print(e)
'''
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"pydensecrf is not installed.*pip install 'carvana-unet\[crf\]'\n", done.stdout)


def test_importing_it_imports_neither_the_library_nor_fastai():
    program = "import sys, carvana_unet.crf; print(*{'pydensecrf', 'fastai', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, '-c', program], capture_output=True, text=True).stdout.strip() == ''


def test_the_fit_never_does_worse_than_its_start():
    cases = [scene(seed, 60, 80, 4) for seed in (1, 2, 3)]
    start = replace(ORIGINAL, low=.05, high=.95, radius=10)
    fit = fit_crf(cases, start, [[dict(bilateral_compat=v) for v in (0, 2, 5)], [dict(gaussian_sxy=v) for v in (1, 3)]])
    assert fit.dice.mean() >= np.mean([dice(refine(a, p, start) > .5, t) for a, p, t in cases])
    assert len(fit.tried) == len({tuple(row.items()) for row in fit.tried})


def test_the_fit_reads_one_photo_at_a_time():
    "Cases may be read as they are asked for, and are asked for once per parameter"
    class Lazy:
        passes = 0
        def __iter__(self):
            self.passes += 1
            yield scene(1, 40, 50, 3)
    lazy = Lazy()
    fit_crf(lazy, GATED, [[dict(bilateral_compat=v) for v in (0, 1, 2, 5)]])
    assert lazy.passes == 2  # without any and with the start; all four values together
