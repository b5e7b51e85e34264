#!/bin/bash
# Installs the Node client's packages and builds the TensorFlow binding against the library of an installed wheel, so that
# Node and Python run the same TensorFlow and nothing but npm's packages is downloaded.
#
#   ./install.sh PYTHON [FOLDER]
#
# PYTHON has TensorFlow; FOLDER gets node_modules/ (this folder by default). Needs Node 18 or newer with its headers, npm,
# a C++ compiler and make (Debian: apt-get install nodejs libnode-dev npm g++ make).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${1:?"say which Python has TensorFlow: ./install.sh PYTHON [FOLDER]"}
folder=${2:-$here}

ask() { TF_CPP_MIN_LOG_LEVEL=3 "$python" -c "import tensorflow as tf; print(tf.sysconfig.$1())" 2> /dev/null; }
library=$(ask get_lib) && headers=$(ask get_include) || { echo "$python has no TensorFlow" >&2; exit 1; }

mkdir -p "$folder"
[ "$folder" -ef "$here" ] || cp "$here"/*.mjs "$here"/package.json "$folder"
cd "$folder"
# The package's own script would download TensorFlow 2.9; deps/ stands in for that download.
npm install --ignore-scripts --no-audit --no-fund --loglevel=error
binding=node_modules/@tensorflow/tfjs-node
mkdir -p "$binding/deps/lib"
ln -sfn "$headers" "$binding/deps/include"
ln -sf "$library/libtensorflow_cc.so.2" "$binding/deps/lib/libtensorflow.so"
ln -sf "$library/libtensorflow_cc.so.2" "$binding/deps/lib/"
ln -sf "$library/libtensorflow_framework.so.2" "$binding/deps/lib/"
ln -sf "$library/libtensorflow_framework.so.2" "$binding/deps/lib/libtensorflow_framework.so"

# Node's headers: beside the program where it was installed from nodejs.org, in /usr where Debian did it.
prefix=$(node -p 'require("path").resolve(process.execPath, "../..")')
cd "$binding"
PATH="$folder/node_modules/.bin:$PATH" npx --no-install node-gyp rebuild --loglevel=error --nodedir="$prefix" -- \
  -Dmodule_name=tfjs_binding -Dmodule_path="$PWD/lib/napi-v8" -Dnapi_build_version=8
