/* Unary ModelInfer between Envoy's worker thread and the router's event loop, without ASGI.
 *
 * An HTTP filter of Envoy (its dynamic-module interface, version v0.1.0) gathers each request whole and puts
 * it in a queue; an eventfd wakes the event loop, which takes all that is there by one call and answers
 * whole bundles by one call. The worker thread never waits for the interpreter's lock, and the event loop
 * makes no task, scope or future for a request. What is not an ordinary unary ModelInfer is left to the
 * filters behind this one.
 *
 * Who may touch what: until a stream is queued, and again once its reply is, only the worker thread; in between
 * only the event loop. `gone` and `refs` are atomic. Both queues, and the list of arriving streams, where the
 * event loop looks for what is late, are guarded by one lock.
 *
 * Interfaces are declared here as far as they are used, so that building takes a C compiler and nothing
 * else. Python's functions are those of its stable ABI. Both sets are weak: the file loads into a plain
 * Python as well, where `headrace_split` can be tested.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WEAK __attribute__((weak))
#define API __attribute__((visibility("default")))

/* --- Envoy: source/extensions/dynamic_modules/abi/abi.h --- */

typedef struct {
  const char *ptr;
  size_t length;
} buffer;

typedef struct {
  const char *key;
  size_t key_length;
  const char *value;
  size_t value_length;
} header;

enum { REQUEST_HEADER = 0, RECEIVED_REQUEST_BODY = 0 };
enum { HEADERS_CONTINUE = 0, HEADERS_STOP = 1 };
enum { BODY_CONTINUE = 0, BODY_STOP_NO_BUFFER = 3 };
enum { TRAILERS_CONTINUE = 0, TRAILERS_STOP = 1 };

WEAK bool envoy_dynamic_module_callback_http_get_header(void *filter, int type, buffer key, buffer *result,
                                                        size_t index, size_t *count);
WEAK size_t envoy_dynamic_module_callback_http_get_body_chunks_size(void *filter, int type);
WEAK bool envoy_dynamic_module_callback_http_get_body_chunks(void *filter, int type, buffer *chunks);
WEAK void envoy_dynamic_module_callback_http_send_response_headers(void *filter, header *headers, size_t count,
                                                                   bool end_stream);
WEAK void envoy_dynamic_module_callback_http_send_response_data(void *filter, buffer data, bool end_stream);
WEAK void envoy_dynamic_module_callback_http_send_response_trailers(void *filter, header *trailers, size_t count);
WEAK void *envoy_dynamic_module_callback_http_filter_scheduler_new(void *filter);
WEAK void envoy_dynamic_module_callback_http_filter_scheduler_commit(void *scheduler, uint64_t event);
WEAK void envoy_dynamic_module_callback_http_filter_scheduler_delete(void *scheduler);

/* --- Python: the stable ABI --- */

typedef struct python_object object;
typedef ptrdiff_t py_size;
WEAK object *PyList_New(py_size size);
WEAK int PyList_Append(object *list, object *item);
WEAK py_size PyList_Size(object *list);
WEAK object *PyList_GetItem(object *list, py_size index); /* borrowed */
WEAK object *PyTuple_New(py_size size);
WEAK int PyTuple_SetItem(object *tuple, py_size index, object *item); /* takes the item, even if it fails */
WEAK object *PyTuple_GetItem(object *tuple, py_size index);           /* borrowed */
WEAK object *PyBytes_FromStringAndSize(const char *data, py_size size);
WEAK int PyBytes_AsStringAndSize(object *bytes, char **data, py_size *size);
WEAK object *PyLong_FromVoidPtr(void *pointer);
WEAK void *PyLong_AsVoidPtr(object *number);
WEAK object *PyLong_FromSsize_t(py_size number);
WEAK long PyLong_AsLong(object *number);
WEAK object *PyFloat_FromDouble(double number);
WEAK object *PyErr_Occurred(void);
WEAK void PyErr_Clear(void);
WEAK void Py_IncRef(object *item);
WEAK void Py_DecRef(object *item);
WEAK extern object _Py_NoneStruct;

/* --- streams --- */

