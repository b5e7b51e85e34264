/* Counts and boxes the objects of images with an exported model, through TensorFlow's C API alone.

     asr_infer MODEL IMAGES

   MODEL is the folder of one version of an export. Its signature says which size the images must have, and how many
   channels. IMAGES is a binary file of one image with 8 bits a channel, PGM (P5) for a grey model of 1 channel and PPM (P6)
   for an RGB model of 3 channels; or a file *.f32 of raw float32 pixels in [0, 1], one image after another, the channels of
   a pixel side by side, for a model of any number of channels.
   Prints a line of JSON for each image; boxes are [ymin, xmin, ymax, xmax] in fractions of the canvas.

   TensorFlow itself writes to stderr, from the moment when its library is loaded, before this program's first line;
   TF_CPP_MIN_LOG_LEVEL=3 in the environment leaves two lines of it. An error of this program is the last line. */

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signature.h"
#include "tensorflow/c/c_api.h"

#define SIGNATURE "infer"
#define LARGEST_BATCH 256

enum output { COUNT, COUNT_PROBS, BOXES, NUM_OUTPUTS };
static const struct {
  const char *name;
  TF_DataType dtype;
  int num_axes;
} OUTPUTS[NUM_OUTPUTS] = {{"count", TF_INT32, 1}, {"count_probs", TF_FLOAT, 2}, {"boxes", TF_FLOAT, 3}};

struct model {
  TF_Graph *graph;
  TF_Session *session;
  TF_Output input, outputs[NUM_OUTPUTS];
  int64_t height, width, channels;
};

struct images {
  float *pixels;
  int64_t number;
};

/* Ends the program with one line. */
static void fail(const char *format, ...) {
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  message[strcspn(message, "\n")] = '\0';
  fprintf(stderr, "asr_infer: error: %s\n", message);
  exit(1);
}

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) fail("%s: %s", what, TF_Message(status));
}

static TF_Output resolve(const struct model *model, const TF_Buffer *meta_graph, enum tensor_role role,
                         const char *name, TF_DataType dtype, int num_axes, struct tensor_info *info) {
  if (!find_tensor(meta_graph->data, meta_graph->length, SIGNATURE, role, name, info))
    fail("the model has no signature '%s' with '%s'; it must be written by asr_export", SIGNATURE, name);
  if (info->dtype != (int)dtype || info->num_axes != num_axes)
    fail("'%s' of signature '%s' has another type or rank than this client expects", name, SIGNATURE);
  TF_Output output = {TF_GraphOperationByName(model->graph, info->operation), info->index};
  if (output.oper == NULL) fail("the model's graph lacks the operation '%s' of its signature", info->operation);
  return output;
}

static struct model load(const char *folder) {
  const char *tags[] = {"serve"};
  TF_Status *status = TF_NewStatus();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Buffer *meta_graph = TF_NewBuffer();
  struct model model = {.graph = TF_NewGraph()};
  struct tensor_info info;
  model.session = TF_LoadSessionFromSavedModel(options, NULL, folder, tags, 1, model.graph, meta_graph, status);
  check(status, folder);
  for (int i = 0; i < NUM_OUTPUTS; ++i)
    model.outputs[i] =
        resolve(&model, meta_graph, SIGNATURE_OUTPUT, OUTPUTS[i].name, OUTPUTS[i].dtype, OUTPUTS[i].num_axes, &info);
  model.input = resolve(&model, meta_graph, SIGNATURE_INPUT, "images", TF_FLOAT, 4, &info);
  model.height = info.axes[1];
  model.width = info.axes[2];
  model.channels = info.axes[3];
  if (model.height <= 0 || model.width <= 0 || model.channels <= 0)
    fail("the model's images must be [B, H, W, C] with H, W and C fixed");
  TF_DeleteBuffer(meta_graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return model;
}

static unsigned char *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail("%s: %s", path, strerror(errno));
  unsigned char *data = NULL;
  size_t room = 0;
  *size = 0;
  for (;;) {
    if (*size == room) {
      room = room ? 2 * room : 1 << 16;
      data = realloc(data, room);
      if (data == NULL) fail("%s: too large for the memory", path);
    }
    size_t got = fread(data + *size, 1, room - *size, file);
    if (got == 0) break;
    *size += got;
  }
  if (ferror(file)) fail("%s: cannot be read", path);
  fclose(file);
  return data;
}

/* The next number of a PGM or PPM header, past white space and comments; -1 if there is none. */
static long header_number(const unsigned char *data, size_t size, size_t *at) {
  while (*at < size && (isspace(data[*at]) || data[*at] == '#')) {
    if (data[*at] == '#')
      while (*at < size && data[*at] != '\n') ++*at;
    else
      ++*at;
  }
  long number = -1;
  for (; *at < size && isdigit(data[*at]) && number < 1000000; ++*at) {
    number = (number < 0 ? 0 : 10 * number) + (data[*at] - '0');
  }
  return number;
}

