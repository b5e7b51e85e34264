// Counts and boxes the objects of PNG images with an exported model, in Node.
//
//   node infer.mjs MODEL IMAGE.png...
//
// MODEL is the folder of one version of an export; its signature says which size the images must have, and whether they are
// grey (1 channel) or RGB (3 channels). Prints a line of JSON for each image; boxes are [ymin, xmin, ymax, xmax] in
// fractions of the canvas.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

import * as tf from '@tensorflow/tfjs-node';

const SIGNATURE = 'infer';
const OUTPUTS = ['count', 'count_probs', 'boxes'];

/** The shape [H, W, C] of a model's images, from its signature. */
async function imageShape(folder) {
  const graphs = await tf.node.getMetaGraphsFromSavedModel(folder);
  const graph = graphs.find(({ tags }) => tags.includes('serve'));
  const signature = graph?.signatureDefs[SIGNATURE];
  if (!signature?.inputs?.images || OUTPUTS.some((name) => !signature.outputs[name])) {
    throw new Error(`${folder} has no signature '${SIGNATURE}' of a model of scenes; it must be written by asr_export`);
  }
  const [, ...shape] = signature.inputs.images.shape.map((axis) => Number(axis?.array?.[0] ?? axis));
  return shape;
}

/** A number of channels in words. */
function describe(channels) {
  const names = { 1: 'grey (1 channel)', 3: 'RGB (3 channels)' };
  return names[channels] ?? `of ${channels} channels`;
}

/** A PNG image of the model's shape as float32 [1, H, W, C] in [0, 1]. */
function readImage(path, [height, width, channels]) {
  const data = readFileSync(path);
  let pixels;
  try {
    pixels = tf.node.decodePng(data, 0);
  } catch (error) {
    throw new Error(`${path} cannot be read as a PNG image: ${error.message}`);
  }
  const [rows, columns, found] = pixels.shape;
  if (rows !== height || columns !== width || found !== channels) {
    throw new Error(
      `${path} must be ${describe(channels)} and ${height} x ${width} pixels (height x width), ` +
        `got ${rows} x ${columns} pixels that are ${describe(found)}`,
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
  const shape = await imageShape(resolve(folder));
  const model = await tf.node.loadSavedModel(resolve(folder), ['serve'], SIGNATURE);
  const images = paths.map((path) => readImage(path, shape));
  for (const result of infer(model, images, paths)) console.log(JSON.stringify(result));
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`infer.mjs: error: ${String(error.message ?? error).split('\n')[0]}`);
  process.exit(1);
}