enum { TENANT, TIMEOUT, TRACEPARENT, KEPT_HEADERS };
enum { PREFIX = 5, INLINE_ROOM = 1024, MAX_SPANS = 16, MAX_HEADER = 4096 };
enum { WHOLE = 0, IRREGULAR = 1, LATE = 2, FULL = 3 };
enum { RESOURCE_EXHAUSTED = 8 };
static const size_t absent = SIZE_MAX;
/* Bytes that one `take` copies at most, beyond its first request. */
static const size_t take_bytes = 32 << 20;
/* From here on a body is given away instead of copied. */
static const size_t given_bytes = 64 << 10;

typedef struct stream {
  struct stream *next;               /* in the queue */
  struct stream *before, *after;     /* among those that arrive */
  void *filter, *scheduler;
  atomic_int refs;                   /* the filter's and the event loop's */
  atomic_bool gone;
  bool arriving, queued;
  int kind;
  double arrived, due;
  char *kept;                        /* values of the kept headers, one after the other */
  size_t kept_size[KEPT_HEADERS];    /* or `absent` */
  char *body;                        /* with gRPC's prefix */
  size_t size, room;
  char *reply;                       /* message with prefix; or grpc-status, grpc-message and details */
  size_t reply_size, message_size, details_size;
  int status;
  char inline_body[INLINE_ROOM];
} stream;

static struct {
  pthread_mutex_t lock;
  stream *first, *last, *arriving;
  stream *first_reply, *last_reply; /* answered and not sent */
  stream *waker;                    /* of those, or sent already: whose event will send them all */
  int event; /* -1: nobody takes requests */
  size_t limit, most_held;
  atomic_size_t held; /* bytes of bodies that have come and not been taken */
  double arrival_timeout;
} ingress = {.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1};

static char passed_on; /* module pointer of a stream that is left to other filters */

