/* How node_log (node.h) writes: process-wide, because an operator has one standard error. Set once, before threads start. */
#ifndef NODE_LOG_H
#define NODE_LOG_H

#include <stdbool.h>

/* level: lines below it are dropped (enum node_log_level). */
void node_log_configure(int level, bool json);

#endif
