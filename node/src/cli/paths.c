#include "cli/paths.h"

#include <stdio.h>
#include <string.h>

int cli_base_name(const char *path, char *ret_name, size_t size)
{
    size_t end = strlen(path), begin;
    while (end > 0 && path[end - 1] == '/')
        end--;
    begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (end - begin >= size)
        return -1;
    memcpy(ret_name, path + begin, end - begin);
    ret_name[end - begin] = '\0';
    if (strcmp(ret_name, ".") == 0 || strcmp(ret_name, "..") == 0)
        ret_name[0] = '\0';
    return 0;
}

int cli_join(const char *dir, const char *name, char *ret_path, size_t size)
{
    const char *gap = dir[0] != '\0' && name[0] != '\0' ? "/" : "";
    int n = snprintf(ret_path, size, "%s%s%s", dir, gap, name);
    return n >= 0 && (size_t)n < size ? 0 : -1;
}

int cli_put_target(const char *remote, bool slash, const char *local, char *ret_path, size_t size)
{
    char name[256] = "";
    if (slash && cli_base_name(local, name, sizeof name) != 0)
        return -1;
    return cli_join(remote, name, ret_path, size);
}

const char *cli_last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

bool cli_is_within(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/'));
}

int cli_split_volume(const char *text, char *ret_volume, size_t size, const char **ret_sub)
{
    const char *colon = strchr(text, ':');
    size_t n = colon == NULL ? strlen(text) : (size_t)(colon - text);
    if (n >= size)
        return -1;
    memcpy(ret_volume, text, n);
    ret_volume[n] = '\0';
    *ret_sub = colon == NULL ? "" : colon + 1;
    return 0;
}
