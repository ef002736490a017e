#include "replica/error.h"

const char *replica_error_text(int code)
{
    switch (code) {
    case REPLICA_OK:
        return "success";
#define X(symbol, value, text)                                                                               \
    case (value):                                                                                            \
        return text;
        REPLICA_ERROR_TABLE(X)
#undef X
    default:
        return "unknown error";
    }
}

const char *replica_error_symbol(int code)
{
    switch (code) {
    case REPLICA_OK:
        return "OK";
#define X(symbol, value, text)                                                                               \
    case (value):                                                                                            \
        return #symbol;
        REPLICA_ERROR_TABLE(X)
#undef X
    default:
        return "UNKNOWN";
    }
}