static struct images read_pnm(const char *path, const struct model *model) {
  int64_t height = model->height, width = model->width;
  size_t size, at = 2;
  unsigned char *data = read_file(path, &size);
  int is_grey = size >= 2 && memcmp(data, "P5", 2) == 0, is_rgb = size >= 2 && memcmp(data, "P6", 2) == 0;
  if (!is_grey && !is_rgb) fail("%s: must be a binary PGM file (P5) or PPM file (P6), or be named *.f32", path);
  if (model->channels != (is_grey ? 1 : 3)) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "of %lld channels", (long long)model->channels);
    fail("%s: must be %s for this model, got %s", path,
         model->channels == 1 ? "grey (1 channel)" : model->channels == 3 ? "RGB (3 channels)" : wanted,
         is_grey ? "a grey image (1 channel)" : "an RGB image (3 channels)");
  }
  long columns = header_number(data, size, &at), rows = header_number(data, size, &at);
  long largest = header_number(data, size, &at);
  if (columns <= 0 || rows <= 0 || largest <= 0 || largest > 255)
    fail("%s: broken PGM or PPM header, or more than 8 bits a channel", path);
  if (rows != height || columns != width)
    fail("%s: must be %lld x %lld pixels (height x width), got %ld x %ld", path, (long long)height, (long long)width,
         rows, columns);
  ++at; /* the one white space that ends the header */
  size_t wanted = (size_t)(height * width * model->channels);
  if (at > size || size - at < wanted)
    fail("%s: must hold %zu bytes of pixels, got %zu", path, wanted, at > size ? (size_t)0 : size - at);
  struct images images = {malloc(wanted * sizeof(float)), 1};
  if (images.pixels == NULL) fail("%s: too large for the memory", path);
  for (size_t i = 0; i < wanted; ++i) images.pixels[i] = (float)data[at + i] / (float)largest;
  free(data);
  return images;
}

static size_t image_bytes(const struct model *model) {
  return (size_t)(model->height * model->width * model->channels) * sizeof(float);
}

static struct images read_raw(const char *path, const struct model *model) {
  size_t size, one = image_bytes(model);
  float *pixels = (float *)read_file(path, &size);
  if (size == 0 || size % one != 0)
    fail("%s: must hold images of %lld x %lld x %lld float32 values (height x width x channels), %zu bytes each, "
         "got %zu bytes", path, (long long)model->height, (long long)model->width, (long long)model->channels, one, size);
  return (struct images){pixels, (int64_t)(size / one)};
}

static void print_floats(const float *values, int64_t number) {
  for (int64_t i = 0; i < number; ++i) printf("%s%.9g", i ? ", " : "[", values[i]);
  printf(number ? "]" : "[]");
}

static void print_result(int64_t record, TF_Tensor *const *results, int64_t row) {
  int64_t steps = TF_Dim(results[BOXES], 1);
  int32_t count = ((const int32_t *)TF_TensorData(results[COUNT]))[row];
  const float *probs = (const float *)TF_TensorData(results[COUNT_PROBS]) + row * (steps + 1);
  const float *boxes = (const float *)TF_TensorData(results[BOXES]) + row * steps * 4;
  printf("{\"record\": %lld, \"count\": %d, \"count_probs\": ", (long long)record, count);
  print_floats(probs, steps + 1);
  printf(", \"boxes\": [");
  for (int32_t step = 0; step < count && step < steps; ++step) {
    if (step) printf(", ");
    print_floats(boxes + 4 * step, 4);
  }
  printf("]}\n");
}

static void infer(const struct model *model, struct images images) {
  TF_Status *status = TF_NewStatus();
  size_t one = image_bytes(model);
  for (int64_t start = 0; start < images.number; start += LARGEST_BATCH) {
    int64_t batch = images.number - start < LARGEST_BATCH ? images.number - start : LARGEST_BATCH;
    int64_t shape[] = {batch, model->height, model->width, model->channels};
    TF_Tensor *input = TF_AllocateTensor(TF_FLOAT, shape, 4, (size_t)batch * one);
    TF_Tensor *results[NUM_OUTPUTS] = {NULL};
    memcpy(TF_TensorData(input), (const char *)images.pixels + (size_t)start * one, (size_t)batch * one);
    TF_SessionRun(model->session, NULL, &model->input, &input, 1, model->outputs, results, NUM_OUTPUTS, NULL, 0, NULL,
                  status);
    check(status, "the model refuses the images");
    for (int64_t row = 0; row < batch; ++row) print_result(start + row, results, row);
    for (int i = 0; i < NUM_OUTPUTS; ++i) TF_DeleteTensor(results[i]);
    TF_DeleteTensor(input);
  }
  TF_DeleteStatus(status);
}

int main(int argc, char **argv) {
  if (argc != 3) fail("usage: asr_infer MODEL IMAGES (a folder of asr_export's; a *.pgm, *.ppm or *.f32 file)");
  struct model model = load(argv[1]);
  const char *suffix = strrchr(argv[2], '.');
  int is_raw = suffix != NULL && strcmp(suffix, ".f32") == 0;
  struct images images = (is_raw ? read_raw : read_pnm)(argv[2], &model);
  infer(&model, images);
  free(images.pixels);
  TF_Status *status = TF_NewStatus();
  TF_DeleteSession(model.session, status);
  TF_DeleteGraph(model.graph);
  TF_DeleteStatus(status);
  return 0;
}
