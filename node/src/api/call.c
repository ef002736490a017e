#include "api/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_TEXT_MAX    1024
#define PROGRESS_QUEUED_MAX (64u << 10) /* a client that does not read needs no news of progress */

struct api_request {
    struct api_call *call;
    struct api_request *next;
    uint64_t token;
    bool cancelable; /* no pointer of ours is with the peer */
    api_done_fn done;
    void *context;
};

static bool is_finished(const struct api_call *call)
{
    return call->answered && call->requests == NULL && !call->later && !call->job_running;
}

void api_call_destroy(struct api_call *call)
{
    api_call_unlink(call->api, call);
    if (call->session != NULL)
        api_connection_end(api_session_connection(call->session), call->message.size);
    if (call->free_state != NULL)
        call->free_state(call->state);
    for (size_t i = 0; i < call->fds_n; i++)
        close(call->fds[i]);
    while (call->requests != NULL) {
        struct api_request *request = call->requests;
        call->requests = request->next;
        free(request);
    }
    replica_buffer_close(&call->message);
    free(call);
}

static void run_end(void *context)
{
    struct api_call *call = context;
    call->ending = false;
    if (is_finished(call))
        api_call_destroy(call);
}

/* By a post: whoever answered may still be looking at the call and its state. */
static void destroy_if_finished(struct api_call *call)
{
    if (!is_finished(call) || call->ending)
        return;
    call->ending = true;
    call->end = (struct node_post){.call = run_end, .context = call};
    node_loop_post(node_get_loop(api_node(call->api)), &call->end);
}

static void remove_request(struct api_request *request)
{
    struct api_request **at = &request->call->requests;
    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
    free(request);
}

/* Takes back what can be: nobody waits for it any more. */
static void cancel_requests(struct api_call *call)
{
    struct api_request *request = call->requests, *next;
    for (; request != NULL; request = next) {
        next = request->next;
        if (!request->cancelable)
            continue; /* its final answer will come: the peer still holds pointers of ours */
        node_request_cancel(api_node(call->api), request->token);
        remove_request(request);
    }
}

/* Whether anybody waits for an answer; if not, the call only waits for what is under way. */
static bool goes_on(struct api_call *call)
{
    if (call->session != NULL && !call->answered)
        return true;
    call->answered = true;
    destroy_if_finished(call);
    return false;
}

bool api_is_gone(const struct api_call *call)
{
    return atomic_load(&call->gone);
}

/* Answers */

void api_reply_begin(const struct api_call *call, struct replica_buffer *reply)
{
    replica_buffer_init(reply);
    replica_pack_array(reply, 4);
    replica_pack_uint(reply, 1);
    replica_pack_uint(reply, call->msgid);
    replica_pack_nil(reply);
}

static void send_reply(struct api_call *call, struct replica_buffer *reply, int *fds, size_t fds_n)
{
    call->answered = true;
    call->later = false; /* nothing is told any more */
    if (call->session != NULL) {
        api_connection_send(api_session_connection(call->session), reply, fds, fds_n);
    } else {
        for (size_t i = 0; i < fds_n; i++)
            close(fds[i]);
        replica_buffer_close(reply);
    }
    cancel_requests(call);
    destroy_if_finished(call);
}

void api_reply(struct api_call *call, struct replica_buffer *reply)
{
    send_reply(call, reply, NULL, 0);
}

void api_reply_fd(struct api_call *call, struct replica_buffer *reply, int fd)
{
    send_reply(call, reply, &fd, 1);
}

void api_reply_nil(struct api_call *call)
{
    struct replica_buffer reply;
    api_reply_begin(call, &reply);
    replica_pack_nil(&reply);
    api_reply(call, &reply);
}

static void pack_error(struct replica_buffer *reply, uint64_t msgid, const char *symbol, const char *text)
{
    replica_buffer_init(reply);
    replica_pack_array(reply, 4);
    replica_pack_uint(reply, 1);
    replica_pack_uint(reply, msgid);
    replica_pack_array(reply, 2);
    replica_pack_cstr(reply, symbol);
    replica_pack_cstr(reply, text);
    replica_pack_nil(reply);
}

