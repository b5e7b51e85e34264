"""Installation of asr_tf: Python, typing marker and gin files in one wheel.

The gin files stand in `gin_configs/` beside the package, where people look for them, and travel as
`asr_tf.gin_configs`, so that `--gin_files=models/asr.gin` works from any folder once installed.  `export/` is
`asr_tf.export` likewise; in a checkout, `asr_tf/export/__init__.py` points there.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Packages that stand outside `asr_tf/` in the checkout: name in the wheel -> folder.
MAPPED_PACKAGES = {
    "asr_tf.export": "export",
    "asr_tf.export.server": "export/server",
    "asr_tf.gin_configs": "gin_configs",
}

CORE = [
    "absl-py>=2.0,<3",
    "gin-config>=0.5,<0.6",
    "importlib_resources>=6.0,<8",  # tensorflow-datasets imports it when it builds a data set
    "keras>=3.12,<4",
    "matplotlib>=3.8,<4",
    "numpy>=1.26,<3",
    "pillow>=10.0,<15",
    "scipy>=1.11,<2",
    "setuptools>=68; python_version>='3.12'",  # tensorflow-probability imports distutils
    "tensorboard>=2.20,<3",
    "tensorflow>=2.21,<2.22",
    "tensorflow-datasets>=4.9.8,<4.10",  # every data set is a builder, the embedded one included
    "tensorflow-probability[tf]>=0.25,<0.26",
    "tqdm>=4.60,<5",
]
# The command `tfds build` needs these two; the Python interface, which asr_train uses, doesn't.
DATA = ["apache-beam>=2.70,<3", "mlcroissant>=1.0.9,<2"]
# Warm-up requests and the model list of TensorFlow Serving; of TensorFlow's version.
EXPORT = ["tensorflow-serving-api>=2.21,<2.22"]
# asr_batch_infer; google-crc32c is what Beam writes TFRecords with.
BEAM = ["apache-beam>=2.70,<3", "google-crc32c>=1.5,<2", "pyarrow>=16,<27"]
# The masks of COCO: asr_sample and asr_batch_infer with --format=coco.
LABELLED = ["pycocotools>=2.0.8,<3"]
# asr_serve: KServe's model server (0.21 runs on Python 3.13 too), and what of its requirements is imported here.
SERVE = [
    "fastapi>=0.115.3,<1",
    "kserve>=0.21,<0.22",
    "orjson>=3.10,<4",
    "prometheus-client>=0.20,<1",
    *EXPORT,
]
TEST = [
    "hypothesis>=6.100,<7",
    "pytest>=8.0,<10",
    "pytest-xdist>=3.6,<4",
    "pyyaml>=6.0,<7",
    "scikit-learn>=1.5,<2",  # what the adjusted Rand index is held against
    "setuptools>=70.1",
    "wheel>=0.42",
    *BEAM,
    *LABELLED,  # average precision is held against it, too
    *SERVE,
]
LINT = ["bandit[toml]>=1.8,<2", "mypy>=1.11,<3", "ruff>=0.6,<1"]


def version() -> str:
    """Reads the version without importing the package, whose requirements may not be there yet."""
    text = (ROOT / "asr_tf" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("asr_tf/version.py must hold a line __version__ = \"...\".")
    return match.group(1)


setup(
    name="asr_tf",
    version=version(),
    description=(
        "Amortized structural regularization: count, box and redraw objects without labels, in TensorFlow."
    ),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The asr_tf developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="attend-infer-repeat posterior-regularization generative-model object-detection vae",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    packages=sorted(
        {
            *find_packages(include=["asr_tf", "asr_tf.*"]),
            *MAPPED_PACKAGES,
            *(f"asr_tf.export.{name}" for name in find_packages("export")),
        }
    ),
    package_dir=dict(MAPPED_PACKAGES),
    package_data={
        "asr_tf": ["py.typed"],
        "asr_tf.gin_configs": ["*.gin", "models/*.gin", "scenes/*.gin"],
    },
    zip_safe=False,
    install_requires=CORE,
    extras_require={
        "data": DATA,
        "export": EXPORT,
        "beam": BEAM,
        "labelled": LABELLED,
        "serve": SERVE,
        "test": TEST,
        "lint": LINT,
        "dev": [*TEST, *LINT],
    },
    entry_points={
        "console_scripts": [
            "asr_train = asr_tf.train_main:run",
            "asr_evaluate = asr_tf.evaluate_main:run",
            "asr_sample = asr_tf.sample_main:run",
            "asr_score = asr_tf.score_main:run",
            "asr_export = asr_tf.export.export_main:run",
            "asr_check_export = asr_tf.export.check_main:run",
            "asr_batch_infer = asr_tf.export.batch_infer_main:run",
            "asr_serve = asr_tf.export.serve_main:run",
        ]
    },
)
