/* The part that all kernels share: one pass over any number of leaves, on XLA's own threads.
 *
 * The generated part, which comes before this file, defines
 *   stored     the type of the arrays' elements
 *   INPUTS     arrays read for a leaf
 *   OUTPUTS    arrays written for a leaf, each as large as the inputs
 *   SCALARS    numbers for a group
 *   body(in, out, s, begin, end), the loop over elements begin to end of one leaf
 * and the compiler's command line defines KERNEL, the name under which XLA finds it.
 *
 * The custom call's operands are the groups' numbers (float64, groups x SCALARS), then the inputs
 * of each leaf; its results are the outputs of each leaf; its attribute "groups" is the group of
 * each leaf.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* How a thread treats subnormal numbers, among other things: XLA's helpers and its callers differ. */
#if defined(__SSE__)
typedef unsigned Control;
static Control control(void) { return _mm_getcsr(); }
static void set_control(Control value) { _mm_setcsr(value); }
#elif defined(__aarch64__)
typedef uint64_t Control;
static Control control(void) {
  Control value;
  __asm__ volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
static void set_control(Control value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }
#else
typedef int Control;
static Control control(void) { return 0; }
static void set_control(Control value) { (void)value; }
#endif

#define ALONE 65536       /* elements that are not worth a second thread */
#define MIN_CHUNK 8192    /* elements that a thread takes at a time, at least */
#define MAX_CHUNK 262144
#define TRIAL 77          /* elements of a trial: whole vectors, and a rest */
#define TURNS 16          /* chunks for each thread, so that a late one does not hold up the rest */

typedef struct {
  const XLA_FFI_CallFrame* frame;
  const int32_t* groups;
  const double* numbers;
  int64_t chunk;         /* elements in a chunk */
  int64_t chunks;        /* in all */
  int64_t* first;        /* by leaf: the number of its first chunk; then the number of chunks */
  Control control;       /* the caller's */
  atomic_llong next;     /* chunk to be taken */
  atomic_llong finished; /* chunks done */
  atomic_int owners;     /* threads that may still look at this; the last one frees it */
} Work;

/* A complex number is two: its rule sees both as reals. */
static int64_t size_of(const XLA_FFI_Buffer* buffer) {
  int64_t size = buffer->dtype == XLA_FFI_DataType_C64 || buffer->dtype == XLA_FFI_DataType_C128;
  size += 1;
  for (int64_t i = 0; i < buffer->rank; ++i) size *= buffer->dims[i];
  return size;
}

static void leaf_part(const Work* work, int64_t leaf, int64_t begin, int64_t end) {
  const stored* in[INPUTS];
  stored* out[OUTPUTS];
  void** args = work->frame->args.args + 1 + leaf * INPUTS;
  void** rets = work->frame->rets.rets + leaf * OUTPUTS;
  for (int i = 0; i < INPUTS; ++i) in[i] = ((XLA_FFI_Buffer*)args[i])->data;
  for (int i = 0; i < OUTPUTS; ++i) out[i] = ((XLA_FFI_Buffer*)rets[i])->data;
  body(in, out, work->numbers + (int64_t)work->groups[leaf] * SCALARS, begin, end);
}

static int64_t leaf_size(const XLA_FFI_CallFrame* frame, int64_t leaf) {
  return size_of((XLA_FFI_Buffer*)frame->args.args[1 + leaf * INPUTS]);
}

static void release(Work* work) {
  if (atomic_fetch_sub(&work->owners, 1) == 1) {
    free(work->first);
    free(work);
  }
}

static void take_chunks(Work* work) {
  int64_t leaf = 0;
  for (;;) {
    int64_t chunk = atomic_fetch_add(&work->next, 1);
    if (chunk >= work->chunks) return;
    while (work->first[leaf + 1] <= chunk) ++leaf; /* chunks come in order */
    int64_t begin = (chunk - work->first[leaf]) * work->chunk;
    int64_t size = leaf_size(work->frame, leaf);
    leaf_part(work, leaf, begin, size - begin < work->chunk ? size : begin + work->chunk);
    atomic_fetch_add(&work->finished, 1);
  }
}

static void helper(void* data) {
  Work* work = data;
  Control own = control();
  set_control(work->control);
  take_chunks(work);
  set_control(own);
  release(work);
}

static XLA_FFI_Error* failed(const XLA_FFI_Api* api, const char* message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message,
                                    XLA_FFI_Error_Code_INTERNAL};
  return api->XLA_FFI_Error_Create(&args);
}

