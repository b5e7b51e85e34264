// Counts and boxes the objects of PNG images with an exported model, in Node.
//
//   node infer.mjs MODEL IMAGE.png...
//
// MODEL is the folder of one version of an export; its signature says which size the images must have. Prints a line of
// JSON for each image; boxes are [ymin, xmin, ymax, xmax] in fractions of the canvas.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

import * as tf from '@tensorflow/tfjs-node';

const SIGNATURE = 'infer';
const OUTPUTS = ['count', 'count_probs', 'boxes'];

/** The canvas [H, W] of a model, from its signature. */
async function canvasSize(folder) {
  const graphs = await tf.node.getMetaGraphsFromSavedModel(folder);
  const graph = graphs.find(({ tags }) => tags.includes('serve'));
  const signature = graph?.signatureDefs[SIGNATURE];
  if (!signature?.inputs?.images || OUTPUTS.some((name) => !signature.outputs[name])) {
    throw new Error(`${folder} has no signature '${SIGNATURE}' of a model of scenes; it must be written by asr_export`);
  }
  const [, height, width] = signature.inputs.images.shape.map((axis) => Number(axis?.array?.[0] ?? axis));
  return [height, width];
}

/** A grey PNG image as float32 [1, H, W, 1] in [0, 1]. */
function readImage(path, [height, width]) {
  const data = readFileSync(path);
  let pixels;
  try {
    pixels = tf.node.decodePng(data, 0);
  } catch (error) {
    throw new Error(`${path} cannot be read as a PNG image: ${error.message}`);
  }
  const [rows, columns, channels] = pixels.shape;
  if (rows !== height || columns !== width || channels !== 1) {
    throw new Error(
      `${path} must be grey and ${height} x ${width} pixels (height x width), ` +
        `got ${rows} x ${columns} with ${channels} channels`,
    );
  }
  return pixels.toFloat().div(255).expandDims(0);
}

/** Infers images that were read, one object for each. */
function infer(model, images, paths) {
  return tf.tidy(() => {
    const outputs = model.predict({ images: tf.concat(images) });
    const [count, probs, boxes] = OUTPUTS.map((name) => outputs[name].arraySync());
    return paths.map((file, row) => ({
      file,
      count: count[row],
      count_probs: probs[row],
      boxes: boxes[row].slice(0, count[row]),
    }));
  });
}

async function main([folder, ...paths]) {
  if (!folder || !paths.length) throw new Error('usage: node infer.mjs MODEL IMAGE.png...');
  const size = await canvasSize(resolve(folder));
  const model = await tf.node.loadSavedModel(resolve(folder), ['serve'], SIGNATURE);
  const images = paths.map((path) => readImage(path, size));
  for (const result of infer(model, images, paths)) console.log(JSON.stringify(result));
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`infer.mjs: error: ${String(error.message ?? error).split('\n')[0]}`);
  process.exit(1);
}