void api_fail(struct api_call *call, int code, const char *format, ...)
{
    char text[MESSAGE_TEXT_MAX];
    struct replica_buffer reply;
    va_list arguments;
    snprintf(text, sizeof text, "%s", replica_error_text(code));
    if (format != NULL) {
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
    }
    pack_error(&reply, call->msgid, replica_error_symbol(code), text);
    send_reply(call, &reply, NULL, 0);
}

void api_fail_answer(struct api_call *call, const char *about, int code, const uint8_t *result, size_t n)
{
    struct replica_pack_reader reader;
    const char *reason;
    size_t items, size;
    replica_pack_reader_init(&reader, result, n);
    replica_pack_read_array(&reader, 1, &items);
    if (items != 1 || replica_pack_read_str(&reader, MESSAGE_TEXT_MAX, &reason, &size) != 0 || size == 0) {
        reason = replica_error_text(code);
        size = strlen(reason);
    }
    if (about == NULL)
        api_fail(call, code, "%.*s", (int)size, reason);
    else
        api_fail(call, code, "%s: %.*s", about, (int)size, reason);
}

/* Progress */

static void send_progress(struct api_call *call, uint64_t bytes, uint64_t total, uint64_t steps)
{
    struct api_connection *connection;
    struct replica_buffer message;
    if (call->session == NULL || call->answered)
        return;
    connection = api_session_connection(call->session);
    if (api_connection_queued(connection) > PROGRESS_QUEUED_MAX)
        return;
    replica_buffer_init(&message);
    replica_pack_array(&message, 3);
    replica_pack_uint(&message, 2);
    replica_pack_cstr(&message, "progress");
    replica_pack_array(&message, 2);
    replica_pack_uint(&message, call->msgid);
    replica_pack_map(&message, 3);
    api_pack_key(&message, "bytes");
    replica_pack_uint(&message, bytes);
    api_pack_key(&message, "total");
    replica_pack_uint(&message, total);
    api_pack_key(&message, "steps");
    replica_pack_uint(&message, steps);
    api_connection_send(connection, &message, NULL, 0);
}

void api_progress_now(struct api_call *call, uint64_t bytes, uint64_t total)
{
    send_progress(call, bytes, total, 0);
}

void api_progress_steps(struct api_call *call, uint64_t steps)
{
    send_progress(call, 0, 0, steps);
}

static void deliver_progress(void *context)
{
    struct api_call *call = context;
    atomic_store(&call->progress_posted, false);
    send_progress(call, atomic_load(&call->progress_bytes), atomic_load(&call->progress_total), 0);
}

/* A job's last progress is posted before its done, and posts run in order: the call is still there. */
void api_progress(struct api_call *call, uint64_t bytes, uint64_t total)
{
    atomic_store(&call->progress_bytes, bytes);
    atomic_store(&call->progress_total, total);
    if (atomic_exchange(&call->progress_posted, true))
        return;
    call->progress_post = (struct node_post){.call = deliver_progress, .context = call};
    node_loop_post(node_get_loop(api_node(call->api)), &call->progress_post);
}

/* Requests */

static void progress_of_answer(struct api_call *call, void *context, const uint8_t *result, size_t n)
{
    struct replica_pack_reader reader;
    uint64_t bytes = 0, total = 0;
    size_t items = 0;
    replica_pack_reader_init(&reader, result, n);
    replica_pack_read_array(&reader, 8, &items);
    if (items >= 2) {
        replica_pack_read_uint(&reader, UINT64_MAX, &bytes);
        replica_pack_read_uint(&reader, UINT64_MAX, &total);
    }
    if (call->session != NULL && call->on_progress != NULL)
        call->on_progress(call, context, bytes, total);
    else
        send_progress(call, bytes, total, 0);
}