/* Whether a call of the API returned no error; without helpers, the caller does all the work. */
static int succeeded(const XLA_FFI_Api* api, XLA_FFI_Error* error) {
  if (!error) return 1;
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
  api->XLA_FFI_Error_Destroy(&args);
  return 0;
}

XLA_FFI_Error* KERNEL(XLA_FFI_CallFrame* frame) {
  const XLA_FFI_Api* api = frame->api;
  if (frame->extension_start && frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  const XLA_FFI_Array* groups = NULL;
  for (int64_t i = 0; i < frame->attrs.size; ++i) {
    if (frame->attrs.names[i]->len == 6 && !memcmp(frame->attrs.names[i]->ptr, "groups", 6))
      groups = frame->attrs.attrs[i];
  }
  if (!groups || groups->dtype != XLA_FFI_DataType_S32)
    return failed(api, "jaxopt_port: a kernel was called without its groups");
  int64_t leaves = (int64_t)groups->size;
  if (frame->args.size != 1 + leaves * INPUTS || frame->rets.size != leaves * OUTPUTS)
    return failed(api, "jaxopt_port: a kernel was called with another number of arrays");

  Work* work = calloc(1, sizeof(Work));
  int64_t* first = malloc((size_t)(leaves + 1) * sizeof(int64_t));
  if (!work || !first) {
    free(work);
    free(first);
    return failed(api, "jaxopt_port: out of memory");
  }
  int64_t elements = 0, chunks = 0, threads = 1;
  for (int64_t leaf = 0; leaf < leaves; ++leaf) elements += leaf_size(frame, leaf);
  if (elements > ALONE) {
    XLA_FFI_ThreadPool_NumThreads_Args count = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE,
                                                NULL, frame->ctx, &threads};
    if (!succeeded(api, api->XLA_FFI_ThreadPool_NumThreads(&count))) threads = 1;
  }
  int64_t chunk = elements / (threads * TURNS);
  chunk = chunk < MIN_CHUNK ? MIN_CHUNK : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
  for (int64_t leaf = 0; leaf < leaves; ++leaf) {
    first[leaf] = chunks;
    chunks += (leaf_size(frame, leaf) + chunk - 1) / chunk;
  }
  first[leaves] = chunks;
  work->frame = frame;
  work->groups = groups->data;
  work->numbers = ((XLA_FFI_Buffer*)frame->args.args[0])->data;
  work->chunk = chunk;
  work->chunks = chunks;
  work->first = first;
  atomic_init(&work->next, 0);
  atomic_init(&work->finished, 0);
  atomic_init(&work->owners, 1);
  work->control = control();

  for (int64_t i = 1; i < threads && i < chunks; ++i) {
    XLA_FFI_ThreadPool_Schedule_Args schedule = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL,
                                                 frame->ctx, helper, work};
    atomic_fetch_add(&work->owners, 1);
    if (!succeeded(api, api->XLA_FFI_ThreadPool_Schedule(&schedule))) {
      atomic_fetch_sub(&work->owners, 1);
      break;
    }
  }
  take_chunks(work);
  /* What the others have taken is at most a chunk each. */
  while (atomic_load(&work->finished) < chunks) sched_yield();
  release(work);
  return NULL;
}

/* Runs the loop over a few elements, to be called in a process that may die of it. */
int jaxopt_port_trial(void) {
  static stored read[INPUTS][TRIAL], write[OUTPUTS][TRIAL];
  static double numbers[SCALARS];
  const stored* in[INPUTS];
  stored* out[OUTPUTS];
  for (int i = 0; i < INPUTS; ++i) in[i] = read[i];
  for (int i = 0; i < OUTPUTS; ++i) out[i] = write[i];
  body(in, out, numbers, 0, TRIAL);
  return 0;
}
