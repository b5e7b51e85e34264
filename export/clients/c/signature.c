#include "signature.h"

#include <stdlib.h>
#include <string.h>

/* Numbers of the fields, from tensorflow/core/protobuf/meta_graph.proto and tensorflow/core/framework. */
enum { META_GRAPH_SIGNATURES = 5 };
enum { ENTRY_KEY = 1, ENTRY_VALUE = 2 };
enum { TENSOR_NAME = 1, TENSOR_DTYPE = 2, TENSOR_SHAPE = 3 };
enum { SHAPE_AXIS = 2 };
enum { AXIS_SIZE = 1 };

enum wire_type { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct span {
  const unsigned char *at, *end;
};

struct field {
  int number;
  uint64_t value;     /* of a VARINT field */
  struct span bytes;  /* of a BYTES field; empty otherwise */
};

static int read_varint(struct span *from, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && from->at < from->end; shift += 7) {
    unsigned char byte = *from->at++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return 1;
  }
  return 0;
}

/* Reads the next field of a message and moves past it; 0 at its end, or where it is broken. */
static int next_field(struct span *message, struct field *field) {
  uint64_t tag, size = 0;
  if (!read_varint(message, &tag)) return 0;
  memset(field, 0, sizeof *field);
  field->number = (int)(tag >> 3);
  switch (tag & 7) {
    case VARINT: return read_varint(message, &field->value);
    case FIXED64: size = 8; break;
    case FIXED32: size = 4; break;
    case BYTES:
      if (!read_varint(message, &size)) return 0;
      break;
    default: return 0;
  }
  if (size > (uint64_t)(message->end - message->at)) return 0;
  if ((tag & 7) == BYTES) field->bytes = (struct span){message->at, message->at + size};
  message->at += size;
  return 1;
}

/* Finds the value of a key in a map<string, message>, whose entries are the fields `number` of `message`. */
static int find_entry(struct span message, int number, const char *key, struct span *value) {
  struct field entry, part;
  while (next_field(&message, &entry)) {
    if (entry.number != number) continue;
    struct span found_key = {0}, found_value = {0};
    while (next_field(&entry.bytes, &part)) {
      if (part.number == ENTRY_KEY) found_key = part.bytes;
      if (part.number == ENTRY_VALUE) found_value = part.bytes;
    }
    size_t length = (size_t)(found_key.end - found_key.at);
    if (length == strlen(key) && memcmp(found_key.at, key, length) == 0) {
      *value = found_value;
      return 1;
    }
  }
  return 0;
}

static int read_shape(struct span shape, struct tensor_info *found) {
  struct field axis, part;
  while (next_field(&shape, &axis)) {
    if (axis.number != SHAPE_AXIS) continue;
    if (found->num_axes == SIGNATURE_MOST_AXES) return 0;
    int64_t *size = &found->axes[found->num_axes++];
    while (next_field(&axis.bytes, &part)) {
      if (part.number == AXIS_SIZE) *size = (int64_t)part.value;
    }
  }
  return 1;
}

/* Splits "operation:index"; without a colon the index is 0. */
static int read_name(struct span name, struct tensor_info *found) {
  size_t length = (size_t)(name.end - name.at);
  if (length == 0 || length >= sizeof found->operation) return 0;
  memcpy(found->operation, name.at, length);
  found->operation[length] = '\0';
  char *colon = strrchr(found->operation, ':');
  if (colon != NULL) {
    *colon = '\0';
    found->index = atoi(colon + 1);
  }
  return 1;
}

int find_tensor(const void *meta_graph, size_t size, const char *signature, enum tensor_role role, const char *name,
                struct tensor_info *found) {
  struct span message = {meta_graph, (const unsigned char *)meta_graph + size};
  struct field field;
  int has_name = 0;
  memset(found, 0, sizeof *found);
  if (!find_entry(message, META_GRAPH_SIGNATURES, signature, &message)) return 0;
  if (!find_entry(message, (int)role, name, &message)) return 0;
  while (next_field(&message, &field)) {
    switch (field.number) {
      case TENSOR_NAME: has_name = read_name(field.bytes, found); break;
      case TENSOR_DTYPE: found->dtype = (int)field.value; break;
      case TENSOR_SHAPE:
        if (!read_shape(field.bytes, found)) return 0;
        break;
      default: break;
    }
  }
  return has_name;
}