static void on_answer(void *context, int code, const uint8_t *result, size_t n, bool final)
{
    struct api_request *request = context;
    struct api_call *call = request->call;
    api_done_fn done = request->done;
    void *done_context = request->context;
    if (!final) {
        progress_of_answer(call, done_context, result, n);
        return;
    }
    remove_request(request);
    if (goes_on(call))
        done(call, done_context, code, result, n);
}

void api_request(struct api_call *call, const struct gossip_peer_request *request, api_done_fn done,
                 void *context)
{
    struct gossip_peer_request timed = *request;
    struct api_request *item = calloc(1, sizeof *item);
    if (item == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return;
    }
    item->call = call;
    item->done = done;
    item->context = context;
    item->cancelable = request->kind == GOSSIP_PEER_COMMIT || request->kind == GOSSIP_PEER_RELOAD ||
                       request->kind == GOSSIP_PEER_FETCH;
    item->next = call->requests;
    call->requests = item;
    timed.timeout_ms = call->timeout_ms;
    item->token = node_request(api_node(call->api), &timed, on_answer, item);
}

/* Jobs and waiting */

static void job_run(struct node_job *job)
{
    struct api_call *call = (struct api_call *)((char *)job - offsetof(struct api_call, job));
    call->run(call);
}

static void job_done(struct node_job *job)
{
    struct api_call *call = (struct api_call *)((char *)job - offsetof(struct api_call, job));
    call->job_running = false;
    if (goes_on(call))
        call->continuation(call);
}

void api_job(struct api_call *call, void (*run)(struct api_call *call), void (*done)(struct api_call *call))
{
    call->job_running = true;
    call->run = run;
    call->continuation = done;
    call->job = (struct node_job){.run = job_run, .done = job_done};
    node_workers_submit(node_get_workers(api_node(call->api)), &call->job);
}

void api_later(struct api_call *call, uint32_t delay_ms, void (*done)(struct api_call *call))
{
    call->later = true;
    call->later_ms = node_now_ms() + delay_ms;
    call->continuation = done;
    api_wake_later(call->api, call->later_ms);
}

void api_call_wake(struct api_call *call)
{
    call->later = false;
    if (goes_on(call))
        call->continuation(call);
}

/* Beginning and end */

void api_call_abandon(struct api_call *call)
{
    call->session = NULL;
    call->answered = true;
    atomic_store(&call->gone, true);
    cancel_requests(call);
    destroy_if_finished(call);
}

/* The header up to the params; *ret_notification: nobody waits for an answer. */
static int read_header(struct replica_pack_reader *reader, uint64_t *ret_msgid, const char **ret_method,
                       size_t *ret_method_n, bool *ret_notification)
{
    uint64_t type;
    size_t items;
    replica_pack_read_array(reader, 4, &items);
    replica_pack_read_uint(reader, 2, &type);
    *ret_notification = type == 2 && items == 3;
    if (reader->failed || (!*ret_notification && (type != 0 || items != 4)))
        return REPLICA_E_MALFORMED;
    if (*ret_notification)
        return 0;
    replica_pack_read_uint(reader, UINT32_MAX, ret_msgid);
    return replica_pack_read_str(reader, 255, ret_method, ret_method_n);
}

/* params: [] or [map]; leaves reader at the map, or at an empty one. */
static int read_params(struct replica_pack_reader *reader)
{
    static const uint8_t EMPTY_MAP[] = {0x80};
    size_t items;
    if (replica_pack_read_array(reader, 16, &items) != 0)
        return REPLICA_E_MALFORMED;
    if (items == 0 || replica_pack_peek(reader) == REPLICA_PACK_NIL)
        replica_pack_reader_init(reader, EMPTY_MAP, sizeof EMPTY_MAP);
    return replica_pack_peek(reader) == REPLICA_PACK_MAP ? 0 : REPLICA_E_INVALID;
}