static double now_s(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void drop_body(stream *s) {
  atomic_fetch_sub(&ingress.held, s->size);
  if (s->body != s->inline_body) free(s->body);
  s->body = s->inline_body;
  s->size = 0;
}

static void release(stream *s) {
  if (atomic_fetch_sub(&s->refs, 1) != 1) return;
  if (s->scheduler) envoy_dynamic_module_callback_http_filter_scheduler_delete(s->scheduler);
  drop_body(s);
  free(s->kept);
  free(s->reply);
  free(s);
}

/* Both with the lock held. */
static void leave_arriving(stream *s) {
  if (!s->arriving) return;
  s->arriving = false;
  if (s->before) s->before->after = s->after; else ingress.arriving = s->after;
  if (s->after) s->after->before = s->before;
}

static bool enqueue(stream *s, int kind) {
  bool was_empty = !ingress.first;
  if (s->queued) return false; /* it was late, and its end has come all the same */
  leave_arriving(s);
  s->kind = kind;
  s->queued = true;
  s->next = NULL;
  atomic_fetch_add(&s->refs, 1);
  if (was_empty) ingress.first = s; else ingress.last->next = s;
  ingress.last = s;
  return was_empty;
}

static void wake(void) {
  uint64_t one = 1;
  ssize_t written = write(ingress.event, &one, sizeof one);
  (void)written; /* fails only where the counter is full, and then the loop is awake */
}

static void hand_over(stream *s, int kind) {
  pthread_mutex_lock(&ingress.lock);
  bool must_wake = enqueue(s, kind);
  pthread_mutex_unlock(&ingress.lock);
  if (must_wake) wake();
}

/* --- reading a request --- */

static buffer get(void *filter, const char *name) {
  buffer value = {NULL, 0};
  envoy_dynamic_module_callback_http_get_header(filter, REQUEST_HEADER, (buffer){name, strlen(name)}, &value, 0, NULL);
  return value;
}

/* The last value counts where a header came more than once. One that did not come has the length `absent`. */
static buffer get_last(void *filter, const char *name) {
  buffer value = {NULL, 0}, key = {name, strlen(name)};
  size_t count = 0;
  if (!envoy_dynamic_module_callback_http_get_header(filter, REQUEST_HEADER, key, &value, 0, &count))
    return (buffer){NULL, absent};
  if (count > 1)
    envoy_dynamic_module_callback_http_get_header(filter, REQUEST_HEADER, key, &value, count - 1, NULL);
  return value;
}

static bool is(buffer value, const char *text) {
  return value.length == strlen(text) && memcmp(value.ptr, text, value.length) == 0;
}

static bool is_grpc(buffer type) {
  static const char grpc[] = "application/grpc";
  const size_t size = sizeof grpc - 1;
  return type.length != absent && type.length >= size && memcmp(type.ptr, grpc, size) == 0 &&
         (type.length == size || type.ptr[size] == '+' || type.ptr[size] == ';');
}

/* Only for giving up on what does not arrive; the event loop parses the header properly. */
static double timeout_s(buffer value) {
  double amount = 0;
  if (value.length < 2 || value.length > 9) return -1;
  for (size_t i = 0; i + 1 < value.length; i++) {
    if (value.ptr[i] < '0' || value.ptr[i] > '9') return -1;
    amount = amount * 10 + (value.ptr[i] - '0');
  }
  switch (value.ptr[value.length - 1]) {
    case 'H': return amount * 3600;
    case 'M': return amount * 60;
    case 'S': return amount;
    case 'm': return amount * 1e-3;
    case 'u': return amount * 1e-6;
    case 'n': return amount * 1e-9;
    default: return -1;
  }
}

static bool keep_headers(stream *s, void *filter) {
  static const char *const names[KEPT_HEADERS] = {"x-headrace-tenant", "grpc-timeout", "traceparent"};
  buffer values[KEPT_HEADERS];
  size_t total = 0;
  for (int i = 0; i < KEPT_HEADERS; i++) {
    values[i] = get_last(filter, names[i]);
    s->kept_size[i] = values[i].length;
    if (values[i].length != absent) total += values[i].length;
  }
  double left_s = timeout_s(values[TIMEOUT]);
  s->due = s->arrived + (left_s >= 0 && left_s < ingress.arrival_timeout ? left_s : ingress.arrival_timeout);
  if (!total) return true;
  char *at = s->kept = malloc(total);
  if (!at) return false;
  for (int i = 0; i < KEPT_HEADERS; i++) {
    if (values[i].length == absent || !values[i].length) continue;
    memcpy(at, values[i].ptr, values[i].length);
    at += values[i].length;
  }
  return true;
}

static bool append(stream *s, const char *data, size_t size) {
  if (s->size + size > s->room) {
    size_t room = s->room * 2 > s->size + size ? s->room * 2 : s->size + size;
    char *bigger = s->body == s->inline_body ? malloc(room) : realloc(s->body, room);
    if (!bigger) return false;
    if (s->body == s->inline_body) memcpy(bigger, s->body, s->size);
    s->body = bigger;
    s->room = room;
  }
  memcpy(s->body + s->size, data, size);
  s->size += size;
  atomic_fetch_add(&ingress.held, size);
  return true;
}

static size_t announced(const stream *s) {
  const unsigned char *at = (const unsigned char *)s->body + 1;
  return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

/* Room for the whole message as soon as its length is known: a large one is then copied once. */
static bool make_room(stream *s) {
  if (s->size < PREFIX || s->body[0]) return true;
  size_t whole = PREFIX + announced(s);
  if (whole <= s->room || whole > PREFIX + ingress.limit) return true;
  char *bigger = malloc(whole);
  if (!bigger) return false;
  memcpy(bigger, s->body, s->size);
  if (s->body != s->inline_body) free(s->body);
  s->body = bigger;
  s->room = whole;
  return true;
}

static bool read_body(stream *s, void *filter) {
  size_t count = envoy_dynamic_module_callback_http_get_body_chunks_size(filter, RECEIVED_REQUEST_BODY);
  buffer few[8], *chunks = count > 8 ? malloc(count * sizeof *chunks) : few;
  if (!chunks) return false;
  bool good = true;
  if (count && envoy_dynamic_module_callback_http_get_body_chunks(filter, RECEIVED_REQUEST_BODY, chunks))
    for (size_t i = 0; i < count && good; i++) {
      size_t size = chunks[i].length, head = 0;
      if (s->size < PREFIX) {
        head = PREFIX - s->size < size ? PREFIX - s->size : size;
        good = append(s, chunks[i].ptr, head) && make_room(s);
      }
      /* Past the limit nothing is kept: the event loop refuses by the length that was announced. */
      if (good && s->size + size - head <= ingress.limit + PREFIX + 1)
        good = append(s, chunks[i].ptr + head, size - head);
      else if (good)
        good = append(s, chunks[i].ptr + head, ingress.limit + PREFIX + 1 - s->size);
    }
  if (chunks != few) free(chunks);
  return good;
}

static bool too_large(const stream *s) {
  return s->size > ingress.limit + PREFIX || (s->size >= PREFIX && announced(s) > ingress.limit);
}

static int kind_of(const stream *s) {
  return s->size >= PREFIX && !s->body[0] && announced(s) == s->size - PREFIX ? WHOLE : IRREGULAR;
}

/* --- Envoy's events --- */

API const char *envoy_dynamic_module_on_program_init(void) { return "v0.1.0"; }

API const void *envoy_dynamic_module_on_http_filter_config_new(void *config, buffer name, buffer text) {
  (void)config, (void)name, (void)text;
  /* An Envoy without one of these must not start, rather than fall at the first request. */
  const bool complete = envoy_dynamic_module_callback_http_get_header &&
                        envoy_dynamic_module_callback_http_get_body_chunks_size &&
                        envoy_dynamic_module_callback_http_get_body_chunks &&
                        envoy_dynamic_module_callback_http_send_response_headers &&
                        envoy_dynamic_module_callback_http_send_response_data &&
                        envoy_dynamic_module_callback_http_send_response_trailers &&
                        envoy_dynamic_module_callback_http_filter_scheduler_new &&
                        envoy_dynamic_module_callback_http_filter_scheduler_commit &&
                        envoy_dynamic_module_callback_http_filter_scheduler_delete;
  return complete ? &ingress : NULL;
}

API void envoy_dynamic_module_on_http_filter_config_destroy(const void *config) { (void)config; }

API const void *envoy_dynamic_module_on_http_filter_new(const void *config, void *filter) {
  (void)config, (void)filter;
  stream *s = malloc(sizeof *s);
  if (!s) return &passed_on;
  memset(s, 0, offsetof(stream, inline_body));
  s->body = s->inline_body;
  s->room = INLINE_ROOM;
  atomic_init(&s->refs, 1);
  return s;
}

static bool is_ours(void *filter) {
  buffer path = get(filter, ":path");
  const char *query = path.length ? memchr(path.ptr, '?', path.length) : NULL;
  if (query) path.length = (size_t)(query - path.ptr);
  if (!is(path, "/inference.GRPCInferenceService/ModelInfer") || !is_grpc(get_last(filter, "content-type"))) return false;
  buffer encoding = get_last(filter, "grpc-encoding");
  return encoding.length == absent || is(encoding, "identity");
}

/* On its route there is nobody else who would answer. */
static int refuse(void *filter, const char *code, size_t digits) {
  header lines[] = {{":status", 7, "200", 3}, {"content-type", 12, "application/grpc", 16}, {"grpc-status", 11, code, digits}};
  envoy_dynamic_module_callback_http_send_response_headers(filter, lines, 3, true);
  return HEADERS_STOP;
}

API int envoy_dynamic_module_on_http_filter_request_headers(void *filter, void *module, bool end) {
  stream *s = module;
  if (!is_ours(filter)) return HEADERS_CONTINUE;
  if (module == &passed_on) return refuse(filter, "8", 1);
  if (ingress.event < 0) return refuse(filter, "14", 2);
  s->arrived = now_s();
  if (!keep_headers(s, filter)) return refuse(filter, "8", 1);
  s->filter = filter;
  s->scheduler = envoy_dynamic_module_callback_http_filter_scheduler_new(filter);
  if (end) {
    hand_over(s, IRREGULAR);
    return HEADERS_STOP;
  }
  pthread_mutex_lock(&ingress.lock);
  s->arriving = true;
  s->after = ingress.arriving;
  if (s->after) s->after->before = s;
  ingress.arriving = s;
  pthread_mutex_unlock(&ingress.lock);
  return HEADERS_STOP;
}

static bool still_arriving(stream *s) {
  pthread_mutex_lock(&ingress.lock);
  bool arriving = s->arriving;
  pthread_mutex_unlock(&ingress.lock);
  return arriving;
}

API int envoy_dynamic_module_on_http_filter_request_body(void *filter, void *module, bool end) {
  stream *s = module;
  if (module == &passed_on || !s->filter) return BODY_CONTINUE;
  if (!still_arriving(s)) return BODY_STOP_NO_BUFFER;
  if (!read_body(s, filter))
    hand_over(s, FULL);
  else if (too_large(s))
    hand_over(s, IRREGULAR);
  else if (atomic_load(&ingress.held) > ingress.most_held && s->size > INLINE_ROOM)
    hand_over(s, FULL);
  else if (end)
    hand_over(s, kind_of(s));
  return BODY_STOP_NO_BUFFER;
}

API int envoy_dynamic_module_on_http_filter_request_trailers(void *filter, void *module) {
  (void)filter;
  stream *s = module;
  if (module == &passed_on || !s->filter) return TRAILERS_CONTINUE;
  if (still_arriving(s)) hand_over(s, kind_of(s));
  return TRAILERS_STOP;
}

static void send_error(stream *s, void *filter) {
  char code[4];
  int digits = 0, status = s->status;
  if (status >= 10) code[digits++] = (char)('0' + status / 10);
  code[digits++] = (char)('0' + status % 10);
  header lines[5] = {{":status", 7, "200", 3},
                     {"content-type", 12, "application/grpc", 16},
                     {"grpc-status", 11, code, (size_t)digits}};
  size_t count = 3;
  if (s->message_size) lines[count++] = (header){"grpc-message", 12, s->reply, s->message_size};
  if (s->details_size)
    lines[count++] = (header){"grpc-status-details-bin", 23, s->reply + s->message_size, s->details_size};
  envoy_dynamic_module_callback_http_send_response_headers(filter, lines, count, true);
}

static void send_reply(stream *s) {
  if (atomic_load(&s->gone)) return;
  if (s->status) {
    send_error(s, s->filter);
    return;
  }
  static header begin[] = {{":status", 7, "200", 3}, {"content-type", 12, "application/grpc", 16}};
  static header finish[] = {{"grpc-status", 11, "0", 1}};
  envoy_dynamic_module_callback_http_send_response_headers(s->filter, begin, 2, false);
  if (!atomic_load(&s->gone))
    envoy_dynamic_module_callback_http_send_response_data(s->filter, (buffer){s->reply, s->reply_size}, false);
  free(s->reply); /* Envoy has a copy, which it may keep for as long as the client does not read */
  s->reply = NULL;
  if (!atomic_load(&s->gone)) envoy_dynamic_module_callback_http_send_response_trailers(s->filter, finish, 1);
}

/* One event sends all that is answered: each would be a wake-up of this thread. */
API void envoy_dynamic_module_on_http_filter_scheduled(void *filter, void *module, uint64_t event) {
  (void)filter, (void)module, (void)event;
  pthread_mutex_lock(&ingress.lock);
  stream *s = ingress.first_reply;
  ingress.first_reply = ingress.last_reply = ingress.waker = NULL;
  pthread_mutex_unlock(&ingress.lock);
  while (s) {
    stream *next = s->next;
    send_reply(s); /* it may be destroyed by this; our reference keeps it until the next line */
    release(s);
    s = next;
  }
}

/* With the lock held: some stream's event is to be on its way as long as there is something to send. If none is yet,
 * the one chosen comes back in `waker`, with a reference, for `send_event`. Returns what nobody is there for any more, to
 * be released without the lock. */
static stream *see_to_waker(stream **waker) {
  *waker = NULL;
  if (ingress.waker || !ingress.first_reply) return NULL;
  for (stream *s = ingress.first_reply; s; s = s->next) {
    if (atomic_load(&s->gone)) continue;
    atomic_fetch_add(&s->refs, 1);
    *waker = ingress.waker = s;
    return NULL;
  }
  stream *gone = ingress.first_reply;
  ingress.first_reply = ingress.last_reply = NULL;
  return gone;
}

/* Without the lock: the worker thread wakes up at once and wants it. The stream may have been destroyed meanwhile; its
 * event then comes to nothing, and `destroy` has seen to another. */
static void send_event(stream *waker) {
  if (!waker) return;
  envoy_dynamic_module_callback_http_filter_scheduler_commit(waker->scheduler, 1);
  release(waker);
}

static void release_all(stream *s) {
  while (s) {
    stream *next = s->next;
    release(s);
    s = next;
  }
}

/* With the lock held. The event loop's reference goes along. */
static void queue_reply(stream *s) {
  s->next = NULL;
  if (ingress.last_reply) ingress.last_reply->next = s; else ingress.first_reply = s;
  ingress.last_reply = s;
}

API void envoy_dynamic_module_on_http_filter_stream_complete(void *filter, void *module) {
  (void)filter;
  if (module != &passed_on) atomic_store(&((stream *)module)->gone, true);
}

API void envoy_dynamic_module_on_http_filter_destroy(void *module) {
  stream *s = module;
  if (module == &passed_on) return;
  atomic_store(&s->gone, true);
  pthread_mutex_lock(&ingress.lock);
  leave_arriving(s);
  stream *nobodys = NULL, *waker = NULL;
  if (ingress.waker == s) {
    ingress.waker = NULL; /* its event will not come */
    nobodys = see_to_waker(&waker);
  }
  pthread_mutex_unlock(&ingress.lock);
  send_event(waker);
  release_all(nobodys);
  release(s);
}

/* Events that are none of this filter's business, which Envoy wants to be there all the same. */
API int envoy_dynamic_module_on_http_filter_response_headers(void *f, void *m, bool e) { (void)f, (void)m, (void)e; return 0; }
API int envoy_dynamic_module_on_http_filter_response_body(void *f, void *m, bool e) { (void)f, (void)m, (void)e; return 0; }
API int envoy_dynamic_module_on_http_filter_response_trailers(void *f, void *m) { (void)f, (void)m; return 0; }
API void envoy_dynamic_module_on_http_filter_http_callout_done(void) {}
API void envoy_dynamic_module_on_http_filter_http_stream_headers(void) {}
API void envoy_dynamic_module_on_http_filter_http_stream_data(void) {}
API void envoy_dynamic_module_on_http_filter_http_stream_trailers(void) {}
API void envoy_dynamic_module_on_http_filter_http_stream_complete(void) {}
API void envoy_dynamic_module_on_http_filter_http_stream_reset(void) {}
API void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(void) {}
API void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(void) {}

/* --- taking a ModelInferRequest apart: what oip/header.py does, which says more about it --- */

typedef struct {
  size_t header_end, id_from, id_to, id_at; /* of the last id: the whole field, and where its text begins */
  size_t from[MAX_SPANS], to[MAX_SPANS];
  int spans;
} parts;

static bool length_at(const unsigned char *data, size_t size, size_t *at, size_t *value) {
  *value = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (*at >= size) return false;
    unsigned char group = data[(*at)++];
    *value |= (size_t)(group & 0x7F) << shift;
    if (group < 0x80) return true;
  }
  return false;
}

static bool take_apart(const unsigned char *data, size_t size, parts *found) {
  enum { NAME = 0x0A, VERSION = 0x12, ID = 0x1A, PARAMETERS = 0x22, INPUTS = 0x2A, OUTPUTS = 0x32, RAW = 0x3A };
  size_t at = 0, length;
  memset(found, 0, offsetof(parts, from));
  found->spans = 0;
  while (at < size && data[at] != RAW) {
    size_t from = at;
    unsigned char tag = data[at++];
    if (!length_at(data, size, &at, &length) || length > size - at) return false;
    if (tag == ID) {
      found->id_from = from, found->id_to = at + length, found->id_at = at;
    } else if (tag != NAME && tag != VERSION && tag != PARAMETERS && tag != INPUTS && tag != OUTPUTS) {
      return false;
    }
    at += length;
  }
  if (at >= size || at > MAX_HEADER) return false;
  found->header_end = at;
  while (at < size) {
    if (data[at++] != RAW || found->spans == MAX_SPANS || !length_at(data, size, &at, &length) || length > size - at)
      return false;
    found->from[found->spans] = at;
    found->to[found->spans++] = at + length;
    at += length;
  }
  for (size_t i = found->id_at; i < found->id_to; i++)
    if (data[i] >= 0x80) return false;
  return true;
}

static object *spans_of(const parts *found) {
  object *spans = PyTuple_New(2 * found->spans);
  for (int i = 0; spans && i < found->spans; i++) {
    object *from = PyLong_FromSsize_t((py_size)found->from[i]), *to = PyLong_FromSsize_t((py_size)found->to[i]);
    PyTuple_SetItem(spans, 2 * i, from);
    PyTuple_SetItem(spans, 2 * i + 1, to);
  }
  return spans;
}

static object *header_of(const char *data, const parts *found) {
  char joined[MAX_HEADER];
  if (found->id_to == found->id_from) return PyBytes_FromStringAndSize(data, (py_size)found->header_end);
  size_t tail = found->header_end - found->id_to;
  memcpy(joined, data, found->id_from);
  memcpy(joined + found->id_from, data + found->id_to, tail);
  return PyBytes_FromStringAndSize(joined, (py_size)(found->id_from + tail));
}

static object *none_like(void) { return PyTuple_New(0); }

/* Appends (header, id, spans) of a message to a tuple; header is b"" where the message is unusual. */
static void set_parts(object *tuple, py_size index, const char *data, size_t size) {
  parts found;
  if (!take_apart((const unsigned char *)data, size, &found)) {
    PyTuple_SetItem(tuple, index, PyBytes_FromStringAndSize("", 0));
    PyTuple_SetItem(tuple, index + 1, PyBytes_FromStringAndSize("", 0));
    PyTuple_SetItem(tuple, index + 2, none_like());
    return;
  }
  PyTuple_SetItem(tuple, index, header_of(data, &found));
  PyTuple_SetItem(tuple, index + 1, PyBytes_FromStringAndSize(data + found.id_at, (py_size)(found.id_to - found.id_at)));
  PyTuple_SetItem(tuple, index + 2, spans_of(&found));
}

/* --- the event loop's calls; all hold the interpreter's lock (ctypes.PyDLL) --- */

/* (header, id, spans) of a message in bytes. For tests. */
API object *headrace_split(object *message) {
  char *data;
  py_size size;
  if (PyBytes_AsStringAndSize(message, &data, &size)) return NULL;
  object *tuple = PyTuple_New(3);
  if (tuple) set_parts(tuple, 0, data, (size_t)size);
  return tuple;
}

/* Begins to take requests. The file descriptor to watch; -1: out of descriptors. */
API int headrace_open(size_t limit, size_t most_held, double arrival_timeout) {
  ingress.limit = limit;
  ingress.most_held = most_held;
  ingress.arrival_timeout = arrival_timeout;
  ingress.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return ingress.event;
}

static object *described(stream *s) {
  object *tuple = PyTuple_New(10);
  if (!tuple) return NULL;
  const char *kept = s->kept ? s->kept : "";
  const size_t skip = s->kind == WHOLE ? PREFIX : 0;
  /* What is late may still be written to by the worker thread. */
  const size_t size = s->kind == LATE ? 0 : s->size - skip;
  PyTuple_SetItem(tuple, 0, PyLong_FromVoidPtr(s));
  PyTuple_SetItem(tuple, 1, PyLong_FromSsize_t(s->kind));
  PyTuple_SetItem(tuple, 2, PyFloat_FromDouble(s->arrived));
  for (int i = 0; i < KEPT_HEADERS; i++) {
    if (s->kept_size[i] == absent) {
      Py_IncRef(&_Py_NoneStruct);
      PyTuple_SetItem(tuple, 3 + i, &_Py_NoneStruct);
      continue;
    }
    PyTuple_SetItem(tuple, 3 + i, PyBytes_FromStringAndSize(kept, (py_size)s->kept_size[i]));
    kept += s->kept_size[i];
  }
  if (size >= given_bytes && s->kind == WHOLE) {
    object *place = PyTuple_New(3);
    if (!place) {
      Py_DecRef(tuple);
      return NULL;
    }
    PyTuple_SetItem(place, 0, PyLong_FromVoidPtr(s->body));
    PyTuple_SetItem(place, 1, PyLong_FromSsize_t((py_size)skip));
    PyTuple_SetItem(place, 2, PyLong_FromSsize_t((py_size)s->size));
    PyTuple_SetItem(tuple, 6, place);
  } else {
    PyTuple_SetItem(tuple, 6, PyBytes_FromStringAndSize(s->body + skip, (py_size)size));
  }
  if (s->kind == WHOLE) {
    set_parts(tuple, 7, s->body + skip, size);
  } else {
    for (int i = 7; i < 9; i++) PyTuple_SetItem(tuple, i, PyBytes_FromStringAndSize("", 0));
    PyTuple_SetItem(tuple, 9, none_like());
  }
  return tuple;
}

static void commit(stream *s) {
  pthread_mutex_lock(&ingress.lock);
  queue_reply(s);
  stream *waker, *nobodys = see_to_waker(&waker);
  pthread_mutex_unlock(&ingress.lock);
  send_event(waker);
  release_all(nobodys);
}

/* Whether there is something to take. Asked without the lock: what comes this instant wakes the event loop. */
API int headrace_waiting(void) { return *(stream *volatile *)&ingress.first != NULL; }

/* Up to `most` requests that have arrived, each (stream, kind, arrived, tenant, timeout, traceparent, body,
 * header, id, spans). The caller answers every one, once. A large body is (address, where its message begins,
 * where it ends), and the caller's to give to `headrace_free`. */
API object *headrace_take(long most) {
  uint64_t count;
  object *taken = PyList_New(0);
  if (!taken) return NULL;
  ssize_t read_size = read(ingress.event, &count, sizeof count);
  (void)read_size;
  pthread_mutex_lock(&ingress.lock);
  stream *s = ingress.first, *last = NULL;
  size_t bytes = 0;
  for (stream *at = s; at && most > 0 && bytes < take_bytes; at = at->next, most--) {
    last = at;
    if (at->kind != LATE) bytes += at->size;
  }
  ingress.first = last ? last->next : s;
  if (last) last->next = NULL;
  bool more = ingress.first != NULL;
  pthread_mutex_unlock(&ingress.lock);
  if (more) wake();
  while (s) {
    stream *next = s->next;
    object *tuple = described(s);
    const bool given = tuple && !PyErr_Occurred() && !PyList_Append(taken, tuple);
    if (tuple) Py_DecRef(tuple);
    if (given && s->kind == WHOLE && s->size - PREFIX >= given_bytes) {
      atomic_fetch_sub(&ingress.held, s->size);
      s->body = s->inline_body;
      s->size = 0;
    }
    /* What is late may still be written to by the worker thread. */
    if (s->kind != LATE) drop_body(s);
    if (!given) {
      PyErr_Clear();
      s->status = RESOURCE_EXHAUSTED;
      commit(s);
    }
    s = next;
  }
  return taken;
}

static char *framed(const char *message, size_t size) {
  char *reply = malloc(PREFIX + size);
  if (!reply) return NULL;
  reply[0] = 0;
  reply[1] = (char)(size >> 24), reply[2] = (char)(size >> 16), reply[3] = (char)(size >> 8), reply[4] = (char)size;
  memcpy(reply + PREFIX, message, size);
  return reply;
}

/* Answers streams: a list of (stream, message). How many of those were not what they should be; they are not
 * answered. */
API long headrace_reply(object *answers) {
  py_size count = PyList_Size(answers);
  long bad = 0;
  stream *first = NULL, **end = &first;
  for (py_size i = 0; i < count; i++) {
    object *pair = PyList_GetItem(answers, i);
    char *data;
    py_size size;
    stream *s = PyLong_AsVoidPtr(PyTuple_GetItem(pair, 0));
    if (!s || PyBytes_AsStringAndSize(PyTuple_GetItem(pair, 1), &data, &size)) {
      PyErr_Clear();
      bad++;
      continue;
    }
    s->reply = framed(data, (size_t)size);
    s->reply_size = PREFIX + (size_t)size;
    s->status = s->reply ? 0 : RESOURCE_EXHAUSTED;
    s->next = NULL;
    *end = s;
    end = &s->next;
  }
  pthread_mutex_lock(&ingress.lock);
  for (stream *s = first, *next; s; s = next) {
    next = s->next;
    queue_reply(s);
  }
  stream *waker, *nobodys = see_to_waker(&waker);
  pthread_mutex_unlock(&ingress.lock);
  send_event(waker);
  release_all(nobodys);
  return bad;
}

/* Ends a stream with a status. `message` is percent-encoded and `details` base64, as headers want them. */
API int headrace_fail(void *handle, int status, const char *message, size_t message_size, const char *details,
                      size_t details_size) {
  stream *s = handle;
  s->status = status;
  s->reply = malloc(message_size + details_size + 1);
  if (s->reply) {
    memcpy(s->reply, message, message_size);
    memcpy(s->reply + message_size, details, details_size);
    s->message_size = message_size;
    s->details_size = details_size;
  }
  commit(s);
  return 0;
}

API void headrace_free(void *body) { free(body); }

/* Whether the client of a stream that has not been answered is known to have gone. */
API int headrace_is_gone(void *handle) { return atomic_load(&((stream *)handle)->gone); }

/* Hands over, as LATE, what has not arrived whole in its time. How many. */
API long headrace_give_up(double now) {
  long count = 0;
  bool must_wake = false;
  pthread_mutex_lock(&ingress.lock);
  for (stream *s = ingress.arriving, *after; s; s = after) {
    after = s->after;
    if (s->due > now) continue;
    must_wake = enqueue(s, LATE) || must_wake;
    count++;
  }
  pthread_mutex_unlock(&ingress.lock);
  if (must_wake) wake();
  return count;
}
