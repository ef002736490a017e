#include "replica/path.h"

#include "replica/error.h"

#include <string.h>

static bool name_is_special(const char *name, size_t n)
{
    return n == 0 || (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.');
}

bool replica_path_is_canonical(const char *text, size_t n)
{
    size_t start = 0;
    if (n == 0)
        return true;
    if (n > REPLICA_PATH_MAX || memchr(text, '\0', n) != NULL)
        return false;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && text[i] != '/')
            continue;
        if (i - start > REPLICA_NAME_MAX || name_is_special(text + start, i - start))
            return false;
        start = i + 1;
    }
    return true;
}

int replica_path_canonicalize(const char *text, size_t n, char *ret_text, size_t *ret_size)
{
    size_t start = 0, size = 0;
    if (memchr(text, '\0', n) != NULL)
        return REPLICA_E_INVALID;
    for (size_t i = 0; i <= n; i++) {
        size_t length = i - start;
        if (i < n && text[i] != '/')
            continue;
        if (length == 2 && text[start] == '.' && text[start + 1] == '.')
            return REPLICA_E_INVALID;
        if (!name_is_special(text + start, length)) {
            if (length > REPLICA_NAME_MAX || size + 1 + length > REPLICA_PATH_MAX)
                return REPLICA_E_TOOBIG;
            if (size > 0)
                ret_text[size++] = '/';
            memcpy(ret_text + size, text + start, length);
            size += length;
        }
        start = i + 1;
    }
    ret_text[size] = '\0';
    *ret_size = size;
    return 0;
}

void replica_path_split(struct replica_path path, struct replica_path *ret_parent,
                        struct replica_path *ret_name)
{
    size_t slash = path.size;
    while (slash > 0 && path.text[slash - 1] != '/')
        slash--;
    ret_parent->text = path.text;
    ret_parent->size = slash > 0 ? slash - 1 : 0;
    ret_name->text = path.text + slash;
    ret_name->size = path.size - slash;
}

bool replica_path_is_below(struct replica_path path, struct replica_path dir)
{
    if (dir.size == 0)
        return path.size > 0;
    return path.size > dir.size && path.text[dir.size] == '/' && memcmp(path.text, dir.text, dir.size) == 0;
}