static void answer_error(struct api_session *session, uint64_t msgid, int code, const char *text)
{
    struct replica_buffer reply;
    pack_error(&reply, msgid, replica_error_symbol(code), text);
    api_connection_send(api_session_connection(session), &reply, NULL, 0);
}

static struct api_call *new_call(struct node_api *api, struct api_session *session, const uint8_t *message,
                                 size_t n)
{
    struct api_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return NULL;
    call->api = api;
    call->session = session;
    replica_buffer_init(&call->message);
    if (replica_buffer_append(&call->message, message, n) != 0) {
        free(call);
        return NULL;
    }
    return call;
}

/* Descriptors of a method that takes none would stay behind and be taken for those of a later message. */
static int claim_fds(struct api_call *call)
{
    size_t n = 0;
    if (call->method->takes_fds && api_count_fds(call, &n) != 0)
        return REPLICA_E_INVALID;
    if (api_connection_claim(api_session_connection(call->session), call->fds, n) != 0)
        return REPLICA_E_INVALID;
    call->fds_n = n;
    return 0;
}

/* What every method takes. 0, or the call is answered. */
static int read_timeout(struct api_call *call)
{
    uint64_t timeout_ms = 0;
    int code = api_get_uint(call, "timeout_ms", false, UINT32_MAX, &timeout_ms);
    call->timeout_ms = (uint32_t)timeout_ms;
    return code;
}

/* 0, or the call is answered. */
static int check_room(struct api_call *call)
{
    char text[MESSAGE_TEXT_MAX];
    int code =
        call->method->room == API_READS
            ? 0
            : node_space_refuses(api_node(call->api), call->method->room == API_GROWS, text, sizeof text);
    if (code != 0)
        api_fail(call, code, "%s", text);
    return code;
}

void api_call_begin(struct node_api *api, struct api_session *session, uid_t uid, gid_t gid,
                    const uint8_t *message, size_t n)
{
    struct replica_pack_reader reader, whole;
    struct api_call *call;
    const char *name;
    uint64_t msgid = 0;
    size_t name_n;
    bool notification;
    replica_pack_reader_init(&reader, message, n);
    whole = reader;
    if (replica_pack_skip(&whole) != 0 || read_header(&reader, &msgid, &name, &name_n, &notification) != 0) {
        api_connection_refuse(api_session_connection(session), "MALFORMED",
                              "a request is [0, msgid, method, [params]]");
        return;
    }
    if (notification)
        return; /* we know of none from apps; those of a newer one are no reason to hang up */
    call = new_call(api, session, message, n);
    if (call == NULL) {
        answer_error(session, msgid, REPLICA_E_NOMEM, "the node is out of memory; try again later");
        return;
    }
    call->msgid = msgid;
    call->uid = uid;
    call->gid = gid;
    call->method = api_method_find(name, name_n);
    api_call_link(api, call);
    api_connection_begin(api_session_connection(session), n);
    call->params =
        (struct replica_pack_reader){.data = call->message.data, .size = n, .offset = reader.offset};
    if (api_is_stopping(api))
        api_fail(call, REPLICA_E_UNAVAILABLE, "the node is stopping; connect again when it has started");
    else if (call->method == NULL)
        api_fail(call, REPLICA_E_INVALID, "%.*s: no such method; docs/api.md lists them", (int)name_n, name);
    else if (call->method->needs == NODE_RIGHT_ALL && !api_is_own(call))
        api_fail(call, REPLICA_E_DENIED, "%s: only the node's own user, its group and root may do this",
                 call->method->name);
    else if (read_params(&call->params) != 0)
        api_fail(call, REPLICA_E_INVALID, "%s: params is an array of one map", call->method->name);
    else if (claim_fds(call) != 0)
        api_fail(call, REPLICA_E_INVALID, "%s: an `fd` names a descriptor that did not come with the message",
                 call->method->name);
    else if (read_timeout(call) == 0 && check_room(call) == 0)
        call->method->run(call);
}
