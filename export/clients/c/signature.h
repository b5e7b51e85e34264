/* Names of the operations behind a SavedModel's signature.

   A SavedModel says in its MetaGraphDef which operation of the graph computes which output. That is a protocol buffer; this
   reads the few fields of it that a client needs, so that no protobuf library has to be linked. */

#ifndef ASR_SIGNATURE_H_
#define ASR_SIGNATURE_H_

#include <stddef.h>
#include <stdint.h>

#define SIGNATURE_MOST_AXES 8

/* One input or output of a signature. */
struct tensor_info {
  char operation[256];                 /* name of the operation, "serving_default_images" of "serving_default_images:0" */
  int index;                           /* which of its outputs, the 0 */
  int dtype;                           /* as TF_DataType */
  int num_axes;
  int64_t axes[SIGNATURE_MOST_AXES];   /* -1 where any size will do */
};

enum tensor_role { SIGNATURE_INPUT = 1, SIGNATURE_OUTPUT = 2 };

/* Looks up a tensor of a signature in a serialized MetaGraphDef.

   Returns 1 and fills `found`, or 0 where the signature, or that name in it, isn't there or can't be read. */
int find_tensor(const void *meta_graph, size_t size, const char *signature, enum tensor_role role, const char *name,
                struct tensor_info *found);

#endif
