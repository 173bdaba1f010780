/* A libflagcx for tests: the same functions and types, on memory that the CPU sees, among the threads of one process.
 *
 * A unique id names a clique; its ranks meet there and read what the others have posted. Work is done when the call
 * returns. What a test wants to know or to provoke: the functions that begin with standin_. */

#include <stdarg.h>
#include <stdio.h>

#include "clique.h"

enum { STREAM_MARK = 0x57ea };

typedef struct {
  int mark;
  void *native;
} Stream;

static int comms, streams, handles, ids;

/* ---- what tests ask ---- */

static char journal[1 << 16], failing[64], held[64];
static int failure, busy;

const char *standin_log(void) { return journal; }
void standin_forget(void) { journal[0] = 0; }
int standin_live(const char *what) {
  return strcmp(what, "comms") == 0 ? comms : strcmp(what, "streams") == 0 ? streams : handles;
}
void standin_fail(const char *function, int result) { /* its next call */
  snprintf(failing, sizeof failing, "%s", function);
  failure = result;
}
void standin_hold(const char *function) { /* its calls wait, until another name is held */
  pthread_mutex_lock(&lock);
  snprintf(held, sizeof held, "%s", function);
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

void standin_busy(int answer) { busy = answer; } /* have the streams work to do? */

/* Notes a call; answers what a test has asked it to answer. */
static Result note(const char *function, const char *format, ...) {
  pthread_mutex_lock(&lock);
  size_t used = strlen(journal);
  used += snprintf(journal + used, sizeof journal - used, "%s ", function);
  va_list arguments;
  va_start(arguments, format);
  used += vsnprintf(journal + used, sizeof journal - used, format, arguments);
  va_end(arguments);
  snprintf(journal + used, sizeof journal - used, "\n");
  while (strcmp(held, function) == 0) pthread_cond_wait(&changed, &lock);
  Result result = SUCCESS;
  if (strcmp(failing, function) == 0) {
    result = failure;
    failing[0] = 0;
  }
  pthread_mutex_unlock(&lock);
  return result;
}

#define NOTE(...)                               \
  do {                                          \
    Result noted = note(__func__, __VA_ARGS__); \
    if (noted != SUCCESS) return noted;         \
  } while (0)

/* Runs a call; within a group, at its end, the sends before all else. */
static Result issue(Comm *comm, Stream *stream, Call call) {
  if (comm == NULL || comm->ended || stream == NULL || stream->mark != STREAM_MARK) return INVALID_ARGUMENT;
  if (call.dtype < 0 || call.dtype > 9 || call.op < 0 || call.op > 4) return INVALID_ARGUMENT;
  if (comm->depth == 0) return call.run(comm, &call);
  if (comm->queued == MOST_QUEUED) return INTERNAL_ERROR;
  comm->queue[comm->queued++] = call;
  return SUCCESS;
}

/* ---- the public functions ---- */

#define CALL(function, ...) \
  (Call) { .run = function, .from = from, .to = to, .count = count, .dtype = dtype, __VA_ARGS__ }
#define STREAM(s) ((s) == NULL ? NULL : ((Stream *)(s))->native)

Result flagcxAllReduce(const void *from, void *to, size_t count, int dtype, int op, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d op=%d in_place=%d stream=%p", count, dtype, op, from == to, STREAM(s));
  return issue(comm, s, CALL(all_reduce, .op = op));
}
Result flagcxReduce(const void *from, void *to, size_t count, int dtype, int op, int root, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d op=%d root=%d stream=%p", count, dtype, op, root, STREAM(s));
  return issue(comm, s, CALL(reduce_to_root, .op = op, .peer = root));
}
Result flagcxAllGather(const void *from, void *to, size_t count, int dtype, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d stream=%p", count, dtype, STREAM(s));
  return issue(comm, s, CALL(all_gather));
}
Result flagcxReduceScatter(const void *from, void *to, size_t count, int dtype, int op, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d op=%d stream=%p", count, dtype, op, STREAM(s));
  return issue(comm, s, CALL(reduce_scatter, .op = op));
}
Result flagcxAlltoAll(const void *from, void *to, size_t count, int dtype, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d stream=%p", count, dtype, STREAM(s));
  return issue(comm, s, CALL(all_to_all));
}
Result flagcxAlltoAllv(const void *from, size_t *sent, size_t *sent_at, void *to, size_t *received,
                       size_t *received_at, int dtype, Comm *comm, Stream *s) {
  NOTE("dtype=%d stream=%p", dtype, STREAM(s));
  Call call = {.run = all_to_all_v, .from = from, .to = to, .dtype = dtype};
  size_t bytes = comm->clique->size * sizeof(size_t);
  memcpy(call.sent, sent, bytes);
  memcpy(call.sent_at, sent_at, bytes);
  memcpy(call.received, received, bytes);
  memcpy(call.received_at, received_at, bytes);
  return issue(comm, s, call);
}
Result flagcxBroadcast(const void *from, void *to, size_t count, int dtype, int root, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d root=%d stream=%p", count, dtype, root, STREAM(s));
  return issue(comm, s, CALL(broadcast, .peer = root));
}
Result flagcxSend(const void *from, size_t count, int dtype, int peer, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d peer=%d stream=%p", count, dtype, peer, STREAM(s));
  return issue(comm, s, (Call){.run = send, .from = from, .count = count, .dtype = dtype, .peer = peer});
}
Result flagcxRecv(void *to, size_t count, int dtype, int peer, Comm *comm, Stream *s) {
  NOTE("count=%zu dtype=%d peer=%d stream=%p", count, dtype, peer, STREAM(s));
  return issue(comm, s, (Call){.run = receive, .to = to, .count = count, .dtype = dtype, .peer = peer});
}

Result flagcxGroupStart(Comm *comm) {
  NOTE("depth=%d", comm->depth);
  comm->depth++;
  return SUCCESS;
}
Result flagcxGroupEnd(Comm *comm) {
  NOTE("depth=%d queued=%d", comm->depth, comm->queued);
  if (comm->depth == 0) return INVALID_USAGE;
  if (--comm->depth > 0) return SUCCESS;
  int queued = comm->queued;
  comm->queued = 0;
  Result result = SUCCESS;
  for (int sends = 1; sends >= 0; sends--)
    for (int i = 0; i < queued && result == SUCCESS; i++)
      if ((comm->queue[i].run == send) == sends) result = comm->queue[i].run(comm, &comm->queue[i]);
  return result;
}

Result flagcxGetUniqueId(UniqueId *id) {
  NOTE("");
  for (int i = 0; i < ID_BYTES; i++) id->internal[i] = (char)i; /* zeros within: no string */
  memcpy(id->internal + ID_BYTES - sizeof ids, &(int){++ids}, sizeof ids);
  return SUCCESS;
}
Result flagcxCommInitRank(Comm **comm, int size, UniqueId *id, int rank) {
  NOTE("size=%d rank=%d first=%d last=%d", size, rank, id->internal[1], id->internal[ID_BYTES - 4]);
  if (size > MOST_RANKS || rank < 0 || rank >= size) return INVALID_ARGUMENT;
  Result result = join(comm, size, id, rank);
  pthread_mutex_lock(&lock);
  comms++;
  pthread_mutex_unlock(&lock);
  return result;
}
Result flagcxIsHomoComm(Comm *comm, int *answer) {
  NOTE("");
  *answer = comm != NULL;
  return SUCCESS;
}
static Result end(Comm *comm, int aborted) {
  if (comm->ended) return INVALID_USAGE; /* it is not freed, so that a second end is found out */
  pthread_mutex_lock(&lock);
  comm->ended = 1;
  comm->clique->aborted |= aborted;
  comms--;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}
Result flagcxCommDestroy(Comm *comm) {
  NOTE("streams=%d", streams);
  return end(comm, 0);
}
Result flagcxCommAbort(Comm *comm) {
  NOTE("streams=%d", streams);
  return end(comm, 1);
}

Result flagcxGetVersion(int *version) {
  *version = 1 * 10000 + 2 * 100 + 3;
  return SUCCESS;
}
const char *flagcxGetErrorString(int result) { return result == INVALID_USAGE ? "the stand-in's words" : "other words"; }
const char *flagcxGetLastError(Comm *comm) { return comm == NULL ? "no communicator" : "the stand-in's last words"; }

/* ---- the device handle, whose fields are in the header's order ---- */

typedef Result (*Function)(void);
static Result set_device(int index) { return note("setDevice", "%d", index); }
static Result stream_copy(Stream **made, void *native) {
  Result noted = note("streamCopy", "%p", native);
  if (noted != SUCCESS) return noted;
  *made = malloc(sizeof **made);
  **made = (Stream){STREAM_MARK, native};
  streams++;
  return SUCCESS;
}
static Result stream_free(Stream *stream) {
  Result noted = note("streamFree", "%p", stream->native);
  if (stream->mark != STREAM_MARK) return INVALID_ARGUMENT;
  stream->mark = 0;
  streams--;
  return noted;
}
static Result stream_query(Stream *stream) {
  return stream->mark != STREAM_MARK ? INVALID_ARGUMENT : busy ? IN_PROGRESS : SUCCESS;
}

Result flagcxDeviceHandleInit(Function **handle) {
  NOTE("");
  *handle = calloc(28, sizeof(Function));
  (*handle)[5] = (Function)set_device;
  (*handle)[12] = (Function)stream_copy;
  (*handle)[13] = (Function)stream_free;
  (*handle)[15] = (Function)stream_query;
  handles++;
  return SUCCESS;
}
Result flagcxDeviceHandleFree(Function *handle) {
  NOTE("comms=%d streams=%d", comms, streams);
  free(handle);
  handles--;
  return SUCCESS;
}
