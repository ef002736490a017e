#include "transport_internal.h"

struct node_account *node_account_new(struct node_account *total)
{
    struct node_account *account = calloc(1, sizeof *account);
    if (account == NULL)
        return NULL;
    atomic_init(&account->references, 1);
    account->total = total;
    if (total != NULL)
        atomic_fetch_add(&total->references, 1);
    return account;
}

void node_account_release(struct node_account *account)
{
    struct node_account *total;
    if (account == NULL || atomic_fetch_sub(&account->references, 1) != 1)
        return;
    total = account->total;
    free(account);
    node_account_release(total);
}

void node_queue_init(struct node_queue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
}

void node_queue_push(struct node_queue *queue, struct node_outgoing *outgoing)
{
    outgoing->next = NULL;
    *queue->tail = outgoing;
    queue->tail = &outgoing->next;
}

struct node_outgoing *node_queue_pop(struct node_queue *queue)
{
    struct node_outgoing *outgoing = queue->head;
    if (outgoing == NULL)
        return NULL;
    queue->head = outgoing->next;
    if (queue->head == NULL)
        queue->tail = &queue->head;
    return outgoing;
}

void node_outgoing_free(struct node_outgoing *outgoing)
{
    struct node_account *account;
    atomic_load_explicit(&outgoing->handed, memory_order_acquire); /* whoever wrote to it has finished */
    account = outgoing->account;
    if (account != NULL) {
        atomic_fetch_sub(&account->bytes, outgoing->n);
        atomic_fetch_sub(&account->total->bytes, outgoing->n);
        atomic_fetch_add(&account->freed, 1);
        node_account_release(account);
    }
    free(outgoing->bytes);
    free(outgoing);
}
