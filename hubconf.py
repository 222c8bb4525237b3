"Models for `torch.hub.load('OWNER/carvana_unet', 'carvana')`; from a clone: `torch.hub.load('.', 'carvana', source='local')`"
dependencies = ['torch', 'numpy', 'PIL', 'scipy', 'fastcore', 'tqdm']


def carvana(**options):
    "A `Predictor` with the shipped model: `.predict('car.jpg').save('car.png')`; options as `Predictor` takes them"
    from carvana_unet.prediction import Predictor
    return Predictor(**options)


def carvana_small(**options):
    "A `Predictor` with the smaller model: photos at half their size, 8-bit weights, half the time"
    return carvana(model='MODEL_small.pth', **options)


def network(model='MODEL.pth'):
    "The bare network in eval mode, (N, 3, H, W) normalised to logits (N, 1, H, W)"
    from carvana_unet.checkpoints import find_model, load_checkpoint
    return load_checkpoint(find_model(model)).net()
