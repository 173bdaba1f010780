/* What the stand-in's ranks do together. They are threads of one process; one lock and one condition serve all. */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
enum { SUCCESS = 0, INTERNAL_ERROR = 3, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6, IN_PROGRESS = 7 };
enum { ID_BYTES = 256, MOST_RANKS = 8, MOST_QUEUED = 64 };

typedef struct {
  char internal[ID_BYTES];
} UniqueId;

typedef struct Message {
  struct Message *next;
  size_t bytes;
  char data[];
} Message;

typedef size_t PerRank[MOST_RANKS];

typedef struct Comm Comm;
typedef struct Call {
  Result (*run)(Comm *, struct Call *);
  const void *from;
  void *to;
  size_t count;
  int dtype, op, peer;
  PerRank sent, sent_at, received, received_at;
} Call;

typedef struct Clique {
  struct Clique *next;
  UniqueId id;
  int size, waiting, round, aborted;
  const Call *posted[MOST_RANKS];
  Message *mail[MOST_RANKS][MOST_RANKS]; /* [from][to] */
} Clique;

struct Comm {
  Clique *clique;
  int rank, depth, queued, ended;
  Call queue[MOST_QUEUED];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* ---- dtypes, in the header's order ---- */

static const size_t widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};

static float from_bfloat16(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}
static uint16_t to_bfloat16(float value) { /* to nearest even */
  uint32_t wide;
  memcpy(&wide, &value, sizeof wide);
  return (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
}

#define COMBINE(a, b) \
  (op == 1 ? (a) * (b) : op == 2 ? ((a) > (b) ? (a) : (b)) : op == 3 ? ((a) < (b) ? (a) : (b)) : (a) + (b))
#define REDUCE(stored, wide, load, store)                                      \
  for (size_t i = 0; i < count; i++) {                                         \
    wide value = load(((const stored *)c->posted[0]->from)[start + i]);        \
    for (int r = 1; r < c->size; r++) {                                        \
      wide other = load(((const stored *)c->posted[r]->from)[start + i]);      \
      value = COMBINE(value, other);                                           \
    }                                                                          \
    ((stored *)to)[i] = store(op == 4 ? value / c->size : value);              \
  }                                                                            \
  break

static void reduce(Clique *c, void *to, size_t start, size_t count, int dtype, int op) {
  switch (dtype) {
  case 0: REDUCE(int8_t, int8_t, , );
  case 1: REDUCE(uint8_t, uint8_t, , );
  case 2: REDUCE(int32_t, int32_t, , );
  case 3: REDUCE(uint32_t, uint32_t, , );
  case 4: REDUCE(int64_t, int64_t, , );
  case 5: REDUCE(uint64_t, uint64_t, , );
  case 6: REDUCE(_Float16, float, , );
  case 7: REDUCE(float, float, , );
  case 8: REDUCE(double, double, , );
  case 9: REDUCE(uint16_t, float, from_bfloat16, to_bfloat16);
  }
}

/* ---- ranks meeting ---- */

static Result meet(Clique *c) { /* with the lock held */
  int round = c->round;
  if (++c->waiting == c->size) {
    c->waiting = 0;
    c->round++;
    pthread_cond_broadcast(&changed);
  }
  while (c->round == round && !c->aborted) pthread_cond_wait(&changed, &lock);
  return c->aborted ? REMOTE_ERROR : SUCCESS;
}

/* Every rank posts its call; each reads what all have posted into memory of its own; only then is it stored. */
static Result together(Comm *comm, Call *call, size_t bytes, Result (*receive)(Comm *, Call *, char *)) {
  Clique *c = comm->clique;
  pthread_mutex_lock(&lock);
  c->posted[comm->rank] = call;
  char *received = calloc(1, bytes + 1);
  Result result = meet(c);
  Result mine = result == SUCCESS ? receive(comm, call, received) : result;
  if (result == SUCCESS) result = meet(c);
  if (result == SUCCESS && call->to != NULL) memcpy(call->to, received, bytes);
  free(received);
  pthread_mutex_unlock(&lock);
  return mine != SUCCESS ? mine : result;
}

static size_t bytes_of(const Call *call) { return call->count * widths[call->dtype]; }
static const char *posted(Comm *comm, int rank) { return comm->clique->posted[rank]->from; }

static Result receive_reduced(Comm *comm, Call *call, char *to) {
  reduce(comm->clique, to, 0, call->count, call->dtype, call->op);
  return SUCCESS;
}
static Result receive_part(Comm *comm, Call *call, char *to) {
  reduce(comm->clique, to, comm->rank * call->count, call->count, call->dtype, call->op);
  return SUCCESS;
}
static Result receive_all(Comm *comm, Call *call, char *to) {
  size_t bytes = bytes_of(call);
  for (int r = 0; r < comm->clique->size; r++) memcpy(to + r * bytes, posted(comm, r), bytes);
  return SUCCESS;
}
static Result receive_mine(Comm *comm, Call *call, char *to) {
  size_t bytes = bytes_of(call);
  for (int r = 0; r < comm->clique->size; r++) memcpy(to + r * bytes, posted(comm, r) + comm->rank * bytes, bytes);
  return SUCCESS;
}
static Result receive_mine_v(Comm *comm, Call *call, char *to) {
  size_t width = widths[call->dtype];
  for (int r = 0; r < comm->clique->size; r++) {
    const Call *theirs = comm->clique->posted[r];
    if (theirs->sent[comm->rank] != call->received[r]) return INVALID_USAGE;
    memcpy(to + call->received_at[r] * width, posted(comm, r) + theirs->sent_at[comm->rank] * width,
           call->received[r] * width);
  }
  return SUCCESS;
}
static Result receive_root(Comm *comm, Call *call, char *to) {
  memcpy(to, posted(comm, call->peer), bytes_of(call));
  return SUCCESS;
}

static Result all_reduce(Comm *comm, Call *call) { return together(comm, call, bytes_of(call), receive_reduced); }
static Result reduce_to_root(Comm *comm, Call *call) {
  if (comm->rank != call->peer) call->to = NULL;
  return all_reduce(comm, call);
}
static Result all_gather(Comm *comm, Call *call) {
  return together(comm, call, comm->clique->size * bytes_of(call), receive_all);
}
static Result reduce_scatter(Comm *comm, Call *call) { return together(comm, call, bytes_of(call), receive_part); }
static Result all_to_all(Comm *comm, Call *call) {
  return together(comm, call, comm->clique->size * bytes_of(call), receive_mine);
}
static Result all_to_all_v(Comm *comm, Call *call) {
  size_t last = comm->clique->size - 1; /* the parts lie by rank */
  return together(comm, call, (call->received_at[last] + call->received[last]) * widths[call->dtype], receive_mine_v);
}
static Result broadcast(Comm *comm, Call *call) { return together(comm, call, bytes_of(call), receive_root); }

static Result send(Comm *comm, Call *call) {
  size_t bytes = bytes_of(call);
  Message *message = malloc(sizeof *message + bytes), **last;
  message->next = NULL;
  message->bytes = bytes;
  memcpy(message->data, call->from, bytes);
  pthread_mutex_lock(&lock);
  for (last = &comm->clique->mail[comm->rank][call->peer]; *last != NULL; last = &(*last)->next) {}
  *last = message;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

static Result receive(Comm *comm, Call *call) {
  Clique *c = comm->clique;
  pthread_mutex_lock(&lock);
  Message **box = &c->mail[call->peer][comm->rank];
  while (*box == NULL && !c->aborted) pthread_cond_wait(&changed, &lock);
  Result result = REMOTE_ERROR;
  if (*box != NULL) {
    Message *message = *box;
    *box = message->next;
    result = message->bytes == bytes_of(call) ? SUCCESS : INVALID_USAGE;
    if (result == SUCCESS) memcpy(call->to, message->data, message->bytes);
    free(message);
  }
  pthread_mutex_unlock(&lock);
  return result;
}

/* Joins the clique that `id` names, and waits until all are there. */
static Result join(Comm **comm, int size, const UniqueId *id, int rank) {
  static Clique *cliques;
  pthread_mutex_lock(&lock);
  Clique *clique = cliques;
  while (clique != NULL && memcmp(&clique->id, id, sizeof *id) != 0) clique = clique->next;
  if (clique == NULL) {
    clique = calloc(1, sizeof *clique);
    clique->next = cliques;
    clique->id = *id;
    clique->size = size;
    cliques = clique;
  }
  *comm = calloc(1, sizeof **comm);
  (*comm)->clique = clique;
  (*comm)->rank = rank;
  Result result = meet(clique);
  pthread_mutex_unlock(&lock);
  return result;
}
