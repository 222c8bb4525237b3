"Everything that `pyproject.toml` calls dynamic, read from `settings.ini`"
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ini = ConfigParser(delimiters=['='])
ini.read('settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
pythons = ['3.11', '3.12', '3.13']
stages = {'3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}

extras = {name: cfg[f'{name}_requirements'].split() for name in ('torch', 'train', 'crf', 'explore', 'tensorboard', 'heic', 'export', 'hub', 'labels', 'ray', 'test')}
extras['dev'] = sum(extras.values(), [])
extras['kaggle'] = cfg['kaggle_requirements'].split()

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'].split(),
    author=cfg['author'],
    author_email=cfg['author_email'],
    license={'apache2': 'Apache-2.0'}[cfg['license']],
    url=cfg['git_url'],
    classifiers=[
        f'Development Status :: {stages[cfg["status"]]}',
        f'Intended Audience :: {cfg["audience"]}',
        f'Natural Language :: {cfg["language"]}',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: {v}' for v in pythons),
    ],
    python_requires=f'>={cfg["min_python"]}',
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['*.pth', '*.onnx', 'static/*']},
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f'{cfg["lib_path"]}={cfg["lib_path"]}._modidx:d'],
    },
)
